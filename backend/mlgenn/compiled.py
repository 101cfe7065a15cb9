"""Spiking networks on GeNN: the build, and the time loop."""

from __future__ import annotations

import weakref
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ...ir import BackendError, DataError, Images, Network, PoissonInput, SpikingNeuron, as_inputs, as_labels
from ...ir.cost import readable
from ..compiled import CompiledSpiking, Recording, Wanted
from . import gpu
from .build import build, build_errors, fingerprint, keep, load_errors, private_folder, remove
from .compiler import WindowCompiler
from .connectivity import Machine, choose, require_memory
from .emit import emit, is_constant
from .machine import CPU, GPU_BATCH, describe, free_memory, genn_backend
from .neurons import SPIKES, STEADY
from .options import Options
from .pool import Pool
from .rehearsal import rehearse

KERNELS = ("init", "init_sparse", "neuron_update", "presynaptic_update", "postsynaptic_update", "synapse_dynamics")


@dataclass
class _Reading:
    """What is read of a batch of images on its way through the network, `steps` of which are done.

    `said` and `decoded` hold the arrays of one step each, `counts` and `potentials` those of the last.
    """

    inputs: dict[str, np.ndarray]
    steps: int = 0
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    said: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    decoded: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    potentials: dict[str, np.ndarray] = field(default_factory=dict)


