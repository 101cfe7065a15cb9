"""The linear operators that stand on connections, each with its numpy semantics beside it.

Every operator maps arrays of shape `(batch, *shape)` to `(batch, *output_shape(shape))` and is linear:
biases live on populations. Shapes are channels-last, `(H, W, C)` or `(N,)`.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import numpy as np

from .errors import ShapeError
from .record import PLACES, Record
from .windows import NO_PADDING, Padding, Pair, Shape, pool_counts, window_counts, windows


@dataclass(frozen=True, eq=False)
class Operator(Record):
    """A linear map."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape that an input of `shape` is mapped to; raises ShapeError where it does not fit."""

    @abstractmethod
    def apply(self, x: np.ndarray) -> np.ndarray:
        """The map itself, in numpy: `(batch, *shape)` to `(batch, *output_shape)`, in the precision of `x`."""


@dataclass(frozen=True, eq=False)
class Conv2D(Operator):
    """Two-dimensional cross-correlation, as in Keras.

    `y[h, w, o] = Σ_ijc weight[i, j, c, o] · x[h·s + i·d − top, w·s + j·d − left, c]`, where x is zero outside.

    `weight` has shape (kernel height, kernel width, input channels / groups, output channels); output
    channel o reads the input channels of group `o // (output channels / groups)`. A depthwise
    convolution has as many groups as input channels.
    """

    weight: np.ndarray
    strides: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1

    def output_shape(self, shape: Shape) -> Shape:
        if self.weight.ndim != 4:
            raise ShapeError(f"Conv2D needs a weight of rank 4, not of shape {self.weight.shape}")
        kernel_height, kernel_width, depth, filters = self.weight.shape
        if self.groups < 1 or filters % self.groups:
            raise ShapeError(f"Conv2D cannot split {filters} filters into {self.groups} groups")
        kernel = (kernel_height, kernel_width)
        counts = window_counts("Conv2D", shape, kernel, self.strides, self.padding, self.dilation)
        if depth * self.groups != shape[2]:
            raise ShapeError(f"Conv2D expects {depth * self.groups} channels but is given {shape[2]}")
        return (*counts, filters)

    def apply(self, x: np.ndarray) -> np.ndarray:
        kernel_height, kernel_width, depth, filters = self.weight.shape
        patches = windows(x, (kernel_height, kernel_width), self.strides, self.padding, self.dilation)
        patches = patches.reshape(*patches.shape[:3], self.groups, depth, kernel_height, kernel_width)
        weight = self.weight.reshape(kernel_height, kernel_width, depth, self.groups, filters // self.groups)
        y = np.einsum("bhwgcij,ijcgo->bhwgo", patches, weight.astype(x.dtype), optimize=True)
        return y.reshape(*y.shape[:3], filters)


@dataclass(frozen=True, eq=False)
class ConvTranspose2D(Operator):
    """The transpose of a convolution, as decoders make images larger with.

    `y[h, w, o] = Σ_ijc weight[i, j, c, o] · x[(h + top − i·d) / s, (w + left − j·d) / s, c]` over whole positions
    inside x: each input adds a kernel to the output, s apart, of which `cropping` is cut off.

    `weight` has shape (kernel height, kernel width, input channels / groups, output channels); which channels output
    channel o reads is as for `Conv2D`.
    """

    weight: np.ndarray
    strides: Pair = (1, 1)
    cropping: Padding = NO_PADDING
    dilation: Pair = (1, 1)
    groups: int = 1

    def output_shape(self, shape: Shape) -> Shape:
        if self.weight.ndim != 4:
            raise ShapeError(f"ConvTranspose2D needs a weight of rank 4, not of shape {self.weight.shape}")
        kernel_height, kernel_width, depth, filters = self.weight.shape
        if self.groups < 1 or filters % self.groups:
            raise ShapeError(f"ConvTranspose2D cannot split {filters} filters into {self.groups} groups")
        if min(*self.strides, *self.dilation) < 1 or min(map(min, self.cropping)) < 0:
            raise ShapeError(f"ConvTranspose2D: {self.strides}, {self.dilation} or {self.cropping} is off")
        if len(shape) != 3 or depth * self.groups != shape[2]:
            raise ShapeError(f"ConvTranspose2D expects {depth * self.groups} channels but is given {shape}")
        height, width = (
            (size - 1) * stride + d * (k - 1) + 1 - sum(cut)
            for size, k, stride, d, cut in zip(
                shape[:2], (kernel_height, kernel_width), self.strides, self.dilation, self.cropping, strict=True
            )
        )
        if height < 1 or width < 1:
            raise ShapeError(f"ConvTranspose2D: cropping {self.cropping} leaves nothing of an input of {shape}")
        return height, width, filters

    def apply(self, x: np.ndarray) -> np.ndarray:
        (top, _), (left, _), (down, across) = *self.cropping, self.strides
        height, width, _ = self.output_shape(x.shape[1:])
        apart = np.zeros((len(x), x.shape[1] * down, x.shape[2] * across, x.shape[3]), x.dtype)
        apart[:, ::down, ::across] = x
        y, z = (d * (k - 1) for d, k in zip(self.dilation, self.weight.shape, strict=False))
        turned = Conv2D(self.weight[::-1, ::-1], (1, 1), ((y, y), (z, z)), self.dilation, self.groups)
        return turned.apply(apart)[:, top : top + height, left : left + width]


@dataclass(frozen=True, eq=False)
class Dense(Operator):
    """A matrix: `y[o] = Σ_i weight[i, o] · x[i]`, x flattened first (row-major, channels last).

    `weight` has shape (inputs, outputs).
    """

    weight: np.ndarray

    def output_shape(self, shape: Shape) -> Shape:
        if self.weight.ndim != 2:
            raise ShapeError(f"Dense needs a weight of rank 2, not of shape {self.weight.shape}")
        if self.weight.shape[0] != math.prod(shape):
            raise ShapeError(f"Dense expects {self.weight.shape[0]} inputs but is given {shape}")
        return (self.weight.shape[1],)

    def apply(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1) @ self.weight.astype(x.dtype)


@dataclass(frozen=True, eq=False)
class AveragePool2D(Operator):
    """Mean over windows; as in Keras, positions in the padding count neither in the sum nor in the divisor."""

    pool_size: Pair
    strides: Pair
    padding: Padding = NO_PADDING

    def output_shape(self, shape: Shape) -> Shape:
        counts = pool_counts("AveragePool2D", shape, self.pool_size, self.strides, self.padding)
        return (*counts, shape[2])

    def apply(self, x: np.ndarray) -> np.ndarray:
        inside = np.ones((1, *x.shape[1:3], 1), x.dtype)
        total, count = (windows(a, self.pool_size, self.strides, self.padding).sum((-1, -2)) for a in (x, inside))
        return total / count


@dataclass(frozen=True, eq=False)
class Scale(Operator):
    """Multiplication by `factor`: one per channel, of shape (C,), or one per position, of the input's shape."""

    factor: np.ndarray

    def output_shape(self, shape: Shape) -> Shape:
        if self.factor.shape not in (shape, shape[-1:]):
            raise ShapeError(f"Scale has factors of shape {self.factor.shape} for an input of shape {shape}")
        return shape

    def apply(self, x: np.ndarray) -> np.ndarray:
        return x * self.factor.astype(x.dtype)


@dataclass(frozen=True, eq=False)
class Pad(Operator):
    """Zeros around the input: `amounts[axis] = (before, after)`, one pair for each axis of its shape."""

    amounts: tuple[Pair, ...]

    def output_shape(self, shape: Shape) -> Shape:
        if len(self.amounts) != len(shape) or min(min(pair) for pair in self.amounts) < 0:
            raise ShapeError(f"Pad by {self.amounts} does not fit an input of shape {shape}")
        return tuple(size + sum(pair) for size, pair in zip(shape, self.amounts, strict=True))

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), *self.amounts))


