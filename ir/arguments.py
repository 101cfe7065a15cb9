"""Arguments as users give them: what is wrong with one is an error of ours, which says what it should be."""

from __future__ import annotations

import os
import reprlib
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from .errors import DataError, SnncError, VerificationError
from .network import Network

Item = TypeVar("Item")


def as_network(given: Any) -> Network:
    """`given`, if it is a network, and not the model that one is made of. Raises VerificationError."""
    if not isinstance(given, Network):
        raise VerificationError(f"a {type(given).__name__} is not a network: snnc.load makes one of a model", ())
    return given


def as_path(given: Any, what: str, error: type[SnncError]) -> Path:
    """`given` as a path that the system can be asked for, whether anything is there or not. Raises `error`."""
    try:
        path = Path(given)
        named = b"\0" not in os.fsencode(path)
        path.exists()
    except OSError as fault:  # a name that is too long, a folder that may not be looked into
        raise error(f"{what}, {shown(str(given))}: {fault.strerror or fault}") from None
    except Exception:  # no path at all, or one of surrogates
        named = False
    if not named:
        raise error(f"{what} is a path, not {shown(given)}")
    return path


def as_tuple(given: Any, kind: type[Item], expected: str, error: type[SnncError]) -> tuple[Item, ...]:
    """What is given in any sequence of such objects. Raises `error`, which says what was `expected`."""
    try:
        items = tuple(given)
        fitting = all(isinstance(item, kind) for item in items)
    except Exception:  # no sequence at all
        fitting = False
    if not fitting:
        raise error(f"{expected}, not {shown(given)}")
    return items


def as_names(given: Any, what: str, error: type[SnncError]) -> frozenset[str]:
    """A name or several, as a set. Raises `error`."""
    if isinstance(given, str):
        return frozenset([given])
    return frozenset(as_tuple(given, str, f"{what} takes a name or several", error))


def as_flag(given: Any, what: str) -> bool:
    """Whether something is wanted. Raises DataError for what is neither true nor false, as arrays are."""
    try:
        return bool(given)
    except Exception:
        raise DataError(f"{what} is True or False, not {shown(given)}") from None


def is_whole(given: object) -> TypeGuard[int]:
    """Whether it is a whole number, Python's or numpy's."""
    return isinstance(given, (int, np.integer)) and not isinstance(given, bool)


def shown(given: object) -> str:
    """An argument as an error names it: short, and in one line."""
    try:
        return " ".join(reprlib.repr(given).split())
    except Exception:  # as of numbers with thousands of digits
        return f"a {type(given).__name__}"
