"""Copying an HDF5 file in a process of its own: what is wrong with a file can crash HDF5's library, or keep it busy.

The copy has the same groups, attributes and arrays. It is written by the library itself, so that it is sound, and holds
everything within itself.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..ir import ModelFileError

_SECONDS = 5  # of computing for any file, and more for large ones
_SLOWEST = 2**25  # bytes a second
_PATIENCE = 20  # times as long by the clock: other processes may want the machine
_UNREAD = {"optimizer", "optimizer_weights"}  # what only training needs


def copy(source: Path, target: Path, largest: int, title: str) -> None:
    """Write a sound copy of an HDF5 file whose arrays have at most `largest` bytes in all; raises ModelFileError."""
    seconds = math.ceil(_SECONDS + source.stat().st_size / _SLOWEST)
    command = [sys.executable, "-P", "-m", __name__, str(source.absolute()), str(target), str(largest), str(seconds)]
    endless = ModelFileError(f"{title} is damaged: HDF5 does not come to an end with it")
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE * seconds)
    except subprocess.TimeoutExpired:
        raise endless from None
    if done.returncode == -getattr(signal, "SIGXCPU", 0) != 0:
        raise endless
    if done.returncode < 0:
        raise ModelFileError(f"{title} is damaged: it makes HDF5 crash")
    if done.returncode:
        said = (done.stdout or done.stderr).strip().splitlines() or ["it cannot be read"]
        raise ModelFileError(f"{title} is not an HDF5 file, or a damaged one: {said[-1]}")


class _Copying:
    """One walk through a file. An object that is linked to twice is copied once, so that circles end."""

    def __init__(self, largest: int):
        self.left = largest
        self.copies: dict[Any, Any] = {}

    def group(self, source: Any, target: Any) -> None:
        pending = [(source, target)]
        self.copies[source.id] = target
        while pending:
            old, new = pending.pop()
            self.attributes(old, new)
            for name in old:
                if new.name == "/" and name in _UNREAD:
                    continue
                item = self.linked(old, name)
                if item.id in self.copies:
                    new[name] = self.copies[item.id]
                    continue
                self.copies[item.id] = (
                    self.dataset(item, new, name) if hasattr(item, "dtype") else new.create_group(name)
                )
                if not hasattr(item, "dtype"):
                    pending.append((item, self.copies[item.id]))

    def linked(self, parent: Any, name: str) -> Any:
        import h5py

        item = parent.get(name) if isinstance(parent.get(name, getlink=True), h5py.HardLink) else None
        away = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
        if item is None or away:
            raise ValueError(f"the weights {parent.name}/{name} are in another file, which is not followed")
        if not isinstance(item, (h5py.Dataset, h5py.Group)):
            raise ValueError(f"{parent.name}/{name} is no array")
        return item

    def dataset(self, source: Any, target: Any, name: str) -> Any:
        self.take(source.nbytes)
        new = target.create_dataset(name, data=source[()])
        self.attributes(source, new)
        return new

    def attributes(self, source: Any, target: Any) -> None:
        for name in source.attrs:
            kept = source.attrs.get_id(name)
            self.take(math.prod(kept.shape) * kept.dtype.itemsize)
            target.attrs[name] = source.attrs[name]

    def take(self, size: int) -> None:
        """Count what is going to be read, before any memory is taken for it."""
        self.left -= size
        if self.left < 0:
            raise ValueError("its arrays are far larger than the file")


def _main(source: str, target: str, largest: str, seconds: str) -> None:
    """In the other process, which may compute for so many seconds once h5py is there."""
    import h5py

    _limit(int(seconds))
    try:
        with h5py.File(source, "r") as old, h5py.File(target, "w", libver="latest") as new:
            _Copying(int(largest)).group(old, new)
    except Exception as error:  # h5py has no exception of its own for damage
        print(str(error).replace("\n", " "))
        sys.exit(1)


def _limit(seconds: int) -> None:
    """End this process when it has computed for so much longer, where the system can."""
    with suppress(ImportError):
        import resource

        used = math.ceil(sum(os.times()[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + seconds + 1))


if __name__ == "__main__":
    _main(*sys.argv[1:])
