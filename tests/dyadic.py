"""Small spiking networks whose arithmetic is exact in single precision, so that all backends must agree on every spike.

Weights, biases, thresholds and images are dyadic rationals of few bits, and pooling windows hold a power of two of
inputs: whatever the order in which a backend sums, nothing is rounded.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from hypothesis import strategies as st
from networks import resampling

from snnc import ir
from snnc.ir import (
    AveragePool2D,
    Connection,
    Conv2D,
    CurrentInput,
    Dense,
    FewSpike,
    FewSpikeFunction,
    FewSpikeInput,
    FewSpikeReadout,
    Flatten,
    Function,
    GradedInput,
    Integrate,
    IntegrateFire,
    IntegrateFireInput,
    MatMul,
    Network,
    Pad,
    Pick,
    Population,
    Product,
    Scale,
    SpikeInput,
    Tracking,
)

SAME_3X3 = ((1, 1), (1, 1))


def dyadic(seed: int, *shape: int, limit: float = 0.5, step: float = 1 / 64) -> np.ndarray:
    """Multiples of `step` within ±limit that look random and are the same with every version of numpy."""
    mixed = (np.arange(1, np.prod(shape) + 1, dtype=np.uint64) + seed * 7919) * 2654435761 % 2**32 // 2**12
    count = int(limit / step)
    return ((mixed % (2 * count + 1)).astype(np.float32) - count).reshape(shape) * np.float32(step)


def images(network: Network, count: int = 5) -> dict[str, np.ndarray]:
    """Multiples of 1/16, or finer ones where they are encoded in bits, within ±1; the second image is dark."""
    drawn = {}
    for i, population in enumerate(network.populations[name] for name in network.inputs):
        step = 2**-12 if isinstance(population.neuron, FewSpikeInput) else 1 / 16
        drawn[population.name] = dyadic(100 + i, count, *population.shape, limit=1, step=step)
    for array in drawn.values():
        array[1] = 0
    return drawn


def spiking(populations, connections, inputs, outputs, timesteps: int, lag: int = 1) -> Network:
    """The network with its operators folded and its connections aligned, verified."""
    loose = Network(populations, connections, inputs, outputs, timesteps, lag)
    network = loose.replace(
        connections=tuple(
            replace(
                edge,
                operators=ir.fold(edge.operators, loose.populations[edge.source].shape),
                delay=loose.aligned(edge.source, edge.target),
            )
            for edge in loose.connections
        )
    )
    ir.verify(network, "spiking")
    return network


def strided() -> Network:
    """Strided `same` convolution with asymmetric padding, pooling, bias, and an edge that skips two layers."""
    return spiking(
        [
            Population("input/image:0", (8, 8, 2), CurrentInput()),
            Population("stem#1", (4, 4, 4), IntegrateFire(0.75, 0.375), dyadic(1, 4, limit=0.25)),
            Population("block/conv-a", (4, 4, 4), IntegrateFire(0.5, 0.25), dyadic(2, 4, 4, 4, limit=0.25)),
            Population("block/conv-b", (4, 4, 8), IntegrateFire(1.25, 0.625)),
            Population("block/add", (4, 4, 4), IntegrateFire(1.0, 0.5), dyadic(3, 4, limit=0.25)),
            Population("logits", (5,), Integrate(), dyadic(4, 5)),
        ],
        [
            Connection("input/image:0", "stem#1", (Conv2D(dyadic(5, 3, 3, 2, 4), (2, 2), ((0, 1), (0, 1))),)),
            Connection("stem#1", "block/conv-a", (Conv2D(dyadic(6, 3, 3, 4, 4), padding=SAME_3X3),)),
            Connection("block/conv-a", "block/conv-b", (Conv2D(dyadic(7, 1, 1, 4, 8)),)),
            Connection("block/conv-b", "block/add", (Conv2D(dyadic(8, 2, 2, 8, 4), padding=((0, 1), (0, 1))),)),
            Connection("stem#1", "block/add"),
            Connection(
                "block/add", "logits", (AveragePool2D((2, 2), (2, 2)), Flatten(), Dense(dyadic(9, 16, 5, limit=1)))
            ),
        ],
        ["input/image:0"],
        ["logits"],
        timesteps=16,
    )


def per_channel() -> Network:
    """Thresholds and initial potentials per channel, hard reset, and thresholds that must be exceeded."""
    strict = IntegrateFire(np.array([0.5, 1.0, 0.75]), np.array([0.25, 0.0, 0.125]), "zero", ">")
    return spiking(
        [
            Population("x", (5, 6, 1), CurrentInput()),
            Population("1st", (5, 6, 3), strict, dyadic(1, 3, limit=0.25)),
            Population("2nd", (4, 5, 3), replace(strict, reset="subtract"), dyadic(2, 4, 5, 3, limit=0.25)),
            Population("3rd", (6,), replace(strict, v_thresh=np.arange(1, 7) / 4, v_init=0.25, comparison=">=")),
            Population("y", (4,), Integrate()),
        ],
        [
            Connection("x", "1st", (Conv2D(dyadic(3, 3, 1, 1, 3, limit=1), padding=((1, 1), (0, 0))),)),
            Connection("1st", "2nd", (Conv2D(dyadic(4, 2, 2, 3, 3, limit=1)),)),
            Connection("2nd", "3rd", (Flatten(), Dense(dyadic(5, 60, 6, limit=0.5)))),
            Connection("3rd", "y", (Dense(dyadic(6, 6, 4)),)),
        ],
        ["x"],
        ["y"],
        timesteps=20,
    )


def grouped() -> Network:
    """Groups, dilation, depthwise convolution, pooling with padding, and concatenation."""
    return spiking(
        [
            Population("x", (6, 6, 4), CurrentInput()),
            Population("groups", (6, 6, 8), IntegrateFire(0.5, 0.25), dyadic(1, 8, limit=0.25)),
            Population("dilated", (4, 3, 4), IntegrateFire(1.0, 0.5)),
            Population("depthwise", (6, 6, 8), IntegrateFire(0.5, 0.25, "zero"), dyadic(2, 8, limit=0.25)),
            Population("pooled", (4, 4, 8), IntegrateFire(0.25, 0.125)),
            Population("joined", (4, 4, 12), IntegrateFire(0.5)),
            Population("y", (3,), Integrate()),
        ],
        [
            Connection("x", "groups", (Conv2D(dyadic(3, 3, 3, 2, 8), padding=SAME_3X3, groups=2),)),
            Connection("x", "groups", (Conv2D(dyadic(4, 2, 2, 4, 8), padding=((1, 0), (1, 0))),)),
            Connection("groups", "dilated", (Conv2D(dyadic(5, 2, 3, 8, 4), (1, 2), ((0, 0), (1, 2)), (2, 2)),)),
            Connection("groups", "depthwise", (Conv2D(dyadic(6, 3, 3, 1, 8, limit=1), padding=SAME_3X3, groups=8),)),
            Connection("depthwise", "pooled", (AveragePool2D((2, 2), (2, 2), ((1, 1), (1, 1))),)),
            Connection("pooled", "joined", (Pad(((0, 0), (0, 0), (0, 4))),)),
            Connection("dilated", "joined", (Pad(((0, 0), (0, 1), (8, 0))),)),
            Connection("joined", "y", (Flatten(), Dense(dyadic(7, 192, 3)))),
            Connection("joined", "y", (AveragePool2D((4, 4), (4, 4)), Dense(dyadic(8, 12, 3, limit=1)))),
        ],
        ["x"],
        ["y"],
        timesteps=12,
    )


def branching() -> Network:
    """Two inputs, one of which also skips layers; two outputs, one of which fires and leads on; parallel edges."""
    return spiking(
        [
            Population("left", (7,), CurrentInput()),
            Population("right", (3, 2, 2), CurrentInput()),
            Population("mixed", (6,), IntegrateFire(0.5, 0.25), dyadic(1, 6, limit=0.25)),
            Population("classes", (4,), IntegrateFire(np.array([0.5, 1.0, 1.5, 0.25]), 0.125)),
            Population("deep", (4,), IntegrateFire(0.75, 0.375), dyadic(2, 4)),
            Population("value", (3,), Integrate(), dyadic(3, 3)),
        ],
        [
            Connection("left", "mixed", (Dense(dyadic(4, 7, 6)),)),
            Connection("right", "mixed", (Flatten(), Dense(dyadic(5, 12, 6)))),
            Connection("mixed", "classes", (Dense(dyadic(6, 6, 4, limit=1)),)),
            Connection("mixed", "classes", (Pick(np.array([3, 0, 0, 5])),)),
            Connection("classes", "deep"),
            Connection("classes", "deep", (Scale(dyadic(7, 4)),)),
            Connection("left", "deep", (Pick(np.array([6, 2, 4, 1])),)),
            Connection("deep", "value", (Dense(dyadic(8, 4, 3, limit=1)),)),
            Connection("right", "value", (AveragePool2D((1, 2), (1, 2)), Flatten(), Dense(dyadic(9, 6, 3)))),
        ],
        ["left", "right"],
        ["classes", "value"],
        timesteps=24,
    )


def spiking_inputs() -> Network:
    """Inputs that fire, signed and not, of both resets; two of them also skip layers."""
    return spiking(
        [
            Population("soft", (5,), IntegrateFireInput(0.75, signed=True, v_init=0.375)),
            Population("hard", (4, 4, 2), IntegrateFireInput(0.5, reset="zero", comparison=">")),
            Population("binary", (3,), SpikeInput(0.25)),
            Population("polar", (2, 2, 2), SpikeInput(0.5, signed=True)),
            Population("mixed", (3, 3, 4), IntegrateFire(0.5, 0.25), dyadic(1, 4, limit=0.25)),
            Population("deep", (2, 2, 2), IntegrateFire(1.0, 0.5)),
            Population("y", (3,), Integrate(), dyadic(2, 3)),
        ],
        [
            Connection("hard", "mixed", (Conv2D(dyadic(3, 2, 2, 2, 4)),)),
            Connection("mixed", "deep", (Conv2D(dyadic(4, 2, 2, 4, 2)),)),
            Connection("polar", "deep", (Conv2D(dyadic(5, 3, 3, 2, 2), padding=SAME_3X3),)),
            Connection("deep", "y", (Flatten(), Dense(dyadic(6, 8, 3)))),
            Connection("hard", "y", (AveragePool2D((2, 2), (2, 2)), Flatten(), Dense(dyadic(7, 8, 3)))),
            Connection("soft", "y", (Pick(np.array([1, 4, 4])),)),
            Connection("soft", "y", (Dense(dyadic(8, 5, 3)),)),
            Connection("binary", "y"),
        ],
        ["soft", "hard", "binary", "polar"],
        ["y"],
        timesteps=16,
    )


def few_spike(k: int) -> Network:
    """Few-spike codes of `k` bits, of a signed input and of one that is not, rounded and truncated."""
    half = 2.0 ** -(k + 1)
    alphas = np.array([1.0, 0.5, 2.0, 0.75], np.float32)
    return spiking(
        [
            Population("signed", (6,), FewSpikeInput(k, 1.0, half, signed=True)),
            Population("unsigned", (4,), FewSpikeInput(k, 0.75)),
            Population("hidden", (4,), FewSpike(k, alphas, alphas * half), dyadic(1, 4, limit=0.25, step=1 / 16)),
            Population("code", (5,), FewSpike(k, 1.5)),
            Population("y", (3,), FewSpikeReadout(), dyadic(2, 3)),
        ],
        [
            Connection("signed", "hidden", (Dense(dyadic(3, 6, 4, limit=1, step=1 / 8)),)),
            Connection("unsigned", "hidden"),
            Connection("hidden", "code", (Dense(dyadic(4, 4, 5, limit=1, step=1 / 8)),)),
            Connection("signed", "y", (Dense(dyadic(5, 6, 3, step=1 / 16)),)),
            Connection("hidden", "y", (Dense(dyadic(6, 4, 3, step=1 / 16)),)),
        ],
        ["signed", "unsigned"],
        ["code", "y"],
        timesteps=k,
    )


def phases() -> Network:
    """A few-spike network with a graded input, codes of different length, and edges that skip one and two phases."""
    alphas = np.array([0.5, 1.0, 0.75, 2.0], np.float32)
    return spiking(
        [
            Population("image", (6, 6, 2), GradedInput()),
            Population("events", (3,), FewSpikeInput(4, 1.0, 1 / 32, signed=True)),
            Population("stem", (6, 6, 4), FewSpike(7, alphas, alphas / 2**8), dyadic(1, 4, limit=0.25)),
            Population("block", (6, 6, 4), FewSpike(5, 1.0, 1 / 64), dyadic(2, 6, 6, 4, limit=0.25)),
            Population("join", (3, 3, 4), FewSpike(7, 1.25)),
            Population("y", (3,), FewSpikeReadout(), dyadic(3, 3)),
        ],
        [
            Connection("image", "stem", (Conv2D(dyadic(4, 3, 3, 2, 4), padding=SAME_3X3),)),
            Connection("stem", "block", (Conv2D(dyadic(5, 3, 3, 2, 4), padding=((2, 0), (1, 1)), groups=2),)),
            Connection("stem", "join", (AveragePool2D((2, 2), (2, 2)),)),
            Connection("block", "join", (Conv2D(dyadic(6, 2, 2, 4, 4), (2, 2)),)),
            Connection("image", "join", (AveragePool2D((2, 2), (2, 2)), Pad(((0, 0), (0, 0), (2, 0))))),
            Connection("join", "y", (Flatten(), Dense(dyadic(7, 36, 3)))),
            Connection("events", "y", (Scale(dyadic(8, 3)),)),
            Connection("image", "y", (Flatten(), Dense(dyadic(9, 72, 3, step=1 / 16)))),
        ],
        ["image", "events"],
        ["y"],
        timesteps=7,
    )


def gates() -> Network:
    """Functions whose values are exact, and products, signed and not, whose ports are fed from different depths."""

    def code(k: int, alpha: float, computes: ir.AnalogNeuron, signed: bool = True) -> FewSpikeFunction:
        return FewSpikeFunction(k, alpha, alpha / 2 ** (k + 1), computes, signed)

    small = partial(dyadic, step=1 / 8)
    sixths = 6 * dyadic(2, 1, 1, 2, 4, step=1 / 16)  # as hard-swish divides by six
    return spiking(
        [
            Population("image", (4, 4, 2), GradedInput()),
            Population("events", (5,), FewSpikeInput(4, 1.0, 1 / 32, signed=True)),
            Population("squares", (4, 4, 4), code(4, 2.0, Function("square"), False), dyadic(3, 4, limit=0.25)),
            Population("swish", (4, 4, 4), code(5, 4.0, Function("hard_swish"))),
            Population("gated", (4, 4, 4), code(4, 4.0, Product()), dyadic(4, 4), second_bias=dyadic(5, 4, 4, 4)),
            Population("sizes", (4, 4, 4), code(3, 2.0, Function("abs"), False)),
            Population("flat", (6,), code(5, 4.0, Product(), False), second_bias=dyadic(6, 6)),
            Population("y", (3,), FewSpikeReadout(), dyadic(7, 3)),
        ],
        [
            Connection("image", "squares", (Conv2D(small(1, 3, 3, 2, 4), padding=SAME_3X3),)),
            Connection("image", "swish", (Conv2D(sixths),)),
            Connection("squares", "gated"),
            Connection("swish", "gated", (Conv2D(small(8, 1, 1, 4, 4)),), port=1),
            Connection("image", "gated", (Pad(((0, 0), (0, 0), (2, 0))),), port=1),
            Connection("gated", "sizes", (Scale(small(9, 4)),)),
            Connection("events", "flat", (Dense(small(10, 5, 6)),)),
            Connection("gated", "flat", (Flatten(), Dense(small(11, 64, 6))), port=1),
            Connection("flat", "y", (Dense(small(12, 6, 3)),)),
            Connection("sizes", "y", (Flatten(), Dense(dyadic(13, 64, 3, step=1 / 16)))),
        ],
        ["image", "events"],
        ["flat", "y"],
        timesteps=5,
    )


def attention() -> Network:
    """Products of matrices as `lower-matmul` makes them: tables repeat both, and each number is multiplied by one."""

    def code(k: int, alpha: float, computes: ir.AnalogNeuron) -> FewSpikeFunction:
        return FewSpikeFunction(k, alpha, alpha / 2 ** (k + 1), computes, signed=True)

    small = partial(dyadic, step=1 / 8)
    heads, rows, columns, inner = np.indices((2, 3, 5, 4)).reshape(4, 6, 5, 4)
    identity = Function("identity")
    return spiking(
        [
            Population("image", (3, 5, 2), GradedInput()),
            Population("queries", (2, 3, 4), code(4, 1.0, identity), dyadic(1, 4, step=1 / 16)),
            Population("keys", (5, 4, 2), code(4, 2.0, identity)),
            Population("products", (6, 5, 4), code(6, 2.0, Product()), second_bias=dyadic(2, 4, step=1 / 8)),
            Population("scores", (2, 3, 5), FewSpike(6, 4.0, 1 / 32), dyadic(3, 2, 3, 5, step=1 / 16)),
            Population("y", (3,), FewSpikeReadout(), dyadic(4, 3)),
        ],
        [
            Connection("image", "queries", (Pick((7 * np.arange(24) % 30).reshape(2, 3, 4)),)),
            Connection("image", "keys", (Flatten(), Dense(small(5, 30, 40)), Pick(np.arange(40).reshape(5, 4, 2)))),
            Connection("queries", "products", (Pick((heads * 3 + rows) * 4 + inner),)),
            Connection("keys", "products", (Pick((columns * 4 + inner) * 2 + heads),), port=1),
            Connection("products", "scores", (Conv2D(np.ones((1, 1, 4, 1))), Pick(np.arange(30).reshape(2, 3, 5)))),
            Connection("scores", "y", (Flatten(), Dense(small(6, 30, 3)))),
        ],
        ["image"],
        ["y"],
        timesteps=6,
    )


def waiting() -> Network:
    """Several depths and inputs that fire; each layer waits four steps for the one before it, and one tracks."""
    given = spiking_inputs()
    last = given.outputs[0]
    tracking = Population("tracking", (3,), Tracking(0.75, 0.25, 2, ir.Clip(1.5)), dyadic(77, 3, limit=0.25))
    populations = [*given.populations.values(), tracking]
    source = next(edge.source for edge in given.connections if edge.target == last)
    size = given.populations[source].size
    edges = [*given.connections, Connection(source, "tracking", (ir.Flatten(), Dense(dyadic(78, size, 3))))]
    return spiking(populations, edges, given.inputs, [*given.outputs, "tracking"], timesteps=16, lag=4)


def decoder() -> Network:
    """Transposed convolutions that overlap, are dilated, cropped and in groups, and rows and columns resampled."""
    mixed = ir.Resample(
        0, np.array([[0, 4, 2, 1], [1, 3, 3, 1]]), np.array([[0.75, 0.5, 1, 0.25], [0.25, 0.5, 0, -0.5]])
    )
    return spiking(
        [
            Population("code", (3, 2, 4), CurrentInput()),
            Population("larger", (5, 5, 6), IntegrateFire(0.5, 0.25), dyadic(1, 6, limit=0.25)),
            Population("turned", (5, 8, 6), IntegrateFire(0.75, 0.375)),
            Population("resampled", (4, 5, 6), IntegrateFire(1.0, 0.5), dyadic(2, 4, 5, 6, limit=0.25)),
            Population("image", (8, 9, 2), Integrate(), dyadic(3, 2)),
        ],
        [
            Connection(
                "code",
                "larger",
                (
                    ir.ConvTranspose2D(dyadic(4, 3, 2, 2, 6), (2, 3), ((1, 1), (0, 0)), groups=2),
                    Scale(dyadic(5, 6, limit=1)),
                ),
            ),
            Connection("larger", "turned", (ir.Resample(1, np.array([[4, 3, 2, 1, 0, 0, 1, 2]]), np.ones((1, 8))),)),
            Connection("larger", "resampled", (Scale(dyadic(6, 6, limit=1)), mixed)),
            Connection(
                "turned",
                "resampled",
                (
                    ir.Resample(0, np.array([[4, 0, 2, 2]]), np.ones((1, 4))),
                    ir.Resample(1, np.array([[7, 1, 2, 2, 0]]), np.ones((1, 5))),
                ),
            ),
            Connection(
                "resampled", "image", (ir.ConvTranspose2D(dyadic(7, 2, 3, 6, 2), (2, 2), ((0, 1), (2, 2)), (2, 2)),)
            ),
        ],
        ["code"],
        ["image"],
        timesteps=8,
    )


NETWORKS = {
    build.__name__: build
    for build in (
        strided,
        per_channel,
        grouped,
        branching,
        spiking_inputs,
        waiting,
        phases,
        gates,
        attention,
        decoder,
    )
}
NETWORKS |= {f"few_spike_{k}": partial(few_spike, k) for k in range(1, 13)}


@st.composite
def networks(draw: st.DrawFn, phased: bool | None = None, matrices: bool = False) -> Network:
    """A random graph, few-spike or not; in few-spike ones there are functions and products, and maybe of `matrices`.

    Populations read one to three earlier ones; those that none reads are outputs or feed one.
    """
    timesteps, phased = draw(st.integers(1, 12)), draw(st.booleans()) if phased is None else phased
    timesteps = min(timesteps, 4) if phased else timesteps  # so few bits are exact whatever is drawn
    inputs_of, neurons_of, readout = (
        (_phased_inputs(timesteps), partial(_few_spike_neurons, timesteps), FewSpikeReadout())
        if phased
        else (_rate_inputs(), _neurons, Integrate())
    )
    populations = [Population(f"in{i}", draw(_shapes()), draw(inputs_of)) for i in range(draw(st.integers(1, 2)))]
    inputs = [population.name for population in populations]
    connections = []
    for i in range(draw(st.integers(1, 4))):
        computing = phased and draw(st.integers(0, 2)) != 1
        given = (f"p{i}", list(populations))
        population, incoming = draw(
            _computing(*given, timesteps, matrices) if computing else _hidden(*given, neurons_of)
        )
        populations.append(population)
        connections += incoming
    read = {edge.source for edge in connections}
    outputs = []
    for last in [p for p in populations if p.name not in (*read, *inputs)]:
        outputs.append(f"{last.name}/readout" if draw(st.booleans()) else last.name)
        if outputs[-1] != last.name:
            populations.append(Population(outputs[-1], (3,), readout, draw(_biases((3,)))))
            connections.append(Connection(last.name, outputs[-1], (Dense(draw(_arrays(last.size, 3))),)))
    lag = 1 if phased else draw(st.sampled_from([1, 1, 2, 3, timesteps]))
    return spiking(populations, connections, inputs, outputs, timesteps, min(lag, timesteps))


@st.composite
def _hidden(
    draw: st.DrawFn,
    name: str,
    earlier: list[Population],
    neurons_of: Callable[[int], st.SearchStrategy[ir.SpikingNeuron]],
) -> tuple[Population, list[Connection]]:
    """A population that fires, and what it reads."""
    first, *others = draw(_some(earlier))
    chain = draw(_edges(first.shape))
    shape = ir.output_shape(chain, first.shape)
    edges = [Connection(first.name, name, chain)]
    edges += [Connection(other.name, name, draw(_edges_to(other.shape, shape))) for other in others]
    return Population(name, shape, draw(neurons_of(shape[-1])), draw(_biases(shape))), edges


@st.composite
def _computing(
    draw: st.DrawFn, name: str, earlier: list[Population], timesteps: int, matrices: bool
) -> tuple[Population, list[Connection]]:
    """A population whose soma computes something, of so few bits that the product of two inputs is exact.

    What is read is no more than 2, in steps of 1/64 or, after pooling, of 1/256. The sum of three such numbers, with
    weights in steps of one half, has 12 bits; that of matrices, which are only picked, has 9.
    """
    computes = draw(_computed(matrices))
    factor = np.float32(6 if computes == Function("hard_swish") else 1)  # by which it divides
    sources = draw(_some(earlier, least=computes.ports))
    first = draw(_edges(sources[0].shape))
    shape = ir.output_shape(first, sources[0].shape)
    if isinstance(computes, MatMul):
        shape = computes.output_shape(shape)
    edges = []
    for number, source in enumerate(sources):
        port = min(number, computes.ports - 1)
        wanted = computes.input_shape(shape, port)
        if isinstance(computes, MatMul):
            chain = draw(_picks(source.size, wanted))
        else:
            chain = _coarse(first if not number else draw(_edges_to(source.shape, wanted)))
        scale = Scale(np.full(wanted[-1:], factor))
        edges.append(Connection(source.name, name, (*chain, scale), port=port))
    biases = [draw(_biases(computes.input_shape(shape, port))) for port in range(computes.ports)]
    biases = [bias if bias is None else factor * bias for bias in biases]
    neuron = draw(_few_spike_functions(timesteps, shape[-1], computes))
    return Population(name, shape, neuron, biases[0], second_bias=biases[1] if computes.ports > 1 else None), edges


def _some(earlier: list[Population], least: int = 1) -> st.SearchStrategy[list[Population]]:
    return st.lists(st.sampled_from(earlier), min_size=least, max_size=3)


def _computed(matrices: bool) -> st.SearchStrategy[ir.AnalogNeuron]:
    """What gives dyadic numbers for dyadic numbers."""
    parameters = {"abs": 1, "hard_shrink": 0.5, "hard_swish": 1, "identity": 1, "soft_shrink": 0.25, "square": 1}
    functions = st.sampled_from([Function(name, parameter) for name, parameter in parameters.items()])
    sizes = st.tuples(*[st.integers(1, 4)] * 4)
    products = [sizes.map(lambda s: MatMul((s[0], s[1], s[3]), (s[0], s[3], s[2])))] if matrices else []
    return st.one_of(st.just(Product()), functions, *products)


def _coarse(operators: tuple[ir.Operator, ...]) -> tuple[ir.Operator, ...]:
    """The operators with weights in steps of one half, and of each output's all but one of them zero."""
    return tuple(map(_coarse_operator, operators))


