"""How the inputs of a model are arranged: which axis holds the channels is told by what its ONNX graph does first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..ir import Shape, UnsupportedModelError
from .affine import CHANNELS_FIRST, CHANNELS_LAST, FLAT, LARGEST, SERIES_FIRST, SERIES_LAST, Layout
from .constants import evaluate
from .given import Sizes, fixed, settings, shapes_of
from .graph import GraphInput
from .support import Layer, Unsupported

_ELEMENTWISE = {
    *(
        "Add",
        "Cast",
        "Ceil",
        "Clip",
        "DequantizeLinear",
        "Div",
        "Floor",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "Max",
        "Min",
        "Mul",
    ),
    *("PRelu", "Pad", "QuantizeLinear", "Relu", "Round", "Slice", "Sub"),
}
_ON_CHANNELS_SECOND = {
    *("AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"),
}
_SCORES = {"ArgMax", "ArgMin", "LogSoftmax", "Softmax"}
_RECURRENT = {"GRU", "LSTM", "RNN"}
_ON_CHANNELS_LAST = {"MatMul", *_RECURRENT, *_SCORES}
_OVER_SPACE = {"ReduceMax", "ReduceMean"}
_ON_AXES = {"Cast", "Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
_NEW = -1  # an axis that the model adds
_ROOM = "networks take images, series and vectors"


@dataclass(frozen=True)
class Taken:
    """What a model takes: the shape of each input for a batch of one, where its batch is, and settings.

    Settings are inputs of one number for all examples, and are constants here.
    """

    shapes: Mapping[str, Shape]
    batch: Mapping[str, int]
    settings: Mapping[str, np.ndarray]


def taken_by(graph: onnx.GraphProto, constants: Mapping[str, np.ndarray], opset: int, title: str, inputs: Any) -> Taken:
    """What the model takes, where `inputs` says what the model does not.

    Raises UnsupportedModelError for what is no tensor, for sizes that are open, and where the batch cannot be told.
    """
    entries = {entry.name: entry for entry in graph.input if entry.name not in constants}
    others = [name for name, entry in entries.items() if not entry.type.HasField("tensor_type")]
    if others:
        problems = [f"{name} (input): it is no tensor; {_ROOM}" for name in others]
        raise UnsupportedModelError(f"{title} has inputs of unsupported kinds", problems)
    numbers, rest = settings({name: _sizes(entry) for name, entry in entries.items()}, inputs, title)
    typed = {name: array.astype(_dtype(entries[name])) for name, array in numbers.items()}
    sizes = {name: _sizes(entry) for name, entry in entries.items() if name not in numbers}
    batch = batch_axes(sizes, rest, graph.node, {**constants, **_axes(graph.node, constants, opset)}, title)
    return Taken(fixed(sizes, rest, title, batch), batch, typed)


def inputs_of(
    graph: onnx.GraphProto,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    opset: int,
    title: str,
    taken: Taken,
) -> dict[str, GraphInput]:
    """The model's inputs by name; raises UnsupportedModelError for what is no image, series or vector of numbers."""
    known = {**constants, **_axes(nodes, constants, opset)}
    entries = {entry.name: entry for entry in graph.input}
    found, problems = {}, []
    for name, dims in taken.shapes.items():
        if len(dims) not in (2, 3, 4):
            problems.append(f"{name} (input): shape {dims}; {_ROOM}")
        elif math.prod(dims) > LARGEST:
            problems.append(f"{name} (input): shape {dims}; at most {LARGEST} numbers for an image are supported")
        else:
            batch = taken.batch[name]
            arranged = _around(dims, batch) if batch else _arranged(dims[1:], _channels(nodes, name, dims, known))
            found[name] = GraphInput(name, *arranged, _dtype(entries[name]).kind in "iu", batch)
    if problems:
        raise UnsupportedModelError(f"{title} has inputs of unsupported shape", problems)
    return found


def _dtype(entry: onnx.ValueInfoProto) -> np.dtype:
    return onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)


def _around(dims: Shape, batch: int) -> tuple[Shape, Layout]:
    """The shape and layout of an input whose batch is not its first axis: what is left keeps its order."""
    rest = [axis for axis in range(len(dims)) if axis != batch]
    roles = {1: (0,), 2: (0, 2), 3: (0, 1, 2)}[len(rest)]
    shape = [1] * (1 if len(rest) == 1 else 3)
    layout: list[tuple[int, ...]] = [()] * len(dims)
    for axis, role in zip(rest, roles, strict=True):
        shape[role], layout[axis] = dims[axis], (role,)
    layout[batch] = (1,) if len(rest) == 2 else ()
    return tuple(shape), tuple(layout)


