"""The GPU: whether GeNN can run on it and, where it cannot, why, and what to do.

GeNN ends the process, without a word, where CUDA reports an error to it. So CUDA is asked first, in the same order.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ...ir import BackendError

LARGEST_BATCH = 1023  # GeNN 5.4's code generator aborts from 1024 on
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_CUDA = Path("/usr/local/cuda")
_BUILD_PYGENN = 'the README\'s section "GeNN" says how pygenn is built'
_CPU = "or compile with device='cpu'"

_REMEDIES = {  # by CUDA's numbers of errors
    2: "its memory is taken by other processes: end them, or hide this GPU with CUDA_VISIBLE_DEVICES",
    35: "NVIDIA's driver is older than the CUDA that pygenn was built with: update the driver",
    36: "NVIDIA's driver is older than the CUDA that pygenn was built with: update the driver",
    46: "another process has it for itself: wait for it, or name another GPU in CUDA_VISIBLE_DEVICES",
    100: "is one in this machine, and do containers get it (docker run --gpus all)?",
    803: "the driver was updated: restart the machine",
}
_COMPLAINTS = {  # what compilers and GeNN print, and what it means
    r"curand_kernel\.h": "CUDA's header curand_kernel.h was not found: install cuRAND's development files (on Ubuntu, "
    "apt-get install libcurand-dev-…), or name their folder, NVCC_PREPEND_FLAGS=-I/…/include",
    r"nsupported gpu architecture|is not defined for option 'gpu-architecture'": "the GPU is too old for this CUDA "
    f"toolkit: set CUDA_PATH to an older one, {_CPU}",
    r"error 2: |out of memory|OUT_OF_MEMORY": "the GPU has too little memory free: compile with a smaller batch_size",
    r"error 46: |DEVICE(S)?_UNAVAILABLE": f"the GPU is busy: {_REMEDIES[46]}",
    r"NVCC failed": f"CUDA's compiler nvcc failed: see its message below, {_CPU}",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU: `capability` is its compute capability, as (9, 0); `free` is in bytes."""

    name: str
    capability: tuple[int, int]
    free: int


def require() -> None:
    """Raise BackendError, with the cause and the way out, where GeNN's CUDA backend would not work here.

    Sets CUDA_PATH, which GeNN reads, where it is not set and CUDA is where it usually is.
    """
    if _nvcc(_CUDA).is_file():
        os.environ.setdefault("CUDA_PATH", str(_CUDA))
    _require_backend()
    _require_compiler(gpus())


def gpus() -> list[Gpu]:
    """Every GPU that CUDA shows. Raises BackendError where there is none, and where one cannot be used.

    For GeNN looks at all of them before it chooses one.
    """
    count = ctypes.c_int()
    runtime = ctypes.CDLL(import_module("pygenn.cuda_backend").__file__)  # which it links, whatever its version is
    if error := runtime.cudaGetDeviceCount(ctypes.byref(count)):
        runtime.cudaGetErrorName.restype = ctypes.c_char_p
        _refuse("CUDA finds no GPU", error, runtime.cudaGetErrorName(error))
    driver = ctypes.CDLL("libcuda.so.1")
    if error := driver.cuInit(0):
        _refuse("CUDA finds no GPU", error, _name(driver, error))
    return [_gpu(driver, number) for number in range(count.value)]


def free_memory() -> int:
    """Bytes that are free on the GPUs, all of them together."""
    return sum(gpu.free for gpu in gpus())


