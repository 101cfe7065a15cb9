"""pygenn, imported so that its calls to CUDA reach CUDA's library.

TensorFlow's libraries export functions of the same names, which load CUDA when they are called, or fail to. Where they
are there first, pygenn's have to look into their own libraries before those that all share. So this module comes
before every other import of pygenn and mlGeNN. `is_overshadowed` says that it was too late.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def _others_answer() -> bool:
    """Whether functions of CUDA's names are there for all libraries that are loaded from now on."""
    return hasattr(ctypes.CDLL(None), "cudaMalloc")


def _came_first() -> bool:
    """Whether TensorFlow was imported before pygenn, and both before this module."""
    order = [name for name in sys.modules if name in ("tensorflow", "pygenn")]
    return order == ["tensorflow", "pygenn"]


def _backends() -> Mapping[str, Any]:
    flags = sys.getdlopenflags()
    if _others_answer():
        sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        modules: Mapping[str, Any] = import_module("pygenn.genn_model").backend_modules
    finally:
        sys.setdlopenflags(flags)
    return modules


is_overshadowed = _others_answer() and _came_first()
backend_modules = _backends()
