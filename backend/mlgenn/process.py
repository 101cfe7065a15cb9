"""A program of this package in a process of its own, which is asked over pipes: GeNN may end it, but not us."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...ir import BackendError


class Program:
    """Runs the package's module `name`, given `task` to begin with; what it prints goes into `log`.

    It is not a fork, in which GeNN, CUDA and threads would be in an unknown state, and not a process of
    multiprocessing's, which would run the user's script again.
    """

    def __init__(self, name: str, task: Any, log: Path, environment: dict[str, str] | None = None):
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.{name}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                # TMPDIR, as a process that is killed leaves behind what it wrote
                env={**os.environ, **(environment or {}), "PYTHONPATH": _path(), "TMPDIR": str(log.parent)},
                start_new_session=True,  # Ctrl-C does not reach it, and all that it starts can be ended with it
            )
        try:
            with suppress(OSError):  # the first question will find out
                self._tell(task)
        except BaseException:  # Ctrl-C, and nobody has it yet who could end it
            self.end()
            raise

    def ask(self, request: Any) -> Any:
        """Its answer to `request`. Raises BackendError, with its last words, where it ends instead."""
        with suppress(OSError):
            self._tell(request)
        return self.answer()

    def answer(self) -> Any:
        """Its next answer, if it gives one unasked. Raises BackendError as `ask` does."""
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise BackendError("\n  ".join([f"a worker {self.ending()}", *self.last_words()])) from None

    def ending(self) -> str:
        """How the process came to its end."""
        code = self.process.wait()
        how = f"ended with exit code {code}" if code >= 0 else f"ended by signal {-code}"
        return f"{how}, perhaps for want of memory: compile with fewer workers" if code == -signal.SIGKILL else how

    def last_words(self) -> list[str]:
        """The last lines of its log."""
        return self.log.read_text(errors="replace").splitlines()[-10:]

    def end(self) -> None:
        """End it, and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def _tell(self, message: Any) -> None:
        assert self.process.stdin is not None
        pickle.dump(message, self.process.stdin, pickle.HIGHEST_PROTOCOL)
        self.process.stdin.flush()


def answers() -> BinaryIO:
    """In the program: where its answers go. Whatever else it prints is kept out of them."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def reply(stream: BinaryIO, answer: Any) -> None:
    """In the program: give an answer."""
    pickle.dump(answer, stream, pickle.HIGHEST_PROTOCOL)
    stream.flush()


def _path() -> str:
    return os.pathsep.join(sys.path)