def is_present() -> bool:
    """Whether NVIDIA's driver shows a GPU, whatever pygenn was built for."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return not driver.cuInit(0) and not driver.cuDeviceGetCount(ctypes.byref(count)) and count.value > 0


def was_built_for() -> bool:
    """Whether this pygenn has a CUDA backend, even one that cannot be loaded."""
    return find_spec("pygenn.cuda_backend") is not None


def complaint(log: str) -> str | None:
    """What is the matter, and what to do, in one sentence, if `log` says it."""
    return next((meaning for pattern, meaning in _COMPLAINTS.items() if re.search(pattern, log)), None)


def _require_backend() -> None:
    from . import genn  # which need not be installed

    try:
        import_module("pygenn.cuda_backend")
    except ModuleNotFoundError:
        raise BackendError(
            "this pygenn was built without support for a GPU: install the CUDA toolkit, set CUDA_PATH, "
            f"and build pygenn anew; {_BUILD_PYGENN}"
        ) from None
    except ImportError as error:
        library = "libcudart" if "libcudart" in str(error) else "libcuda"
        remedy = {
            "libcudart": "add the folder of the CUDA toolkit that pygenn was built with, $CUDA_PATH/lib64, "
            "to LD_LIBRARY_PATH",
            "libcuda": "install NVIDIA's driver and, in a container, give it the GPU (docker run --gpus all)",
        }[library]
        raise BackendError(f"GeNN's CUDA backend cannot be loaded ({error}): {remedy}, {_CPU}") from None
    if genn.is_overshadowed:
        raise BackendError(
            "pygenn was imported after TensorFlow, whose functions it would call in place of CUDA's: "
            f"import snnc.backend.mlgenn.genn, or pygenn, before TensorFlow, {_CPU}"
        )


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    """A GPU that gave this process a context for a moment."""
    device, context, name = ctypes.c_int(), ctypes.c_void_p(), ctypes.create_string_buffer(100)
    major, minor, free, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    for value, attribute in zip((major, minor), _CAPABILITY, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    if error := driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        _refuse(f"GPU {number}, {name.value.decode()}, cannot be used", error, _name(driver, error))
    try:
        driver.cuCtxPushCurrent_v2(context)
        driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return Gpu(name.value.decode(), (major.value, minor.value), free.value)


def _name(driver: ctypes.CDLL, error: int) -> bytes | None:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(error, ctypes.byref(name))
    return name.value


def _refuse(what: str, error: int, name: bytes | None) -> None:
    """Raise the BackendError for a call to CUDA that returned `error`."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    remedy = _REMEDIES.get(error, "does nvidia-smi work?")
    if error == 100 and hidden is not None:
        remedy = f"CUDA_VISIBLE_DEVICES={hidden} hides them, unless there is none"
    raise BackendError(f"{what} ({(name or b'unknown error').decode()}, {error}): {remedy}; {_CPU}")


def _require_compiler(found: list[Gpu]) -> None:
    """Have nvcc look at what every generated file begins with, for the oldest GPU that it has to compile for."""
    home = Path(os.environ.get("CUDA_PATH", _CUDA))
    if not _nvcc(home).is_file():
        given = f"CUDA_PATH={home}" if "CUDA_PATH" in os.environ else f"CUDA_PATH is not set, and {home}"
        raise BackendError(
            f"CUDA's compiler was not found: {given} has no bin/nvcc. Set CUDA_PATH to the folder of a CUDA toolkit, "
            f"which nvcc on the PATH is {_nvcc_on_path()}, {_CPU}"
        )
    major, minor = min(gpu.capability for gpu in found)
    with tempfile.TemporaryDirectory(prefix="snnc-nvcc-") as folder:
        source = Path(folder, "includes.cc")
        source.write_text("#include <curand_kernel.h>\n")
        command = [str(_nvcc(home)), "-M", "-x", "cu", "-arch", f"sm_{major}{minor}", str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise BackendError(f"CUDA's compiler cannot be run: {error}. Set CUDA_PATH to another toolkit") from None
    if done.returncode:
        said = f"{done.stdout}{done.stderr}"
        cause = complaint(said) or f"CUDA's compiler {command[0]} does not work; see its message, {_CPU}"
        raise BackendError("\n  ".join([cause, *said.splitlines()[-10:]]))


def _nvcc(home: Path) -> Path:
    return home / "bin" / "nvcc"


def _nvcc_on_path() -> str:
    found = shutil.which("nvcc")
    return f"part of {Path(found).resolve().parents[1]}" if found else "not"
