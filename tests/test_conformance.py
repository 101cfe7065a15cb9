"""Every backend gives the same spikes: those of the naive simulator, and those that GeNN was recorded to give.

The networks are dyadic, so nothing is rounded and the comparison is exact; several images follow one another, so that
nothing may leak from one into the next.
"""

from dataclasses import replace
from importlib.util import find_spec

import dyadic
import naive
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from networks import residual, weights
from record_genn_spikes import recorded
from scipy.stats import binom

import snnc
from snnc import ir
from snnc.backend.compiled import Recording
from snnc.passes import Canonicalise, Context, LowerMaxPool, run

needs_genn = pytest.mark.skipif(not (find_spec("pygenn") and find_spec("ml_genn")), reason="pygenn is not installed")
BACKENDS = ["onnxruntime", pytest.param("mlgenn", marks=needs_genn)]


def assert_same(found: Recording, expected: Recording) -> None:
    """Every spike, potential and decoded activation is the same number."""
    for kind in ("trains", "spike_counts", "potentials", "decoded"):
        ours, theirs = getattr(found, kind), getattr(expected, kind)
        assert set(ours) == set(theirs), kind
        for name, values in theirs.items():
            message = f"{kind} of {name!r}"
            np.testing.assert_array_equal(
                ours[name].astype(np.float32), values.astype(np.float32), message, strict=True
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("build", dyadic.NETWORKS.values(), ids=dyadic.NETWORKS)
def test_backends_compute_the_equations(build, backend):
    network = build()
    images = dyadic.images(network)
    compiled = snnc.compile(network, backend)
    expected = naive.simulate(network, images)
    assert_same(compiled.simulate(images, record=True), expected)
    again = {name: x[::-1] for name, x in images.items()}
    assert_same(compiled.simulate(again, record=True), naive.simulate(network, again))
    assert compiled.simulate(images).trains is None


@settings(max_examples=150, derandomize=True, deadline=None)
@given(dyadic.networks(matrices=True))
def test_the_engine_computes_the_equations_on_random_graphs(network):
    images = dyadic.images(network)
    assert_same(snnc.compile(network).simulate(images, record=True), naive.simulate(network, images))


@needs_genn
@pytest.mark.parametrize("phased", [False, True], ids=["rate", "few-spike"])
@settings(max_examples=4, derandomize=True, deadline=None, phases=[Phase.generate])  # each is a build of seconds
@given(data=st.data())
def test_genn_computes_the_equations_on_random_graphs(phased, data):
    network = data.draw(dyadic.networks(phased))
    images = dyadic.images(network)
    assert_same(snnc.compile(network, "mlgenn").simulate(images, record=True), naive.simulate(network, images))


@pytest.mark.parametrize("name", dyadic.NETWORKS)
def test_the_engine_does_what_genn_was_recorded_to_do(name):
    network = dyadic.NETWORKS[name]()
    assert_same(snnc.compile(network).simulate(dyadic.images(network), record=True), recorded(name))


@pytest.mark.parametrize("phased", [False, True], ids=["rate", "few-spike"])
def test_the_engine_pools_before_the_neuron(phased):
    """GeNN cannot: the largest current of each window, with biases, padding and what several sources send."""
    pool = ir.MaxPool2D((5, 4, 3), (3, 2), (2, 2), ((1, 1), (0, 0)))
    hidden = ir.FewSpike(3, 1.0, 0.0625, pool) if phased else ir.IntegrateFire(0.75, 0.25, pool=pool)
    first = ir.FewSpike(3, 1.0, 0.0625) if phased else ir.IntegrateFire(0.5, 0.25)
    network = dyadic.spiking(
        [
            ir.Population("x", (5, 4, 2), ir.GradedInput() if phased else ir.CurrentInput()),
            ir.Population("first", (5, 4, 3), first),
            ir.Population("pooled", pool.output_shape((5, 4, 3)), hidden, dyadic.dyadic(1, 5, 4, 3, limit=0.25)),
            ir.Population("y", (3,), ir.FewSpikeReadout() if phased else ir.Integrate()),
        ],
        [
            ir.Connection("x", "first", (ir.Conv2D(dyadic.dyadic(2, 1, 1, 2, 3)),)),
            ir.Connection("x", "pooled", (ir.Conv2D(dyadic.dyadic(3, 3, 3, 2, 3), padding=dyadic.SAME_3X3),)),
            ir.Connection("first", "pooled"),
            ir.Connection("pooled", "y", (ir.Flatten(), ir.Dense(dyadic.dyadic(4, 18, 3)))),
        ],
        ["x"],
        ["y"],
        timesteps=3 if phased else 9,
    )
    images = dyadic.images(network)
    assert_same(snnc.compile(network).simulate(images, record=True), naive.simulate(network, images))


@pytest.mark.parametrize("backend", BACKENDS)
def test_padded_pooling_of_signed_numbers_as_rectifiers(backend):
    """Where the padding lies, another number of the window stands in: by a factor for each position."""
    pool = ir.MaxPool2D((5, 4, 3), (3, 2), (2, 1), ((1, 1), (1, 1)))
    analog = ir.Network(
        [
            ir.Population("x", (5, 4, 2), ir.Input()),
            ir.Population("first", (5, 4, 3), ir.Relu()),
            ir.Population("pooled", pool.output_shape((5, 4, 3)), pool, dyadic.dyadic(1, 3, limit=0.25)),
            ir.Population("y", (3,), ir.Identity()),
        ],
        [
            ir.Connection("x", "first", (ir.Conv2D(dyadic.dyadic(2, 1, 1, 2, 3)),)),
            ir.Connection("first", "pooled", (ir.Conv2D(dyadic.dyadic(3, 3, 3, 3, 3), padding=dyadic.SAME_3X3),)),
            ir.Connection("pooled", "y", (ir.Flatten(), ir.Dense(dyadic.dyadic(4, 45, 3)))),
        ],
        ["x"],
        ["y"],
    )
    lowered = run([Canonicalise(), LowerMaxPool()], analog, Context())
    neurons = {ir.Input: ir.CurrentInput(), ir.Relu: ir.IntegrateFire(0.5, 0.25), ir.Identity: ir.Integrate()}
    network = lowered.replace(
        populations=[replace(p, neuron=neurons[type(p.neuron)]) for p in lowered.populations.values()], timesteps=9
    )
    assert any(isinstance(o, ir.Scale) and o.factor.ndim == 3 for c in network.connections for o in c.operators)
    images = dyadic.images(network)
    assert_same(snnc.compile(network, backend).simulate(images, record=True), naive.simulate(network, images))


@needs_genn
@pytest.mark.parametrize(
    "conversion",
    ["data-norm{percentile=99}", "data-norm{reset=zero}", "data-norm,weight-correction", "few-spike{k=6}"],
)
def test_ordinary_weights_round_apart_in_few_places(conversion):
    """In sums of floats the last bit depends on their order, and a potential may so cross its threshold or not.

    Calibrated on other images: a threshold that is the largest activation of an image is a tie in each of its steps.
    """
    x, network = weights(100, 30, 8, 8, 2), residual()
    others = weights(31, 30, 8, 8, 2)
    snn = snnc.convert(network, conversion, calibration=others, timesteps=100, progress=False)
    ours, theirs = (snnc.compile(snn, backend).simulate(x, record=True) for backend in ("onnxruntime", "mlgenn"))
    apart = sum((ours.trains[name] != theirs.trains[name]).sum() for name in ours.trains)
    assert apart < 1e-4 * sum(trains.size for trains in ours.trains.values())
    last, other = ours.decoded["digit"][-1], theirs.decoded["digit"][-1]
    ties = np.diff(np.sort(last)[:, -2:])[:, 0] < 2 * np.abs(last - other).max()
    assert ties.mean() < 0.1
    np.testing.assert_array_equal(last.argmax(-1)[~ties], other.argmax(-1)[~ties])


def poisson(seed: int) -> ir.Network:
    """Two Poisson inputs, signed and not, summed."""
    return dyadic.spiking(
        [
            ir.Population("signed", (6,), ir.PoissonInput(0.5, signed=True, seed=seed)),
            ir.Population("unsigned", (6,), ir.PoissonInput(2.0)),
            ir.Population("y", (6,), ir.Integrate()),
        ],
        [ir.Connection("signed", "y"), ir.Connection("unsigned", "y")],
        ["signed", "unsigned"],
        ["y"],
        timesteps=12_500,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_poisson_spikes_come_at_their_rate_and_the_same_every_time(backend):
    """Over 10⁵ steps: as often as the binomial distribution says, once in a million tries excepted."""
    x = np.tile(np.float32([0, -0.125, 0.5, 4, -1.5, 0.03125]), (8, 1))
    compiled = snnc.compile(poisson(0), backend)
    found = compiled.simulate({"signed": x, "unsigned": x}, record=True)
    shown = {"signed": (np.abs(x[0]) / 0.5, np.sign(x[0])), "unsigned": (np.maximum(x[0], 0) / 2, np.ones(6))}
    for name, (magnitude, sign) in shown.items():
        trains = found.trains[name]
        counts, steps = (trains * sign).sum((0, 1)), trains[..., 0].size
        assert steps == 10**5
        low, high = binom.interval(1 - 1e-6, steps, 1 - np.exp(-magnitude.astype(np.float64)))
        assert ((low <= counts) & (counts <= high)).all()
        assert (np.unique(trains * sign) == [0, 1]).all()
        np.testing.assert_array_equal(found.spike_counts[name], np.abs(trains).sum(0))
    assert (found.trains["signed"][:, 0] != found.trains["signed"][:, 1]).any()
    sums = 0.5 * found.trains["signed"].sum(0) + 2 * found.trains["unsigned"].sum(0)
    np.testing.assert_array_equal(found.potentials["y"], sums)

    def trains(compiled):
        return compiled.simulate({"signed": x[:1], "unsigned": x[:1]}, record=["signed"]).trains["signed"]

    np.testing.assert_array_equal(trains(compiled), found.trains["signed"][:, :1])
    np.testing.assert_array_equal(trains(snnc.compile(poisson(0), backend)), trains(compiled))
    assert (trains(snnc.compile(poisson(1), backend)) != trains(compiled)).any()
