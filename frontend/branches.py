"""If: where what decides is constant, as a size or a setting, the branch that is taken is put in place of the node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx

from ..ir import Shape
from .constants import SMALL, evaluate
from .support import Unsupported
from .weights import constants_of


def settled(
    graph: onnx.GraphProto,
    shapes: Mapping[str, Shape],
    constants: dict[str, np.ndarray],
    opset: int,
    title: str,
    folder: Path | None,
) -> list[onnx.NodeProto]:
    """The nodes of a graph without those If whose branch is known; `shapes` are those of its inputs.

    The constants of branches are added to `constants`.
    """
    nodes = list(graph.node)
    while True:
        known = _deciding(nodes, shapes, constants, opset)
        taken = {place: known[node.input[0]] for place, node in enumerate(nodes) if _is_open(node, known)}
        if not taken:
            return nodes
        names = {*shapes, *constants, *(name for node in nodes for name in node.output)}
        spliced: list[onnx.NodeProto] = []
        for place, node in enumerate(nodes):
            if place in taken:
                spliced += _branch(node, bool(taken[place].reshape(-1)[0]), names, constants, title, folder)
            else:
                spliced.append(node)
        nodes = spliced


def _is_open(node: onnx.NodeProto, known: Mapping[str, np.ndarray]) -> bool:
    return node.op_type == "If" and known.get(node.input[0], np.empty(0)).size == 1


def _branch(
    node: onnx.NodeProto,
    condition: bool,
    taken: set[str],
    constants: dict[str, np.ndarray],
    title: str,
    folder: Path | None,
) -> list[onnx.NodeProto]:
    """The nodes of a branch, their names and tensors told apart from those `taken`, and what gives the If's outputs."""
    name = "then_branch" if condition else "else_branch"
    graph = next(attribute.g for attribute in node.attribute if attribute.name == name)
    held = constants_of(graph, title, folder)
    own = [*held, *(tensor for part in graph.node for tensor in part.output if tensor)]
    renamed = {tensor: _free(f"{node.name or 'If'}/{tensor}", taken) for tensor in own if tensor in taken}
    taken.update(own)
    constants.update({renamed.get(tensor, tensor): array for tensor, array in held.items()})
    parts = [_renamed(part, renamed) for part in graph.node]
    for place, (output, wanted) in enumerate(zip(graph.output, node.output, strict=True)):
        if wanted:
            given = renamed.get(output.name, output.name)
            parts.append(onnx.helper.make_node("Identity", [given], [wanted], name=f"{node.name or 'If'}/{place}"))
    return parts


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy of a node, and of the graphs that it holds, with other names of tensors."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for tensors in (copy.input, copy.output):
        tensors[:] = [names.get(tensor, tensor) for tensor in tensors]
    for attribute in copy.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
            parts = [_renamed(part, names) for part in graph.node]
            del graph.node[:]
            graph.node.extend(parts)
            for output in graph.output:
                output.name = names.get(output.name, output.name)
    return copy


def _deciding(
    nodes: Sequence[onnx.NodeProto], shapes: Mapping[str, Shape], constants: dict[str, np.ndarray], opset: int
) -> dict[str, np.ndarray]:
    """What is constant of small tensors, where there are branches: constants, sizes, and what follows of them."""
    if all(node.op_type != "If" for node in nodes):
        return {}
    found = {name: array for name, array in constants.items() if array.size <= SMALL}
    sizes, count = dict(shapes), -1
    while count < len(found):
        count = len(found)
        for node in nodes:
            if node.op_type != "If" and not found.keys() & set(node.output):
                found.update(_values(node, found, sizes, opset))
        sizes = _sizes(
            [node for node in nodes if not found.keys() & set(node.output)], shapes, constants | found, opset
        )
    return found


def _values(
    node: onnx.NodeProto, known: Mapping[str, np.ndarray], sizes: Mapping[str, Shape], opset: int
) -> dict[str, np.ndarray]:
    """What a node gives, by tensor, if that is constant and small."""
    if node.op_type == "Shape" and node.input[0] in sizes:
        start, end = (next((a.i for a in node.attribute if a.name == name), None) for name in ("start", "end"))
        return {node.output[0]: np.array(sizes[node.input[0]][start:end], np.int64)}
    inputs = [known.get(name) if name else None for name in node.input]
    if any(array is None for name, array in zip(node.input, inputs, strict=True) if name):
        return {}
    with suppress(Unsupported):  # what cannot be evaluated decides nothing
        arrays = zip(node.output, evaluate(node, inputs, opset), strict=True)
        return {name: array for name, array in arrays if array.size <= SMALL}
    return {}


def _sizes(
    nodes: Sequence[onnx.NodeProto], shapes: Mapping[str, Shape], constants: Mapping[str, np.ndarray], opset: int
) -> dict[str, Shape]:
    """The shapes of tensors, as far as ONNX infers them from those of the inputs and from small constants."""
    make, kind = onnx.helper.make_tensor_value_info, onnx.helper.np_dtype_to_tensor_dtype
    inputs = [make(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    inputs += [make(name, kind(array.dtype), array.shape) for name, array in constants.items() if array.size > SMALL]
    held = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items() if array.size <= SMALL]
    graph = onnx.helper.make_graph(nodes, "branches", inputs, [], held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # of operators that no schema is known of, or operands that do not fit
        return dict(shapes)
    dims = {
        entry.name: tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
        for entry in inferred.value_info
        if entry.type.tensor_type.HasField("shape")
    }
    return dict(shapes) | {name: sizes for name, sizes in dims.items() if all(sizes)}
