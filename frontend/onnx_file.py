"""Reading ONNX files, from whatever framework they come."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_model,
    load_external_data_for_tensor,
    uses_external_data,
)

from ..ir import ModelFileError, Shape, UnsupportedModelError
from . import reading
from .affine import CHANNELS_FIRST, CHANNELS_LAST, FLAT, SERIES_FIRST, SERIES_LAST, Layout, as_tensor
from .constants import evaluate
from .graph import Graph, GraphInput
from .provenance import absorbed, layers
from .reading import Arrays, Reading
from .support import Unsupported, first_line

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
_OLDEST = 7
_NEW = -1  # an axis that the model adds
_ROOM = "networks take images, series and vectors"


def read(path: Path) -> Reading:
    """The analog network of an ONNX file, for a batch of one; images become channels-last, (H, W, C).

    An image input is taken as (C, H, W), a series as (C, L), as ONNX's operators take them, unless the model itself
    transposes it from channels-last. Layers are those that the exporter names, else the ONNX nodes. Raises
    ModelFileError and UnsupportedModelError.
    """
    return reading_of(_read(path), str(path), functools.partial(_computed, path), path.parent)


def read_proto(model: onnx.ModelProto) -> Reading:
    """The analog network of an ONNX model in memory, which is left as it was; otherwise as `read`."""
    title = f"ONNX model {model.graph.name!r}"
    outside = next((tensor.name for tensor in _tensors(model) if uses_external_data(tensor)), None)
    if outside is not None:
        raise ModelFileError(f"{title}: the weights {outside!r} are in a file; give the path of the model instead")
    try:
        onnx.checker.check_model(model)
        current = _current(model, title)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{title} is not a valid ONNX model: {first_line(error)}") from None
    return reading_of(current, title, functools.partial(computed, current))


Run = Callable[[Mapping[str, GraphInput], Arrays, Sequence[str]], Arrays]


def reading_of(model: onnx.ModelProto, title: str, run: Run, folder: Path | None = None) -> Reading:
    """The reading of a model that has been checked; `run` is how the model itself computes tensors for one image."""
    graph = graph_of(model, title, folder)
    ends = {tensor: graph.layers[node.name] for node in graph.nodes for tensor in node.output if tensor}
    kinds = _input_types(model)
    whole = {entry.name for tensor, entry in graph.inputs.items() if kinds[tensor].kind in "iu"}
    return reading.read(graph, functools.partial(run, graph.inputs), ends, frozenset(whole))


def _computed(path: Path, given: Mapping[str, GraphInput], inputs: Arrays, wanted: Sequence[str]) -> Arrays:
    """What onnxruntime computes for one image with the model of a file, which is read again: its weights are large."""
    model = _read(path)
    load_external_data_for_model(model, str(path.parent))
    return computed(model, given, inputs, wanted)


def computed(model: onnx.ModelProto, given: Mapping[str, GraphInput], inputs: Arrays, wanted: Sequence[str]) -> Arrays:
    """What onnxruntime computes for one image; where batches have a fixed size, for a batch that repeats it."""
    import onnxruntime  # needed only to compare

    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = _input_types(model)
    firsts = [entry.type.tensor_type.shape.dim[0] for entry in model.graph.input if entry.name in given]
    batch = max([1, *(dim.dim_value for dim in firsts)])
    fed = {
        tensor: np.repeat(as_tensor(inputs[entry.name], entry.layout), batch, axis=0).astype(kinds[tensor])
        for tensor, entry in given.items()
    }
    found = dict(zip(wanted, map(_as_array, session.run(list(wanted), fed)), strict=True))
    return {name: array[: len(array) // batch] if batch > 1 else array for name, array in found.items()}


def _as_array(given: Any) -> np.ndarray:
    """An output; scikit-learn's probabilities come as a mapping from class for each image."""
    return np.array([list(scores.values()) for scores in given]) if isinstance(given, list) else given


