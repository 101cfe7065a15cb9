"""Operators whose windows slide over images and series: convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..ir import (
    AveragePool2D,
    Conv2D,
    ConvTranspose2D,
    Function,
    MaxPool2D,
    Pad,
    Padding,
    Pair,
    Resample,
    Scale,
)
from . import reductions
from .affine import Image, Value, bounded, per_channel
from .call import Activation, Call
from .support import Unsupported


@dataclass(frozen=True)
class _Window:
    """How a window slides over an image, everything as (height, width).

    `overhang` is how far the last windows reach beyond the padding, as `ceil_mode` lets them.
    """

    kernel: Pair
    strides: Pair
    padding: Padding
    dilation: Pair
    overhang: Pair

    @property
    def reach(self) -> Padding:
        """Padding and overhang together."""
        (top, bottom), (left, right) = self.padding
        return (top, bottom + self.overhang[0]), (left, right + self.overhang[1])

    def along(self, axis: int, size: int) -> np.ndarray:
        """The positions of each window along an axis of so many, (windows, kernel size), those beyond it included."""
        before, after = self.reach[axis]
        extent = self.dilation[axis] * (self.kernel[axis] - 1)
        if extent >= size + before + after:
            raise Unsupported(f"windows of {self.kernel[axis]} do not fit {size} positions")
        starts = np.arange(0, size + before + after - extent, self.strides[axis])
        bounded((len(starts), self.kernel[axis]))
        return starts[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis] - before


def conv(call: Call) -> Value:
    weight = call.weight(1)
    image = call.value().image("a convolution")
    if weight.ndim != 2 + len(image.axes):
        raise Unsupported(f"a kernel of shape {weight.shape} does not fit a tensor of shape {image.value.dims}")
    window = _window(call, image, weight.shape[2:])
    kernel = weight.transpose(*range(2, weight.ndim), 1, 0)
    if image.axes == (1, 0):
        kernel = kernel.swapaxes(0, 1)
    kernel = kernel.reshape(*window.kernel, *kernel.shape[-2:])
    groups = call.attributes.get("group", 1)
    y = image.value.then(Conv2D(kernel, window.strides, window.padding, window.dilation, groups), layers=call.layers)
    bias = call.constant(2)
    return y if bias is None else y.shifted(bias.reshape(-1, *(1,) * len(image.axes)), call.layers)


def conv_transpose(call: Call) -> Value:
    weight = call.weight(1)
    image = call.value().image("a transposed convolution")
    rank, channels, groups = len(image.axes), image.value.dims[1], call.attributes.get("group", 1)
    if weight.ndim != 2 + rank or len(weight) != channels or channels % groups:
        raise Unsupported(f"a kernel of shape {weight.shape} does not fit a tensor of shape {image.value.dims}")
    strides, dilation = (call.numbers(name, (1,) * rank) for name in ("strides", "dilations"))
    more = call.numbers("output_padding", (0,) * rank)
    extent = [d * (k - 1) + 1 + p for d, k, p in zip(dilation, weight.shape[2:], more, strict=True)]
    sizes = [s * (n - 1) + e for s, n, e in zip(strides, image.size, extent, strict=True)]
    bounded(sizes)
    cut = [(a, b - p) for (a, b), p in zip(_cropping(call, image.size, sizes, strides), more, strict=True)]
    kernel = weight.reshape(groups, channels // groups, *weight.shape[1:])
    kernel = kernel.transpose(*range(3, 3 + rank), 1, 0, 2)
    if image.axes == (1, 0):
        kernel = kernel.swapaxes(0, 1)
    kernel = kernel.reshape(*image.pair(weight.shape[2:], 1), channels // groups, -1)
    top, left = image.pair(cut, (0, 0))
    cropping = (max(top[0], 0), max(top[1], 0)), (max(left[0], 0), max(left[1], 0))
    added = tuple((max(-a, 0), max(-b, 0)) for a, b in (top, left, (0, 0)))
    transposed = ConvTranspose2D(kernel, image.pair(strides, 1), cropping, image.pair(dilation, 1), groups)
    y = image.value.then(transposed, Pad(added), layers=call.layers)
    bias = call.constant(2)
    return y if bias is None else y.shifted(bias.reshape(-1, *(1,) * rank), call.layers)


def col_to_im(call: Call) -> Value:
    """ONNX's Col2Im: each column is a window of an image, and where windows meet, they add up."""
    x = call.value()
    size, kernel = (call.weight(index).tolist() for index in (1, 2))
    rank = len(kernel)
    strides, dilation, pads = (
        call.numbers(name, (default,) * count)
        for name, default, count in (("strides", 1, rank), ("dilations", 1, rank), ("pads", 0, 2 * rank))
    )
    counts = [
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, before, after, d, k, s in zip(size, pads[:rank], pads[rank:], dilation, kernel, strides, strict=True)
    ]
    taps = math.prod(kernel)
    if len(x.dims) != 3 or rank > 2 or math.prod(counts) != x.dims[2] or x.dims[1] % taps:
        raise Unsupported(f"windows of {kernel} in an image of {size} do not fit a tensor of shape {x.dims}")
    channels = x.dims[1] // taps
    bounded((taps, taps, channels))
    grid = x.placed(x.places.reshape(1, x.dims[1], *counts), channels_first=True).image("Col2Im")
    weight = np.tile(np.eye(taps, dtype=np.float32)[:, :, None], channels).reshape(
        *grid.pair(kernel, 1), taps, channels
    )
    cropping = grid.pair(tuple(zip(pads[:rank], pads[rank:], strict=True)), (0, 0))
    transposed = ConvTranspose2D(weight, grid.pair(strides, 1), cropping, grid.pair(dilation, 1), channels)
    (down, across), given = grid.pair(size, 1), transposed.output_shape(grid.value.shape)
    added = (0, down - given[0]), (0, across - given[1]), (0, 0)  # what no window reaches
    return grid.value.then(transposed, Pad(added), layers=call.layers)


