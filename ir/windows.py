"""The geometry of windows that slide over `(H, W, C)`: shared by convolution and pooling."""

from __future__ import annotations

import numpy as np

from .errors import ShapeError

Shape = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

NO_PADDING: Padding = ((0, 0), (0, 0))


def window_counts(
    what: str, shape: Shape, kernel: Pair, strides: Pair, padding: Padding = NO_PADDING, dilation: Pair = (1, 1)
) -> Pair:
    """How many windows fit along height and width; raises a ShapeError that says `what` does not fit."""
    if len(shape) != 3:
        raise ShapeError(f"{what} needs an input of shape (H, W, C) but is given {shape}")
    if min(*kernel, *strides, *dilation) < 1 or min(min(pair) for pair in padding) < 0:
        raise ShapeError(f"{what}: window {kernel}, strides {strides}, padding {padding} or dilation {dilation} is off")
    height, width = (
        (size + sum(pad) - d * (k - 1) - 1) // stride + 1
        for size, k, stride, pad, d in zip(shape[:2], kernel, strides, padding, dilation, strict=True)
    )
    if height < 1 or width < 1:
        raise ShapeError(f"{what}: a window of {kernel} with padding {padding} does not fit an input of {shape}")
    return height, width


def pool_counts(what: str, shape: Shape, pool_size: Pair, strides: Pair, padding: Padding) -> Pair:
    """`window_counts` for pooling, where no window may lie in the padding alone."""
    if any(max(pad) >= size for pad, size in zip(padding, pool_size, strict=True)):
        raise ShapeError(f"{what}: with padding {padding}, a window of {pool_size} could lie outside the input")
    return window_counts(what, shape, pool_size, strides, padding)


def windows(
    x: np.ndarray, kernel: Pair, strides: Pair, padding: Padding, dilation: Pair = (1, 1), fill: float = 0.0
) -> np.ndarray:
    """All windows of an image batch, as a view of shape (batch, H', W', C, kernel height, kernel width)."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
    extent = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(1, 2))
    return view[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]
