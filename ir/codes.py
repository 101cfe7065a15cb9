"""What codes of whole numbers say of an activation: the staircases of spiking neurons, and of the search for λ, α."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def staircase(x: Any, largest: Any, levels: int, offset: Any, lowest: int = 0, strict: bool = False) -> Any:
    """What is said of x: `largest · min(max(floor(x · levels / largest + offset), lowest), levels) / levels`.

    With an offset of a half x is rounded, with 0 truncated. `strict` is for neurons whose potential must exceed the
    threshold: it makes the next lower number of a whole one. Takes numbers or arrays; numba compiles it, too.
    """
    steps = x * levels / largest + offset
    steps = np.ceil(steps) - 1 if strict else np.floor(steps)
    return largest * np.minimum(np.maximum(steps, lowest), levels) / levels


def by_magnitude(code: Callable[[np.ndarray], np.ndarray], x: np.ndarray, signed: bool) -> np.ndarray:
    """What a code of numbers ≥ 0 says of x: the sign is kept or, without signs, what is negative counts as 0."""
    return np.sign(x) * code(np.abs(x)) if signed else code(np.maximum(x, 0))


def rounded_off(quantum: np.ndarray, v_init: Any) -> float:
    """How far a staircase of whole quanta, `v_init` before the next, is from a number within its reach at most."""
    return float(np.maximum(v_init, quantum - v_init).max())
