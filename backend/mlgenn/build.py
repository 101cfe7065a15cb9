"""The build: GeNN's code in a folder of its own, kept for the next time, and errors that say what to do."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_genn

from ...ir import BackendError, BackendWarning
from . import gpu
from .connectivity import Edge
from .machine import CPU

PAUSES = (0.01, 0.1, 0.5, 1.0, 0.0)  # seconds, between attempts to remove a folder


def build(genn_model: Any, private: Path, store: Path | None) -> None:
    """Generate and compile a model's code in the folder `private`, from which it will be loaded.

    Nothing is ever loaded from `store`, as a library that is loaded twice shares its state. It is where an earlier
    build was kept, which is put in place before GeNN looks, by the digest of all that its code depends on, whether
    anything is left to be done. So a name that says too little costs time, but is never wrong.
    """
    code = _code(genn_model, private)
    if store and store.is_dir():
        try:
            shutil.copytree(store, code)
        except OSError:  # another process is replacing it
            shutil.rmtree(code, ignore_errors=True)
    genn_model.build(str(private))


def keep(genn_model: Any, private: Path, store: Path) -> None:
    """Copy a finished build to `store`, as a whole or not at all, unless it stands there.

    Where that fails, the build is none the worse, so that it is only a BackendWarning.
    """
    code = _code(genn_model, private)
    if _digest(code) == _digest(store):
        return
    try:
        store.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".snnc-", dir=store.parent, ignore_cleanup_errors=True) as beside:
            shutil.copytree(code, Path(beside, "new"))
            if store.exists():
                store.rename(Path(beside, "old"))
            Path(beside, "new").rename(store)
    except OSError as error:
        if _digest(code) != _digest(store):  # else another process was faster
            warnings.warn(
                f"GeNN has built the network, but {store.parent} could not keep the build: {_cause(error)}. "
                "Make room there, or choose another folder, so as not to build it again next time",
                BackendWarning,
                stacklevel=2,
            )


def fingerprint(emitted: ml_genn.Network, edges: Sequence[Edge], genn_model: Any) -> str:
    """What tells apart the builds that a folder keeps: what GeNN writes into code, and who writes and compiles it.

    Arrays, as of weights and thresholds per channel, are loaded when the model is; numbers stand in the code.
    """
    parts: list[Any] = [version("pygenn"), version("ml_genn"), os.environ.get("CXX"), genn_model.backend_name]
    parts += [genn_model.batch_size, genn_model.seed, genn_model.timing_enabled]
    for population in emitted.populations:
        values = population.neuron.parameters.items()
        numbers = [(name, value) for name, value in values if not getattr(value, "shape", ())]
        parts += [population.name, population.shape, population.neuron.code, numbers, population.record_spikes]
    for edge, connection in zip(edges, emitted.connections, strict=True):
        weight = connection.connectivity.weight
        shared = getattr(weight, "shape", weight) if edge.matrix_type != "SPARSE" or edge.kind == "OneToOne" else None
        parts += [connection.name, edge.connection.port, edge.connection.delay]
        parts += [edge.kind, edge.matrix_type, edge.bytes, shared]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def private_folder(kept: Path | None) -> Path:
    """A new folder to build in. Raises BackendError where it, or the one that is to keep builds, cannot be written."""
    try:
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=kept).close()
        return Path(tempfile.mkdtemp(prefix="snnc-genn-"))
    except OSError as error:
        raise BackendError(f"GeNN's code cannot be written: {error}. Choose another folder") from None


def remove(folder: Path) -> None:
    """Remove a folder, even if Ctrl-C comes meanwhile, or what was ended has still been writing there."""
    interrupt: KeyboardInterrupt | None = None
    for pause in PAUSES:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(pause)
        except KeyboardInterrupt as again:
            interrupt = again
    if interrupt:
        raise interrupt


@contextmanager
def build_errors(log: Path, backend: str) -> Iterator[None]:
    """What mlGeNN, GeNN and the C++ compiler write goes into `log`; their failure becomes a BackendError."""
    try:
        with _output_to(log):
            yield
    except BackendError:
        raise
    except Exception as error:
        end = log.read_text(errors="replace").splitlines()[-10:]
        cause = _missing() or gpu.complaint("\n".join(end)) or error
        lines = [f"GeNN could not build the network: {cause}", *end]
        if backend != CPU:
            lines.append("without a GPU that works, compile with device='cpu'")
        raise BackendError("\n  ".join(lines)) from None


@contextmanager
def load_errors(genn_model: Any) -> Iterator[None]:
    """A model that cannot be loaded becomes a BackendError, and gives back what memory it had got."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        genn_model._runtime = None
        cause = "too little memory is free" if isinstance(error, MemoryError) else f"{error}. Compile it anew"
        raise BackendError(f"GeNN could not load the network: {cause}") from None


def _missing() -> str | None:
    """Which program the build lacks, and what to do."""
    compiler = shlex.split(os.environ.get("CXX") or "g++")[0]
    needed = {"make": "make", compiler: "the C++ compiler"}
    for program, what in needed.items():
        if shutil.which(program) is None:
            name = what if what == program else f"{what} {program}"
            return f"{name} was not found; on Debian, apt-get install g++ make, or name another compiler in CXX"
    return None


def _code(genn_model: Any, private: Path) -> Path:
    """Where GeNN puts a model's code."""
    return private / f"{genn_model.name}_CODE"


def _digest(code: Path) -> str | None:
    """GeNN's digest of the model whose code stands in a folder."""
    file = code / "model.sha"
    return file.read_text() if file.is_file() else None


def _cause(error: OSError) -> str:
    """What copying a folder failed for: the first of what shutil lists."""
    listed = error.args[0] if isinstance(error, shutil.Error) else None
    return str(listed[0][-1] if isinstance(listed, list) and listed else error.strerror or error)


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Redirect the process's own stdout and stderr, where the compilers that GeNN starts write too."""
    _flush()
    originals = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("wb") as file:
        try:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield
        finally:
            _flush()
            for descriptor, original in zip((1, 2), originals, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