class CompiledGenn(CompiledSpiking):
    """A spiking network on GeNN: on a GPU where pygenn was built for one, else on the CPU, one image at a time.

    `mlgenn_network` is the emitted mlGeNN network, `populations` its populations by their names in the IR, and
    `mlgenn_compiled` what mlGeNN's compiler made of it; `edges` says how each connection is stored. One can go on
    from there in mlGeNN: an output's readout is its membrane potential or, where it fires, its spike count, or the
    sum of what its spikes count as. `mlgenn_evaluate` takes mlGeNN's metrics and callbacks.

    A batch of images is shown every period. In a rate network that is its whole run; the images of a few-spike
    network follow one another a phase apart, so as many batches are on their way as the network is deep.

    GeNN has one random generator, seeded with the seed of the first `PoissonInput`, and every evaluation seeds it anew.

    `kernel_times` holds, with the option `kernel_profiling`, the seconds that the last evaluation spent in each
    of GeNN's kernels.

    `machine` is as `describe` gives it. A GPU's build is first made `apart`, in another process.
    """

    def __init__(self, network: Network, options: Options, machine: Machine | None = None, *, apart: bool = True):
        super().__init__(network)
        assert network.timesteps is not None  # verified
        self._timesteps = network.timesteps
        self._period = self._timesteps if network.is_phased else network.latency
        self._periods = network.latency // self._period
        self._records = bool(options.record_spikes)
        self._firing = [name for name in network.populations if _neuron(network, name).fires]
        self.kernel_times: dict[str, float] = {}
        backend = genn_backend(options.device)
        _require_possible(network, options, backend)
        self._batch = options.batch_size or (1 if backend == CPU else GPU_BATCH)
        machine = machine or describe(backend, self._batch, options.workers)
        self.edges = choose(network, machine, options.matrix_type)
        require_memory(self.edges, free_memory(), options.workers)
        private = private_folder(options.folder)
        give_up = weakref.finalize(self, remove, private)
        apart = apart and backend == "cuda" and options.communicator is None
        kept = options.folder or (private / "shared" if options.workers > 1 or apart else None)
        self._gpu_bytes = 0
        self._turn = Lock()
        try:
            if apart:
                self._gpu_bytes = rehearse(network, replace(options, device="gpu", folder=kept), machine, private)
            self._build(backend, options, private, kept)
        except BaseException:
            give_up()
            raise
        self._pool = Pool(network, replace(options, workers=1, folder=kept), options.workers, private)
        weakref.finalize(self, self._pool.end)  # made later, so called earlier: workers write into the folder

    def _build(self, backend: str, options: Options, private: Path, kept: Path | None) -> None:
        with build_errors(private / "build.log", backend):
            self.mlgenn_network, self.populations = emit(self.network, self.edges, options.record_spikes)
            self.mlgenn_compiled = self._compiler(backend, options).compile(self.mlgenn_network, "snnc")
            genn_model = self.mlgenn_compiled.genn_model
            key = fingerprint(self.mlgenn_network, self.edges, genn_model)
            store = kept / f"snnc-{key}" if kept else None
            build(genn_model, private, store)
        if store:
            keep(genn_model, private, store)  # out here, where a warning is seen

    def mlgenn_evaluate(
        self,
        x: Images,
        y: Any,
        *,
        metrics: Any = "sparse_categorical_accuracy",
        callbacks: Sequence[Any] = ("batch_progress_bar",),
    ) -> tuple[dict[str, Any], dict[Any, Any]]:
        """Evaluate with mlGeNN's own loop: its metrics by output, and what its callbacks recorded.

        `x` and `y` are as for `evaluate`; `metrics` is one of mlGeNN's metrics for all outputs, and `callbacks` are
        mlGeNN's, as `SpikeRecorder(compiled.populations["conv"], key="conv")` where the network was compiled with
        `record_spikes=["conv"]`. mlGeNN reads an output that fires by its spikes, whatever they stand for: where each
        channel has its own threshold, its classes are not those of `evaluate`. Raises DataError for data that does not
        fit.
        """
        inputs = as_inputs(self.network, x)
        labels = as_labels(self.network, y, len(next(iter(inputs.values()))))
        if several := [name for name, rows in labels.items() if rows.ndim > 1]:
            raise DataError(f"mlGeNN's metrics are of classes; {', '.join(several)} was given several labels at once")
        shown, wanted = ({self.populations[name]: values for name, values in part.items()} for part in (inputs, labels))
        self._require_gpu_memory()
        with self._alone(), self.mlgenn_compiled:
            found, recorded = self.mlgenn_compiled.evaluate(shown, wanted, metrics=metrics, callbacks=[*callbacks])
        return {name: found[self.populations[name]] for name in labels}, recorded

    def _compiler(self, backend: str, options: Options) -> WindowCompiler:
        depths = {self.populations[name]: depth for name, depth in self.network.depth.items()}
        return WindowCompiler(
            self._period,
            self._batch,
            _seed(self.network),
            self._arriving(),
            depths if self.network.is_phased else None,
            kernel_profiling=options.kernel_profiling,
            communicator=options.communicator,
            backend=backend,
        )

    def _arriving(self) -> dict[Any, str]:
        """mlGeNN's connections that bring a constant current, or go to a second port, and where they arrive."""
        pairs = list(zip(self.network.connections, self.mlgenn_network.connections, strict=True))
        kinds = ((STEADY if is_constant(self.network, edge) else SPIKES, edge, emitted) for edge, emitted in pairs)
        return {emitted: names[edge.port] for names, edge, emitted in kinds if names[edge.port] != SPIKES[0]}

    def _run(self, inputs: dict[str, np.ndarray], wanted: Wanted) -> Iterator[Recording]:
        with self._alone():
            if self._pool.size > 1:
                yield from self._pool.run(inputs, wanted)
                return
            with self.loaded():
                yield from self.stream(inputs, wanted)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """There is one model in memory, or one set of workers, whichever thread asks for it."""
        if not self._turn.acquire(blocking=False):
            raise BackendError("the network is being run already: finish that run, or compile the network once more")
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """The model in memory."""
        # not mlGeNN's context manager: it allows one network at a time, and none any more after a failure to load
        genn_model = self.mlgenn_compiled.genn_model
        with load_errors(genn_model):
            self._require_gpu_memory()
            genn_model.load(num_recording_timesteps=self._period if self._records else None)
        try:
            yield
        finally:
            if genn_model.timing_enabled:
                self.kernel_times = {name: getattr(genn_model, f"{name}_time") for name in KERNELS}
            genn_model.unload()

    def _require_gpu_memory(self) -> None:
        """GeNN ends the process where a GPU has too little."""
        if not self._gpu_bytes:
            return
        free = max(each.free for each in gpu.gpus())
        if free < self._gpu_bytes:
            raise BackendError(
                f"the network needs {readable(self._gpu_bytes)} on the GPU, and {readable(free)} are free: "
                f"end what else runs there, or compile with a batch_size below {self._batch}"
            )

    def stream(self, inputs: dict[str, np.ndarray], wanted: Wanted) -> Iterator[Recording]:
        """Simulate the images with the model that is loaded."""
        images = len(next(iter(inputs.values())))
        batches = (
            {name: x[start : start + self._batch] for name, x in inputs.items()}
            for start in range(0, images, self._batch)
        )
        under_way: deque[_Reading] = deque()
        for batch in chain(batches, repeat(None, self._periods - 1)):
            if batch is not None:
                self.mlgenn_compiled.set_input({self.populations[name]: x for name, x in batch.items()})
                under_way.append(_Reading(batch))
            self.mlgenn_compiled.genn_model.timestep = 0
            for _ in range(self._period):
                self.mlgenn_compiled.step_time()
                for reading in under_way:
                    self._read(reading, wanted)
            if under_way[0].steps == self._period * self._periods:
                yield self._recording(under_way.popleft(), wanted)

    def _read(self, reading: _Reading, wanted: Wanted) -> None:
        """After a step: read the populations whose window holds it, before the next step changes what is to be read."""
        images = len(next(iter(reading.inputs.values())))
        for name in self.network.populations:
            t = reading.steps - self.network.depth[name] * self.network.pace
            if not 0 <= t < self._timesteps:
                continue
            is_last = t == self._timesteps - 1
            if name in self._firing and is_last:
                reading.counts[name] = self._pull(name, "Count")[:images]
            if name in wanted.trains:
                reading.said[name].append(self._pull(name, self.populations[name].neuron.output)[:images])
            if name in self.network.outputs and (is_last or not self.network.is_phased):
                taken_in = t + 1 if name in self._firing else min(t + 1 + self.network.ahead(name), self._timesteps)
                reading.decoded[name].append(self._decode(name, taken_in)[:images])
            if wanted.each_image and name not in self.network.inputs and is_last:
                reading.potentials[name] = self._pull(name, "V")[:images]
        reading.steps += 1

    def _recording(self, reading: _Reading, wanted: Wanted) -> Recording:
        counts = {name: reading.counts[name].astype(np.int32) for name in self._firing}
        if not wanted.each_image:
            counts = {name: each.sum(0, dtype=np.int64, keepdims=True) for name, each in counts.items()}
        return Recording(
            counts,
            reading.potentials,
            {name: np.stack(reading.decoded[name]) for name in self.network.outputs},
            {name: self._train(name, reading) for name in wanted.trains} if wanted.trains else None,
        )

    def _train(self, name: str, reading: _Reading) -> np.ndarray:
        """The spikes of each step: by how much what they add up to has grown."""
        spikes = np.diff(np.stack(reading.said[name]).astype(np.float64), axis=0, prepend=0)
        return (np.sign(spikes) if self.network.is_phased else spikes).astype(np.int8)

    def _decode(self, name: str, steps: int) -> np.ndarray:
        """The activation of an output after `steps` steps of its window, (batch, *shape)."""
        total = self._pull(name, self.populations[name].neuron.output).astype(np.float32)
        total = total * np.float32(_neuron(self.network, name).amplitude)
        return total if self.network.is_phased else total / np.float32(steps)

    def _pull(self, name: str, variable: str) -> np.ndarray:
        """A copy of a population's GeNN variable, (batch, *shape)."""
        values = self.mlgenn_compiled.neuron_populations[self.populations[name]].vars[variable]
        values.pull_from_device()
        return values.view.reshape(self._batch, *self.network.populations[name].shape).copy()


