"""Algebra on sequences of linear operators: the shortest sequence that computes the same map.

`fold` rewrites neighbouring operators until no rule applies. Scales travel until a weight absorbs them; padding
before a convolution becomes the convolution's own or, along channels, a choice of its weights; flattening and
permutation vanish into the rows of a dense matrix. Padding after a weight, as concatenation leaves it, stays: a
weight padded with zeros would cost what it does not compute.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .operators import (
    AveragePool2D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    Operator,
    Pad,
    Pick,
    Resample,
    Scale,
    only_moves,
)
from .windows import NO_PADDING, Padding, Shape

Operators = tuple[Operator, ...]

_SPARSEST = 4  # rows of a matrix for each that is not zero, up to which one matrix is better than a choice and a matrix


def fold(operators: Operators, shape: Shape) -> Operators:
    """The folded form of `operators` on an input of `shape`; raises ShapeError where they do not fit it."""
    folded: list[tuple[Operator, Shape]] = []  # each with the shape of its input
    pending = list(reversed(operators))
    while pending:
        operator = pending.pop()
        if _is_nothing(operator, shape):
            continue
        previous = folded[-1] if folded else None
        merged = _merge(previous[0], operator, previous[1]) if previous else None
        if previous is None or merged is None:
            folded.append((operator, shape))
            shape = operator.output_shape(shape)
            continue
        folded.pop()
        shape = previous[1]
        pending.extend(reversed(merged))
    return tuple(operator for operator, _ in folded)


def _is_nothing(operator: Operator, shape: Shape) -> bool:
    match operator:
        case Flatten():
            return len(shape) == 1
        case Scale(factor):
            return bool((factor == 1).all())
        case Pad(amounts):
            return not any(map(any, amounts))
        case AveragePool2D(pool_size, strides, padding):
            return pool_size == strides == (1, 1) and not any(map(any, padding))
        case Resample(axis, indices):
            return _only_picks(operator) and np.array_equal(indices[0], np.arange(shape[axis]))
        case Pick(indices):
            return shape == indices.shape and bool((indices.reshape(-1) == np.arange(indices.size)).all())
    return False


def _merge(first: Operator, second: Operator, shape: Shape) -> Operators | None:
    """`first` then `second`, on an input of `shape`, said shorter or with the scale further right."""
    match first, second:
        case Flatten(), (Dense() | Pick()):
            return (second,)
        case Scale(), _:
            return _scale_then(first, second, shape)
        case Pad(), _:
            return _pad_then(first, second, shape)
        case ((Conv2D(weight) | ConvTranspose2D(weight)), Scale(factor)) if factor.ndim == 1:
            return (replace(first, weight=weight * factor),)
        case Conv2D(weight, groups=1), Conv2D(chosen) if _only_chooses(second):
            places = chosen[0, 0].astype(bool).argmax(0)
            return (replace(first, weight=weight[..., places] * chosen[0, 0].sum(0)),)
        case Conv2D(weight, groups=1), Pick(indices) if (
            len(used := np.unique(indices % weight.shape[3])) < weight.shape[3]
        ):
            pixels, channels = np.divmod(indices, weight.shape[3])
            places = pixels * len(used) + np.searchsorted(used, channels)
            return replace(first, weight=weight[..., used]), Pick(places)
        case Conv2D(weight, padding=padding, groups=1), (Flatten() | Dense()) if (
            shape[:2] == weight.shape[:2] == (1, 1) and padding == NO_PADDING
        ):
            return (Dense(weight[0, 0]), second)
        case Dense(weight), Scale(factor):
            return (Dense(weight * factor),)
        case Dense(weight), Pick(indices) if indices.ndim == 1:
            return (Dense(weight[:, indices]),)
        case Dense(a), Dense(b) if a.shape[0] * b.shape[1] <= a.size + b.size:
            return (Dense(a.astype(np.float64) @ b),)
        case Pick(indices), Dense(weight) if math.prod(shape) <= _SPARSEST * indices.size:
            rows = np.zeros((int(np.prod(shape)), weight.shape[1]), weight.dtype)
            np.add.at(rows, indices.reshape(-1), weight)
            return (Dense(rows),)
        case Resample(axis, a, weight), Resample(along, b, other) if axis == along and min(len(a), len(b)) == 1:
            size = b.shape[1]
            return (Resample(axis, a[:, b].reshape(-1, size), (weight[:, b] * other).reshape(-1, size)),)
        case Resample(), Pick(indices) if _only_picks(first):
            return (Pick(first.apply(np.arange(np.prod(shape)).reshape(1, *shape)).reshape(-1)[indices]),)
        case Pick(indices), Resample() if _only_picks(second):
            return (Pick(second.apply(indices[None])[0]),)
        case Pick(a), Pick(b):
            return (Pick(a.reshape(-1)[b]),)
        case Pick(indices), Flatten():
            return (Pick(indices.reshape(-1)),)
    return None


def _only_picks(resample: Resample) -> bool:
    """Whether each number that is given is one of those there were."""
    return only_moves((resample,)) and bool((resample.weight == 1).all())


def _only_chooses(conv: Conv2D) -> bool:
    """Whether each channel that a convolution gives is one of those that it is given, up to a factor."""
    if conv.weight.shape[:2] != (1, 1) or conv.strides != (1, 1) or conv.groups != 1 or conv.padding != NO_PADDING:
        return False
    return bool((np.count_nonzero(conv.weight[0, 0], axis=0) <= 1).all())


def _scale_then(scale: Scale, second: Operator, shape: Shape) -> Operators | None:
    factor = scale.factor
    per_channel = factor.ndim == 1
    match second:
        case Scale():
            return (Scale(factor * second.factor),)
        case Dense(weight):
            return (Dense(weight * _per_position(factor, shape)[:, None]),)
        case Conv2D() | ConvTranspose2D() if per_channel:
            return (replace(second, weight=second.weight * _per_weight(factor, second)),)
        case AveragePool2D() | Resample() if per_channel:
            return (second, scale)
        case Resample(axis, indices) if only_moves((second,)):
            return (second, Scale(factor.take(indices[0], axis)))
        case Flatten():
            return (second, Scale(_per_position(factor, shape)))
        case Pick(indices):
            return (second, Scale(_per_position(factor, shape)[indices]))
    return None


def _pad_then(pad: Pad, second: Operator, shape: Shape) -> Operators | None:
    inside = tuple(slice(before, before + size) for (before, _), size in zip(pad.amounts, shape, strict=True))
    *space, channels = pad.amounts
    match second:
        case Pad():
            sums = zip(pad.amounts, second.amounts, strict=True)
            return (Pad(tuple((a + c, b + d) for (a, b), (c, d) in sums)),)
        case Scale(factor):
            return (Scale(factor[inside[-1:] if factor.ndim == 1 else inside]), pad)
        case Dense(weight):
            rows = weight.reshape(*pad.output_shape(shape), weight.shape[1])[inside]
            return (Dense(rows.reshape(-1, weight.shape[1])),)
        case Conv2D() if second.groups == 1 or not any(channels):
            (top, bottom), (left, right) = second.padding
            vertical, horizontal = space
            padding: Padding = (
                (top + vertical[0], bottom + vertical[1]),
                (left + horizontal[0], right + horizontal[1]),
            )
            weight = second.weight[:, :, inside[-1]] if any(channels) else second.weight
            return (replace(second, weight=weight, padding=padding),)
        case ConvTranspose2D(weight, groups=1) if not any(map(any, space)):
            return (replace(second, weight=weight[:, :, inside[-1]]),)
        case AveragePool2D() if not any(map(any, space)):
            return (second, pad)
        case Pick(indices):
            places = np.stack(np.unravel_index(indices, pad.output_shape(shape)))
            places -= np.array([before for before, _ in pad.amounts]).reshape(-1, *(1,) * indices.ndim)
            if (places >= 0).all() and all((places[axis] < size).all() for axis, size in enumerate(shape)):
                return (Pick(np.ravel_multi_index(tuple(places), shape)),)
        case Resample(axis, indices, weight):
            places = indices - pad.amounts[axis][0]
            kept = np.clip(places, 0, shape[axis] - 1)
            rest = tuple((0, 0) if place == axis else amount for place, amount in enumerate(pad.amounts))
            return (Resample(axis, kept, weight * (kept == places)), Pad(rest))
    return None


def _per_position(factor: np.ndarray, shape: Shape) -> np.ndarray:
    """A scale's factors, one for each number of an input of `shape`, flat."""
    return np.broadcast_to(factor, shape).reshape(-1)


def _per_weight(factor: np.ndarray, conv: Conv2D | ConvTranspose2D) -> np.ndarray:
    """An input scale's factors as they meet a convolution's weight: (input channels / groups, filters)."""
    _, _, depth, filters = conv.weight.shape
    by_group = factor.reshape(conv.groups, depth)
    return np.repeat(by_group, filters // conv.groups, axis=0).T