def batch_axes(
    sizes: Mapping[str, Sizes],
    inputs: Any,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    title: str,
) -> dict[str, int]:
    """Which axis of each input is that of the batch: the first, unless the model or its other inputs tell otherwise.

    A recurrent operator has it second; sizes of one name are one; where the first axis has a fixed size that is not
    the batch's, it is the axis that has. Raises UnsupportedModelError for inputs of which it cannot be told.
    """
    given = shapes_of(inputs)
    said = given if isinstance(given, dict) else dict(zip(sizes, given, strict=False))
    known = {name: tuple(said.get(name) or own or ()) for name, own in sizes.items()}
    found = {name: axis for name, shape in known.items() if (axis := _batch_of(nodes, name, len(shape), constants))}
    names = [{size for size in own or () if isinstance(size, str)} for own in sizes.values()]
    shared = set.intersection(*names) if len(names) > 1 else set()
    if len(shared) == 1:
        found |= {name: own.index(next(iter(shared))) for name, own in sizes.items() if own and name not in found}
    found |= {name: axis for name, shape in known.items() if (axis := _marked(sizes[name], shape)) is not None}
    lead = next((known[name][axis] for name, axis in found.items()), None)
    lead = next((shape[0] for shape in known.values() if shape), None) if lead is None else lead
    axes = {name: found[name] if name in found else _matching(shape, lead) for name, shape in known.items()}
    problems = [
        Layer(name, "input", -1).problem(_which(name, known[name], lead)) for name, axis in axes.items() if axis is None
    ]
    if problems:
        raise UnsupportedModelError(f"{title} has inputs of which the batch cannot be told", problems)
    return {name: axis or 0 for name, axis in axes.items()}


def _marked(own: Sizes, given: Sequence[int | str | None]) -> int | None:
    """The axis that is given as 1 in place of a size, where the first axis keeps a size of its own."""
    first, *rest = own or (None,)
    if not isinstance(first, int) or first == 1 or given[0] != first:
        return None
    places = [axis for axis, size in enumerate(rest, 1) if given[axis] == 1 and isinstance(size, int) and size > 1]
    return places[0] if len(places) == 1 else None


def _matching(shape: Sequence[int | str | None], lead: int | str | None) -> int | None:
    """The axis that is as long as the batch is elsewhere, which is `lead`; None where it cannot be told."""
    first = next(iter(shape), None)
    if not isinstance(first, int) or first in (1, lead):
        return 0
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    alike = [axis for axis, size in enumerate(shape) if size == (lead if isinstance(lead, int) else 1)]
    for places in (alike, free) if isinstance(lead, int) else (free, alike):
        if len(places) == 1 or (places is alike and places and lead in (1, None)):
            return places[0]
    return None if free or alike or isinstance(lead, int) else 0


def _which(name: str, shape: Sequence[int | str | None], lead: int | str | None) -> str:
    text = ", ".join(str(size or "?") for size in shape)
    example = [size if isinstance(size, int) else 1 for size in shape]
    example[1:2] = [1] if 1 not in example else example[1:2]
    return (
        f"its shape is ({text}), and other inputs have a batch of {lead or 'any size'} first: which of its axes is the "
        f"batch's is not told; give that axis the size 1, as in inputs={{{name!r}: {tuple(example)}}}, or make it a "
        "constant of the model if it is the same for all examples"
    )


def _batch_of(nodes: Sequence[onnx.NodeProto], name: str, rank: int, constants: Mapping[str, np.ndarray]) -> int | None:
    """The axis of an input that a recurrent operator takes for the batch; None where none is reached by views."""
    dims = (2,) * rank  # no axis is dropped as one of size one
    views: dict[str, tuple[int, ...]] = {name: tuple(range(rank))}
    for node in nodes:
        for place, tensor in enumerate(node.input):
            axes = views.get(tensor)
            if axes is None or place not in (0, 5, 6) or node.op_type not in _RECURRENT or len(axes) != 3:
                continue
            found = axes[0 if any(a.name == "layout" and a.i for a in node.attribute) else 1]
            return found if found >= 0 else None
        axes = next((views[tensor] for tensor in node.input if tensor in views), None)
        moved = None if axes is None or node.op_type == "Slice" else _moved(node, axes, dims, constants)
        if moved is not None:
            views.update(dict.fromkeys(node.output, moved))
    return None


def _sizes(entry: onnx.ValueInfoProto) -> Sizes:
    """What the model says of the size of an input; exporters write 0, −1 or ? for what is open."""
    kind = entry.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param.strip("?") or None for dim in kind.shape.dim)


