"""What the machine and its GeNN can do. Without GeNN one can still ask, for `plan`."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ...ir import BackendError, BackendWarning
from . import gpu, toeplitz
from .connectivity import Machine
from .options import Device

CPU = "single_threaded_cpu"
GPU_BATCH = 128  # images at once, if not said otherwise
ASSUMED = 16 * 2**30  # bytes of a GPU, for a plan of another machine


def genn_backend(device: Device | None) -> str:
    """The GeNN backend for a device; None: the GPU where there is one that works, else the CPU.

    Raises BackendError where it cannot be had, and warns where None leads to the CPU although there is a GPU.
    """
    from .genn import backend_modules  # which need not be installed

    if device != "cpu" and "hip" in backend_modules and "cuda" not in backend_modules:
        return "hip"
    if device != "cpu":
        try:
            gpu.require()
        except BackendError as fault:
            if device == "gpu":
                raise
            if gpu.was_built_for() or gpu.is_present():
                warnings.warn(f"GeNN runs on the CPU, as {fault}", BackendWarning, stacklevel=2)
        else:
            return "cuda"
    if CPU not in backend_modules:
        raise BackendError("this pygenn was built without support for a CPU")
    return CPU


def describe(backend: str, batch: int = 1, workers: int = 1) -> Machine:
    """What the choice of matrix types has to know. Connections may take half of the memory that is free."""
    memory = free_memory() // (2 * workers)
    if backend == CPU:
        return Machine(memory)
    return Machine(memory, _gpu_memory() // 2, toeplitz.sends_values(), batch)


def _gpu_memory() -> int:
    """The bytes that are free on the smallest GPU; where there is none to ask, `ASSUMED`."""
    try:
        return min(each.free for each in gpu.gpus())
    except (BackendError, ImportError):
        return ASSUMED


def free_memory() -> int:
    """How many bytes this process can still have: of the machine, and of the container that it may run in."""
    if find_spec("psutil") is None:  # a requirement of pygenn
        return sys.maxsize
    free = int(import_module("psutil").virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = next(line.split()[1] for line in (group / "memory.stat").open() if line.startswith("anon "))
    except (OSError, ValueError, StopIteration):  # no such group, or without a limit
        return free
    return min(free, limit - int(used))