def _coarse_operator(operator: ir.Operator) -> ir.Operator:
    match operator:
        case Scale(factor):
            return Scale(np.round(2 * factor) / 2)
        case ir.Resample(weight=weight):
            return replace(operator, weight=np.round(2 * weight) / 2 * (np.arange(len(weight)) < 1)[:, None])
        case Conv2D(weight) | ir.ConvTranspose2D(weight) | Dense(weight):
            rows, outputs = weight.size // weight.shape[-1], weight.shape[-1]
            kept = (np.arange(rows)[:, None] + np.arange(outputs)) % rows == 0
            return replace(operator, weight=np.round(2 * weight) / 2 * kept.reshape(weight.shape))
    return operator


def _arrays(*shape: int, limit: float = 1, step: float = 1 / 64) -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, 9999).map(lambda seed: dyadic(seed, *shape, limit=limit, step=step))


def _shapes() -> st.SearchStrategy[ir.Shape]:
    return st.one_of(st.tuples(st.integers(1, 6)), st.tuples(*[st.integers(2, 5)] * 2, st.sampled_from([1, 2, 4])))


def _biases(shape: ir.Shape) -> st.SearchStrategy[np.ndarray | None]:
    return st.one_of(st.none(), _arrays(shape[-1], limit=0.25), _arrays(*shape, limit=0.25))


