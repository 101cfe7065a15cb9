"""A first build and a first loading, in a process of its own, of what is to run on a GPU.

GeNN ends the process where nvcc fails in its search for block sizes, and wherever CUDA reports an error. What went well
here is there already when it is done again, so that nothing is compiled twice.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from ...ir import BackendError, Network, SnncError, load, save
from . import gpu
from .connectivity import Machine
from .options import Options
from .process import Program, answers, reply


def rehearse(network: Network, options: Options, machine: Machine, folder: Path) -> int:
    """Build and load `network` once, in another process; the build is kept in `options.folder`.

    `folder` is for files of the rehearsal. Returns the bytes that the loaded network takes on the GPU; raises
    BackendError, with the cause and the way out, where it cannot be built or loaded.
    """
    file = folder / "network.snn"
    save(network, file)
    program = Program("rehearsal", (file, options, machine), folder / "rehearsal.log")
    try:
        answer = program.answer()
    except BackendError:
        raise BackendError(_obituary(program, folder)) from None
    finally:
        program.end()
        file.unlink()
    if isinstance(answer, SnncError):
        raise answer
    return int(answer)


def _obituary(program: Program, folder: Path) -> str:
    logs = [path.read_text(errors="replace") for path in folder.glob("*/build.log")]
    lines = [line for log in logs for line in log.splitlines()] + program.last_words()
    cause = (
        gpu.complaint("\n".join(lines))
        or f"its process {program.ending()}; see its last words, or compile with device='cpu'"
    )
    return "\n  ".join([f"GeNN could not build the network: {cause}", *lines[-10:]])


def main() -> None:
    """Answer with the bytes taken on the GPU, or with the error."""
    stream = answers()
    from .compiled import CompiledGenn

    file, options, machine = pickle.load(sys.stdin.buffer)
    try:
        compiled = CompiledGenn(load(file), options, machine, apart=False)
        before = gpu.free_memory()
        with compiled.loaded():
            reply(stream, before - gpu.free_memory())
    except SnncError as error:
        reply(stream, error)


if __name__ == "__main__":
    main()
