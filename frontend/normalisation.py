"""Softmax and normalisation, in terms of linear means, functions and products.

Each is exact. What is squared, and what is exponentiated, is centred first, so that a code of few bits can say it.
"""

from __future__ import annotations

import numpy as np

from ..ir import Conv2D, Function
from . import reductions
from .affine import Value, as_tensor
from .call import MASKED, Call
from .support import Unsupported


def softmax(x: Value, axis: int, call: Call) -> Value:
    """`exp(x − max x) / Σ exp(x − max x)` along an ONNX axis: the largest exponential is 1, whatever x is."""
    x, allowed = _unmasked(x, axis)
    powers = call.population(Function("exp"), x.minus(_largest(x, axis, call), call.layers), "exp")
    if allowed is not None:
        powers = powers.scaled(allowed, call.layers)
    return call.product(
        powers, call.population(Function("reciprocal"), powers.total((axis,), call.layers), "reciprocal")
    )


def log_softmax(x: Value, axis: int, call: Call) -> Value:
    """`x − log Σ exp(x)` along an ONNX axis."""
    return x.minus(_log_sum_exp(x, axis, call), call.layers)


def log_sum_exp(call: Call) -> Value:
    """ONNX's ReduceLogSumExp: axis by axis, as one of several is one of all."""
    axes = reductions.reduced_axes(call)
    x = call.resting(0)
    for axis in axes:
        x = _log_sum_exp(x, axis, call)
    return reductions.without(x, axes, call)


def _log_sum_exp(x: Value, axis: int, call: Call) -> Value:
    """`max x + log Σ exp(x − max x)` along an ONNX axis, which stays with size 1."""
    largest = _largest(x, axis, call)
    powers = call.population(Function("exp"), x.minus(largest, call.layers), "exp")
    logarithm = call.population(Function("log"), powers.total((axis,), call.layers), "log")
    return largest.plus(logarithm, call.layers)


def _unmasked(x: Value, axis: int) -> tuple[Value, np.ndarray | None]:
    """Scores without those that a mask leaves nothing of, and which are allowed: None if all are.

    A mask adds −∞, or a number so low that single precision has no exponential for it. In place of what it hides
    another score of the same row is taken twice, so that there is nothing for spikes to say that is so large.
    """
    if x.bias is None:
        return x, None
    bias = np.moveaxis(as_tensor(x.bias[None], x.layout), axis, -1)
    highest = bias.max(-1, keepdims=True)
    if np.isneginf(highest).any():
        raise Unsupported("its mask hides all numbers of a row, so that there is nothing to choose from")
    allowed = bias > highest - MASKED
    if allowed.all():
        return x, None
    rows = np.moveaxis(x.places, axis, -1)
    first = np.take_along_axis(rows, allowed.argmax(-1)[..., None], -1)
    positions = np.moveaxis(np.where(allowed, rows, first), -1, axis)
    return x.placed_as(positions, x.shape, x.layout), np.moveaxis(allowed, -1, axis).astype(np.float32)


def layer(call: Call) -> tuple[Value, ...]:
    """ONNX's LayerNormalization, over the last axes: what is normalised, the mean, and one over the deviation."""
    x = call.resting(0)
    first = call.attributes.get("axis", -1) % len(x.dims)
    axes = range(first, len(x.dims))
    mean = x.reduced(axes, call.layers)
    centred = x.minus(mean, call.layers)
    inverse = _inverse_deviation(centred, axes, call.attributes.get("epsilon", 1e-5), call)
    y = _affine(call.product(centred, inverse), call.weight(1), call.constant(2), call)
    return y, mean, inverse


def root_mean_square(call: Call) -> Value:
    """`x / sqrt(mean x² + ε)` over the last axes [Zhang 2019, https://arxiv.org/abs/1910.07467]."""
    x = call.resting(0)
    first = call.attributes.get("axis", -1) % len(x.dims)
    y = _over_deviation(x, range(first, len(x.dims)), call.attributes.get("epsilon", 1e-5), call)
    return _affine(y, call.weight(1), None, call)


def instance(call: Call) -> Value:
    """Every channel over all of its positions."""
    x = call.resting(0)
    y = _normalised(x, range(2, len(x.dims)), call.attributes.get("epsilon", 1e-5), call)
    along = (-1, *(1,) * (len(x.dims) - 2))
    return _affine(y, call.weight(1).reshape(along), call.weight(2).reshape(along), call)