def average_pool(call: Call) -> Value:
    if len(call.value().dims) == 5:
        return _average_along(call)
    image, window = _pool(call)
    x, padding = image.value, window.reach
    if call.attributes.get("count_include_pad", 0):
        x = x.then(Pad((*window.padding, (0, 0))), layers=call.layers)
        padding = (0, window.overhang[0]), (0, window.overhang[1])
    if window.dilation == (1, 1):
        return x.then(AveragePool2D(window.kernel, window.strides, padding), layers=call.layers)
    total = _sum_of_each(window, x, padding)
    counts = total.apply(np.ones((1, *x.shape), np.float32))[0]
    return x.then(total, Scale(per_channel(1 / counts)), layers=call.layers)


def _average_along(call: Call) -> Value:
    """Means along one of five axes, as PyTorch writes local response normalisation: that of the channels is one."""
    x, kernel = call.value(), call.numbers("kernel_shape", ())
    long = [axis for axis, size in enumerate(kernel, 2) if size > 1]
    unusual = [*call.numbers("pads", ()), *(n - 1 for name in ("strides", "dilations") for n in call.numbers(name, ()))]
    if len(long) != 1 or any(unusual):
        raise Unsupported(f"windows of {kernel} over a tensor of shape {x.dims[1:]} are supported along one axis only")
    where, size = x.axis(long[0]), kernel[long[0] - 2]
    if where < 2:
        return x.then(AveragePool2D((1, size) if where else (size, 1), (1, 1)), layers=call.layers)
    apart = np.arange(x.shape[2])[:, None] - np.arange(x.shape[2] - size + 1)
    band = ((apart >= 0) & (apart < size)).astype(np.float32) / size
    return x.then(Conv2D(band[None, None]), layers=call.layers)


def max_pool(call: Call) -> Activation:
    image, window = _pool(call)
    if window.dilation == (1, 1):
        return Activation(MaxPool2D(image.value.shape, window.kernel, window.strides, window.reach), image.value)
    x = image.value
    for axis in (0, 1):
        x = _side_by_side(x, axis, window.along(axis, x.shape[axis]), call.layers)
    return Activation(MaxPool2D(x.shape, window.kernel, window.kernel), x)


def _side_by_side(x: Value, axis: int, places: np.ndarray, layers: tuple[str, ...]) -> Value:
    """The windows along an axis of the shape, `places` of shape (windows, size), one behind the other.

    In place of what lies outside the image another number of the window is there twice, so that its largest is the
    same.
    """
    inside = (places >= 0) & (places < x.shape[axis])
    if not inside.any(1).all():
        raise Unsupported("one of its windows lies in the padding alone, where nothing is the largest number")
    first = np.take_along_axis(places, inside.argmax(1)[:, None], 1)
    indices = np.where(inside, places, first).reshape(1, -1)
    return x.then(Resample(axis, indices, np.ones(indices.shape, np.float32)), layers=layers)


def lp_pool(call: Call) -> Value:
    """`(Σ |x|^p)^(1/p)` over each window."""
    image, window = _pool(call)
    return _rooted(image.value, lambda x: x.then(_sum_of_each(window, x, window.reach), layers=call.layers), call)


def global_lp_pool(call: Call) -> Value:
    x = call.value().image(call.node.op_type).value
    return _rooted(x, lambda powers: powers.total(range(2, len(x.dims)), call.layers), call)