# Tables that are in use: blocks of a network have the same ones, and memory holds each once.
_TABLES: WeakValueDictionary[tuple[Shape, bytes], np.ndarray] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Pick(Operator):
    """Any number from any place: `y[…] = x[indices[…]]`, x flattened first (row-major, channels last).

    `indices` has the shape of y, (N,) or (H, W, C). So numbers are selected, permuted, repeated and folded.
    """

    indices: np.ndarray = field(metadata=PLACES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.indices, np.ndarray):
            key = self.indices.shape, hashlib.sha1(self.indices.tobytes()).digest()
            object.__setattr__(self, "indices", _TABLES.setdefault(key, self.indices))

    def output_shape(self, shape: Shape) -> Shape:
        size = math.prod(shape)
        if self.indices.ndim not in (1, 3) or self.indices.dtype.kind != "i" or not self.indices.size:
            raise ShapeError("Pick needs indices of shape (N,) or (H, W, C)")
        if self.indices.min() < 0 or self.indices.max() >= size:
            raise ShapeError(f"Pick reaches outside an input of {size} numbers")
        return self.indices.shape

    def apply(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1)[:, self.indices]


@dataclass(frozen=True, eq=False)
class Resample(Operator):
    """New positions along one axis of an image, each a weighted sum of old ones.

    Of rows, `y[o, w, c] = Σ_t weight[t, o] · x[indices[t, o], w, c]`; of columns, where `axis` is 1, likewise. So
    images are enlarged and shrunk, cropped, turned round and mirrored at their ends. Both arrays have shape (taps, new
    size). A weight of zero is no synapse.
    """

    axis: int
    indices: np.ndarray = field(metadata=PLACES)
    weight: np.ndarray

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or self.axis not in (0, 1):
            raise ShapeError(f"Resample works along axis 0 or 1 of an image, not along axis {self.axis} of {shape}")
        if self.indices.ndim != 2 or self.indices.shape != self.weight.shape or not self.indices.size:
            raise ShapeError("Resample needs indices and weights of one shape, (taps, size)")
        if self.indices.dtype.kind != "i" or self.indices.min() < 0 or self.indices.max() >= shape[self.axis]:
            raise ShapeError(f"Resample reaches outside an axis of {shape[self.axis]} positions")
        return (*shape[: self.axis], self.indices.shape[1], *shape[self.axis + 1 :])

    def matrix(self, size: int) -> np.ndarray:
        """The same along an axis of so many positions, (size, new size): taps at one place are one weight."""
        matrix = np.zeros((size, self.indices.shape[1]))
        np.add.at(matrix, (self.indices, np.arange(self.indices.shape[1])), self.weight)
        return matrix

    def apply(self, x: np.ndarray) -> np.ndarray:
        weight = self.weight.astype(x.dtype).reshape(*self.weight.shape, *(1,) * (2 - self.axis))
        first, *others = (x.take(places, 1 + self.axis) * w for places, w in zip(self.indices, weight, strict=True))
        return sum(others, first)


@dataclass(frozen=True, eq=False)
class Flatten(Operator):
    """`(H, W, C)` to `(H·W·C,)`, row-major with channels last, as in Keras. Nothing moves in memory."""

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def apply(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), -1)


OPERATORS: dict[str, type[Operator]] = {
    cls.__name__: cls for cls in (AveragePool2D, Conv2D, ConvTranspose2D, Dense, Flatten, Pad, Pick, Resample, Scale)
}


def only_moves(operators: tuple[Operator, ...]) -> bool:
    """Whether operators move and scale numbers, but sum none: such an edge costs no more than one to one."""
    return all(
        isinstance(operator, (Flatten, Pad, Pick, Scale))
        or (isinstance(operator, Resample) and len(operator.weight) == 1)
        for operator in operators
    )


def output_shape(operators: tuple[Operator, ...], shape: Shape) -> Shape:
    """The shape after applying `operators` in order to an input of `shape`; raises ShapeError."""
    for operator in operators:
        shape = operator.output_shape(shape)
    return shape


def apply(operators: tuple[Operator, ...], x: np.ndarray) -> np.ndarray:
    """Apply `operators` in order to `x`, of shape (batch, *shape)."""
    for operator in operators:
        x = operator.apply(x)
    return x