def group(call: Call) -> Value:
    """Groups of channels, each over all of its channels and positions."""
    x = call.resting(0)
    groups, dims = call.attributes["num_groups"], x.dims
    channels = x.image("group normalisation").value
    if channels.dims[1] % groups:
        raise Unsupported(f"it makes {groups} groups of {channels.dims[1]} channels")
    membership = np.kron(np.eye(groups), np.ones((channels.dims[1] // groups, 1))) * groups / channels.dims[1]

    def means(value: Value) -> Value:
        """The mean of each channel's group, once for each channel."""
        pooled = value.reduced(range(2, len(dims)), call.layers).image("group normalisation").value
        return pooled.then(Conv2D((membership @ (membership.T > 0))[None, None].astype(np.float32)), layers=call.layers)

    centred = channels.minus(means(channels), call.layers)
    variance = means(call.population(Function("square"), centred, "square"))
    y = call.product(centred, _inverse_root(variance, call.attributes.get("epsilon", 1e-5), call))
    along = (-1, *(1,) * (len(dims) - 2))
    return _affine(
        y,
        _by_channel(call.weight(1), dims[1], groups, along),
        _by_channel(call.weight(2), dims[1], groups, along),
        call,
    )


def local_response(call: Call) -> Value:
    """`x / (k + α/n · Σ x²)^β` over n neighbouring channels [Krizhevsky 2012]."""
    x = call.resting(0).image("local response normalisation").value
    size, channels = call.attributes["size"], x.dims[1]
    alpha, beta, bias = (
        call.attributes.get(name, default) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    squares = call.population(Function("square"), x, "square")
    apart = np.arange(channels)[:, None] - np.arange(channels)
    near = (apart >= -((size - 1) // 2)) & (apart <= size - 1 - (size - 1) // 2)
    summed = squares.then(Conv2D(near.T[None, None].astype(np.float32)), layers=call.layers)
    below = summed.scaled(np.array(alpha / size), call.layers).shifted(np.array(bias), call.layers)
    return call.product(x, call.population(Function("power", -beta), below, "power"))


def lp(call: Call) -> Value:
    """`x / sqrt(Σ x²)` or `x / Σ |x|` along an axis."""
    x = call.resting(0)
    axes = (call.attributes.get("axis", -1) % len(x.dims),)
    if call.attributes.get("p", 2) == 1:
        return call.product(x, call.population(Function("reciprocal"), _sum_of("abs", x, axes, call), "reciprocal"))
    return call.product(x, call.population(Function("rsqrt"), _sum_of("square", x, axes, call), "rsqrt"))


def length(call: Call) -> Value:
    """ONNX's ReduceL2."""
    return call.population(Function("sqrt"), sum_of_squares(call), "sqrt")


def sum_of_squares(call: Call) -> Value:
    """ONNX's ReduceSumSquare."""
    return _over_axes("square", call)


def sum_of_magnitudes(call: Call) -> Value:
    """ONNX's ReduceL1."""
    return _over_axes("abs", call)


def _over_axes(function: str, call: Call) -> Value:
    axes = reductions.reduced_axes(call)
    return reductions.without(_sum_of(function, call.value(), axes, call), axes, call)


def _sum_of(function: str, x: Value, axes: tuple[int, ...], call: Call) -> Value:
    """Σ f(x) over axes, which stay with size 1."""
    return call.population(Function(function), x, function).total(axes, call.layers)


def _normalised(x: Value, axes: range, epsilon: float, call: Call) -> Value:
    """`(x − mean) / sqrt(variance + ε)` over axes."""
    return _over_deviation(x.minus(x.reduced(axes, call.layers), call.layers), axes, epsilon, call)


def _over_deviation(x: Value, axes: range, epsilon: float, call: Call) -> Value:
    return call.product(x, _inverse_deviation(x, axes, epsilon, call))


def _inverse_deviation(x: Value, axes: range, epsilon: float, call: Call) -> Value:
    squares = call.population(Function("square"), x, "square")
    return _inverse_root(squares.reduced(axes, call.layers), epsilon, call)


def _inverse_root(x: Value, epsilon: float, call: Call) -> Value:
    return call.population(Function("rsqrt"), x.shifted(np.array(epsilon), call.layers), "rsqrt")


def _affine(x: Value, scale: np.ndarray, offset: np.ndarray | None, call: Call) -> Value:
    scaled = x.scaled(scale, call.layers)
    return scaled if offset is None else scaled.shifted(offset, call.layers)


def _by_channel(values: np.ndarray, channels: int, groups: int, along: tuple[int, ...]) -> np.ndarray:
    """Scales are one for each group before opset 21, and one for each channel since."""
    return (values if len(values) == channels else np.repeat(values, channels // groups)).reshape(along)


def _largest(x: Value, axis: int, call: Call) -> Value:
    """The largest number along an ONNX axis, which stays, in a population that says it."""
    return call.population(Function("identity"), reductions.compared(x, (axis,), call), "max")
