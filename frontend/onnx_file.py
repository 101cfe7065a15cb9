"""Reading ONNX files, from whatever framework they come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from ..ir import ModelFileError, Shape, UnsupportedModelError
from . import reading
from .affine import CHANNELS_FIRST, CHANNELS_LAST, FLAT, SERIES_FIRST, SERIES_LAST, Layout, as_tensor
from .constants import evaluate
from .graph import Graph, GraphInput
from .provenance import absorbed, layers
from .reading import Arrays, Reading
from .support import Unsupported, first_line

Run = Callable[[onnx.ModelProto, Mapping[str, GraphInput], Arrays, Sequence[str]], Arrays]

_ELEMENTWISE = {
    *("Add", "Cast", "Clip", "DequantizeLinear", "Div", "HardSigmoid", "Identity", "LeakyRelu", "Max", "Min", "Mul"),
    *("PRelu", "Pad", "QuantizeLinear", "Relu", "Sub"),
}
_ON_CHANNELS_SECOND = {
    *("AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
}
_ON_CHANNELS_LAST = {"ArgMax", "LogSoftmax", "MatMul", "Softmax"}
_FLOATS = {
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16),
}
_VIEWS = {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_ON_AXES = {"Cast", "Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_NEW = -1  # an axis that the model adds
_ROOM = "networks take images, series and vectors"


def read(path: Path) -> Reading:
    """The analog network of an ONNX file, for a batch of one; images become channels-last, (H, W, C).

    An image input is taken as (C, H, W), a series as (C, L), as ONNX's operators take them, unless the model itself
    transposes it from channels-last. Layers are those that the exporter names, else the ONNX nodes. Raises
    ModelFileError and UnsupportedModelError.
    """
    return _lowered(_read(path), str(path), computed)


def read_proto(model: onnx.ModelProto, title: str | None = None, run: Run | None = None) -> Reading:
    """The analog network of an ONNX model in memory, as `read` reads it; `title` is what errors call it.

    `run` is how the model itself is computed, if not by onnxruntime.
    """
    title = title or f"ONNX model {model.graph.name!r}"
    outside = next((tensor.name for tensor in _tensors(model) if uses_external_data(tensor)), None)
    if outside is not None:
        raise ModelFileError(f"{title}: the weights {outside!r} are in a file; give the path of the model instead")
    try:
        onnx.checker.check_model(model)
        return _lowered(_inlined(model), title, run or computed)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{title} is not a valid ONNX model: {first_line(error)}") from None


def _lowered(model: onnx.ModelProto, title: str, run: Run) -> Reading:
    graph = model.graph
    constants = _constants(graph, title)
    nodes = [node for node in _named(graph.node) if not constants.keys() & set(node.output)]
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    inputs = _inputs(graph, {**constants, **_axes(nodes, constants, opset)}, title)
    outputs = [output.name for output in graph.output]
    known = layers(nodes, constants, model.producer_name)
    ends = {tensor: known[node.name] for node in nodes for tensor in node.output if tensor}
    lowered = Graph(title, nodes, inputs, outputs, constants, opset, known, absorbed=absorbed(nodes))
    return reading.read(lowered, functools.partial(run, model, inputs), ends)


def computed(model: onnx.ModelProto, given: Mapping[str, GraphInput], inputs: Arrays, wanted: Sequence[str]) -> Arrays:
    """What onnxruntime computes for one image."""
    import onnxruntime  # needed only to compare

    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fed = {tensor: as_tensor(inputs[entry.name], entry.layout) for tensor, entry in given.items()}
    return dict(zip(wanted, session.run(list(wanted), fed), strict=True))


def _named(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, each with a name of its own; the model is left as it was."""
    taken: set[str] = set()
    named = []
    for position, node in enumerate(nodes):
        if not node.name or node.name in taken:
            original, node = node, onnx.NodeProto()
            node.CopyFrom(original)
            node.name = f"{node.name or node.op_type}_{position}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)
        named.append(node)
    return named


def _constants(graph: onnx.GraphProto, title: str) -> dict[str, np.ndarray]:
    """What is known by name: the initialisers, and the constants that are nodes."""
    if graph.sparse_initializer:
        raise ModelFileError(f"{title} holds sparse weights, which are not supported; export it with dense ones")
    try:
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        return constants
    except (KeyError, ValueError, TypeError) as error:  # types that there are not, sizes that do not fit
        raise ModelFileError(f"{title} holds weights that cannot be read: {first_line(error)}") from None


def _axes(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray], opset: int) -> dict[str, np.ndarray]:
    """What nodes make of a few constants, as tf2onnx computes the axes that it adds."""
    found: dict[str, np.ndarray] = {}
    for node in nodes:
        arguments = [found.get(name, constants.get(name)) for name in node.input]
        if node.op_type in _ON_AXES and all(array is not None and array.size <= 8 for array in arguments):
            with suppress(Unsupported):  # the lowering says why
                found.update(zip(node.output, evaluate(node, arguments, opset), strict=True))
    return found


