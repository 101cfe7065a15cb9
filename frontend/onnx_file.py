"""Reading ONNX files, from whatever framework they come."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from ..ir import ModelFileError, UnsupportedModelError
from . import reading
from .affine import CHANNELS_FIRST, CHANNELS_LAST, FLAT, Layout, as_tensor
from .graph import Graph, GraphInput
from .reading import Arrays, Reading
from .support import Layer, first_line

_TO_CHANNELS_FIRST = [0, 3, 1, 2]
_ELEMENTWISE = {
    *("Add", "BatchNormalization", "Cast", "Clip", "Div", "HardSigmoid", "Identity", "LeakyRelu", "Max", "Min", "Mul"),
    *("PRelu", "Pad", "Relu", "Sub"),
}
_ROOM = "networks take images and vectors"


def read(path: Path) -> Reading:
    """The analog network of an ONNX file, for a batch of one; images become channels-last, (H, W, C).

    An image input is taken as (C, H, W), as ONNX's operators take it, unless the model itself transposes it from
    (H, W, C). Layers are the ONNX nodes. Raises ModelFileError and UnsupportedModelError.
    """
    model = _read(path)
    graph = model.graph
    constants = _constants(graph, path)
    for position, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{position}"
    inputs = _inputs(graph, set(constants), path)
    layers = {node.name: Layer(node.name, node.op_type, position) for position, node in enumerate(graph.node)}
    outputs = [output.name for output in graph.output]
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    ends = {tensor: layers[node.name] for node in graph.node for tensor in node.output if tensor}
    run = functools.partial(_computed, model, inputs)
    return reading.read(Graph(str(path), graph.node, inputs, outputs, constants, opset, layers), run, ends)


def _computed(model: onnx.ModelProto, given: Mapping[str, GraphInput], inputs: Arrays, wanted: Sequence[str]) -> Arrays:
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


def _constants(graph: onnx.GraphProto, path: Path) -> dict[str, np.ndarray]:
    try:
        return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except (KeyError, ValueError, TypeError) as error:  # types that there are not, sizes that do not fit
        raise ModelFileError(f"{path} holds weights that cannot be read: {first_line(error)}") from None


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
        for tensor in model.graph.initializer:
            if uses_external_data(tensor):
                load_external_data_for_tensor(tensor, str(path.parent))
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except (onnx.checker.ValidationError, OSError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path} is not a valid ONNX model: {first_line(error)}") from None


def _check_locations(model: onnx.ModelProto, path: Path) -> None:
    """Weights may be kept in files beside the model; raises ModelFileError for files elsewhere."""
    folder = path.parent.resolve()
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            file = (folder / location).resolve()
            if not file.is_relative_to(folder) or not file.is_file():
                raise ModelFileError(f"{path}: weights in {location!r}, which is not a file in the model's own folder")


def _inputs(graph: onnx.GraphProto, constants: set[str], path: Path) -> dict[str, GraphInput]:
    problems, inputs = [], {}
    for entry in graph.input:
        if entry.name in constants:
            continue
        dims = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)
        if len(dims) not in (2, 4):
            problems.append(f"{entry.name} (input): shape {dims}; {_ROOM}")
        elif 0 in dims[1:]:
            problems.append(
                f"{entry.name} (input): shape {dims} is not fixed; export the model with a fixed input size"
            )
        else:
            inputs[entry.name] = _input(graph, entry.name, dims[1:])
    if problems:
        raise UnsupportedModelError(f"{path} has inputs of unsupported shape", problems)
    return inputs


def _input(graph: onnx.GraphProto, name: str, dims: tuple[int, ...]) -> GraphInput:
    if len(dims) == 1:
        return GraphInput(name, dims, FLAT)
    if _layout(graph, name) == CHANNELS_LAST:
        return GraphInput(name, dims, CHANNELS_LAST)
    return GraphInput(name, (dims[1], dims[2], dims[0]), CHANNELS_FIRST)


def _layout(graph: onnx.GraphProto, name: str) -> Layout:
    """Channels last if the input, or what elementwise operators make of it, is transposed from that; else first."""
    same = {name}
    for node in graph.node:
        if not same.intersection(node.input):
            continue
        if node.op_type == "Transpose" and any(list(a.ints) == _TO_CHANNELS_FIRST for a in node.attribute):
            return CHANNELS_LAST
        if node.op_type in _ELEMENTWISE:
            same.update(node.output)
    return CHANNELS_FIRST
