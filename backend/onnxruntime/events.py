"""Connections computed per spike: the weights of every spike are added up, and neurons that are silent cost nothing.

All arrays are channels last. Spikes are first listed, position by position; for each position of the target, those
within its window are then a few stretches of the list, one for each row of the kernel. Their weights are added up in
registers, a block of filters at a time. Against a dense convolution this pays up to a third of neurons firing at once
(`benchmarks/sparsity.py`), and populations of neurons fire far less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from ...ir import NO_PADDING, AveragePool2D, Conv2D, Dense, Flatten, Operator, Pair, Shape
from .intrinsics import LANES, added_16, added_32, added_64, listed_of
from .resources import aligned

SLACK = LANES  # numbers behind the currents that may be written to, as blocks of filters are wide
_WIDTHS = (64, 32, LANES)
_LARGEST_BLOCK = 2**22  # bytes of weights; more would be read from memory, spike by spike
_LEAST_WORTH = 0.2


@dataclass(frozen=True, eq=False)
class Events:
    """A connection as a convolution of spikes, 0 or 1, which are pooled first.

    `shape` is that of the source, (H, W, C), and `kernel` is (kernel height, width, C). `blocks` are the weights, in
    blocks of filters, each with its first filter: (kernel height · width · C, filters of the block), zero where a block
    is wider than there are filters.
    """

    source: str
    shape: Shape
    pool: Pair
    kernel: Shape
    strides: Pair
    corner: Pair
    counts: Pair
    filters: int
    blocks: tuple[tuple[int, np.ndarray], ...]

    @classmethod
    def of(cls, source: str, operators: Sequence[Operator], shape: Shape) -> Events | None:
        """`operators` on the spikes of a population; None where they are not worth it, or no such convolution."""
        image = shape if len(shape) == 3 else (1, 1, *shape)
        pool, pooled, rest = _pool(tuple(operators), image)
        match rest:
            case (Conv2D(weight, strides, ((top, bottom), (left, right)), (1, 1), 1),):
                kernel = weight
            case (Dense(weight),) | (Flatten(), Dense(weight)):
                kernel, strides = weight.reshape(*pooled, -1), (1, 1)
                top = bottom = left = right = 0
            case _:
                return None
        height, width, _, filters = kernel.shape
        widths = _widths(filters)
        if kernel[..., 0].nbytes * widths[0] > _LARGEST_BLOCK or _worth(filters, widths, pool) < _LEAST_WORTH:
            return None
        counts = (
            (pooled[0] + top + bottom - height) // strides[0] + 1,
            (pooled[1] + left + right - width) // strides[1] + 1,
        )
        blocks = _in_blocks(kernel.reshape(-1, filters) / np.float32(math.prod(pool)), widths)
        return cls(source, image, pool, kernel.shape[:3], strides, (top, left), counts, filters, blocks)

    def add(self, spikes: np.ndarray, current: np.ndarray, fresh: bool) -> None:
        """Add what `spikes`, (steps, neurons), bring about to `current`, or put it there if that is `fresh`.

        `current` is flat, and has SLACK numbers behind the last one.
        """
        height, width = (size // by for size, by in zip(self.shape, self.pool, strict=False))
        listed = np.empty(spikes.size + LANES, np.int32)
        starts = np.empty(len(spikes) * height * width + 1, np.int32)
        _list(spikes, self.shape, self.pool, listed, starts)
        for first, block in self.blocks:
            _add_block(
                listed,
                starts,
                len(spikes),
                (height, width),
                block,
                self.kernel,
                self.strides,
                self.corner,
                self.counts,
                current,
                self.filters,
                first,
                fresh,
            )


def _pool(operators: tuple[Operator, ...], shape: Shape) -> tuple[Pair, Shape, tuple[Operator, ...]]:
    """The windows that are averaged first, the shape after that, and the operators that are left."""
    match operators:
        case (AveragePool2D(size, strides, padding), *rest) if size == strides and padding == NO_PADDING:
            return size, (shape[0] // size[0], shape[1] // size[1], shape[2]), tuple(rest)
    return (1, 1), shape, operators


def _widths(filters: int) -> list[int]:
    """How wide the blocks of so many filters are; the last may be too wide."""
    widths: list[int] = []
    while (left := filters - sum(widths)) > 0:
        widths.append(next((width for width in _WIDTHS if width <= left), _WIDTHS[-1]))
    return widths


def _worth(filters: int, widths: list[int], pool: Pair) -> float:
    """Of the numbers added up for a spike the share that count, over the neurons that pooling makes one of.

    The share of neurons that may fire at once before onnxruntime is faster is about a third of this.
    """
    return filters / sum(widths) / math.prod(pool)


def _in_blocks(kernel: np.ndarray, widths: list[int]) -> tuple[tuple[int, np.ndarray], ...]:
    """The filters in blocks. The last, which may be too wide, comes first: what it spoils is then written over."""
    blocks, first = [], 0
    for width in widths:
        filters = kernel[:, first : first + width]
        block = aligned(len(kernel) * width)[: len(kernel) * width].reshape(-1, width)
        block[:, : filters.shape[1]] = filters
        block[:, filters.shape[1] :] = 0
        blocks.append((first, block))
        first += width
    return tuple(blocks[::-1])


@njit(nogil=True, cache=True)
def _list(spikes: np.ndarray, shape: Shape, pool: Pair, listed: np.ndarray, starts: np.ndarray) -> None:
    """List the spikes of each pooled position as column · channels + channel; those of position p begin at starts[p].

    Rows follow one another, and steps do.
    """
    _, width, channels = shape
    height, across = shape[0] // pool[0], shape[1] // pool[1]
    found, position = 0, 0
    for t in range(len(spikes)):
        now = spikes[t]
        for y in range(height):
            for x in range(across):
                starts[position] = found
                position += 1
                for dy in range(pool[0]):
                    for dx in range(pool[1]):
                        begin = ((y * pool[0] + dy) * width + x * pool[1] + dx) * channels
                        for c in range(0, channels, LANES):
                            found = listed_of(now, begin + c, channels - c, x * channels + c, listed, found)
    starts[position] = found


@njit(nogil=True, cache=True)
def _add_block(
    listed: np.ndarray,
    starts: np.ndarray,
    steps: int,
    size: Pair,
    block: np.ndarray,
    kernel: Shape,
    strides: Pair,
    corner: Pair,
    counts: Pair,
    current: np.ndarray,
    filters: int,
    first_filter: int,
    fresh: bool,
) -> None:
    """Convolve listed spikes of images of `size` with a block of filters, (kernel height · width · channels, width)."""
    height, width, depth = kernel
    for t in range(steps):
        for y in range(counts[0]):
            top = y * strides[0] - corner[0]
            above = max(-top, 0)
            turns = max(min(height, size[0] - top) - above, 0)
            for x in range(counts[1]):
                left = x * strides[1] - corner[1]
                begin = min(max(left, 0), size[1])
                span = max(min(left + width, size[1]) - begin, 0)
                at = ((t * counts[0] + y) * counts[1] + x) * filters + first_filter
                row, step = (above * width - left) * depth, width * depth
                first = (t * size[0] + min(top + above, size[0])) * size[1] + begin
                if block.shape[1] == 64:
                    added_64(current, at, block, row, step, listed, starts, first, span, turns, size[1], fresh)
                elif block.shape[1] == 32:
                    added_32(current, at, block, row, step, listed, starts, first, span, turns, size[1], fresh)
                else:
                    added_16(current, at, block, row, step, listed, starts, first, span, turns, size[1], fresh)