THRESHOLDS = st.integers(1, 8).map(lambda quarters: quarters / 4)
POTENTIALS = st.integers(-2, 4).map(lambda eighths: eighths / 8)
TRACKED = st.sampled_from([ir.Relu(), ir.Clip(0.75), ir.LeakyRelu(0.25), ir.Function("abs"), ir.Function("identity")])
RESETS, COMPARISONS = st.sampled_from(["subtract", "zero"]), st.sampled_from([">=", ">"])


def _rate_inputs() -> st.SearchStrategy[ir.SpikingNeuron]:
    return st.one_of(
        st.just(CurrentInput()),
        st.builds(SpikeInput, THRESHOLDS, st.booleans()),
        st.builds(IntegrateFireInput, THRESHOLDS, st.booleans(), POTENTIALS, RESETS, COMPARISONS),
    )


def _phased_inputs(timesteps: int) -> st.SearchStrategy[ir.SpikingNeuron]:
    few_spike_inputs = st.builds(
        FewSpikeInput, st.integers(1, timesteps), THRESHOLDS, st.sampled_from([0.0, 1 / 32, 0.5]), st.booleans()
    )
    return st.one_of(st.just(GradedInput()), few_spike_inputs)


def _neurons(channels: int) -> st.SearchStrategy[ir.SpikingNeuron]:
    each = partial(_one_or_each, channels=channels)
    fires = st.builds(IntegrateFire, each(THRESHOLDS), each(POTENTIALS), RESETS, COMPARISONS)
    tracks = st.builds(Tracking, each(THRESHOLDS), st.sampled_from([0.0, 0.125, 0.25]), st.integers(1, 3), TRACKED)
    return fires | tracks


