"""Reading ONNX files, from whatever framework they come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model, uses_external_data
from onnx.reference import ReferenceEvaluator

from ..ir import ModelFileError
from . import reading
from .affine import as_tensor
from .branches import settled
from .definitions import Definitions
from .graph import Graph, GraphInput
from .inputs import Taken, inputs_of, taken_by
from .precision import widened
from .provenance import absorbed, layers
from .reading import Arrays, Computed, Reading
from .support import first_line
from .weights import check_locations, constants_of, in_nodes, tensors

_OLDEST = 7  # before that, operators broadcast in a way of their own


def read(path: Path, inputs: Any = None) -> Reading:
    """The analog network of an ONNX file, for a batch of one; images become channels-last, (H, W, C).

    `inputs` says the sizes that the file leaves open (`given.py`). An image input is taken as (C, H, W), a series as
    (C, L), as ONNX's operators take them, unless the model itself transposes it from channels-last. Layers are those
    that the exporter names, else the ONNX nodes. Raises ModelFileError and UnsupportedModelError.
    """
    return reading_of(_read(path), str(path), functools.partial(_computed, path), path.parent, inputs)


def read_proto(model: onnx.ModelProto, inputs: Any = None) -> Reading:
    """The analog network of an ONNX model in memory, which is left as it was; otherwise as `read`."""
    title = f"ONNX model {model.graph.name!r}"
    outside = next((tensor.name for tensor in tensors(model) if uses_external_data(tensor)), None)
    if outside is not None:
        raise ModelFileError(f"{title}: the weights {outside!r} are in a file; give the path of the model instead")
    try:
        onnx.checker.check_model(model)
        current = _current(model, title)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{title} is not a valid ONNX model: {first_line(error)}") from None
    return reading_of(current, title, functools.partial(computed, current), inputs=inputs)


Run = Callable[[Mapping[str, GraphInput], Arrays, Sequence[str]], Computed]


def reading_of(model: onnx.ModelProto, title: str, run: Run, folder: Path | None = None, inputs: Any = None) -> Reading:
    """The reading of a model that has been checked; `run` is how the model itself computes tensors for one image."""
    graph = graph_of(model, title, folder, inputs)
    own = {tensor for node in model.graph.node for tensor in node.output if tensor}  # but of what is spelt out
    ends = {tensor: graph.layers[node.name] for node in graph.nodes for tensor in node.output if tensor in own}

    def run_with_settings(images: Arrays, wanted: Sequence[str]) -> Computed:
        return run(graph.inputs, {**images, **graph.settings}, wanted)

    return reading.read(graph, run_with_settings, ends)


def _computed(path: Path, given: Mapping[str, GraphInput], inputs: Arrays, wanted: Sequence[str]) -> Computed:
    """What onnxruntime computes for one image with the model of a file, which is read again: its weights are large."""
    model = _read(path)
    load_external_data_for_model(model, str(path.parent))
    return computed(model, given, inputs, wanted)


def computed(
    model: onnx.ModelProto, given: Mapping[str, GraphInput], inputs: Arrays, wanted: Sequence[str]
) -> Computed:
    """What onnxruntime computes for one image, and for settings among the `inputs`.

    Where batches have a fixed size, it is a batch that repeats the image.

    In single precision, also what the model computes in half. What onnxruntime has no kernel for, as for dilated
    convolutions of automatic padding, onnx's own evaluator computes.
    """
    seen = widened(model)
    for node in seen.graph.node:
        node.ClearField("name")  # onnxruntime refuses nodes of equal names, which files may hold
    known = {output.name for output in model.graph.output}
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    kinds = _input_types(seen)
    batch = _batch(model.graph, {tensor: entry.batch for tensor, entry in given.items()})
    fed = {
        tensor: np.repeat(as_tensor(inputs[entry.name], entry.layout), batch, entry.batch).astype(kinds[tensor])
        for tensor, entry in given.items()
    }
    images = {entry.name for entry in given.values()}
    fed |= {name: array for name, array in inputs.items() if name not in images}
    try:
        arrays, tool = _by_onnxruntime(seen, fed, wanted), "onnxruntime"
    except Exception:  # of a dozen kinds, for whatever it cannot run
        arrays, tool = list(ReferenceEvaluator(seen).run(list(wanted), fed)), "onnx's reference evaluator"
    found = dict(zip(wanted, map(_as_array, arrays), strict=True))
    moved = any(entry.batch for entry in given.values())
    single = {name: _of_one(array, batch, moved) if batch > 1 else array for name, array in found.items()}
    return Computed(single, tool)


def _of_one(array: np.ndarray, batch: int, moved: bool) -> np.ndarray:
    """One example of a batch that repeats it; it may be along any axis where that of an input is not the first."""
    for axis, size in enumerate(array.shape if moved else ()):
        parts = np.split(array, batch, axis) if size % batch == 0 else []
        if parts and all(np.array_equal(parts[0], part) for part in parts):
            return parts[0]
    return array[: len(array) // batch]


def _by_onnxruntime(model: onnx.ModelProto, fed: Arrays, wanted: Sequence[str]) -> list[Any]:
    import onnxruntime  # needed only to compare

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Else it computes with integers between a DequantizeLinear and the next QuantizeLinear, and rounds weights for it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(wanted), dict(fed))


def _as_array(given: Any) -> np.ndarray:
    """An output; scikit-learn's probabilities come as a mapping from class for each image."""
    return np.array([list(scores.values()) for scores in given]) if isinstance(given, list) else given