def _rooted(x: Value, total: Callable[[Value], Value], call: Call) -> Value:
    """The p-th root of the sum of all |x|^p, which `total` adds up."""
    p = call.attributes.get("p", 2)
    if p == 1:
        return total(call.population(Function("abs"), x, "abs"))
    if p == 2:
        return call.population(Function("sqrt"), total(call.population(Function("square"), x, "square")), "sqrt")
    powers = call.population(Function("power", float(p)), call.population(Function("abs"), x, "abs"), "power")
    return call.population(Function("power", 1 / p), total(powers), "root")


def _sum_of_each(window: _Window, x: Value, padding: Padding) -> Conv2D:
    bounded((*window.kernel, x.shape[2]))
    ones = np.ones((*window.kernel, 1, x.shape[2]), np.float32)
    return Conv2D(ones, window.strides, padding, window.dilation, groups=x.shape[2])


def global_average_pool(call: Call) -> Value:
    x = call.value().image(call.node.op_type).value
    height, width, _ = x.shape
    return x.then(AveragePool2D((height, width), (height, width)), layers=call.layers)


def global_max_pool(call: Call) -> Activation | Value:
    x = call.value().image(call.node.op_type).value
    return reductions.largest(x, tuple(range(2, len(x.dims))), call)


def _pool(call: Call) -> tuple[Image, _Window]:
    image = call.value().image(call.node.op_type)
    return image, _window(call, image, call.numbers("kernel_shape", ()))


def _window(call: Call, image: Image, kernel: tuple[int, ...]) -> _Window:
    rank = len(image.axes)
    strides, dilation = (call.numbers(name, (1,) * rank) for name in ("strides", "dilations"))
    if not len(kernel) == len(strides) == len(dilation) == rank:
        raise Unsupported(f"a window of {kernel} does not fit a tensor of shape {image.value.dims}")
    if min(*kernel, *strides, *dilation) < 1:
        raise Unsupported(f"a window of {kernel} with strides {strides} and dilation {dilation} is off")
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    padding = _padding(call, image.size, extent, strides)
    bounded(n + sum(pair) for n, pair in zip(image.size, padding, strict=True))
    overhang = (0,) * rank
    if call.attributes.get("ceil_mode", 0):
        overhang = tuple(map(_overhang, image.size, extent, strides, padding))
    return _Window(
        image.pair(kernel, 1),
        image.pair(strides, 1),
        image.pair(padding, (0, 0)),
        image.pair(dilation, 1),
        image.pair(overhang, 0),
    )


def _padding(call: Call, size: tuple[int, ...], extent: tuple[int, ...], strides: tuple[int, ...]) -> tuple[Pair, ...]:
    """Explicit padding before and after each ONNX axis, from `pads` or `auto_pad`."""
    automatic, rank = call.text("auto_pad", "NOTSET"), len(size)
    if automatic == "VALID":
        return ((0, 0),) * rank
    if automatic == "NOTSET":
        pads = call.numbers("pads", (0,) * 2 * rank)
        return tuple(zip(pads[:rank], pads[rank:], strict=True))
    spare = [max((-(-n // s) - 1) * s + e - n, 0) for n, e, s in zip(size, extent, strides, strict=True)]
    halves = [(total // 2, total - total // 2) for total in spare]
    return tuple((less, more) if automatic == "SAME_UPPER" else (more, less) for less, more in halves)


def _cropping(call: Call, given: tuple[int, ...], sizes: list[int], strides: tuple[int, ...]) -> tuple[Pair, ...]:
    """What a transposed convolution is cropped by before and after each ONNX axis, `sizes` being those without that."""
    automatic, rank = call.text("auto_pad", "NOTSET"), len(sizes)
    wanted = call.numbers("output_shape", ())[-rank:]
    if automatic.startswith("SAME") and not wanted:
        wanted = tuple(n * s for n, s in zip(given, strides, strict=True))
    if not wanted:
        pads = call.numbers("pads", (0,) * 2 * rank) if automatic == "NOTSET" else (0,) * 2 * rank
        return tuple(zip(pads[:rank], pads[rank:], strict=True))
    spare = [size - to for size, to in zip(sizes, wanted, strict=True)]
    if automatic.startswith("SAME") and min(spare) < 0:
        raise Unsupported("its kernel is shorter than its strides, where runtimes pad differently; give the pads")
    halves = [(total // 2, total - total // 2) for total in spare]
    turned = [(less, more) if automatic == "SAME_UPPER" else (more, less) for less, more in halves]
    return tuple(pair if sum(pair) > 0 else (0, sum(pair)) for pair in turned)


def _overhang(size: int, extent: int, stride: int, padding: Pair) -> int:
    """What the last window lacks, where an incomplete one counts unless it starts beyond the image."""
    before, after = padding
    last = -(-(size + before + after - extent) // stride) * stride
    if last >= size + before:
        last -= stride
    return max(last + extent - (size + before + after), 0)