def _few_spike_neurons(timesteps: int, channels: int) -> st.SearchStrategy[ir.SpikingNeuron]:
    each = partial(_one_or_each, channels=channels)

    def of(k: int) -> st.SearchStrategy[ir.SpikingNeuron]:
        limits = st.integers(0, 2**k - 1)
        return st.builds(FewSpike, st.just(k), each(THRESHOLDS), each(POTENTIALS), st.none(), limits)

    return st.integers(1, timesteps).flatmap(of)


def _few_spike_functions(
    timesteps: int, channels: int, computes: ir.AnalogNeuron
) -> st.SearchStrategy[ir.SpikingNeuron]:
    each = partial(_one_or_each, channels=channels)
    bits, signed = st.integers(1, timesteps), st.booleans()
    return st.builds(FewSpikeFunction, bits, each(THRESHOLDS), each(POTENTIALS), st.just(computes), signed)


def _one_or_each(values: st.SearchStrategy[float], channels: int) -> st.SearchStrategy[float | np.ndarray]:
    return values | st.lists(values, min_size=channels, max_size=channels).map(np.array)


@st.composite
def _edges(draw: st.DrawFn, shape: ir.Shape) -> tuple[ir.Operator, ...]:
    """Operators from `shape` to whatever shape they give."""
    dense = st.integers(1, 6).flatmap(lambda units: _arrays(int(np.prod(shape)), units)).map(lambda w: (Dense(w),))
    if len(shape) == 1:
        return draw(st.one_of(dense, _edges_to(shape, shape)))
    resampled = resampling(shape, step=1 / 8).map(lambda operator: (operator,))
    sums = (_convolutions(shape), _transposed(shape), _pooling(shape))
    return draw(st.one_of(dense, *sums, resampled, _edges_to(shape, shape)))


