"""The value algebra: every tensor between two nonlinearities is a sum of linear maps plus a constant.

A `Value` stands for one ONNX tensor. Its numbers are described in the IR's own channels-last shape; how the
ONNX tensor arranges them is its `layout`, so that transposing, reshaping and flattening move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..ir import (
    NO_PADDING,
    AnalogNeuron,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Operator,
    Pad,
    Pick,
    Resample,
    Scale,
    Shape,
    apply,
    output_shape,
)
from .support import AcrossImages, Layer, Unsupported

# For each ONNX axis the axes of the channels-last shape that are merged into it, row-major; () has size 1.
# Every axis of the shape occurs exactly once.
Layout = tuple[tuple[int, ...], ...]

FLAT: Layout = ((), (0,))
CHANNELS_LAST: Layout = ((), (0,), (1,), (2,))
CHANNELS_FIRST: Layout = ((), (2,), (0,), (1,))
# Series, of shape (L, 1, C).
SERIES_LAST: Layout = ((), (0, 1), (2,))
SERIES_FIRST: Layout = ((), (2,), (0, 1))

LARGEST = 2**26  # numbers in one tensor for an image: half a gigabyte in double precision, as biases are kept

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Source:
    """A population in the making: `neuron` applied to `summed`, which is None for an input, and to `second` at port 1.

    `layer` is the layer of the nonlinearity; `part` tells its populations apart, where it needs several. Of an input,
    `whole` says that the model takes integers there, and `table` has the vectors that they stand for.
    """

    neuron: AnalogNeuron
    shape: Shape
    summed: Value | None = field(repr=False)  # else a text of it would have everything before it
    layer: Layer
    second: Value | None = field(default=None, repr=False)
    part: str = ""
    whole: bool = False
    table: np.ndarray | None = None

    @property
    def given(self) -> tuple[Value, ...]:
        """The sums that the neuron is applied to, by port."""
        return tuple(value for value in (self.summed, self.second) if value is not None)

    @property
    def name(self) -> str:
        return f"{self.layer.path}/{self.part}" if self.part else self.layer.path

    def value(self, layout: Layout) -> Value:
        """The population's own output, arranged as `layout` says."""
        return Value((Term(self),), None, self.shape, layout)


@dataclass(frozen=True)
class Term:
    """A connection in the making: `operators` on the output of `source`, with the layers they come from."""

    source: Source
    operators: tuple[Operator, ...] = ()
    layers: tuple[str, ...] = ()

    def then(self, operators: tuple[Operator, ...], layers: tuple[str, ...]) -> Term:
        """This term with more operators at its end."""
        before = self.operators
        for operator in operators:
            before = _with_padding_last(before, operator)
        return Term(self.source, before, merge(self.layers, layers))

    @property
    def is_nothing(self) -> bool:
        """Whether what is chosen behind a padding is nothing but padding, as another step of a series is."""
        pads = [place for place, operator in enumerate(self.operators) if isinstance(operator, Pad)]
        behind = self.operators[pads[-1] + 1 :] if pads else ()
        if not behind or not all(map(subtracts_nothing, behind)):
            return False
        shape = output_shape(self.operators[: pads[-1]], self.source.shape)
        return not apply(self.operators[pads[-1] :], np.ones((1, *shape), np.float32)).any()

    @property
    def gain(self) -> np.ndarray:
        """What each number is multiplied by, where operators only move and scale: (*shape) of what they give."""
        return apply(self.operators, np.ones((1, *self.source.shape), np.float32))[0]