def _read(path: Path) -> onnx.ModelProto:
    """The model with its weights, checked."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is not an ONNX file, or only a part of one: {first_line(error)}") from None
    if not model.graph.node:
        raise ModelFileError(f"{path} is not an ONNX file, or holds an empty graph")
    try:
        _check_locations(model, path)
        onnx.checker.check_model(str(path))
        for tensor in _tensors(model):
            if uses_external_data(tensor):
                load_external_data_for_tensor(tensor, str(path.parent))
        return _inlined(model)
    except (onnx.checker.ValidationError, OSError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path} is not a valid ONNX model: {first_line(error)}") from None


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _check_locations(model: onnx.ModelProto, path: Path) -> None:
    """Weights may be kept in files beside the model; raises ModelFileError for files elsewhere."""
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            file = (folder / location).resolve()
            if not file.is_relative_to(folder) or not file.is_file():
                raise ModelFileError(f"{path}: weights in {location!r}, which is not a file in the model's own folder")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a model holds, at any depth."""
    yield from model.graph.initializer
    yield from _in_nodes(model.graph.node)
    for function in model.functions:
        yield from _in_nodes(function.node)


def _in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from [attribute.t] if attribute.HasField("t") else attribute.tensors
        yield from [attribute.sparse_tensor.values] if attribute.HasField("sparse_tensor") else []
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from graph.initializer
            yield from _in_nodes(graph.node)


def _inputs(graph: onnx.GraphProto, constants: Mapping[str, np.ndarray], title: str) -> dict[str, GraphInput]:
    problems, inputs = [], {}
    for entry in graph.input:
        if entry.name in constants:
            continue
        dims = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
        if len(dims) not in (2, 3, 4):
            problems.append(f"{entry.name} (input): shape {dims}; {_ROOM}")
        elif 0 in dims[1:]:
            problems.append(
                f"{entry.name} (input): shape {dims} is not fixed; export the model with a fixed input size"
            )
        elif _is_computed_with(graph, entry):
            problems.append(f"{entry.name} (input): the model computes with it in integers; cast it to float first")
        else:
            shape, layout = _arranged(dims[1:], _channels(graph, entry.name, len(dims), constants))
            inputs[entry.name] = GraphInput(entry.name, shape, layout)
    if problems:
        raise UnsupportedModelError(f"{title} has inputs of unsupported shape", problems)
    return inputs


def _is_computed_with(graph: onnx.GraphProto, entry: onnx.ValueInfoProto) -> bool:
    """Whether an input of integers is used as such, with their overflow and division."""
    if entry.type.tensor_type.elem_type in _FLOATS:
        return False
    integers = {entry.name}
    for node in graph.node:
        if integers.intersection(node.input) and node.op_type not in ("Cast", "DequantizeLinear"):
            if node.op_type not in _VIEWS:
                return True
            integers.update(node.output)
    return False


def _arranged(dims: Shape, channels: int | None) -> tuple[Shape, Layout]:
    """The shape and layout of an input of ONNX dimensions `dims` without the batch; `channels` is its axis of them."""
    match dims, channels:
        case (length,), _ if channels == _NEW:
            return (length, 1, 1), ((), (0, 1, 2))
        case (_,), _:
            return dims, FLAT
        case (depth, length), 1:
            return (length, 1, depth), SERIES_FIRST
        case (length, depth), 2:
            return (length, 1, depth), SERIES_LAST
        case (height, width), _:  # a grey image, or nothing that knows of channels
            return (height, width, 1), ((), (0,), (1, 2))
        case _, 3:
            return dims, CHANNELS_LAST
    depth, height, width = dims
    return (height, width, depth), CHANNELS_FIRST


def _channels(graph: onnx.GraphProto, name: str, rank: int, constants: Mapping[str, np.ndarray]) -> int | None:
    """Which axis of an input the first operator that knows of channels takes for them; None if there is no such one."""
    views: dict[str, tuple[int, ...]] = {name: tuple(range(rank))}
    for node in graph.node:
        axes = next((views[tensor] for tensor in node.input if tensor in views), None)
        if axes is None:
            continue
        if node.op_type in _ON_CHANNELS_SECOND:
            return axes[1]
        if node.op_type in _ON_CHANNELS_LAST and len(axes) > 2:
            return axes[-1]
        moved = _moved(node, axes, constants)
        if moved is not None:
            views.update(dict.fromkeys(node.output, moved))
    return None


def _moved(node: onnx.NodeProto, axes: tuple[int, ...], constants: Mapping[str, np.ndarray]) -> tuple[int, ...] | None:
    """Where a node moves the axes of what it is given; None if it does more than that."""
    if node.op_type in _ELEMENTWISE:
        return axes
    attributes = {a.name: list(a.ints) for a in node.attribute}
    if node.op_type == "Transpose" and sorted(attributes.get("perm", ())) == list(range(len(axes))):
        return tuple(axes[axis] for axis in attributes["perm"])
    if node.op_type == "Unsqueeze":
        added = attributes.get("axes", constants[node.input[1]].tolist() if node.input[-1] in constants else [])
        places = {axis % (len(axes) + len(added)) for axis in added}
        rest = iter(axes)
        return tuple(_NEW if place in places else next(rest) for place in range(len(axes) + len(added)))
    return None
