"""Functions as rectifiers: an error that is certain, and spikes of any code that come as near."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import weights
from reference import analog

import snnc
from snnc import ir
from snnc.ir import Connection, Network, Origin, Population, functions
from snnc.passes import Canonicalise, Context, LowerFunctions, run
from snnc.passes.enclosure import enclosure
from snnc.passes.expansion import Expansion, ExpansionError, at_most, expansion, tends_to_lines

JUMPS = {"hard_shrink", "sign"}
NAMES = sorted({*ir.FUNCTIONS} - JUMPS)
POSITIVE = {"log", "reciprocal", "reciprocal_no_nan", "rsqrt", "sqrt"}
DOMAINS = {"atanh": (-0.9, 0.95), "tan": (-1.2, 1.4)}
EXACT = {"abs", "identity", "soft_shrink"}
SHARP = st.floats(0.3, 4.0)
PARAMETERS = dict.fromkeys(("celu", "elu", "silu", "soft_shrink", "squareplus"), SHARP)
PARAMETERS["power"] = st.sampled_from([1.0, 2.0, 3.0, 4.0])
IMAGES = weights(9, 60, 6, 5, 2)


def ranged(name: str, parameter: float = 1.0) -> tuple[float, float]:
    """Where to approximate a function: everywhere if it tends to lines, else on some range."""
    left, right = tends_to_lines(name, parameter)
    low, high = DOMAINS.get(name, (0.1 if name in POSITIVE else -4.0, 3.0))
    return -math.inf if left else low, math.inf if right else high


def real_error(line: Expansion, points: int) -> float:
    """The largest error that a grid shows, off those that the certificate may have looked at."""
    size = line.knots[-1] - line.knots[0] + 1
    low, high = max(line.low, line.knots[0] - size), min(line.high, line.knots[-1] + size)
    x = np.linspace(low, high, points) + (high - low) / points / math.pi
    x = np.clip(np.append(x, [-1e4, 1e4]), line.low, line.high)
    return float(np.abs(ir.FUNCTIONS[line.function].apply(x, line.parameter) - line.apply(x)).max())


@pytest.mark.parametrize("name", sorted(ir.FUNCTIONS))
def test_enclosures_hold_all_values_and_slopes(name):
    rng = np.random.default_rng(0)
    low = rng.uniform(-6, 6, 300)
    low = np.abs(low) + 0.05 if name in POSITIVE else low
    high = low + 10 ** rng.uniform(-4, 0.3, 300)
    x = low + (high - low) * np.linspace(0, 1, 65)[:, None]
    for parameter in (1.0, 3.0):
        y = ir.FUNCTIONS[name].apply(x, parameter)
        value, slope = enclosure(ir.FUNCTIONS[name], parameter, low, high)
        assert (value.low - 1e-10 <= y).all()
        assert (y <= value.high + 1e-10).all()
        slopes = np.diff(y, axis=0) / np.diff(x, axis=0)
        assert (slope.low - 1e-6 <= slopes).all()
        assert (slopes <= slope.high + 1e-6).all()


@pytest.mark.parametrize(
    "expression",
    [
        "2 ** x", "(1 + x * x) ** -1.5", "x ** -2", "x ** 0.5", "where(x > 1, x * x, 2 * x - 1)", "(x > 1) * x",
        "log(sqrt(x + 7)) / cos(x / 9)", "-min(sin(3 * x), abs(x - p))",
    ],
)  # fmt: skip
def test_enclosures_of_other_expressions(expression):
    definition = functions.FunctionDefinition("other", expression)
    low = np.linspace(-6, 5.9, 239)
    high = low + 0.07
    x = low + (high - low) * np.linspace(0, 1, 33)[:, None]
    with np.errstate(all="ignore"):
        y = definition.apply(x, 0.5)
    value, slope = enclosure(definition, 0.5, low, high)
    finite = np.isfinite(y).all(0)
    assert finite.sum() > 100
    assert ((value.low - 1e-10 <= y) & (y <= value.high + 1e-10))[:, finite].all()
    slopes = np.diff(y, axis=0)[:, finite] / np.diff(x, axis=0)[:, finite]
    assert (slope.low[finite] - 1e-6 <= slopes).all()
    assert (slopes <= slope.high[finite] + 1e-6).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_certificate_holds_and_is_no_more_than_twice_the_error(name, data):
    parameter = data.draw(PARAMETERS.get(name, st.just(1.0)))
    pieces = data.draw(st.integers(4, 24))
    line = expansion(name, parameter, pieces, *ranged(name, parameter))
    assert line.pieces <= pieces
    real = real_error(line, 100_003)
    assert real <= line.bound <= 2 * real + 1e-9


@pytest.mark.parametrize(("name", "parameter"), [("silu", 1.702), ("exp", 1.0), ("tanh", 1.0), ("sqrt", 1.0)])
def test_the_certificate_holds_at_a_million_points(name, parameter):
    line = expansion(name, parameter, 16, *ranged(name, parameter))
    real = real_error(line, 1_000_003)
    assert real <= line.bound <= 1.1 * real


@pytest.mark.parametrize(
    ("name", "pieces", "error"),
    [
        ("silu", 8, 0.016),
        ("silu", 16, 0.0041),
        ("gelu", 8, 0.011),
        ("gelu", 16, 0.003),
        ("sigmoid", 8, 0.0083),
        ("sigmoid", 16, 0.002),
    ],
)
def test_few_pieces_are_enough(name, pieces, error):
    assert expansion(name, pieces=pieces).bound < error


def test_few_pieces_are_enough_for_the_exponential():
    assert expansion("exp", pieces=8, low=-8.0, high=0.0).bound < 0.0042


@pytest.mark.parametrize("name", [name for name in NAMES if all(tends_to_lines(name, 1.0))])
def test_ends_are_the_very_lines(name):
    line = expansion(name)
    x = np.array([-1e5, -1e4, 1e4, 1e5])
    for (slope, at_0), chosen in zip(ir.FUNCTIONS[name].lines(), (x < 0, x > 0), strict=True):
        np.testing.assert_allclose(line.apply(x[chosen]), slope * x[chosen] + at_0, rtol=1e-12, atol=1e-12)
    assert line.bound < 1e-12 or name not in EXACT


@pytest.mark.parametrize("name", sorted(ir.FUNCTIONS))
def test_functions_tend_to_the_lines_that_are_written_down(name):
    definition = ir.FUNCTIONS[name]
    assert tends_to_lines(name, 1.0) == (bool(definition.left), bool(definition.right))


@pytest.mark.parametrize("parameter", [-2.0, 0.01, 100.0])
def test_lines_change_sides_with_the_sign_of_a_parameter(parameter):
    line = expansion("silu", parameter)
    assert (line.left, line.right) == ((1, 0) if parameter < 0 else (0, 1))
    assert real_error(line, 100_003) <= line.bound <= 0.004 / abs(parameter)


@pytest.mark.parametrize("name", ["silu", "gelu", "sigmoid", "squareplus"])
def test_a_tolerance_takes_as_few_pieces_as_keep_it(name):
    line = expansion(name, tolerance=0.01)
    assert real_error(line, 100_003) <= line.bound <= 0.01
    assert expansion(name, pieces=line.pieces - 1).bound > 0.01


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("hard_shrink", -math.inf, math.inf),
        ("reciprocal", -1.0, 2.0),
        ("reciprocal_no_nan", -1.0, 2.0),
        ("log", -1.0, 3.0),
    ],
)
def test_jumps_and_poles_are_refused(name, low, high):
    with pytest.raises(ExpansionError, match=r"jumps|finite"):
        expansion(name, 0.5, 16, low, high)


def test_the_identity_is_two_rectifiers():
    line = expansion("identity", pieces=2)
    assert (line.knots, line.left, line.right, line.pieces) == ((0,), 1, 1, 2)
    assert line.bound < 1e-12


def test_what_tends_to_no_line_needs_a_range():
    with pytest.raises(ExpansionError, match="needs a range"):
        expansion("exp")
    with pytest.raises(ExpansionError, match="too few"):
        expansion("tanh_shrink", pieces=1)


def network(name: str, parameter: float = 1.0, bias: np.ndarray | None = None) -> Network:
    """A function over a convolution, which is also an output, and one over a dense layer, with pooling between."""
    bias = np.full(3, 2.5, np.float32) if bias is None else bias
    neuron = ir.Function(name, parameter)
    return Network(
        [
            Population("x", (6, 5, 2), ir.Input()),
            Population("maps", (6, 5, 3), neuron, bias, Origin(("conv", "act"))),
            Population("flat", (10,), neuron, np.full(10, 1.5, np.float32), Origin(("dense",))),
            Population("y", (4,), ir.Identity(), weights(2, 4)),
        ],
        [
            Connection("x", "maps", (ir.Conv2D(weights(3, 3, 3, 2, 3, scale=0.2), padding=((1, 1), (1, 1))),)),
            Connection("maps", "flat", (ir.AveragePool2D((2, 2), (2, 2)), ir.Dense(weights(4, 18, 10, scale=0.05)))),
            Connection("flat", "y", (ir.Dense(weights(5, 10, 4)),)),
            Connection("x", "flat", (ir.Dense(weights(6, 60, 10, scale=0.02)),)),
        ],
        ["x"],
        ["maps", "y"],
    )  # fmt: skip


def lowered(before: Network, **options) -> Network:
    steps = [Canonicalise(), LowerFunctions(**options)]
    return snnc.run_pipeline(before, steps, calibration=IMAGES, progress=False)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DOMAINS])  # others have poles within reach
def test_networks_come_as_near_as_the_certificate_says(name):
    before = network(name)
    after = lowered(before, pieces=8)
    assert not [p for p in after.populations.values() if isinstance(p.neuron, ir.Function)]
    expected, found = (analog(which, {"x": IMAGES}) for which in (before, after))
    low, high = ranged(name)
    inputs = ir.apply(before.connections[0].operators, IMAGES) + 2.5
    low, high = (low if low == -math.inf else inputs.min()), (high if high == math.inf else inputs.max())
    bound = expansion(name, 1.0, 8, *_widened(low, high, float(np.ptp(inputs)))).bound
    assert np.abs(found["maps"] - expected["maps"]).max() <= bound + 1e-5 * np.abs(expected["maps"]).max()
    np.testing.assert_allclose(snnc.compile(after).predict(IMAGES)["y"], found["y"], rtol=1e-3, atol=1e-4)


def _widened(low: float, high: float, span: float) -> tuple[float, float]:
    return low - 0.05 * span, high + 0.05 * span


@pytest.mark.parametrize("bias", [None, weights(7, 3), weights(8, 6, 5, 3)])
def test_biases_per_channel_and_position(bias):
    before = network("silu", 1.702, bias)
    expected, found = (analog(which, {"x": IMAGES})["maps"] for which in (before, lowered(before)))
    assert np.abs(found - expected).max() <= expansion("silu", 1.702).bound + 1e-5


def test_no_bias_at_all():
    before = network("gelu")
    populations = [ir.Population(p.name, p.shape, p.neuron, None, p.origin) for p in before.populations.values()]
    before = before.replace(populations=populations)
    expected, found = (analog(which, {"x": IMAGES})["maps"] for which in (before, lowered(before)))
    assert np.abs(found - expected).max() <= expansion("gelu").bound + 1e-5


def test_text(assert_golden):
    """Of a function that needs but four operations, so that the error is the same to the last bit on every machine."""
    assert_golden(lowered(network("hard_swish"), pieces=4), "lower-functions")


def test_a_network_without_functions_is_handed_on():
    network = lowered(_rectified())
    assert run([LowerFunctions()], network, Context()) is network


def _rectified() -> Network:
    before = network("silu")
    populations = [
        ir.Population(p.name, p.shape, ir.Relu(), p.bias) if isinstance(p.neuron, ir.Function) else p
        for p in before.populations.values()
    ]
    return before.replace(populations=populations)


@pytest.mark.parametrize(
    "pipeline",
    [
        "data-norm",
        "data-norm{percentile=99.9,per-channel=true}",
        "spike-norm",
        "few-spike{k=8}",
        "few-spike{k=8,per-channel=true},bias-correction",
    ],
)
@pytest.mark.parametrize("name", ["silu", "exp", "sigmoid"])
def test_every_code_decodes_near(name, pipeline):
    before = network(name)
    expected = analog(before, {"x": IMAGES})
    with warnings.catch_warnings():
        warnings.simplefilter("error", ir.ModelWarning)  # stretches in which no input lies are nothing to warn of
        snn = snnc.convert(before, f"lower-functions,{pipeline}", calibration=IMAGES, timesteps=64, progress=False)
    found = snnc.compile(snn).predict(IMAGES, progress=False)
    for output in ("maps", "y"):
        assert np.abs(found[output] - expected[output]).max() < 0.03 * np.abs(expected[output]).max()


def test_rate_codes_say_which_pass_helps():
    with pytest.raises(ir.UnsupportedModelError, match=r"from dense.*run lower-functions before data-norm"):
        snnc.convert(network("silu"), "data-norm", calibration=IMAGES, timesteps=4)


def test_without_calibration_the_layer_and_the_way_out_are_named():
    with pytest.raises(ir.PipelineError, match=r"maps \(exp, from conv, act\).*dense.*give calibration=.*few-spike"):
        snnc.run_pipeline(network("exp"), "canonicalise,lower-functions")
    snnc.run_pipeline(network("silu"), "canonicalise,lower-functions")


def test_what_jumps_is_refused_with_every_layer():
    with pytest.raises(ir.UnsupportedModelError) as caught:
        lowered(network("hard_shrink", 0.5))
    assert len(caught.value.problems) == 2
    assert "conv, act" in caught.value.problems[0]
    assert "jumps" in caught.value.problems[0]


@pytest.mark.parametrize("options", [{"pieces": 0}, {"pieces": 2000}, {"tolerance": -1.0}, {"tolerance": math.nan}])
def test_options_out_of_range(options):
    with pytest.raises(ir.PipelineError, match="lower-functions"):
        LowerFunctions(**options)


def test_the_bound_of_every_layer_is_noted(capsys):
    snnc.run_pipeline(network("exp"), "canonicalise,lower-functions{pieces=6}", calibration=IMAGES)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: lower-functions")]
    assert len(notes) == 2
    assert "maps (exp, from conv, act): 6 pieces, off by at most" in notes[0]
    assert "for inputs from -inf to" in notes[0]
    snnc.run_pipeline(network("silu"), "canonicalise,lower-functions", progress=False)
    assert "lower-functions" not in capsys.readouterr().err


def test_bounds_are_rounded_up():
    assert [at_most(bound) for bound in (0.003601, 0.0099999, 12.1, 1.0, 0.0)] == ["0.0037", "0.01", "13", "1", "0"]


def test_the_command_line_says_the_bound(tmp_path, snnc_command):
    snnc.save(network("silu"), tmp_path / "ann.snn")
    np.savez(tmp_path / "train.npz", x=IMAGES)
    pipeline = ("-p", "lower-functions{tolerance=0.01}, few-spike{k=8}", "-c", tmp_path / "train.npz")
    code, _, err = snnc_command("convert", tmp_path / "ann.snn", *pipeline, "-o", tmp_path / "net.snn")
    assert code == 0
    assert "note: lower-functions: maps (silu, from conv, act): 9 pieces, off by at most 0.01 for inputs of any" in err
    names = {type(p.neuron).__name__ for p in snnc.load(tmp_path / "net.snn").populations.values()}
    assert names == {"GradedInput", "FewSpike", "FewSpikeReadout"}


def test_profiles_take_no_part_of_a_sum_for_the_function():
    from snnc.profile import profile

    before = network("silu")
    snn = snnc.convert(before, "lower-functions,few-spike{k=8}", calibration=IMAGES, progress=False)
    found = profile(before, snn, IMAGES, progress=False)
    assert [layer.population for layer in found.layers] == ["maps", "y"]
    assert found.only_analog == ("flat",)
    assert max(layer.mean_error for layer in found.layers) < 0.01


@pytest.fixture
def register():
    """Registers functions, for one test."""
    known = set(functions.FUNCTIONS)
    yield functions.register
    for name in set(functions.FUNCTIONS) - known:
        del functions.FUNCTIONS[name]


@pytest.mark.parametrize(("left", "right"), [("0", "0"), ("", "")])
def test_a_function_of_another_package(register, left, right):
    register(functions.FunctionDefinition("bump", "p * x * exp(-x * x)", -0.43, 0.43, left, right))
    before = network("bump", 2.0)
    expected, found = (analog(which, {"x": IMAGES})["maps"] for which in (before, lowered(before)))
    assert tends_to_lines("bump", 2.0) == (bool(left), bool(right))
    assert np.abs(found - expected).max() < 0.02


def test_a_line_that_is_none_is_not_believed(register):
    register(functions.FunctionDefinition("wrong", "x * x", left="-x", right="x"))
    assert tends_to_lines("wrong", 1.0) == (False, False)
    with pytest.raises(ValueError, match="not for expressions"):
        register(functions.FunctionDefinition("worse", "x * x", left="open(x)"))
