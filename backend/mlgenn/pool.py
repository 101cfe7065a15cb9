"""Several processes side by side, each with its own copy of the built model, for CPUs on which GeNN uses one core."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from ...ir import BackendError, Network, save
from ..compiled import Recording, Wanted
from .options import Options

SHARD = 32
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Pool:
    """`size` workers, started when they are first needed, that simulate images. `folder` is for their files."""

    def __init__(self, network: Network, options: Options, size: int, folder: Path):
        self.size = size
        self._network = network
        self._options = options
        self._folder = folder
        self._workers: list[_Worker] = []
        weakref.finalize(self, _end, self._workers)

    def run(self, inputs: dict[str, np.ndarray], wanted: Wanted) -> Iterator[Recording]:
        """Simulate the images in shards; the recordings come in the order of the images."""
        images = len(next(iter(inputs.values())))
        shard = max(1, min(SHARD, -(-images // (4 * self.size))))
        idle = self._idle()
        executor = ThreadPoolExecutor(self.size)
        under_way: deque[Future[list[Recording]]] = deque()
        try:
            for start in range(0, images, shard):
                request = ({name: x[start : start + shard] for name, x in inputs.items()}, wanted)
                under_way.append(executor.submit(_ask, idle, request))
                if len(under_way) > 2 * self.size:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BaseException:  # answers are on their way that nobody will read
            _end(self._workers)
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def _idle(self) -> SimpleQueue[_Worker]:
        if not self._workers:
            file = self._folder / "network.snn"
            save(self._network, file)
            for number in range(self.size):
                self._workers.append(_Worker((file, self._options), self._folder / f"worker{number}.log"))
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            idle.put(worker)
        return idle


class _Worker:
    """A process that runs `worker.py`, given `task` to begin with; what it prints goes into `log`.

    It is a program of its own: not a fork, in which GeNN and threads would be in an unknown state, and not one of
    multiprocessing's, which would run the user's script again.
    """

    def __init__(self, task: Any, log: Path):
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                # TMPDIR, as a process that is killed leaves behind what it wrote
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(log.parent)},
            )
        with suppress(OSError):  # the first question will find out
            self.tell(task)

    def tell(self, message: Any) -> None:
        assert self.process.stdin is not None
        pickle.dump(message, self.process.stdin, pickle.HIGHEST_PROTOCOL)
        self.process.stdin.flush()

    def ask(self, request: Any) -> Any:
        assert self.process.stdout is not None
        try:
            self.tell(request)
            return pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise BackendError(self.ending()) from None

    def ending(self) -> str:
        """How the process came to its end, and its last words."""
        code = self.process.wait()
        how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
        hint = ", perhaps for want of memory: compile with fewer workers" if code == -9 else ""
        return "\n  ".join([f"a worker ended {how}{hint}", *self.log.read_text(errors="replace").splitlines()[-10:]])


def _ask(idle: SimpleQueue[_Worker], request: Any) -> list[Recording]:
    worker = idle.get()
    try:
        recordings: list[Recording] = worker.ask(request)
        return recordings
    finally:
        idle.put(worker)


def _end(workers: list[_Worker]) -> None:
    while workers:
        process = workers.pop().process
        process.kill()
        process.communicate()
