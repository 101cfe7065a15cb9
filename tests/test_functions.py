"""Functions as neurons: each is what PyTorch or numpy computes, and is said by few-spike neurons on every backend."""

import dyadic
import naive
import numpy as np
import pytest
from dyadic import dyadic as weights
from test_conformance import BACKENDS, assert_same

import snnc
from snnc import ir
from snnc.ir import functions

NAMES = sorted(ir.FUNCTIONS)
PARAMETERS = {
    "celu": 0.7,
    "elu": 0.7,
    "hard_shrink": 0.5,
    "soft_shrink": 0.5,
    "silu": 1.3,
    "squareplus": 4.0,
    "power": 3.0,
}
X = np.linspace(-12, 12, 4001)
DOMAINS = {
    **dict.fromkeys(("log", "reciprocal", "rsqrt", "sqrt"), (0.01, np.inf)),
    **dict.fromkeys(("acos", "asin", "atanh"), (-0.999, 0.999)),
    "acosh": (1.001, np.inf),
    "tan": (-1.4, 1.4),
}


def drawn(name):
    """Numbers that a function is defined for."""
    low, high = DOMAINS.get(name, (-np.inf, np.inf))
    return X[(low < X) & (high > X)]


def reference(name):
    """PyTorch's function, in double precision."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    return {
        "celu": lambda x: f.celu(x, 0.7),
        "elu": lambda x: f.elu(x, 0.7),
        "gelu": f.gelu,
        "gelu_tanh": lambda x: f.gelu(x, approximate="tanh"),
        "hard_shrink": f.hardshrink,
        "hard_swish": f.hardswish,
        "identity": lambda x: x,
        "log_sigmoid": f.logsigmoid,
        "mish": f.mish,
        "power": lambda x: x**3,
        "reciprocal_no_nan": lambda x: torch.where(x == 0, 0.0, 1 / x),
        "selu": f.selu,
        "silu": lambda x: x * torch.sigmoid(1.3 * x),
        "soft_shrink": f.softshrink,
        "softplus": f.softplus,
        "softsign": f.softsign,
        "squareplus": lambda x: (x + torch.sqrt(x * x + 4)) / 2,
        "tanh_shrink": f.tanhshrink,
    }.get(name) or getattr(torch, name)


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    x = drawn(name)
    expected = reference(name)(torch.from_numpy(x)).numpy()
    found = ir.FUNCTIONS[name].apply(x, PARAMETERS.get(name, 1.0))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_functions_keep_their_bounds_and_give_numbers(name):
    x = np.float32([-3e38, -1e30, -100, -1, -1e-30, 0, 1e-30, 1, 100, 1e30, 3e38, *X])
    definition = ir.FUNCTIONS[name]
    y = definition.apply(x)
    assert not np.isnan(y[np.abs(x) < 1e10]).any()
    finite = y[np.isfinite(y)]
    assert definition.low - 1e-6 <= finite.min()
    assert finite.max() <= definition.high + 1e-6
    assert definition.is_signed == (definition.low < 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_analog_network_computes_them(name):
    x = np.float32(drawn(name))[None]
    neuron = ir.Function(name, PARAMETERS.get(name, 1.0))
    size = x.shape[1:]
    populations = [ir.Population("x", size, ir.Input()), ir.Population("y", size, neuron)]
    network = ir.Network(populations, [ir.Connection("x", "y")], ["x"], ["y"])
    expected = neuron.apply(x)
    np.testing.assert_allclose(snnc.compile(network).predict(x), expected, rtol=1e-4, atol=1e-5)


def exact(name, parameter=1.0, signed=True):
    """A network whose functions give dyadic numbers, of images and of vectors, at different depths."""
    k = 7
    alphas = np.array([4.0, 2.0, 1.0, 8.0], np.float32)
    of = {"computes": ir.Function(name, parameter), "signed": signed}
    return dyadic.spiking(
        [
            ir.Population("image", (5, 5, 2), ir.GradedInput()),
            ir.Population("events", (6,), ir.FewSpikeInput(4, 1.0, 1 / 32, signed=True)),
            ir.Population(
                "maps", (5, 5, 4), ir.FewSpikeFunction(k, alphas, alphas / 256, **of), weights(1, 4, limit=0.25)
            ),
            ir.Population("flat", (5,), ir.FewSpikeFunction(5, 2.0, **of), weights(2, 5, limit=0.25)),
            ir.Population("rectified", (5, 5, 4), ir.FewSpike(6, 4.0)),
            ir.Population("y", (3,), ir.FewSpikeReadout(), weights(3, 3)),
        ],
        [
            ir.Connection("image", "maps", (ir.Conv2D(weights(4, 3, 3, 2, 4, step=1 / 16), padding=((1, 1), (1, 1))),)),
            ir.Connection("maps", "rectified", (ir.Conv2D(weights(5, 1, 1, 4, 4, step=1 / 16)),)),
            ir.Connection("image", "rectified", (ir.Pad(((0, 0), (0, 0), (2, 0))),)),
            ir.Connection("events", "flat", (ir.Dense(weights(6, 6, 5, step=1 / 16)),)),
            ir.Connection("flat", "y", (ir.Dense(weights(7, 5, 3, step=1 / 16)),)),
            ir.Connection("maps", "y", (ir.Flatten(), ir.Dense(weights(8, 100, 3, step=1 / 16)))),
            ir.Connection("rectified", "y", (ir.Flatten(), ir.Dense(weights(9, 100, 3, step=1 / 16)))),
        ],
        ["image", "events"],
        ["flat", "y"],
        timesteps=k,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "parameter", "signed"),
    [("abs", 1.0, False), ("square", 1.0, True), ("soft_shrink", 0.25, True), ("hard_shrink", 0.5, False)],
)
def test_backends_agree_spike_for_spike_where_numbers_are_exact(name, parameter, signed, backend):
    network = exact(name, parameter, signed)
    images = dyadic.images(network, count=4)
    compiled = snnc.compile(network, backend)
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        shown = {key: x[order] for key, x in images.items()}
        assert_same(compiled.simulate(shown, record=True), naive.simulate(network, shown))


def all_functions():
    """Each function with inputs on both sides of zero, or above it where it has no value below."""
    populations = [ir.Population("x", (40,), ir.GradedInput())]
    connections = []
    for name in NAMES:
        definition = ir.FUNCTIONS[name]
        low, high = np.clip(DOMAINS.get(name, (-6, 6)), -6, 12)  # of numbers from −6 to 6, stretched and shifted
        computes = ir.Function(name, PARAMETERS.get(name, 1.0))
        neuron = ir.FewSpikeFunction(8, 8.0, 1 / 64, computes, definition.is_signed)
        populations.append(ir.Population(name, (40,), neuron, np.full(40, (low + high) / 2)))
        connections.append(ir.Connection("x", name, (ir.Scale(np.full(40, (high - low) / 12)),)))
    return dyadic.spiking(populations, connections, ["x"], NAMES, timesteps=8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transcendental_functions_differ_in_hardly_any_spike(backend):
    network = all_functions()
    x = np.random.default_rng(0).uniform(-6, 6, (100, 40)).astype(np.float32)
    found = snnc.compile(network, backend).simulate(x, record=True)
    few = {"x": x[:20]}
    expected = naive.simulate(network, few)
    steps = different = 0
    for name, trains in expected.trains.items():
        different += int((found.trains[name][:, :20] != trains).sum())
        steps += trains.size
        (edge,) = network.incoming(name)
        given = ir.apply(edge.operators, x) + network.populations[name].bias
        y = ir.Function(name, PARAMETERS.get(name, 1.0)).apply(given)
        levels = 8 * (1 - 2**-8)
        said = np.clip(y, -levels if ir.FUNCTIONS[name].is_signed else 0, levels)
        np.testing.assert_allclose(found.decoded[name][0], said, atol=1 / 64 + 1e-4)
    assert different <= steps / 1e4


def test_numbers_beyond_all_bounds_are_cut_off():
    populations = [ir.Population("x", (4,), ir.GradedInput())]
    names = ["exp", "reciprocal", "log", "rsqrt", "power"]
    populations += [ir.Population(n, (4,), ir.FewSpikeFunction(4, 2.0, 0.0, ir.Function(n, 3.0))) for n in names]
    network = dyadic.spiking(populations, [ir.Connection("x", n) for n in names], ["x"], names, timesteps=4)
    decoded = snnc.compile(network).predict(np.float32([[0, -1e30, 1e30, 3e38]]))
    for name in names:
        assert np.isfinite(decoded[name]).all()
        assert np.abs(decoded[name]).max() <= 2 * (1 - 2**-4)


def test_a_function_of_another_package(monkeypatch):
    monkeypatch.setattr(functions, "FUNCTIONS", dict(functions.FUNCTIONS))
    bump = functions.FunctionDefinition("bump", "x * exp(-x * x)", -0.43, 0.43)
    functions.register(bump)
    assert bump.apply(np.array([1.0])) == pytest.approx(np.exp(-1))
    with pytest.raises(ValueError, match="already"):
        functions.register(bump)
    for wrong in ("__import__('os')", "x.real", "[x]", "open(x)", "x if x > 1 else p"):
        with pytest.raises(ValueError, match="not for expressions"):
            functions.register(functions.FunctionDefinition("wrong", wrong))


def test_networks_of_functions_are_kept_and_printed(tmp_path):
    network = exact("soft_shrink", 0.25)
    snnc.save(network, tmp_path / "net.snn")
    assert snnc.load(tmp_path / "net.snn") == network
    assert ir.diff(ir.parse(str(network), ir.arrays_of(network)), network) == ()
    unknown = network.replace(populations=[ir.Population("image", (5, 5, 2), ir.Function("nothing"))])
    assert "there is no function 'nothing'" in " ".join(ir.faults(unknown, "analog"))


def converted(function, x, bias=None, **options):
    """An output that is a function of the input, as few spikes."""
    size = x.shape[1:]
    populations = [ir.Population("x", size, ir.Input()), ir.Population("y", size, ir.Function(function), bias)]
    network = ir.Network(populations, [ir.Connection("x", "y")], ["x"], ["y"])
    given = "".join(f",{name.replace('_', '-')}={value}" for name, value in options.items())
    return snnc.convert(network, f"few-spike{{k=5{given}}}", calibration=x)


@pytest.mark.parametrize(
    ("function", "more"), [("exp", 2), ("square", 2), ("rsqrt", 1), ("sqrt", 1), ("silu", 0), ("identity", 0)]
)
def test_what_scales_others_has_more_bits(function, more):
    x = np.random.default_rng(0).uniform(1, 3, (200, 6)).astype(np.float32)
    x[:, :2] **= 2
    network = converted(function, x)
    assert network.populations["y"].neuron.k == 5 + more
    assert network.timesteps == 5 + more
    assert converted(function, x, factor_k=0).timesteps == 5
    assert converted(function, x, layer_k="y:3").populations["y"].neuron.k == 3


@pytest.mark.parametrize("k", [4, 6, 8])
def test_squares_under_a_root_have_the_bits_that_the_root_needs(k):
    """Magnitudes of complex numbers of scales far apart, as of spectra, are as exact as other activations."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((400, 1, 2, 12)) * np.logspace(0, 2.5, 12)).astype(np.float32)
    populations = [
        ir.Population("x", (1, 2, 12), ir.Input()),
        *(ir.Population(name, (12,), ir.Function("square")) for name in ("real", "imaginary")),
        ir.Population("y", (12,), ir.Function("sqrt")),
    ]
    edges = [
        ir.Connection("x", name, (ir.Flatten(), ir.Pick(12 * part + np.arange(12))))
        for part, name in enumerate(("real", "imaginary"))
    ]
    edges += [ir.Connection(name, "y") for name in ("real", "imaginary")]
    network = ir.Network(populations, edges, ["x"], ["y"])
    snn = snnc.convert(network, f"few-spike{{k={k}}}", calibration=x[:200])
    assert snn.populations["real"].neuron.k > k + 2
    assert snn.populations["y"].neuron.k <= k + 2
    magnitudes = np.hypot(x[200:, 0, 0], x[200:, 0, 1])
    error = np.abs(snnc.compile(snn).predict(x[200:]) - magnitudes)
    assert error.mean() <= snn.populations["y"].neuron.alpha * 2.0**-k