def _input_types(model: onnx.ModelProto) -> dict[str, np.dtype]:
    return {
        entry.name: onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        for entry in model.graph.input
    }


def graph_of(model: onnx.ModelProto, title: str, folder: Path | None = None) -> Graph:
    """A model that has been checked as the lowering takes it; its weights may be in files in its `folder`."""
    graph = model.graph
    if not all(isinstance(text, str) for text in _texts(model)):  # protobuf gives bytes where it is not UTF-8
        raise ModelFileError(f"{title} is damaged: it holds names that are not text")
    constants = _constants(graph, title, folder)
    nodes = _named([node for node in graph.node if not constants.keys() & set(node.output)])
    _open_batch(graph, nodes, constants)
    if any(map(uses_external_data, _in_nodes(nodes))):
        raise ModelFileError(f"{title} keeps values of attributes in files, where only weights may be kept")
    opset = _opset(model)
    return Graph(
        title,
        nodes,
        _inputs(graph, {**constants, **_axes(nodes, constants, opset)}, title),
        [output.name for output in graph.output],
        constants,
        opset,
        layers(nodes, constants, model.producer_name),
        absorbed=absorbed(nodes),
    )


def _open_batch(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """Where a model was exported for batches of a fixed size, let its reshapes give batches of one."""
    shapes = [entry.type.tensor_type.shape.dim for entry in graph.input if entry.name not in constants]
    batch = shapes[0][0].dim_value if shapes and shapes[0] else 0
    for shape in {node.input[1] for node in nodes if node.op_type == "Reshape" and len(node.input) > 1}:
        if batch > 1 and shape in constants and constants[shape].reshape(-1)[:1] == batch:
            constants[shape] = np.array([1, *constants[shape][1:]], np.int64)


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


def _constants(graph: onnx.GraphProto, title: str, folder: Path | None) -> dict[str, np.ndarray]:
    """What is known by name: the initialisers, and the constants that are nodes."""
    if graph.sparse_initializer:
        raise ModelFileError(f"{title} holds sparse weights, which are not supported; export it with dense ones")
    try:
        constants = {tensor.name: _array(tensor, folder) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and [attribute.name for attribute in node.attribute] == ["value"]:
                constants[node.output[0]] = _array(node.attribute[0].t, folder)
        return constants
    except (KeyError, ValueError, TypeError, OSError) as error:  # types that there are not, sizes that do not fit
        raise ModelFileError(f"{title} holds weights that cannot be read: {first_line(error)}") from None


def _array(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """A tensor's numbers. Those in a file are read by numpy, as onnx's own reader would hold large ones three times."""
    if folder is None or not uses_external_data(tensor):
        return onnx.numpy_helper.to_array(tensor)
    kind, info = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), ExternalDataInfo(tensor)
    if kind.kind not in "fiub":  # types that numpy lacks, which may be packed
        loaded = onnx.TensorProto()
        loaded.CopyFrom(tensor)
        load_external_data_for_tensor(loaded, str(folder))
        return onnx.numpy_helper.to_array(loaded)
    file, start, count = folder / info.location, info.offset or 0, math.prod(tensor.dims)
    if start + count * kind.itemsize > file.stat().st_size or info.length not in (None, count * kind.itemsize):
        raise ValueError(f"{tensor.name} does not fit {info.location}, from {start} on")
    return np.fromfile(file, kind, count, offset=start).reshape(tensor.dims)


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
        return _current(model, str(path))
    except (onnx.checker.ValidationError, OSError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path} is not a valid ONNX model: {first_line(error)}") from None


def _current(model: onnx.ModelProto, title: str) -> onnx.ModelProto:
    """The model without functions; raises ModelFileError for opsets whose operators broadcast in a way of their own."""
    if _opset(model) < _OLDEST:
        raise ModelFileError(f"{title} is in opset {_opset(model)}, which is too old; export it with opset 11 or newer")
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _OLDEST)


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
