"""Pooling to a given size: along an axis window i goes from ⌊i · old / new⌋ to ⌈(i + 1) · old / new⌉."""

from __future__ import annotations

import numpy as np


def shares(old: int, new: int) -> np.ndarray:
    """What each position has of each mean, (old, new), in single precision."""
    starts, ends = _windows(old, new)
    inside = (starts <= np.arange(old)[:, None]) & (np.arange(old)[:, None] < ends)
    return (inside / inside.sum(0)).astype(np.float32)


def places(old: int, new: int) -> np.ndarray:
    """The positions in each window, (new, longest): the last one of those that are shorter is there twice."""
    starts, ends = _windows(old, new)
    longest = (ends - starts).max()
    return np.minimum(starts[:, None] + np.arange(longest), ends[:, None] - 1)


def _windows(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(new) * old // new, -(-(np.arange(new) + 1) * old // new)