def test_codes_reach_no_farther_than_functions_do():
    x = np.random.default_rng(0).normal(0, 3, (6, 5)).astype(np.float32)
    for function in ("sigmoid", "tanh", "atan", "sign"):
        neuron = converted(function, x, per_channel="true").populations["y"].neuron
        assert (neuron.alpha * (1 - 2.0**-neuron.k) <= ir.FUNCTIONS[function].high + 1e-6).all()


@pytest.mark.parametrize("pipeline", ["few-spike{k=5}", "tracking"])
@pytest.mark.parametrize(
    "neuron",
    [*(ir.Function(function) for function in ("reciprocal", "rsqrt", "log")), ir.Product("reciprocal")],
    ids=lambda neuron: f"{type(neuron).__name__}-{neuron.function}",
)
def test_functions_that_leave_their_range_are_named_and_give_numbers(neuron, pipeline):
    x = np.random.default_rng(0).uniform(-0.2, 1, (64, 6)).astype(np.float32)
    x[3, 2] = 1e-9
    bias = np.arange(3, 9, dtype=np.float32) if neuron.ports > 1 else None  # what is divided
    populations = [ir.Population("x", (6,), ir.Input()), ir.Population("y", (6,), neuron, bias)]
    edges = [ir.Connection("x", "y", port=port) for port in range(neuron.ports)]
    analog = ir.Network(populations, edges, ["x"], ["y"])
    with pytest.warns(ir.ModelWarning, match=rf"y \({neuron.function} up to"):
        network = snnc.convert(analog, pipeline, calibration=x, timesteps=8)
    with pytest.warns(ir.ModelWarning, match="it was calibrated for"):
        assert np.isfinite(snnc.compile(network).predict(x * np.float32(1e30))).all()


def test_an_exponential_that_overflows_is_an_error_that_names_layer_and_image():
    x = np.ones((8, 3), np.float32)
    x[5, 1] = 200
    with pytest.raises(ir.DataError, match="calibration image 5 drives y beyond"):
        converted("exp", x)


@pytest.mark.parametrize("exponent", [3.0, -3.0, 8.0, 9.0, -9.0, 12.0, 0.0, 1.0, 0.5])
def test_genn_is_given_powers_that_quick_arithmetic_gets_right(exponent):
    """On a GPU GeNN's `pow` is 2 ** (p * log2(x)), which is no number for negative x."""
    neurons = pytest.importorskip("snnc.backend.mlgenn.neurons", reason="mlGeNN is not installed")

    def quick(x, p):
        assert x > 0
        return 2 ** (p * np.log2(x))

    code = neurons._expression("power", exponent, "x")
    for x in (0.75, 1.5) if exponent % 1 else (-1.5, -0.5, 0.75, 1.5):
        assert eval(code, {"x": x, "pow": quick, "fabs": abs}) == pytest.approx(x**exponent, rel=1e-12), code
