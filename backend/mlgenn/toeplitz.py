"""Whether the installed GeNN gets Toeplitz matrices right on a GPU where spikes count as values.

GeNN 5.4.0 names an index there that it does not declare. What came after it compiled, but gave every image of a batch
the values of the first (GeNN's pull requests 755 and 757). So a later GeNN has to show it: this module is a program
that runs a small network and says whether the potentials are right.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from ...ir import Connection, Conv2D, CurrentInput, Integrate, Network, Population
from ..compiled import by_output
from .connectivity import Machine
from .options import Options

LAST_WRONG = (5, 4, 0)


@cache
def sends_values() -> bool:
    """Whether it does; a GeNN after 5.4.0 is tried, which takes some seconds, and the outcome is kept in a file."""
    try:
        installed = version("pygenn")
    except PackageNotFoundError:
        return False
    if tuple(map(int, re.findall(r"\d+", installed)[:3])) <= LAST_WRONG:
        return False
    kept = _kept(installed)
    with suppress(OSError):
        return kept.read_text() == "right"
    outcome = "right" if _try() else "wrong"
    with suppress(OSError):  # then it is tried again
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f"{kept.name}.{os.getpid()}")
        beside.write_text(outcome)
        beside.rename(kept)
    return outcome == "right"


def _kept(installed: str) -> Path:
    """The file of this installation's outcome."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    package = import_module("pygenn").__file__
    assert package is not None  # it has a version
    return caches / "snnc" / f"toeplitz-{installed}-{Path(package).stat().st_mtime_ns}"


def _try() -> bool:
    """Run this module as a program, as GeNN may end it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-m", __name__], env=environment, capture_output=True).returncode == 0


def main() -> None:
    """Exit with 0 if every image of a batch had its own values, and they went where the kernel sends them."""
    from .compiled import CompiledGenn

    kernel = np.arange(-36, 36, dtype=np.float32).reshape(3, 3, 1, 8)
    images = np.arange(-288, 288, dtype=np.float32).reshape(3, 12, 16, 1) / 16
    conv = Conv2D(kernel, padding=((1, 1), (1, 1)))
    ends = [Population("x", (12, 16, 1), CurrentInput()), Population("y", (12, 16, 8), Integrate())]
    network = Network(ends, [Connection("x", "y", (conv,))], ["x"], ["y"], timesteps=2)
    options = Options("gpu", matrix_type="TOEPLITZ", batch_size=len(images))
    compiled = CompiledGenn(network, options, Machine(sys.maxsize, sys.maxsize), apart=False)
    found = by_output(network, compiled.predict(images, progress=False))["y"]
    sys.exit(not np.array_equal(found, conv.apply(images)))


if __name__ == "__main__":
    main()