@dataclass(frozen=True)
class Value:
    """An affine expression: the sum of `terms`, plus `bias`.

    `bias` is None or has the full `shape`, in double precision; memory holds it once for each channel if it is the same
    everywhere, as most are, and many values live as long as the lowering. `layers` are all the layers that have acted
    since the terms' sources, in order.
    """

    terms: tuple[Term, ...]
    bias: np.ndarray | None
    shape: Shape
    layout: Layout
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", _kept_once(self.bias))

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of the ONNX tensor."""
        return tuple(math.prod(self.shape[axis] for axis in part) for part in self.layout)

    @property
    def source(self) -> Source | None:
        """The population that this value is exactly, if it is one."""
        if len(self.terms) == 1 and self.bias is None and not self.terms[0].operators:
            return self.terms[0].source
        return None

    @property
    def is_image(self) -> bool:
        """Whether the shape is (H, W, C)."""
        return len(self.shape) == 3

    @property
    def is_apart(self) -> bool:
        """Whether this is an image, or a series, whose ONNX tensor has the same axes, channels last or second."""
        parts = self._essential(self.layout)
        ends = (*parts[1:2], *parts[-1:])
        if len(parts) > 4:  # of which some have size one
            parts = (parts[0], *filter(None, parts[1:]))
            ends = parts[-1:]
        space = [axis for part in parts for axis in part if axis != 2]
        if not self.is_image or len(parts) not in (3, 4) or parts[0] or any(len(part) > 1 for part in parts):
            return False
        return space == sorted(space) and (self.shape[2] == 1 or (2,) in ends)

    def is_arranged(self, channels_second: bool) -> bool:
        """Whether this is apart, and the ONNX tensor's axes are those of the shape, its channels last or second."""
        axes = [axis for part in self._essential(self.layout) for axis in part]
        return self.is_apart and axes == sorted(axes, key=lambda axis: (axis - 2) % 3 if channels_second else axis)

    @property
    def is_vector(self) -> bool:
        """Whether the ONNX tensor is one vector, (1, N)."""
        return len(self.layout) <= 2 and all(dim == 1 for dim in self.dims[:-1])

    def then(self, *operators: Operator, layers: tuple[str, ...] = (), layout: Layout | None = None) -> Value:
        """The value after linear `operators`, which come from `layers`; `layout` where the shape's rank changes."""
        shape, bias = self.shape, self.bias
        for operator in operators:
            shape = operator.output_shape(shape)
            bounded(shape)
            bias = None if bias is None else operator.apply(bias[None])[0]
        terms = tuple(term.then(operators, layers) for term in self.terms)
        if len(terms) > 1:
            terms = tuple(term for term in terms if not term.is_nothing) or terms[:1]
        return Value(terms, bias, shape, layout or self.layout, merge(self.layers, layers))

    def scaled(self, factor: np.ndarray, layers: tuple[str, ...]) -> Value:
        """The value, repeated where the constant is longer, times an ONNX constant."""
        x = self._fitting(factor)
        return x.then(Scale(per_channel(x.arranged(factor))), layers=layers)

    def shifted(self, offset: np.ndarray, layers: tuple[str, ...]) -> Value:
        """The value, repeated where the constant is longer, plus an ONNX constant."""
        x = self._fitting(offset)
        array = x.arranged(offset).astype(np.float64)
        bias = array if x.bias is None else x.bias + array
        return replace(x, bias=bias, layers=merge(x.layers, layers))

    def _fitting(self, array: np.ndarray) -> Value:
        """The value repeated to the dimensions that it has together with an array, if the array can be combined."""
        try:
            dims = np.broadcast_shapes(self.dims, array.shape)
        except ValueError:
            return self  # for `arranged` to refuse
        if dims == self.dims:
            return self
        if len(self.dims) == len(dims) and dims[0] > 1 == self.dims[0]:
            raise Unsupported(f"it combines each image of a batch with another part of a constant, {array.shape}")
        return self.placed(np.broadcast_to(self.places, dims))

    def minus(self, other: Value, layers: tuple[str, ...]) -> Value:
        """The difference of two values, repeated where the other is longer."""
        first, second = alike(self, other)
        return first.plus(second.scaled(np.array(-1.0), layers), layers)

    def plus(self, other: Value, layers: tuple[str, ...]) -> Value:
        """The sum of two values of the same dimensions."""
        first, second = alike(self, other)
        biases = [bias for bias in (first.bias, second.bias) if bias is not None]
        bias = np.sum(biases, axis=0) if biases else None
        history = merge(merge(first.layers, second.layers), layers)
        terms = tuple(term.then((), layers) for term in _without_opposites(first.terms + second.terms))
        return replace(first, terms=terms, bias=bias, layers=history)

    def constant(self, array: np.ndarray, axis: int) -> Value:
        """A constant laid out as this value is, which may have another size along an ONNX axis."""
        if array.ndim != len(self.dims) or array.shape[0] < 1 or axis == 0:
            raise Unsupported(f"it combines a tensor of shape {self.dims} with a constant of shape {array.shape}")
        if (array != array[:1]).any():
            raise Unsupported(f"it combines each image of a batch with another part of a constant, {array.shape}")
        where, shape = self.axis(axis), list(self.shape)
        shape[where] = array.shape[axis]
        empty = Value((), None, tuple(shape), self.layout)
        return replace(empty, bias=empty.arranged(array[:1]).astype(np.float64))

    def transposed(self, order: tuple[int, ...]) -> Value:
        """The value with its ONNX axes in another order."""
        return replace(self, layout=tuple(self.layout[axis] for axis in order))

    def viewed(self, dims: tuple[int, ...], layers: tuple[str, ...]) -> Value:
        """The value reshaped to ONNX dimensions `dims`; axes can be merged, taken apart again and gain size 1."""
        layout = _split([axis for part in self.layout for axis in part], self.shape, dims)
        if layout is None:
            raise Unsupported(f"it reshapes {self.dims[1:]} to {dims[1:]}, which has other numbers")
        terms = tuple(term.then((), layers) for term in self.terms)
        return replace(self, terms=terms, layout=layout, layers=merge(self.layers, layers))

    @property
    def places(self) -> np.ndarray:
        """The positions of its numbers in the ONNX tensor, in the tensor's dimensions."""
        bounded(self.dims)
        return np.arange(math.prod(self.dims)).reshape(self.dims)

    def placed(self, positions: np.ndarray, layers: tuple[str, ...] = (), *, channels_first: bool = False) -> Value:
        """The tensor of the dimensions of `positions` whose numbers are those at these positions of this one.

        Its last axis is that of the channels, or the second. Raises Unsupported for more than three axes of a size.
        """
        return self.placed_as(positions, *_place(positions.shape, channels_first), layers=layers)

    def placed_as(self, positions: np.ndarray, shape: Shape, layout: Layout, layers: tuple[str, ...] = ()) -> Value:
        """As `placed`, as a value of `shape` that the ONNX tensor arranges as `layout` says."""
        own = as_tensor(np.arange(math.prod(self.shape)).reshape(1, *self.shape), self.layout).reshape(-1)
        indices = Value((), None, shape, layout).arranged(own[positions])
        bounded(shape)
        if np.array_equal(indices.reshape(-1), np.arange(math.prod(self.shape))):
            if shape == self.shape:
                return replace(self, layout=layout)
            if len(shape) == 1:
                return self.then(Flatten(), layers=layers, layout=layout)
        return self.then(Pick(np.ascontiguousarray(indices)), layers=layers, layout=layout)

    def replaced(self, *, channels_first: bool = False) -> Value:
        """The same tensor, its last axis being that of the channels, or its second."""
        return self.placed(self.places, channels_first=channels_first)

    def with_batch_first(self) -> Value:
        """The same tensor with an axis of size one first, where only another can be the batch's, as of states."""
        places = [axis for axis, size in enumerate(self.dims) if size == 1]
        if not places or self.dims[0] == 1:
            return self
        order = (places[0], *(axis for axis in range(len(self.dims)) if axis != places[0]))
        moved = self.transposed(order)
        first = moved.layout[0]
        return moved if not first else replace(moved, layout=((), (*first, *moved.layout[1]), *moved.layout[2:]))

    def apart(self) -> Value:
        """The same tensor with a first axis of its own, as steps of a series have, and not that of the batch."""
        if len(self.dims) not in (2, 3):
            raise AcrossImages
        layout: Layout = ((0,), (1,), (2,)) if len(self.dims) == 3 else ((0, 1), (2,))
        return self.placed_as(self.places, (1, *self.dims[-2:]), layout)

    def expanded(self, like: Value) -> Value:
        """The value repeated where `like` is longer, and laid out as it is."""
        return self.placed_as(np.broadcast_to(self.places, like.dims), like.shape, like.layout)

    def within(self, axes: Collection[int]) -> set[int]:
        """The axes of the shape that ONNX axes are made of; raises AcrossImages if that of a batch is among them."""
        if not self.layout[0] and 0 in axes:
            raise AcrossImages
        return {axis for position in axes for axis in self.layout[position]}

    def total(self, axes: Collection[int], layers: tuple[str, ...]) -> Value:
        """The sum over ONNX axes, which stay with size 1; raises as `reduced`."""
        count = math.prod(self.dims[axis] for axis in axes)
        return self.reduced(axes, layers).scaled(np.array(float(count)), layers) if axes else self

    def reduced(self, axes: Collection[int], layers: tuple[str, ...]) -> Value:
        """The mean over ONNX axes, which stay with size 1. Raises AcrossImages for the axis of a batch."""
        over = self.within(axes)
        if not self.is_image:
            size = self.shape[0]
            return self.then(Dense(np.full((size, 1), 1 / size, np.float32)), layers=layers) if over else self
        x, channels = self, self.shape[2]
        height, width = (size if axis in over else 1 for axis, size in enumerate(self.shape[:2]))
        if (height, width) != (1, 1):
            x = x.then(AveragePool2D((height, width), (height, width)), layers=layers)
        if 2 in over and channels > 1:
            x = x.then(Conv2D(np.full((1, 1, channels, 1), 1 / channels, np.float32)), layers=layers)
        return x

    def flat(self) -> Value:
        """A vector with shape (N,), in the order of the ONNX tensor."""
        layout: Layout = (*((),) * (len(self.layout) - 1), (0,))
        if not self.is_image:
            return replace(self, layout=layout)
        order = [axis for part in self.layout for axis in part]
        moved = [axis for axis in order if self.shape[axis] != 1]
        positions = np.arange(math.prod(self.shape)).reshape(self.shape)
        operator = Flatten() if moved == sorted(moved) else Pick(positions.transpose(order).reshape(-1))
        return self.then(operator, layout=layout)

    def settled(self) -> Value:
        """The value in the shape that a population of it should have: flat if it is a vector."""
        return self.flat() if self.is_vector else self

    def image(self, operator: str) -> Image:
        """The value as `operator` needs it: an ONNX tensor with the channels second, then one or two axes of space."""
        parts = self._essential(self.layout)
        space = parts[2:]
        apart = all(len(part) < 2 and part != (2,) for part in space)
        if len(self.dims) not in (3, 4) or parts[0]:
            raise Unsupported(f"{operator} needs an image but is given a tensor of shape {self.dims[1:]}")
        if not self.is_image or len(space) not in (1, 2) or parts[1] not in ((), (2,)) or not apart:
            return self.replaced(channels_first=True).image(operator)
        free = [axis for axis in (0, 1) if (axis,) not in space]  # of size one
        axes = tuple(part[0] if part else free.pop(0) for part in space)
        layout = ((), (2,), *((axis,) for axis in axes[:-1]), (axes[-1], *free))
        return Image(replace(self, layout=layout), axes)

    def separate(self, axis: int) -> Value:
        """The same tensor, of which an ONNX axis is an axis of the shape."""
        with suppress(Unsupported):
            self.axis(axis)
            return self
        return self.replaced()

    def selected(self, axis: int, indices: np.ndarray, layers: tuple[str, ...]) -> Value:
        """The positions `indices` along an ONNX axis, in any order, and any of them several times."""
        is_state = len(self.dims) == 3 and self.dims[:2] == (1, 1)  # whose second axis is the batch
        if axis == 0 and not self.layout[0] and not is_state:
            raise AcrossImages("it takes some images of a batch and not others")
        if len(indices) == self.dims[axis] and (np.diff(indices, prepend=-1) == 1).all():
            return self
        if not len(indices):
            raise Unsupported("it selects nothing")
        x = self.settled()
        if not x.is_image:
            x.axis(axis)
            return x.then(Pick(np.asarray(indices, np.int64)), layers=layers)
        return x.resampled(axis, np.asarray(indices)[None], np.ones((1, len(indices)), np.float32), layers)

    def resampled(self, axis: int, indices: np.ndarray, weight: np.ndarray, layers: tuple[str, ...]) -> Value:
        """New positions along an ONNX axis: sums of the old ones at `indices`, (taps, positions), times `weight`."""
        x = self.settled()
        where = x.axis(axis)
        bounded((*x.shape[:where], *indices.shape, *x.shape[where + 1 :]))
        resample = Resample(where, indices, weight)
        if x.is_image and where < 2:
            return x.then(resample, layers=layers)
        matrix = resample.matrix(x.shape[where])
        return x.then(Conv2D(matrix[None, None]) if x.is_image else Dense(matrix), layers=layers)

    def axis(self, axis: int) -> int:
        """The axis of `shape` that an ONNX axis stands for; raises Unsupported if there is not exactly one."""
        part = self.layout[axis]
        essential = tuple(a for a in part if self.shape[a] != 1) or part[-1:]
        if axis == 0 and not part:
            raise AcrossImages
        if len(essential) != 1:
            raise Unsupported(f"it works along axis {axis} of {self.dims}, which is no axis of the image")
        return essential[0]

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """An ONNX constant, broadcast to the value and arranged as its shape."""
        try:
            whole = np.broadcast_to(array, self.dims)
        except ValueError:
            raise Unsupported(
                f"it combines a tensor of shape {self.dims} with a constant of shape {array.shape}"
            ) from None
        order = [axis for part in self.layout for axis in part]
        return whole.reshape([self.shape[axis] for axis in order]).transpose(np.argsort(order))

    def _essential(self, layout: Layout) -> Layout:
        return tuple(tuple(axis for axis in part if self.shape[axis] != 1) for part in layout)


