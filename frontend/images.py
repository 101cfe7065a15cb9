"""Operators whose windows slide over images and series: convolution, pooling, reduction over space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..ir import AveragePool2D, Conv2D, MaxPool2D, Pad, Padding, Pair, Scale
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
    ones = np.ones((*window.kernel, 1, x.shape[2]), np.float32)
    total = Conv2D(ones, window.strides, padding, window.dilation, groups=x.shape[2])
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
    if window.dilation != (1, 1):
        raise Unsupported("max pooling is supported without dilation only; pool without it and fine-tune")
    return Activation(MaxPool2D(image.value.shape, window.kernel, window.strides, window.reach), image.value)


def global_average_pool(call: Call) -> Value:
    x = call.value().image(call.node.op_type).value
    height, width, _ = x.shape
    return x.then(AveragePool2D((height, width), (height, width)), layers=call.layers)


def global_max_pool(call: Call) -> Activation:
    x = call.value().image(call.node.op_type).value
    height, width, _ = x.shape
    return Activation(MaxPool2D(x.shape, (height, width), (height, width)), x)


def reduce_mean(call: Call) -> Value:
    x, axes = call.value(), reduced_axes(call)
    return without(x.reduced(axes, call.layers), axes, call)


def reduce_sum(call: Call) -> Value:
    x, axes = call.value(), reduced_axes(call)
    return without(x.total(axes, call.layers), axes, call)


def reduced_axes(call: Call) -> tuple[int, ...]:
    """The axes that a node works along. Raises Unsupported for all of them, where those of a batch are among them."""
    x = call.value()
    axes = call.axes(1, len(x.dims))
    if not axes and not call.attributes.get("noop_with_empty_axes", 0):
        raise Unsupported(f"{call.node.op_type} works along all axes, those of a batch included; name the others")
    return axes or ()


def without(x: Value, axes: tuple[int, ...], call: Call) -> Value:
    """A reduced tensor without the axes that are reduced, unless they are to stay."""
    if call.attributes.get("keepdims", 1):
        return x
    return x.viewed(tuple(dim for axis, dim in enumerate(x.dims) if axis not in axes), ())


def reduce_max(call: Call) -> Activation | Value:
    return _reduce_max(call.value(), call)


def reduce_min(call: Call) -> Activation | Value:
    """`−max(−x)`."""

    def negated(x: Value) -> Value:
        return x.scaled(np.array(-1.0), call.layers)

    found = _reduce_max(negated(call.value()), call)
    if isinstance(found, Value):
        return negated(found)
    first = found.finish
    return replace(found, finish=lambda output: negated(first(output)))


def _reduce_max(x: Value, call: Call) -> Activation | Value:
    axes = reduced_axes(call)
    over = x.within(axes)
    if not over:
        return without(x, axes, call)
    if not x.is_image or (2 in over and x.shape[2] > 1):
        return _largest_of(x, axes, call)
    height, width = (x.shape[axis] if axis in over else 1 for axis in (0, 1))
    size = (height, width)
    return Activation(MaxPool2D(x.shape, size, size), x, lambda output: without(output, axes, call))


def _largest_of(x: Value, axes: tuple[int, ...], call: Call) -> Activation:
    """The largest number along any axes: these become one axis of space, and all others another."""
    kept = tuple(axis for axis in range(len(x.dims)) if axis not in axes)
    rows = x.places.transpose((*kept, *axes)).reshape(int(np.prod([x.dims[axis] for axis in kept])), -1, 1)
    table = x.placed_as(rows, rows.shape, ((0,), (1,), (2,)))
    window = (1, rows.shape[1])
    dims = tuple(1 if axis in axes else dim for axis, dim in enumerate(x.dims))

    def finish(output: Value) -> Value:
        return without(output.placed(np.arange(len(rows)).reshape(dims)), axes, call)

    return Activation(MaxPool2D(table.shape, window, window), table, finish)


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


def _overhang(size: int, extent: int, stride: int, padding: Pair) -> int:
    """What the last window lacks, where an incomplete one counts unless it starts beyond the image."""
    before, after = padding
    last = -(-(size + before + after - extent) // stride) * stride
    if last >= size + before:
        last -= stride
    return max(last + extent - (size + before + after), 0)
