"""Several processes side by side, each with its own copy of the built model, for CPUs on which GeNN uses one core."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from ...ir import Network, save
from ..compiled import Recording, Wanted
from .options import Options
from .process import Program

SHARD = 32
Request = tuple[dict[str, np.ndarray], Wanted]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Pool:
    """`size` workers, started when they are first needed, that simulate images. `folder` is for their files."""

    def __init__(self, network: Network, options: Options, size: int, folder: Path):
        self.size = size
        self._network = network
        self._options = options
        self._folder = folder
        self._workers: list[Program] = []

    def run(self, inputs: dict[str, np.ndarray], wanted: Wanted) -> Iterator[Recording]:
        """Simulate the images in shards; the recordings come in the order of the images."""
        images = len(next(iter(inputs.values())))
        shard = max(1, min(SHARD, -(-images // (4 * self.size))))
        executor = ThreadPoolExecutor(self.size)
        under_way: deque[Future[list[Recording]]] = deque()
        try:
            idle = self._idle()
            for start in range(0, images, shard):
                request = ({name: x[start : start + shard] for name, x in inputs.items()}, wanted)
                under_way.append(executor.submit(_ask, idle, request))
                if len(under_way) > 2 * self.size:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BaseException:  # answers are on their way that nobody will read
            self.end()
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def end(self) -> None:
        """End the workers; the next run starts others."""
        while self._workers:
            self._workers[-1].end()
            self._workers.pop()  # now, as Ctrl-C may come once more

    def _idle(self) -> SimpleQueue[Program]:
        if not self._workers:
            file = self._folder / "network.snn"
            save(self._network, file)
            for number in range(self.size):
                log = self._folder / f"worker{number}.log"
                self._workers.append(Program("worker", (file, self._options), log, ONE_THREAD))
        idle: SimpleQueue[Program] = SimpleQueue()
        for worker in self._workers:
            idle.put(worker)
        return idle


def _ask(idle: SimpleQueue[Program], request: Request) -> list[Recording]:
    worker = idle.get()
    try:
        recordings: list[Recording] = worker.ask(request)
        return recordings
    finally:
        idle.put(worker)