@st.composite
def _convolutions(draw: st.DrawFn, shape: ir.Shape) -> tuple[ir.Operator, ...]:
    height, width, channels = shape
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    kernel = (draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width))))
    padding = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(2))
    strides = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    fits = all(2 * (k - 1) + 1 <= size + sum(pad) for k, size, pad in zip(kernel, shape, padding, strict=False))
    dilation = draw(st.sampled_from([(1, 1), (2, 2)] if fits else [(1, 1)]))
    weight = draw(_arrays(*kernel, channels // groups, groups * draw(st.integers(1, 2))))
    return (Conv2D(weight, strides, padding, dilation, groups),)


@st.composite
def _transposed(draw: st.DrawFn, shape: ir.Shape) -> tuple[ir.Operator, ...]:
    channels = shape[2]
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    kernel, strides, dilation = (draw(st.tuples(*[st.integers(1, most)] * 2)) for most in (3, 2, 2))
    cropping = draw(st.sampled_from([ir.NO_PADDING, ((0, 1), (1, 0))]))
    weight = draw(_arrays(*kernel, channels // groups, groups * draw(st.integers(1, 2))))
    return (ir.ConvTranspose2D(weight, strides, cropping if min(shape[:2]) > 2 else ir.NO_PADDING, dilation, groups),)


@st.composite
def _pooling(draw: st.DrawFn, shape: ir.Shape) -> tuple[ir.Operator, ...]:
    strides = draw(st.sampled_from([(1, 1), (2, 2), (2, 1)]))
    paddings = [((1, 0), (0, 1)), ((1, 1), (1, 1)), *([ir.NO_PADDING] if min(shape[:2]) > 1 else [])]
    padding = draw(st.sampled_from(paddings))
    pool = AveragePool2D((2, 2), strides, padding)
    if draw(st.booleans()):
        return (pool,)
    return pool, Dense(draw(_arrays(int(np.prod(pool.output_shape(shape))), 3)))


def _edges_to(shape: ir.Shape, target: ir.Shape) -> st.SearchStrategy[tuple[ir.Operator, ...]]:
    """Operators from `shape` to `target`."""
    pick = _picks(int(np.prod(shape)), target)
    if len(target) == 1:
        size = int(np.prod(shape))
        dense = _arrays(size, target[0]).map(lambda weight: (Dense(weight),))
        return st.one_of(dense, pick, _arrays(size).map(lambda f: (Scale(f),))) if shape == target else dense | pick
    if shape[:2] != target[:2]:
        return pick
    kernels = pick | _arrays(3, 3, shape[2], target[2]).map(lambda weight: (Conv2D(weight, padding=SAME_3X3),))
    if shape[2] > target[2]:
        return kernels
    pad = Pad(((0, 0), (0, 0), (0, target[2] - shape[2])))
    alone = st.one_of(st.just((pad,)), _arrays(shape[2]).map(lambda factor: (Scale(factor), pad)))
    return st.one_of(kernels, alone)


def _picks(size: int, target: ir.Shape) -> st.SearchStrategy[tuple[ir.Operator, ...]]:
    """Any of `size` numbers in each place of `target`."""
    indices = _arrays(*target, limit=size, step=1).map(lambda drawn: drawn.astype(np.int64) % size)
    return indices.map(lambda places: (Pick(places),))