def as_taken(
    given: Mapping[str, GraphInput], nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray], opset: int
) -> dict[str, GraphInput]:
    """Inputs that are channels-last by their rank, as the model takes them: it may permute them from channels-first."""
    known = {**constants, **_axes(nodes, constants, opset)}
    nodes = [node for node in nodes if node.op_type not in _SCORES]  # may be over any axis of an image
    found = {}
    for tensor, entry in given.items():
        channels, dims = _channels(nodes, tensor, entry.dims, known), entry.dims[1:]
        found[tensor] = entry
        if channels == 1 < len(dims) or (channels == _NEW and len(dims) < 3):
            found[tensor] = GraphInput(entry.name, *_arranged(dims, channels), entry.whole)
    return found


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


def _channels(
    nodes: Sequence[onnx.NodeProto], name: str, dims: Shape, constants: Mapping[str, np.ndarray]
) -> int | None:
    """Which axis of an input the first operator that knows of channels takes for them; None if there is no such one."""
    views: dict[str, tuple[int, ...]] = {name: tuple(range(len(dims)))}
    for node in nodes:
        axes = next((views[tensor] for tensor in node.input if tensor in views), None)
        if axes is None:
            continue
        if node.op_type in _ON_CHANNELS_SECOND and len(axes) > 1:
            return axes[1]
        if node.op_type in _ON_CHANNELS_LAST and len(axes) > 2:
            return axes[-1]
        if node.op_type in _OVER_SPACE and len(dims) == len(axes) == 4:  # of two axes, either could be space
            return _left(node, axes, constants)
        moved = _moved(node, axes, dims, constants)
        if moved is not None:
            views.update(dict.fromkeys(node.output, moved))
    return None


def _left(node: onnx.NodeProto, axes: tuple[int, ...], constants: Mapping[str, np.ndarray]) -> int | None:
    """The only axis but the batch's that a reduction leaves; None if there are more."""
    reduced = {axis % len(axes) for axis in _parameter(node, "axes", constants)}
    left = [axis for place, axis in enumerate(axes) if place and place not in reduced]
    return left[0] if len(left) == 1 else None


def _parameter(node: onnx.NodeProto, name: str, constants: Mapping[str, np.ndarray]) -> list[int]:
    """A list of integers that is an attribute in older opsets, and else the last operand."""
    given = next((list(a.ints) for a in node.attribute if a.name == name), None)
    operand = constants.get(node.input[-1]) if given is None and len(node.input) > 1 else None
    return given or ([] if operand is None or operand.dtype.kind not in "iu" else operand.reshape(-1).tolist())


def _moved(
    node: onnx.NodeProto, axes: tuple[int, ...], dims: Shape, constants: Mapping[str, np.ndarray]
) -> tuple[int, ...] | None:
    """Where a node moves the axes of what it is given; None if it does more than that."""
    if node.op_type in _ELEMENTWISE:
        return axes
    if node.op_type == "Transpose":
        order = _parameter(node, "perm", {})
        return tuple(axes[axis] for axis in order) if sorted(order) == list(range(len(axes))) else None
    if node.op_type == "Unsqueeze":
        added = _parameter(node, "axes", constants)
        places = {axis % (len(axes) + len(added)) for axis in added}
        if len(places) < len(added):
            return None
        rest = iter(axes)
        return tuple(_NEW if place in places else next(rest) for place in range(len(axes) + len(added)))
    if node.op_type == "Reshape":
        return _reshaped(axes, dims, _parameter(node, "shape", constants))
    return None


def _reshaped(axes: tuple[int, ...], dims: Shape, target: Sequence[int]) -> tuple[int, ...] | None:
    """Where the axes of an input of `dims` go, if a reshape does no more than to add some of size one, or drop them."""
    kept = [axis for axis in axes[1:] if axis != _NEW and dims[axis] != 1]
    if [dims[axis] for axis in kept] != [size for size in target[1:] if size != 1]:
        return None
    rest = iter(kept)
    return (axes[0], *(_NEW if size == 1 else next(rest) for size in target[1:]))


def _axes(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, np.ndarray], opset: int) -> dict[str, np.ndarray]:
    """What nodes make of a few constants, as tf2onnx computes the axes that it adds."""
    found: dict[str, np.ndarray] = {}
    for node in nodes:
        arguments = [found.get(name, constants.get(name)) for name in node.input]
        if node.op_type in _ON_AXES and all(array is not None and array.size <= 8 for array in arguments):
            with suppress(Unsupported):  # the lowering says why
                found.update(zip(node.output, evaluate(node, arguments, opset), strict=True))
    return found