def as_tensor(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Numbers in the channels-last shape of one image, (1, *shape), as an ONNX tensor of this layout has them."""
    order = [axis for part in layout for axis in part]
    dims = [math.prod(array.shape[1 + axis] for axis in part) for part in layout]
    return array[0].transpose(order).reshape(dims)


@dataclass(frozen=True)
class Image:
    """A value as an operator on images takes it.

    `axes` has, for each axis of space in the ONNX tensor, the axis of the shape that it stands for. They may be
    swapped: a series is an image of width one, but of height one where it was made from a series (L, C) by an axis
    at the front.
    """

    value: Value
    axes: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """How long the ONNX tensor's axes of space are."""
        return tuple(self.value.shape[axis] for axis in self.axes)

    def pair(self, along: Sequence[_T], across: _T) -> tuple[_T, _T]:
        """What `along` has for the ONNX axes, for (height, width); `across` for the width of a series."""
        found = dict(zip(self.axes, along, strict=True))
        return found.get(0, across), found.get(1, across)


def bounded(sizes: Iterable[int]) -> None:
    """Raise Unsupported for a shape that no memory holds, before anything is computed."""
    if math.prod(sizes) > LARGEST:
        raise Unsupported(f"it gives more than {LARGEST} numbers for an image")


def concatenated(values: list[Value], axis: int, layers: tuple[str, ...]) -> Value:
    """Values side by side along an ONNX axis: each is padded into its place, and then they add up."""
    if all(value.is_vector for value in values):
        values = [value.flat() for value in values]
    axis %= len(values[0].layout)
    if axis == 0 and not any(value.layout[0] for value in values):
        values = [value.apart() for value in values]
    if len({(value.axis(axis), len(value.shape)) for value in values if value.dims[axis] > 1}) > 1:
        values = [value.replaced() for value in values]
    where = max(values, key=lambda value: value.dims[axis]).axis(axis)
    sizes = [value.shape[where] for value in values]
    total: Value | None = None
    for position, value in enumerate(values):
        around = [(0, 0)] * len(value.shape)
        around[where] = (sum(sizes[:position]), sum(sizes[position + 1 :]))
        padded = value.then(Pad(tuple(around)), layers=layers)
        total = padded if total is None else total.plus(padded, layers)
    assert total is not None
    history = tuple(layer for value in values for layer in value.layers)
    return replace(total, layers=merge(history, layers))


def alike(first: Value, second: Value) -> tuple[Value, Value]:
    """Both values with the same shape and layout; as in numpy, tensors gain axes at the front and are repeated."""
    rank = max(len(first.layout), len(second.layout))
    first, second = (value.viewed((1,) * (rank - len(value.layout)) + value.dims, ()) for value in (first, second))
    try:
        dims = np.broadcast_shapes(first.dims, second.dims)
    except ValueError:
        raise Unsupported(f"it combines tensors of different shapes, {first.dims[1:]} and {second.dims[1:]}") from None
    if first.dims[0] != second.dims[0]:
        raise AcrossImages
    if first.dims != dims != second.dims:
        first = first.placed(np.broadcast_to(first.places, dims))
    elif first.dims != dims:
        return first.expanded(second), second
    if second.dims != dims:
        return first, second.expanded(first)
    if first.shape == second.shape and first._essential(first.layout) == second._essential(second.layout):
        return first, second
    if first.is_vector:
        return first.flat(), second.flat()
    return first, second.expanded(first)


def _without_opposites(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """The terms without pairs of which one is the other with its sign turned, as in x + (round(x) − x); not none."""
    left = list(terms)
    for term in terms:
        opposite = next((other for other in left if _is_opposite(term, other)), None)
        if opposite is not None and any(t is term for t in left) and len(left) > 2:
            left = [other for other in left if other is not term and other is not opposite]
    return tuple(left)


def _is_opposite(term: Term, other: Term) -> bool:
    if term.source is not other.source or len(other.operators) != len(term.operators) + 1:
        return False
    *common, last = other.operators
    same = all(a is b for a, b in zip(term.operators, common, strict=True))
    return same and isinstance(last, Scale) and bool((last.factor == -1).all())


def subtracts_nothing(operator: Operator) -> bool:
    """Whether no weight is negative, so that an operator makes nothing of ones only where it makes nothing of all."""
    match operator:
        case Conv2D(weight) | Dense(weight) | Resample(weight=weight) | Scale(weight):
            return bool(weight.min() >= 0)
    return isinstance(operator, (AveragePool2D, Flatten, Pad, Pick))


def _with_padding_last(before: tuple[Operator, ...], operator: Operator) -> tuple[Operator, ...]:
    """Operators and one more; what works on each place by itself comes before the padding, which it would work on too.

    So one step of many, concatenated and multiplied by one matrix, can be chosen for what it is.
    """
    match before, operator:
        case (*rest, Pad(first)), Pad(second):
            sums = zip(first, second, strict=True)
            return (*rest, Pad(tuple((a + c, b + d) for (a, b), (c, d) in sums)))
        case (*rest, Pad((*space, (start, end)))), Conv2D(weight, (1, 1), padding, _, 1) if (
            weight.shape[:2] == (1, 1) and padding == NO_PADDING
        ):
            own = replace(operator, weight=weight[:, :, start : weight.shape[2] - end])
            return (*rest, own, Pad((*space, (0, 0))))
    return (*before, operator)


def merge(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Two lists of layers as one, each layer once, where it came first."""
    return tuple(dict.fromkeys(first + second))


def per_channel(array: np.ndarray) -> np.ndarray:
    """One number per channel, (C,), if the array of shape (H, W, C) is the same everywhere; else the array."""
    if array.ndim == 3 and (array == array[:1, :1]).all():
        return array[0, 0]
    return array


def _kept_once(bias: np.ndarray | None) -> np.ndarray | None:
    """The same numbers, of which those that are the same at all positions take no memory of their own."""
    if bias is None or bias.ndim != 3 or bias.shape[:2] == (1, 1) or bias.strides[:2] == (0, 0):
        return bias
    return np.broadcast_to(bias[0, 0].copy(), bias.shape) if (bias == bias[:1, :1]).all() else bias


def _place(dims: Shape, channels_first: bool) -> tuple[Shape, Layout]:
    """The shape and the layout of a tensor of these ONNX dimensions: a vector, a series, or an image."""
    large = [axis for axis, size in enumerate(dims) if size > 1]
    if len(large) > 3:
        raise Unsupported(f"it arranges numbers in {len(large)} axes, {dims}; populations have three at most")
    if len(dims) <= 2 and all(size == 1 for size in dims[:-1]):
        return dims[-1:], (*((),) * (len(dims) - 1), (0,))
    spare = [axis for axis in reversed(range(1, len(dims))) if axis not in large]
    axes = sorted([*large, *spare[: max(3 - len(large), 0)]])
    sizes = [dims[axis] for axis in axes]
    last: dict[int, Layout] = {2: ((0, 1), (2,)), 3: ((0,), (1,), (2,))}
    second: dict[int, Layout] = {2: ((2,), (0, 1)), 3: ((2,), (0,), (1,))}
    roles = second if channels_first else last
    shape = [1, 1, 1]
    for role, size in zip(roles[len(axes)], sizes, strict=True):
        shape[role[0]] = size
    found = dict(zip(axes, roles[len(axes)], strict=True))
    return tuple(shape), tuple(found.get(axis, ()) for axis in range(len(dims)))


def _split(axes: list[int], shape: Shape, dims: tuple[int, ...]) -> Layout | None:
    """Deal `axes` of `shape`, in order, to ONNX dimensions; None if their sizes do not come out even."""
    rest, layout = list(axes), []
    for position, dim in enumerate(dims):
        part: list[int] = []
        if dim == 1 and position and rest and shape[rest[0]] == 1:
            part.append(rest.pop(0))
        while math.prod(shape[axis] for axis in part) < dim and rest:
            part.append(rest.pop(0))
        layout.append(part)
    if layout and all(shape[axis] == 1 for axis in rest):
        layout[-1] += rest
    sizes = tuple(math.prod(shape[axis] for axis in part) for part in layout)
    return tuple(map(tuple, layout)) if sizes == tuple(dims) and sum(map(len, layout)) == len(axes) else None