def _neuron(network: Network, name: str) -> SpikingNeuron:
    neuron = network.populations[name].neuron
    assert isinstance(neuron, SpikingNeuron)  # verified
    return neuron


def _seed(network: Network) -> int:
    """What GeNN's random generator starts from. GeNN takes 0 for "any", so no seed may become that."""
    seeds = [p.neuron.seed for p in network.populations.values() if isinstance(p.neuron, PoissonInput)]
    return (seeds or [0])[0] % (2**32 - 1) + 1


def _require_possible(network: Network, options: Options, backend: str) -> None:
    silent = [name for name in options.record_spikes if name not in network.populations]
    if silent:
        raise BackendError(f"record_spikes names {', '.join(silent)}; there are: {', '.join(network.populations)}")
    if options.communicator is not None and backend != "cuda":
        raise BackendError(f"a communicator joins several GPUs, and this pygenn's backend is {backend!r}")
    if backend == "cuda" and (options.batch_size or 1) > gpu.LARGEST_BATCH:
        raise BackendError(
            f"on a GPU GeNN simulates up to {gpu.LARGEST_BATCH} images at once, not {options.batch_size}"
        )
    if backend == CPU and (options.batch_size or 1) > 1:
        raise BackendError("on a CPU GeNN simulates one image at a time: leave out batch_size, and give workers=…")
    if options.workers == 1:
        return
    if backend != CPU:
        raise BackendError("workers share the work of a CPU, and this is a GPU: compile with workers=1 or device='cpu'")
    if any(isinstance(population.neuron, PoissonInput) for population in network.populations.values()):
        raise BackendError(
            "the spikes of Poisson inputs are drawn one image after the other, and workers would change them: "
            "compile with workers=1"
        )
