"""Softmax and normalisation, in terms of linear means, functions and products.

Each is exact. What is squared, and what is exponentiated, is centred first, so that a code of few bits can say it.
"""

from __future__ import annotations

import math

import numpy as np

from ..ir import Conv2D, Function, Relu
from . import images
from .affine import Value, alike
from .call import Call, Result
from .matrices import places
from .support import Unsupported


def softmax(x: Value, axis: int, call: Call) -> Value:
    """`exp(x − max x) / Σ exp(x − max x)` along an ONNX axis: the largest exponential is 1, whatever x is."""
    shifted = _minus(x, _largest(x, axis, call), call)
    powers = call.population(Function("exp"), shifted, "exp")
    total = powers.reduced((axis,), call.layers).scaled(np.array(float(x.dims[axis])), call.layers)
    return call.product(powers, call.population(Function("reciprocal"), total, "reciprocal"))


def layer(call: Call) -> Value:
    """ONNX's LayerNormalization, over the last axes."""
    x = call.resting(0)
    first = call.attributes.get("axis", -1) % len(x.dims)
    y = _normalised(x, range(first, len(x.dims)), call.attributes.get("epsilon", 1e-5), call)
    return _affine(y, call.weight(1), call.constant(2) if len(call.inputs) > 2 else None, call)


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

    centred = _minus(channels, means(channels), call)
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
    """`x / sqrt(Σ x²)` along an axis."""
    if call.attributes.get("p", 2) != 2:
        raise Unsupported("it normalises by the sum of magnitudes; p = 2 is supported")
    x = call.resting(0)
    axis = call.attributes.get("axis", -1) % len(x.dims)
    return call.product(x, call.population(Function("rsqrt"), _squares(x, (axis,), call), "rsqrt"))


def length(call: Call) -> Result:
    """ONNX's ReduceL2."""
    return call.population(Function("sqrt"), sum_of_squares(call), "sqrt")


def sum_of_squares(call: Call) -> Value:
    """ONNX's ReduceSumSquare."""
    x = call.resting(0)
    axes = images.reduced_axes(call)
    return images.without(_squares(x, axes, call), axes, call)


def _squares(x: Value, axes: tuple[int, ...], call: Call) -> Value:
    """Σ x² over axes, which stay with size 1."""
    count = math.prod(x.dims[axis] for axis in axes)
    squares = call.population(Function("square"), x, "square").reduced(axes, call.layers)
    return squares.scaled(np.array(float(count)), call.layers)


def _normalised(x: Value, axes: range, epsilon: float, call: Call) -> Value:
    """`(x − mean) / sqrt(variance + ε)` over axes."""
    return _over_deviation(_minus(x, x.reduced(axes, call.layers), call), axes, epsilon, call)


def _over_deviation(x: Value, axes: range, epsilon: float, call: Call) -> Value:
    squares = call.population(Function("square"), x, "square")
    return call.product(x, _inverse_root(squares.reduced(axes, call.layers), epsilon, call))


def _inverse_root(x: Value, epsilon: float, call: Call) -> Value:
    return call.population(Function("rsqrt"), x.shifted(np.array(epsilon), call.layers), "rsqrt")


def _affine(x: Value, scale: np.ndarray, offset: np.ndarray | None, call: Call) -> Value:
    scaled = x.scaled(scale, call.layers)
    return scaled if offset is None else scaled.shifted(offset, call.layers)


def _by_channel(values: np.ndarray, channels: int, groups: int, along: tuple[int, ...]) -> np.ndarray:
    """Scales are one for each group before opset 21, and one for each channel since."""
    return (values if len(values) == channels else np.repeat(values, channels // groups)).reshape(along)


def _minus(x: Value, y: Value, call: Call) -> Value:
    x, y = alike(x, y)
    return x.plus(y.scaled(np.array(-1.0), call.layers), call.layers)


def _largest(x: Value, axis: int, call: Call) -> Value:
    """The largest number along an ONNX axis, which stays: one half is compared with the other, and so on."""
    rows = np.moveaxis(places(x), axis, -1)
    others = rows.shape[:-1]
    largest = _rows(x, rows.reshape(-1, rows.shape[-1]))
    while (count := largest.shape[1]) > 1:
        half, own = -(-count // 2), np.arange(math.prod(largest.shape)).reshape(largest.shape[:2])
        first, second = (
            _rows(largest, part) for part in (own[:, :half], own[:, -half:])
        )  # of odd numbers one is in both
        largest = first.plus(call.population(Relu(), _minus(second, first, call), "larger"), call.layers)
    said = call.population(Function("identity"), largest, "max")
    return said.placed(np.expand_dims(np.arange(math.prod(others)).reshape(others), axis))


def _rows(x: Value, positions: np.ndarray) -> Value:
    """The numbers at positions (rows, columns), as an image of one channel."""
    return x.placed_as(positions[..., None], (*positions.shape, 1), ((0,), (1,), (2,)))
