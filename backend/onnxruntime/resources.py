"""What a run may use, and how it is cut: threads side by side, each on chunks that stay in its cache.

A layer's currents are read again as soon as they are made. While they fit the cache, that costs next to nothing; so a
chunk is as small as calls from Python allow. Threads share no chunk, so none of them waits for another in the middle
of a layer. Where there are fewer images than threads, onnxruntime has the others for each linear map.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ...ir import BackendError, is_whole, shown

MEMORY_BYTES = 256 * 2**20
CHUNK_BYTES = 8 * 2**20
PHASE_BYTES = 16 * 2**20  # of a whole phase at once: there is little else to weigh against the calls from Python
LARGEST_BATCH = 256
_LINE = 16  # numbers in a line of the cache; what lies across two is read more slowly

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Resources:
    """`memory` bytes for the spikes and currents of all `threads` together."""

    memory: int
    threads: int

    @classmethod
    def of(cls, memory: int | str | None = None, threads: int | None = None) -> Resources:
        """`memory` in bytes, or as in "2GB"; by default 256 MB, and every core that this process may run on.

        Raises BackendError for what is neither.
        """
        if threads is not None and not (is_whole(threads) and threads >= 1):
            raise BackendError(f"threads is a number from 1 on, not {shown(threads)}")
        return cls(_bytes(MEMORY_BYTES if memory is None else memory), threads or _cores())

    def chunk(self, images: int, slots: int, bytes_per_slot: int) -> Chunk:
        """How to cut `images` of `slots` time slots each, of which one takes `bytes_per_slot`."""
        side_by_side = min(self.threads, images)
        chunk = PHASE_BYTES if slots == 1 else CHUNK_BYTES
        held = max(min(self.memory // side_by_side, chunk) // bytes_per_slot, 1)
        most = int(np.clip(held // slots, 1, LARGEST_BATCH))
        rounds = -(-images // (most * side_by_side))  # each thread has as much to do as the others
        batch = -(-images // (rounds * side_by_side))
        return Chunk(batch, int(np.clip(held // batch, 1, slots)), self.threads // side_by_side)


@dataclass(frozen=True)
class Chunk:
    """So many images and steps are run at once by one thread, which has `threads` for each linear map."""

    images: int
    steps: int
    threads: int


class Buffers:
    """One thread's memory for spikes and currents, used again and again: fresh memory costs as much as a layer."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def take(self, size: int) -> np.ndarray:
        """A flat array of at least so many numbers, of any value. What is free but too small makes room for it."""
        self._free.sort(key=len)
        fitting = next((at for at, buffer in enumerate(self._free) if len(buffer) >= size), None)
        if fitting is not None:
            return self._free.pop(fitting)
        if self._free:
            self._free.pop()
        return aligned(size)

    def give(self, array: np.ndarray) -> None:
        """Take back a buffer, of which this is a view; nobody may look at it any more."""
        assert array.base is not None
        self._free.append(_aligned_part(array.base))


def aligned(size: int) -> np.ndarray:
    """A flat array of at least so many numbers, of any value, that begins at a line of the cache."""
    return _aligned_part(np.empty(size + _LINE, np.float32))


def _aligned_part(memory: np.ndarray) -> np.ndarray:
    return memory[-(memory.ctypes.data // memory.itemsize) % _LINE :]


def side_by_side(work: Callable[[Item], Done], items: Iterable[Item], threads: int) -> Iterator[Done]:
    """What `work` makes of each item, in order; `threads` of them are worked on at once, and few lie ready."""
    if threads == 1:
        yield from map(work, items)
        return
    under_way: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for item in items:
                under_way.append(executor.submit(work, item))
                if len(under_way) > threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bytes(memory: int | str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", str(memory), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if not size:
        raise BackendError(f"memory is a number of bytes, or as in '512MB' or '2GB', not {shown(memory)}")
    return size
