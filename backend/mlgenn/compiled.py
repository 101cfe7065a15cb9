"""Spiking networks on GeNN: the build, and the time loop."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pygenn.genn_model import backend_modules

from ...ir import BackendError, IntegrateFire, Network
from ..compiled import CompiledSpiking, Recording
from .compiler import WindowCompiler
from .emit import emit

GPU_BATCH = 128


class CompiledGenn(CompiledSpiking):
    """A spiking network on GeNN: on a GPU where pygenn was built for one, else on the CPU, one image at a time.

    `mlgenn_network` is the emitted mlGeNN network, `populations` its populations by their names in the IR, and
    `mlgenn_compiled` what mlGeNN's compiler made of it. One can go on from there in mlGeNN: an output's readout
    is its membrane potential or, where it fires, its spike count.
    """

    def __init__(self, network: Network):
        super().__init__(network)
        assert network.timesteps is not None  # verified
        self._timesteps = network.timesteps
        self._steps = network.timesteps + max(network.depth.values())
        self._batch = 1 if next(iter(backend_modules)) == "single_threaded_cpu" else GPU_BATCH
        self._firing = [name for name, p in network.populations.items() if isinstance(p.neuron, IntegrateFire)]
        self.mlgenn_network, self.populations = emit(network)
        folder = tempfile.mkdtemp(prefix="snnc-genn-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with _build_errors(Path(folder, "build.log")):
            self.mlgenn_compiled = WindowCompiler(self._steps, self._batch).compile(self.mlgenn_network, "snnc")
            self.mlgenn_compiled.genn_model.build(folder)

    def _run(self, inputs: dict[str, np.ndarray], trains: bool) -> Iterator[Recording]:
        images = len(next(iter(inputs.values())))
        # not mlGeNN's context manager: it allows one network at a time, and none any more after a failure to load
        self.mlgenn_compiled.genn_model.load()
        try:
            for start in range(0, images, self._batch):
                yield self._run_batch({name: x[start : start + self._batch] for name, x in inputs.items()}, trains)
        finally:
            self.mlgenn_compiled.genn_model.unload()

    def _run_batch(self, inputs: dict[str, np.ndarray], trains: bool) -> Recording:
        images = len(next(iter(inputs.values())))
        decoded = {name: self._empty(name, images, np.float32) for name in self.network.outputs}
        counts = {name: self._empty(name, images, np.int32) for name in self._firing if trains}
        self.mlgenn_compiled.set_input({self.populations[name]: x for name, x in inputs.items()})
        self.mlgenn_compiled.genn_model.timestep = 0
        for step in range(self._steps):
            self.mlgenn_compiled.step_time()
            for name, t in self._inside(decoded, step):
                decoded[name][t] = self._decode(name, t + 1)[:images]
            for name, t in self._inside(counts, step):
                counts[name][t] = self._pull(name, "Count")[:images]
        return Recording(
            {name: self._pull(name, "Count")[:images].astype(np.int32) for name in self._firing},
            {name: self._pull(name, "V")[:images] for name in self.populations if name not in self.network.inputs},
            decoded,
            {name: np.diff(after, axis=0, prepend=0) > 0 for name, after in counts.items()} if trains else None,
        )

    def _inside(self, names: Iterable[str], step: int) -> Iterator[tuple[str, int]]:
        """Those populations whose window holds the network's step `step`, and which step of the window it is."""
        for name in names:
            t = step - self.network.depth[name]
            if 0 <= t < self._timesteps:
                yield name, t

    def _empty(self, name: str, images: int, dtype: type) -> np.ndarray:
        return np.empty((self._timesteps, images, *self.network.populations[name].shape), dtype)

    def _decode(self, name: str, steps: int) -> np.ndarray:
        """The activation of an output after `steps` steps of its window, (batch, *shape)."""
        neuron = self.network.populations[name].neuron
        if isinstance(neuron, IntegrateFire):
            return np.float32(neuron.v_thresh) * self._pull(name, "Count").astype(np.float32) / np.float32(steps)
        return self._pull(name, "V") / np.float32(steps)

    def _pull(self, name: str, variable: str) -> np.ndarray:
        """A copy of a population's GeNN variable, (batch, *shape)."""
        values = self.mlgenn_compiled.neuron_populations[self.populations[name]].vars[variable]
        values.pull_from_device()
        return values.view.reshape(self._batch, *self.network.populations[name].shape).copy()


@contextmanager
def _build_errors(log: Path) -> Iterator[None]:
    """What mlGeNN, GeNN and the C++ compiler write goes into `log`; their failure becomes a BackendError."""
    try:
        with _output_to(log):
            yield
    except Exception as error:
        end = log.read_text(errors="replace").splitlines()[-10:]
        raise BackendError("\n  ".join([f"GeNN could not build the network: {error}", *end])) from None


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
