"""Where a benchmark ran: the machine and the versions of what it used, and the memory that it took."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("snnc", "numpy", "onnxruntime", "numba", "keras", "tensorflow", "tf2onnx", "pygenn", "ml_genn")


def describe() -> dict[str, str]:
    """Processor, cores, memory, and the version of each package that is installed."""
    facts = {"processor": _processor(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def page(heading: str, documentation: str | None, script: str, table: list[str]) -> str:
    """A document that a script makes: what its documentation says but how it is called, the machine, and a table."""
    title, _, text, *_ = (documentation or "").split("\n\n")
    where = ", ".join(f"{key} {value}" for key, value in describe().items())
    intro = f"{title} {' '.join(text.split())} This page is made by `benchmarks/{script}`."
    return "\n".join([f"# {heading}", "", intro, "", f"Machine: {where}.", "", *table, ""])


def peak_from_here() -> int:
    """Forget the peak of memory so far, and say what is held now, in bytes. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most memory that this process has held, in bytes. Linux only."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