def _input_types(model: onnx.ModelProto) -> dict[str, np.dtype]:
    return {
        entry.name: onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        for entry in model.graph.input
    }


def graph_of(model: onnx.ModelProto, title: str, folder: Path | None = None, inputs: Any = None) -> Graph:
    """A model that has been checked as the lowering takes it; its weights may be in files in its `folder`."""
    graph = model.graph
    if not all(isinstance(text, str) for text in _texts(model)):  # protobuf gives bytes where it is not UTF-8
        raise ModelFileError(f"{title} is damaged: it holds names that are not text")
    constants, opset = constants_of(graph, title, folder), _opset(model)
    taken = taken_by(graph, constants, opset, title, inputs)
    constants |= taken.settings
    plain = settled(graph, taken.shapes, constants, opset, title, folder)
    nodes = _named([node for node in plain if not constants.keys() & set(node.output)])
    _open_batch(graph, nodes, constants, taken)
    if any(map(uses_external_data, in_nodes(nodes))):
        raise ModelFileError(f"{title} keeps values of attributes in files, where only weights may be kept")
    whole = layers(nodes, constants, model.producer_name)
    definitions = Definitions(model)
    parts = {node.name: definitions.spelt_out(node) for node in nodes}
    return Graph(
        title,
        [part for node in nodes for part in parts[node.name]],
        inputs_of(graph, nodes, constants, opset, title, taken),
        [output.name for output in graph.output],
        constants,
        opset,
        {part.name: whole[name] for name, spelt in parts.items() for part in spelt},
        absorbed=absorbed(nodes),
        shapes=_shapes(graph),
        settings=taken.settings,
    )


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors within, for a batch of one, where all but the batch is known."""
    entries = (*graph.value_info, *graph.output)
    dims = {entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim] for entry in entries}
    return {name: (1, *sizes[1:]) for name, sizes in dims.items() if sizes and all(sizes[1:])}


def _open_batch(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray], taken: Taken
) -> None:
    """Where a model was exported for batches of a fixed size, let its reshapes give batches of one."""
    batch = _batch(graph, taken.batch)
    for name in {node.input[1] for node in nodes if node.op_type == "Reshape" and len(node.input) > 1}:
        shape = constants.get(name)
        if batch > 1 and shape is not None and shape.ndim == 1 and shape.size and shape[0] == batch:
            constants[name] = np.array([1, *shape[1:]], np.int64)


def _batch(graph: onnx.GraphProto, axes: Mapping[str, int]) -> int:
    """The size of a batch that a model is fixed to; `axes` says where it is in each input."""
    shapes = [(entry.type.tensor_type.shape.dim, axes[entry.name]) for entry in graph.input if entry.name in axes]
    return max([1, *(dims[axis].dim_value for dims, axis in shapes if axis < len(dims))])


def _texts(model: onnx.ModelProto) -> Iterator[str | bytes]:
    yield model.producer_name
    for entry in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        yield entry.name
    for node in model.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        yield from (text for entry in node.metadata_props for text in (entry.key, entry.value))


def _named(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, each with a name of its own. They are copies: the model is left as it was, and can be let go."""
    taken: set[str] = set()
    named = []
    for position, original in enumerate(nodes):
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{position}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)
        named.append(node)
    return named


def _read(path: Path) -> onnx.ModelProto:
    """The model, checked; weights in files are left there."""
    try:
        check_locations(_parsed(path), path)
        onnx.checker.check_model(str(path))  # reads the file itself: large weights must not be here as well meanwhile
        return _current(_parsed(path), str(path))
    except (onnx.checker.ValidationError, OSError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path} is not a valid ONNX model: {first_line(error)}") from None


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is not an ONNX file, or only a part of one: {first_line(error)}") from None
    if not model.graph.node:
        raise ModelFileError(f"{path} is not an ONNX file, or holds an empty graph")
    return model


def _current(model: onnx.ModelProto, title: str) -> onnx.ModelProto:
    """The model without functions; raises ModelFileError for opsets whose operators broadcast in a way of their own."""
    if _opset(model) < _OLDEST:
        raise ModelFileError(f"{title} is in opset {_opset(model)}, which is too old; export it with opset 11 or newer")
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _OLDEST)
