"""One population with its incoming connections, compiled: what the engine runs, and what calibration sweeps over.

Weights are added up per spike (`events.py`), or onnxruntime applies the linear maps to [steps · images] at once. A
kernel runs the neurons. What graded inputs send, and biases, are the same in every step and computed once per image. A
few-spike population is run for its whole phase at once: what it sends is one number, Σ 2^−step over its spikes. Where
a soma computes more than a rectifier, one graph goes from what its sources send to what it makes of all that. The
inputs of a tracking population are added up over time; a graph goes from the sums to what is to be said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnxruntime

from ...ir import (
    Clip,
    Connection,
    FewSpikeFunction,
    FewSpikeInput,
    FewSpikeNeuron,
    FewSpikeReadout,
    Flatten,
    Function,
    Integrate,
    IntegrateFire,
    IntegrateFireInput,
    Network,
    Neuron,
    PoissonInput,
    Population,
    Product,
    Relu,
    Shape,
    SpikeEncoding,
    SpikeInput,
    SpikingNeuron,
    Tracking,
)
from ..weights import weighted
from . import kernels
from .blocked import Tensor, block_size, emit, emit_pooled
from .emit import GraphBuilder, emit_neuron, emit_operators, run_into
from .events import SLACK, Events
from .layout import CHANNELS_FIRST, Layout
from .resources import Buffers


@dataclass
class State:
    """What a layer carries through the time of one batch of images, whose `numbers` are given: (images, neurons).

    `constant` is the part of the summed input, before any pooling, that is the same in every step, and (1, neurons)
    where it is the same for every image; `sign` is that of a signed input's spikes. With `totals`, `counts` has one row
    for all images, and `v` has only one, too, if the whole run is a single phase. `stopped` has the counts of images
    that are no longer in the batch. `graded` is what graded inputs send. Tracking neurons have added up their inputs
    to `x`, and sent spikes that add up to `said`.
    """

    constant: np.ndarray
    v: np.ndarray
    counts: np.ndarray
    sign: np.ndarray | None
    numbers: np.ndarray
    totals: bool
    stopped: np.ndarray
    graded: Mapping[str, np.ndarray]
    x: np.ndarray | None = None
    said: np.ndarray | None = None

    @property
    def images(self) -> int:
        return len(self.numbers)

    def keep(self, images: np.ndarray) -> None:
        """Go on with those of the images, (images,), that are marked."""
        if len(self.constant) == self.images:
            self.constant = self.constant[images]
        if self.sign is not None:
            self.sign = self.sign[images]
        if not self.totals:
            self.stopped = self.stopped + self.counts[~images].sum(0)
            self.counts = self.counts[images]
        if self.x is not None and self.said is not None:
            self.x, self.said = self.x[images], self.said[images]
        self.v = self.v[images]
        self.numbers = self.numbers[images]

    def sums(self) -> np.ndarray:
        """What each neuron's spikes so far add up to, (images, neurons); a later step changes nothing here."""
        return self.counts.copy() if self.said is None else self.said.copy()

    def total(self) -> np.ndarray:
        """The spikes of each neuron over all images, (1, neurons), int64."""
        total = self.counts.sum(0, dtype=np.int64, keepdims=True)
        total += self.stopped
        return total


