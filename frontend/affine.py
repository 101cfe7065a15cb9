"""Affine expressions: what an ONNX tensor is between two nonlinearities.

A tensor that depends on the network's inputs is a sum of operator sequences, each from some population, plus
a constant. ONNX operators that are linear extend the expression; a nonlinearity turns it into a population.

Expressions are kept channels-last, whatever the layout of the tensor: `dims` says, for each axis of the ONNX
tensor, which axes of the channels-last shape it runs over, so that transposing moves nothing and reshaping
only regroups. The batch axis, of size 1, runs over none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..ir import Flatten, Operator, Origin, Pad, Pick, Scale, Shape, ShapeError, apply, output_shape

Dims = tuple[tuple[int, ...], ...]

NOWHERE = Origin()
FLAT: Dims = ((), (0,))
IMAGE: Dims = ((), (0,), (1,), (2,))
CHANNELS_FIRST: Dims = ((), (2,), (0,), (1,))


class NotAffine(Exception):
    """An ONNX operator that an affine expression cannot take in; its text says why."""


@dataclass(frozen=True)
class Term:
    """`operators` applied to the population numbered `source`."""

    source: int
    operators: tuple[Operator, ...] = ()
    origin: Origin = NOWHERE


@dataclass(frozen=True)
class Affine:
    """The sum of `terms` plus `bias`, of channels-last `shape`.

    `bias` is None, one number per channel, or an array of `shape`, in double precision; `origin` are the
    layers behind it.
    """

    shape: Shape
    dims: Dims
    terms: tuple[Term, ...]
    bias: np.ndarray | None = None
    origin: Origin = NOWHERE

    @property
    def onnx_shape(self) -> Shape:
        """The shape of the ONNX tensor, its batch of 1 included."""
        return tuple(math.prod(self.shape[axis] for axis in group) for group in self.dims)

    @property
    def population(self) -> int | None:
        """The number of the population that this is, if it is nothing but one."""
        if self.bias is None and len(self.terms) == 1 and not self.terms[0].operators:
            return self.terms[0].source
        return None

    def then(self, operator: Operator, origin: Origin, dims: Dims | None = None) -> Affine:
        """This expression under a linear operator; raises NotAffine where the shapes do not fit."""
        try:
            shape = operator.output_shape(self.shape)
        except ShapeError as error:
            raise NotAffine(str(error)) from None
        return Affine(
            shape,
            self.dims if dims is None else dims,
            tuple(replace(t, operators=(*t.operators, operator), origin=t.origin.merge(origin)) for t in self.terms),
            _mapped(self.bias, operator, self.shape),
            self.origin.merge(origin) if self.bias is not None else self.origin,
        )

    def plus(self, constant: np.ndarray, origin: Origin) -> Affine:
        """This expression plus an ONNX constant, broadcast as ONNX does."""
        added = self.constant(constant)
        bias = added if self.bias is None else self.bias + added
        return replace(self, bias=bias, origin=self.origin.merge(origin))

    def times(self, constant: np.ndarray, origin: Origin) -> Affine:
        """This expression times an ONNX constant, broadcast as ONNX does."""
        factor = self.constant(constant)
        scaled = replace(self, bias=None).then(Scale(factor), origin)
        if self.bias is None:
            return scaled
        return replace(scaled, bias=self.bias * factor, origin=self.origin.merge(origin))

    def add(self, other: Affine, origin: Origin) -> Affine:
        """The sum of two expressions in the same layout."""
        if (self.shape, self.dims) != (other.shape, other.dims):
            raise NotAffine(f"it adds tensors of shapes {self.onnx_shape} and {other.onnx_shape}")
        biases = [bias for bias in (self.bias, other.bias) if bias is not None]
        terms = tuple(replace(t, origin=t.origin.merge(origin)) for t in (*self.terms, *other.terms))
        total = np.sum(np.broadcast_arrays(*biases), axis=0) if biases else None
        return Affine(self.shape, self.dims, terms, total, self.origin.merge(other.origin))

    def constant(self, values: np.ndarray) -> np.ndarray:
        """An ONNX constant that meets this tensor, as a channels-last array: (C,), or of `shape`."""
        rank = len(self.dims)
        if values.ndim > rank:
            raise NotAffine(f"it combines a tensor of shape {self.onnx_shape} with a constant of shape {values.shape}")
        values = values.astype(np.float64).reshape((1,) * (rank - values.ndim) + values.shape)
        split: list[int] = []
        for size, group, full in zip(values.shape, self.dims, self.onnx_shape, strict=True):
            if size not in (1, full):
                raise NotAffine(f"it broadcasts shape {self.onnx_shape} to a larger one")
            split += [self.shape[axis] if size == full else 1 for axis in group]
        order = [axis for group in self.dims for axis in group]
        spread = values.reshape(split).transpose(np.argsort(order))
        if spread.size == 1 or spread.size == spread.shape[-1]:
            return np.broadcast_to(spread.reshape(-1), self.shape[-1:])
        return np.broadcast_to(spread, self.shape)

    def transposed(self, permutation: tuple[int, ...]) -> Affine:
        return replace(self, dims=tuple(self.dims[axis] for axis in permutation))

    def reshaped(self, sizes: tuple[int, ...]) -> Affine:
        """With another grouping of the same numbers in the same order; flattened where axes vanish."""
        axes = [axis for group in self.dims for axis in group]
        dims: list[tuple[int, ...]] = []
        for position, size in enumerate(sizes):
            group: list[int] = []
            taken = 1
            # a size of 1 is an axis of its own where the tensor is as deep as the image; the batch never is
            empty = size == 1 and (position == 0 or len(sizes) - position > len(axes))
            while axes and not empty and taken * self.shape[axes[0]] <= size and not (group and taken == size):
                group.append(axes.pop(0))
                taken *= self.shape[group[-1]]
            if taken != size:
                raise NotAffine(f"it reshapes {self.onnx_shape} to {sizes}, which splits an axis")
            dims.append(tuple(group))
        if any(self.shape[axis] != 1 for axis in axes):
            raise NotAffine(f"it reshapes {self.onnx_shape} to {sizes}")
        dims[-1] += tuple(axes)
        return replace(self, dims=tuple(dims))

    def flattened(self, origin: Origin) -> Affine:
        """As a flat expression, (N,), in the order of the ONNX tensor."""
        if len(self.shape) == 1:
            return replace(self, dims=FLAT)
        order = [axis for group in self.dims for axis in group]
        order = [axis for axis in range(3) if axis not in order] + order  # what a mean has left at size 1
        if order == sorted(order):
            return self.then(Flatten(), origin, FLAT)
        places = np.arange(math.prod(self.shape)).reshape(self.shape).transpose(order)
        return self.then(Pick(places.reshape(-1)), origin, FLAT)

    def settled(self, origin: Origin) -> Affine:
        """As what a population can be: an image, if its axes are still apart, else flat."""
        apart = all(len(group) < len(self.shape) for group in self.dims) and sum(map(len, self.dims)) == len(self.shape)
        return self if apart or len(self.shape) == 1 else self.flattened(origin)

    def axis(self, axis: int) -> int:
        """The channels-last axis that one ONNX axis runs over."""
        group = self.dims[axis]
        if len(group) != 1:
            raise NotAffine(f"it works along axis {axis} of a tensor of shape {self.onnx_shape}")
        return group[0]


def aligned(parts: list[Affine], origin: Origin) -> list[Affine]:
    """The parts in one layout; flattened where some are flat already."""
    if len({part.dims for part in parts}) > 1:
        parts = [part.settled(origin) for part in parts]
    if len({part.dims for part in parts}) > 1:
        raise NotAffine(f"it joins tensors of shapes {', '.join(str(part.onnx_shape) for part in parts)}")
    return parts


def concatenated(parts: list[Affine], axis: int, origin: Origin) -> Affine:
    """The parts side by side along an ONNX axis: each padded into its place, then added."""
    parts = aligned(parts, origin)
    along = parts[0].axis(axis)
    total = sum(part.shape[along] for part in parts)
    before = 0
    placed: list[Affine] = []
    for part in parts:
        amounts = [(0, 0)] * len(part.shape)
        amounts[along] = (before, total - before - part.shape[along])
        placed.append(part.then(Pad(tuple(amounts)), origin))
        before += part.shape[along]
    whole = placed[0]
    for part in placed[1:]:
        whole = whole.add(part, origin)
    return whole


def _mapped(bias: np.ndarray | None, operator: Operator, shape: Shape) -> np.ndarray | None:
    """The constant of an expression, under an operator; one number per channel where it is the same everywhere."""
    if bias is None:
        return None
    image = apply((operator,), np.broadcast_to(bias, shape)[None])[0]
    target = output_shape((operator,), shape)
    channels = image.reshape(-1, target[-1])
    same = len(target) == 3 and np.ptp(channels, axis=0).max() <= 1e-12 * np.abs(channels).max()
    return channels[0] if same else image
