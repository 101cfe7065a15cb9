"""Frozen dataclasses whose fields may be arrays: the base of everything that the IR stores."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

PLACES = {"places": True}  # of a field whose arrays are of whole numbers
LATER = {"later": True}  # of a field that not every record has had: files say it only where it is not at its default


@dataclass(frozen=True, eq=False)
class Record:
    """A frozen dataclass with value equality that holds its arrays read-only.

    Numbers are kept in single precision, as every backend computes them: a Python float is rounded to the nearest
    float32 and an array is viewed as (or converted to) a contiguous float32 array. Arrays of places are int64.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _normalise(getattr(self, field.name), field.metadata == PLACES))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled are the fields alone; what is made of them holds its arrays read-only again."""
        return type(self), self._arguments()

    def _arguments(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def __hash__(self) -> int:
        raise TypeError(f"{type(self).__name__} holds arrays and cannot be hashed; use its name as a key")


def is_default(value: Any, default: Any) -> bool:
    """Whether a field's value is its default, which is never an array."""
    return default is not MISSING and not isinstance(value, np.ndarray) and bool(value == default)


def _normalise(value: Any, are_places: bool) -> Any:
    if isinstance(value, np.ndarray) and value.ndim:
        dtype = np.int64 if are_places and value.dtype.kind in "iub" else np.float32
        frozen = np.ascontiguousarray(value, dtype).view()
        frozen.flags.writeable = False
        return frozen
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        return float(np.float32(value))
    return value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)
    return bool(a == b)