@dataclass(frozen=True)
class Layer:
    """A population that fires or integrates, ready to run."""

    population: Population
    layout: Layout
    steady: onnxruntime.InferenceSession | None  # sums the connections from graded inputs
    driven: onnxruntime.InferenceSession | None  # sums those from spikes that are not computed spike by spike
    events: tuple[Events, ...]  # the connections that are
    pooling: onnxruntime.InferenceSession | None  # takes the largest of each window of the summed input
    tracked: onnxruntime.InferenceSession | None  # makes of the sums over time what is to be said
    steady_sources: tuple[str, ...]
    driven_sources: tuple[str, ...]
    source_shapes: Mapping[str, Shape]
    source_layouts: Mapping[str, Layout]
    graded_sources: tuple[str, ...]
    timesteps: int
    ahead: int  # so many steps before the window opens the input begins to count

    @classmethod
    def of(cls, network: Network, name: str, threads: int) -> Layer:
        """Compile a population of a spiking network; what its sources' spikes stand for is folded into its weights.

        Linear maps are computed by so many threads.
        """
        population = network.populations[name]
        if isinstance(population.neuron, FewSpikeFunction):
            return cls._of_soma(network, population, threads)
        connections = network.incoming(name)
        steady = [c for c in connections if is_graded(network.populations[c.source].neuron)]
        spiking = [(c, _events(network, c)) for c in connections if not is_graded(network.populations[c.source].neuron)]
        driven = [c for c, events in spiking if events is None]
        return cls(
            population,
            Layout.of(network, name),
            _session(network, steady, threads),
            _session(network, driven, threads),
            tuple(events for _, events in spiking if events is not None),
            _pooling_session(network, name, threads),
            _tracked_session(population, threads),
            _sources(steady),
            _sources(driven),
            *_described(network, connections),
            network.timesteps or 1,
            network.ahead(name),
        )

    @classmethod
    def _of_soma(cls, network: Network, population: Population, threads: int) -> Layer:
        """A population whose soma computes something of all of its input, biases included."""
        connections = network.incoming(population.name)
        return cls(
            population,
            Layout.of(network, population.name),
            None,
            _soma_session(network, population, threads),
            (),
            None,
            None,
            (),
            _sources(connections),
            *_described(network, connections),
            network.timesteps or 1,
            network.ahead(population.name),
        )

    @property
    def name(self) -> str:
        return self.population.name

    @property
    def neuron(self) -> SpikingNeuron:
        assert isinstance(self.population.neuron, SpikingNeuron)  # verified
        return self.population.neuron

    @cached_property
    def _v_init(self) -> np.ndarray:
        return self.layout.per_position(getattr(self.neuron, "v_init", 0.0), self.population.shape)

    @cached_property
    def _amplitude(self) -> np.ndarray:
        return self.layout.per_position(self.neuron.amplitude, self.population.shape)

    @cached_property
    def _largest_v(self) -> np.ndarray:
        return self.layout.per_position(getattr(self.neuron, "largest_v", np.inf), self.population.shape)

    @cached_property
    def _bias(self) -> np.ndarray:
        """What is added to what the graphs give, (1, neurons)."""
        if isinstance(self.neuron, FewSpikeFunction):
            return np.zeros((1, self.population.size), np.float32)
        biases = ((shape, 0.0 if bias is None else bias) for shape, bias in self.population.ports)
        return np.concatenate([self.layout.per_position(bias, shape) for shape, bias in biases])[None]

    @property
    def _given_shape(self) -> Shape:
        """The shape of what the graphs give for one example: the summed input, or what the soma makes of all of it.

        The summed inputs of several ports lie flat, one behind the other.
        """
        if isinstance(self.neuron, FewSpikeFunction):
            return self.population.shape
        return self.population.input_shape if self.neuron.ports == 1 else (_given(self.population),)

    def external(self, x: np.ndarray) -> np.ndarray:
        """(…, neurons) in the engine's layout as (…, *population shape)."""
        return self.layout.outward(x, self.population.shape)

    @property
    def spiking_sources(self) -> tuple[str, ...]:
        """The populations whose spikes this one takes."""
        driven = (name for name in self.driven_sources if name not in self.graded_sources)
        return tuple(dict.fromkeys([*driven, *(edge.source for edge in self.events)]))

    def start(self, inputs: Mapping[str, np.ndarray], first_image: int, totals: bool = False) -> State:
        """The state before the first step, for `inputs` in the engine's layout: (images, …) by input.

        With `totals` spikes are counted over all images.
        """
        images = len(next(iter(inputs.values())))
        constant, sign = self._bias, None
        if self.neuron.is_input:
            constant, sign = _encoded(self.neuron, inputs[self.name].reshape(images, -1))
        if self.steady is not None:
            feed = {name: self._as_fed(inputs[name], name, images) for name in self.steady_sources}
            summed = np.empty((images, constant.shape[1]), np.float32)
            run_into(self.steady, feed, summed.reshape(images, *self.layout.shape(self._given_shape)))
            constant = np.add(summed, constant, out=summed)
        rows = 1 if totals else images
        v = np.empty((rows if self.neuron.phased else images, self.population.size), np.float32)
        v[:] = self._v_init
        numbers = np.arange(first_image, first_image + images)
        counts = np.zeros((rows, self.population.size), np.int32)
        state = State(constant, v, counts, sign, numbers, totals, np.zeros(1, np.int64), self._graded(inputs))
        if isinstance(self.neuron, Tracking):
            state.x = np.zeros((images, constant.shape[1]), np.float32)
            state.said = np.zeros((images, self.population.size), np.float32)
        return state

    def _graded(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {name: inputs[name] for name in self.graded_sources}

    def summed(self, steps: int, state: State, sent: Mapping[str, np.ndarray]) -> np.ndarray:
        """The whole input of every step, pooled where the neuron pools: (steps, images, neurons).

        Of a few-spike neuron that computes more than a rectifier it is what its soma makes of the input.
        """
        current, constant = self._input(steps, state, sent, Buffers())
        current += constant
        return current

    def _input(
        self, steps: int, state: State, sent: Mapping[str, np.ndarray], buffers: Buffers
    ) -> tuple[np.ndarray, np.ndarray]:
        """The input in two parts: (steps, images, neurons) and, the same in every step, as `State.constant`."""
        current = self._current(steps, state, sent, buffers)
        if self.pooling is None:
            return current, state.constant
        current += state.constant
        images = current.reshape(-1, *self.layout.shape(self.population.input_shape))
        pooled = buffers.take(len(images) * self.population.size)[: len(images) * self.population.size]
        run_into(self.pooling, {"summed": images}, pooled.reshape(-1, *self.layout.shape(self.population.shape)))
        buffers.give(current)
        return pooled.reshape(steps, state.images, -1), np.zeros_like(state.v[:1])

    def _current(self, steps: int, state: State, sent: Mapping[str, np.ndarray], buffers: Buffers) -> np.ndarray:
        """The input that changes from step to step, that from spikes, before any pooling."""
        images, neurons = state.images, state.constant.shape[1]
        rows = steps * images
        current = buffers.take(rows * neurons + SLACK)
        summed = current[: rows * neurons]
        if self.driven is not None:
            sending = {**sent, **state.graded}
            feed = {name: self._as_fed(sending[name], name, rows) for name in self.driven_sources}
            run_into(self.driven, feed, summed.reshape(rows, *self.layout.shape(self._given_shape)))
        elif not self.events:
            summed[:] = 0
        for number, edge in enumerate(self.events):
            spikes = sent[edge.source].reshape(rows, -1)
            edge.add(spikes, current, fresh=self.driven is None and number == 0)
        return summed.reshape(steps, images, neurons)

    def _as_fed(self, x: np.ndarray, source: str, rows: int) -> np.ndarray:
        """What a source sends, for `rows` examples, as graphs take it."""
        return x.reshape(rows, *self.source_layouts[source].shape(self.source_shapes[source]))

    def step(
        self,
        steps: int,
        state: State,
        sent: Mapping[str, np.ndarray],
        first: int = 0,
        buffers: Buffers | None = None,
    ) -> np.ndarray:
        """Advance by `steps` from step `first`: what a population sends or, if it does not fire, its potentials.

        `sent` has that of its sources, (steps, images, neurons). The result lies in one of `buffers`.
        """
        result, constant = self._input(steps, state, sent, buffers or Buffers())
        neuron = self.neuron
        if self.ahead and not neuron.phased:
            result, constant = self._awaited(result, constant)
        match neuron:
            case IntegrateFire() | IntegrateFireInput():
                soft, inclusive = neuron.reset == "subtract", neuron.comparison == ">="
                kernels.integrate_fire(result, constant, self._amplitude, state.v, state.counts, soft, inclusive)
            case Tracking():
                assert state.x is not None
                assert state.said is not None
                kernels.integrate(result, constant, state.x)
                result = self._tracked(result, first, buffers or Buffers())
                parameters = (self._amplitude, self._v_init, neuron.levels, *_bounds(neuron))
                time = self._taken_in(first, steps)
                kernels.track(result, *parameters, time, state.v, state.said, state.counts)
            case Integrate():
                kernels.integrate(result, constant, state.v)
            case PoissonInput():
                kernels.poisson(result, constant, state.counts, neuron.seed, state.numbers, first)
            case SpikeInput():
                result[:] = seen = constant != 0
                state.counts += steps * (seen if len(state.counts) == len(seen) else seen.sum(0))
            case FewSpikeNeuron():
                signed = isinstance(neuron, FewSpikeFunction) and neuron.signed
                run = kernels.few_spike_signed if signed else kernels.few_spike
                code = (self._amplitude, self._v_init, self._largest_v, neuron.k)
                run(result[0], constant, *code, state.v, state.counts)
            case FewSpikeReadout():
                state.v += result[0] + constant
                result[0] = state.v
        if state.sign is not None:
            result *= state.sign
        return result

    def _awaited(self, current: np.ndarray, constant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The input of all T steps, as `_input` gives it, as it counts in those of a window that opens later."""
        current += constant
        current[0] = current[: self.ahead + 1].sum(0)
        current[1 : self.timesteps - self.ahead] = current[self.ahead + 1 :].copy()
        current[self.timesteps - self.ahead :] = 0
        return current, np.zeros_like(constant[:1])

    def _taken_in(self, first: int, steps: int) -> np.ndarray:
        """How many steps of input have been taken in after each of the steps from `first` on, (steps,)."""
        return np.minimum(np.arange(first, first + steps, dtype=np.float32) + self.ahead + 1, self.timesteps)

    def _tracked(self, x: np.ndarray, first: int, buffers: Buffers) -> np.ndarray:
        """What is to be said after each step, (steps, images, neurons), from the sums of the inputs up to it."""
        if self.tracked is None:
            return x
        steps, images = x.shape[:2]
        result = buffers.take(steps * images * self.population.size)[: steps * images * self.population.size]
        time = np.repeat(self._taken_in(first, steps), images)
        feed = {"summed": x.reshape(steps * images, -1), "steps": time[:, None]}
        wanted = {port.name: feed[port.name] for port in self.tracked.get_inputs()}
        run_into(self.tracked, wanted, result.reshape(steps * images, -1))
        buffers.give(x)
        return result.reshape(steps, images, -1)

    def decode(self, result: np.ndarray, before: np.ndarray, first: int) -> np.ndarray:
        """The activation decoded after each step, (steps, images, *shape); `first` steps came before.

        What was sent in those adds up to `before`.
        """
        neuron = self.neuron
        if neuron.phased:
            return self.external(result * self._amplitude)
        if neuron.fires:
            time = np.arange(first + 1, first + 1 + len(result), dtype=np.float32)[:, None, None]
            sums = before.astype(np.float32) + result.cumsum(0)
            return self.external(self._amplitude * sums / time)
        return self.external(result / self._taken_in(first, len(result))[:, None, None])

    def trains(self, sent: np.ndarray, timesteps: int) -> np.ndarray:
        """The spikes in what was sent, with their signs: (steps, images, *shape), int8; a phase has `timesteps`."""
        if not isinstance(self.neuron, FewSpikeNeuron):
            return self.external(sent).astype(np.int8)
        steps = np.arange(timesteps)[:, None, None]
        bits = np.abs(sent) * np.float32(2**self.neuron.k)
        shifted = bits.astype(np.int64) >> np.maximum(self.neuron.k - 1 - steps, 0)
        spikes = np.where(steps < self.neuron.k, shifted & 1, 0) * np.sign(sent)
        return self.external(spikes.astype(np.int8))


def is_graded(neuron: Neuron) -> bool:
    """Whether an input sends its value itself, the same for the whole window."""
    return neuron.is_input and isinstance(neuron, SpikingNeuron) and not neuron.fires


def _encoded(neuron: SpikingNeuron, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """What an input's neurons take in each step, and the sign of their spikes if the input is signed."""
    assert isinstance(neuron, (SpikeEncoding, FewSpikeInput))
    magnitude = np.abs(x) if neuron.signed else np.maximum(x, 0)
    if isinstance(neuron, PoissonInput):
        magnitude = -np.expm1(-magnitude / np.float32(neuron.v_thresh))
    return magnitude, np.where(x < 0, np.float32(-1), np.float32(1)) if neuron.signed else None


def _sources(connections: Sequence[Connection]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(connection.source for connection in connections))


def _described(
    network: Network, connections: Sequence[Connection]
) -> tuple[dict[str, Shape], dict[str, Layout], tuple[str, ...]]:
    """The shapes and the layouts of the sources of a soma or a sum, and those that are graded inputs."""
    names = _sources(connections)
    return (
        {name: network.populations[name].shape for name in names},
        {name: Layout.of(network, name) for name in names},
        tuple(name for name in names if is_graded(network.populations[name].neuron)),
    )


def _session(network: Network, connections: list[Connection], threads: int) -> onnxruntime.InferenceSession | None:
    """Sums `connections` for a whole batch; a source's spikes, 0 or 1, count as its λ or α."""
    if not connections:
        return None
    graph, target = GraphBuilder(), network.populations[connections[0].target]
    layout, sources = Layout.of(network, target.name), _entering(graph, network, connections)
    if target.neuron.ports == 1:
        total = _total(graph, network, connections, sources, layout, target.input_shape)
        layout.leaving(graph, total, "current", target.input_shape)
        return graph.session(threads)
    totals = []
    for port, (shape, _) in enumerate(target.ports):
        given = [connection for connection in connections if connection.port == port]
        if given:
            totals.append(
                emit_operators(graph, _total(graph, network, given, sources, layout, shape), (Flatten(),), shape)
            )
        else:
            totals.append(_zeros(graph, next(iter(sources)), math.prod(shape)))
    graph.output(graph.node("Concat", totals, axis=1), "current", (_given(target),))
    return graph.session(threads)


def _zeros(graph: GraphBuilder, like: str, size: int) -> str:
    """So many zeros for each of the examples of an input."""
    batch = graph.node("Shape", [like], start=0, end=1)
    shape = graph.node("Concat", [batch, graph.array(np.array([size], np.int64))], axis=0)
    return graph.node("ConstantOfShape", [shape])  # of zeros, if nothing else is said


def _given(population: Population) -> int:
    """How many summed inputs the neurons of a population have, over all ports."""
    return sum(math.prod(shape) for shape, _ in population.ports)


def _bounds(neuron: Tracking) -> tuple[float, float]:
    """Between what a rectifier says the mean of its input; other neurons have a graph."""
    match neuron.computes:
        case Relu():
            return 0.0, np.inf
        case Clip(maximum):
            return 0.0, maximum
    return -np.inf, np.inf


def _tracked_session(population: Population, threads: int) -> onnxruntime.InferenceSession | None:
    """Computes t · f(X / t) of the sums of the inputs of all ports, which lie flat; None for plain rectifiers."""
    neuron = population.neuron
    if not isinstance(neuron, Tracking) or isinstance(neuron.computes, (Relu, Clip)):
        return None
    graph, computes, start, ports = GraphBuilder(), neuron.computes, 0, []
    summed = graph.input("summed", (_given(population),))
    time = None if computes.is_homogeneous else graph.input("steps", (1,))
    mean = graph.node("Div", [summed, time]) if time else summed
    for shape, _ in population.ports:
        stop = start + math.prod(shape)
        ports.append(_unpacked(graph, mean, start, stop, shape))
        start = stop
    y = emit_operators(
        graph, emit_neuron(graph, ports, computes, population.input_shape), (Flatten(),), population.shape
    )
    graph.output(graph.node("Mul", [y, time]) if time else y, "tracked", (population.size,))
    return graph.session(threads)


def _unpacked(graph: GraphBuilder, value: str, start: int, stop: int, shape: Shape) -> str:
    """Some of a graph's flat value as an image, channels first; a flat population stays flat."""
    ends = (graph.array(np.array([place], np.int64)) for place in (start, stop, 1))
    part = graph.node("Slice", [value, *ends])
    if len(shape) == 1:
        return part
    image = graph.node("Reshape", [part, graph.array(np.array([-1, *shape], np.int64))])
    return graph.node("Transpose", [image], perm=(0, 3, 1, 2))


def _soma_session(network: Network, population: Population, threads: int) -> onnxruntime.InferenceSession:
    """Computes what a soma makes of what its sources send, as graded inputs do, too."""
    assert isinstance(population.neuron, FewSpikeFunction)
    graph, computes = GraphBuilder(), population.neuron.computes
    outside = Layout.of(network, population.name)
    inside = outside if isinstance(computes, (Function, Product)) else CHANNELS_FIRST
    sources = _entering(graph, network, network.incoming(population.name))
    ports = []
    for port, (shape, bias) in enumerate(population.ports):
        total = _total(graph, network, network.incoming(population.name, port), sources, inside, shape)
        ports.append(inside.shifted(graph, total, bias, shape))
    computed = Tensor(emit_neuron(graph, ports, computes, population.input_shape), inside.is_blocked(population.shape))
    outside.leaving(graph, outside.arranged(graph, computed, population.shape), "computed", population.shape)
    return graph.session(threads)


def _entering(graph: GraphBuilder, network: Network, connections: Sequence[Connection]) -> dict[str, Tensor]:
    """The sources of connections, as inputs of a graph."""
    shapes = {name: network.populations[name].shape for name in _sources(connections)}
    return {name: Layout.of(network, name).entering(graph, name, shape) for name, shape in shapes.items()}


def _total(
    graph: GraphBuilder,
    network: Network,
    connections: Sequence[Connection],
    sources: Mapping[str, Tensor],
    layout: Layout,
    shape: Shape,
) -> str:
    """The sum of what connections bring, of `shape` and arranged as `layout` has it."""
    block = block_size() if network.is_phased else 1
    terms = []
    for connection in connections:
        given = network.populations[connection.source].shape
        term = emit(graph, sources[connection.source], weighted(network, connection), given, block)
        terms.append(layout.arranged(graph, term, shape))
    return graph.total(terms, layout.shape(shape))


def _events(network: Network, connection: Connection) -> Events | None:
    """A connection computed per spike, where that pays: not from inputs and few-spike neurons, most of which fire."""
    source, target = network.populations[connection.source], network.populations[connection.target]
    if not isinstance(source.neuron, IntegrateFire) or target.neuron.ports > 1:
        return None
    return Events.of(source.name, weighted(network, connection), source.shape)


def _pooling_session(network: Network, name: str, threads: int) -> onnxruntime.InferenceSession | None:
    population = network.populations[name]
    pool = population.neuron.pooling if isinstance(population.neuron, SpikingNeuron) else None
    if pool is None:
        return None
    graph, layout = GraphBuilder(), Layout.of(network, name)
    pooled = emit_pooled(graph, layout.entering(graph, "summed", pool.image), pool)
    layout.leaving(graph, layout.arranged(graph, pooled, population.shape), "pooled", population.shape)
    return graph.session(threads)
