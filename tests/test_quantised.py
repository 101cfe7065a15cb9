"""Quantised activations, however they are written, become rectifiers of so many levels, and spikes that say just those.

PyTorch is the oracle for what a module computes, onnxruntime for QuantizeLinear. Sums of weights are no multiples of
the quanta, so that only a few numbers in a million lie so near to the middle of two steps that the last bit decides.
"""

import dataclasses
import warnings
from importlib.util import find_spec

import dyadic
import naive
import numpy as np
import pytest
from test_conformance import BACKENDS, assert_same

import snnc
from snnc import ir, proof

needs_torch = pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed")
LEVELS, LARGEST = 8, 1.7
RNG = np.random.default_rng(0)


def forms():
    """Activations of 8 levels up to 1.7, or as their names say, in the ways in which people write them."""
    import torch
    from torch.nn.functional import hardtanh, relu6

    class Floor(torch.autograd.Function):
        """As networks are trained through a floor."""

        @staticmethod
        def forward(ctx, x):
            return x.floor()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    def straight_through(v):
        return v + (torch.round(v) - v).detach()

    q = LARGEST / LEVELS
    return {
        "clamp-floor": lambda x: torch.clamp(x / LARGEST, 0, 1).mul(LEVELS).add(0.5).floor() / LEVELS * LARGEST,
        "autograd-function": lambda x: Floor.apply(torch.clamp(x / LARGEST, 0, 1) * LEVELS + 0.5) / LEVELS * LARGEST,
        "floor-clamp": lambda x: torch.clamp(torch.floor(x / q + 0.5) / LEVELS, 0.0, 1.0) * LARGEST,
        "clamp-round": lambda x: torch.round(torch.clamp(x / q, 0, LEVELS)) * q,
        "round-clamp": lambda x: torch.clamp(torch.round(x / q), 0, LEVELS) * q,
        "relu-min": lambda x: torch.floor(torch.clamp(torch.relu(x / q), max=float(LEVELS)) + 0.5) * q,
        "floor-relu-min": lambda x: torch.clamp(torch.relu(torch.floor(x / q + 0.5)), max=float(LEVELS)) * q,
        "turned-round": lambda x: torch.round((LARGEST - torch.relu(LARGEST - torch.relu(x))) / q) * q,
        "straight-through": lambda x: straight_through(torch.clamp(x / q, 0, LEVELS)) * q,
        "straight-through-clamp": lambda x: torch.clamp(straight_through(x / q), 0, LEVELS) * q,
        "straight-through-whole": lambda x: x + (torch.clamp(x / q, 0, LEVELS).round() * q - x).detach(),
        "hardtanh": lambda x: torch.floor(hardtanh(x / LARGEST, 0.0, 1.0) * LEVELS + 0.5) * q,
        "ceil": lambda x: torch.ceil(torch.clamp(x / q, 0, LEVELS) - 0.5) * q,
        "downwards": lambda x: torch.floor(torch.clamp(x / LARGEST, 0, 1) * LEVELS) * q,
        "relu6-of-12": lambda x: torch.round(relu6(x) * 2) / 2,
        "signed-of-16": lambda x: torch.round(torch.clamp(x / LARGEST, -1, 1) * LEVELS) * q,
        "relu-after": lambda x: torch.relu(torch.clamp(torch.round(x / q), -LEVELS, LEVELS) * q),
        "twice": lambda x: torch.round(torch.clamp(torch.round(x / q), 0, LEVELS)) * q,
        "bytes-of-255": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.02, 3, 0, 255),
    }


def network_of(activation):
    import torch

    class Activation(torch.nn.Module):
        def forward(self, x):
            return activation(x)

    torch.manual_seed(0)
    nn = torch.nn
    layers = [nn.Conv2d(3, 6, 3), Activation(), nn.Conv2d(6, 5, 3), Activation(), nn.Flatten(), nn.Linear(80, 7)]
    return nn.Sequential(*layers).eval()


def computed(module, x):
    import torch

    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def differing(found, expected):
    """How many images differ."""
    return (np.abs(found - expected) > 1e-5 * np.abs(expected).max()).any(1).sum()


def levels_of(network):
    return [p.neuron.levels for p in network.populations.values() if isinstance(p.neuron, ir.QuantizedRelu)]


@needs_torch
@pytest.mark.parametrize("exporter", ["new", "legacy"])
@pytest.mark.parametrize("form", forms() if find_spec("torch") else [])
def test_every_form_is_read_and_said_in_spikes_exactly(form, exporter, tmp_path):
    import torch

    module = network_of(forms()[form])
    x = 2 * np.random.default_rng(1).normal(size=(60, 3, 8, 8)).astype(np.float32)
    source, path = module, tmp_path / "model.onnx"
    if exporter == "legacy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (torch.zeros(1, 3, 8, 8),), path, dynamo=False)
        source = path
    network = snnc.load(source, inputs=torch.zeros(1, 3, 8, 8) if source is module else None, verify=True)
    (levels,) = {int(text) for text in form.split("-") if text.isdigit()} or {LEVELS}
    assert levels_of(network) == [levels] * 2
    expected, images = computed(module, x), np.moveaxis(x, 1, -1)
    strays = len(x) // 20 if levels > 100 else 0  # of 18 000 numbers, those within 1e-7 of the middle of two steps
    assert differing(snnc.compile(network).predict(images), expected) <= strays
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        snn = snnc.convert(network, f"few-spike{{k={levels.bit_length()}}}", calibration=images, progress=False)
    assert differing(snnc.compile(snn).predict(images), expected) <= strays


@needs_torch
@pytest.mark.parametrize(("levels", "activation"), [(4, "clamp-floor"), (8, "clamp-round"), (12, "relu6")])
def test_one_hidden_layer_is_exact_at_as_many_timesteps_as_levels(levels, activation):
    """The default picks T; more layers differ, as spikes come unevenly."""
    import torch

    torch.manual_seed(1)
    bends = {
        "clamp-floor": lambda v: torch.floor(torch.clamp(v / 1.3, 0, 1) * levels + 0.5) / levels * 1.3,
        "clamp-round": lambda v: torch.clamp(torch.round(v / 1.3 * levels), 0, levels) / levels * 1.3,
        "relu6": lambda v: torch.round(torch.nn.functional.relu6(v) * 2) / 2,
    }

    class Activation(torch.nn.Module):
        def forward(self, x):
            return bends[activation](x)

    module = torch.nn.Sequential(torch.nn.Linear(12, 30), Activation(), torch.nn.Linear(30, 4)).eval()
    x = 3 * np.random.default_rng(2).normal(size=(300, 12)).astype(np.float32)
    network = snnc.load(module, inputs=torch.zeros(1, 12), verify=True)
    assert snnc.default_timesteps(network) == levels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        snn = snnc.convert(network, calibration=x[:5], progress=False)  # images say nothing about λ here
    assert snn.timesteps == levels
    expected = computed(module, x)
    np.testing.assert_allclose(snnc.compile(snn).predict(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@needs_torch
def test_a_conversion_that_only_comes_close_says_so():
    import torch

    network = snnc.load(network_of(forms()["clamp-floor"]), inputs=torch.zeros(1, 3, 8, 8))
    x = RNG.normal(size=(9, 8, 8, 3)).astype(np.float32)
    close = r"quantised to 8 levels .* timesteps=8, or few-spike\{k=4\}.*layers: .*1"
    for pipeline, timesteps in (("data-norm", 16), ("spike-norm", 9), ("few-spike{k=3}", 8)):
        with pytest.warns(ir.ModelWarning, match=close):
            snnc.convert(network, pipeline, calibration=x, timesteps=timesteps, progress=False)


@needs_torch
@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        ("floor(x)", "no bounds"),
        ("relu(round(x))", "no bounds"),
        ("clamp(round(x), 0.0, 1.25)", "clips between two of the steps"),
    ],
)
def test_what_no_levels_stand_for_is_refused(activation, reason):
    import torch

    class Activation(torch.nn.Module):
        def forward(self, x):
            return eval(activation, vars(torch), {"x": x})

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), Activation(), torch.nn.Linear(3, 2))
    with pytest.raises(ir.UnsupportedModelError, match=reason) as error:
        snnc.load(module, inputs=torch.zeros(1, 4))
    (problem,) = error.value.problems
    assert problem.layer == "1"


@needs_torch
def test_verification_finds_rounding_that_was_read_wrongly(monkeypatch):
    import torch

    def planted(neuron):
        def wrong(*arguments):
            found = right(*arguments)
            return dataclasses.replace(found, summed=found.summed.shifted(np.array(0.5 * neuron), ()))

        return wrong

    from snnc.frontend import operators

    right = operators._HANDLERS["Floor"]
    module = network_of(forms()["clamp-floor"])
    assert 0 <= proof.prove(snnc.frontend.read(module, torch.zeros(1, 3, 8, 8))) < 1e-3
    monkeypatch.setitem(operators._HANDLERS, "Floor", planted(1.0))
    with pytest.raises(ir.MismatchError, match=r"onnxruntime computes .* where the network has") as error:
        snnc.load(module, inputs=torch.zeros(1, 3, 8, 8), verify=True)
    assert error.value.layer == "1"


@pytest.mark.parametrize("ties", ["up", "even", "odd"])
def test_ties(ties):
    neuron = ir.QuantizedRelu(2.0, 8, ties)
    halves = np.arange(-4, 21, dtype=np.float32)[None] / 8
    even = np.clip(np.rint(halves * 4), 0, 8) / 4
    expected = {"even": even, "up": np.clip(np.floor(halves * 4 + 0.5), 0, 8) / 4}
    expected["odd"] = np.clip(np.rint(halves * 4 + 1) - 1, 0, 8) / 4
    np.testing.assert_array_equal(neuron.apply(halves), expected[ties])
    populations = [ir.Population("x", (25,), ir.Input()), ir.Population("y", (25,), neuron)]
    network = ir.Network(populations, [ir.Connection("x", "y")], ["x"], ["y"])
    np.testing.assert_array_equal(snnc.compile(network).predict(halves), expected[ties])


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_keep_to_the_limit(backend):
    network = dyadic.phases()
    limits = {"stem": 100, "block": 17, "join": 3}
    populations = [
        dataclasses.replace(p, neuron=dataclasses.replace(p.neuron, limit=limits[p.name])) if p.name in limits else p
        for p in network.populations.values()
    ]
    limited = network.replace(populations=populations)
    ir.verify(limited, "spiking")
    images = dyadic.images(limited)
    expected = naive.simulate(limited, images)
    assert not np.array_equal(expected.trains["join"], naive.simulate(network, images).trains["join"])
    assert_same(snnc.compile(limited, backend).simulate(images, record=True), expected)


def test_networks_with_levels_that_cannot_be_are_refused():
    def faults(analog, spiking):
        x, y = ir.Population("x", (3,), ir.Input()), ir.Population("y", (3,), analog)
        yield from ir.faults(ir.Network([x, y], [ir.Connection("x", "y")], ["x"], ["y"]), "analog")
        x, y = ir.Population("x", (3,), ir.GradedInput()), ir.Population("y", (3,), spiking)
        yield from ir.faults(ir.Network([x, y], [ir.Connection("x", "y")], ["x"], ["y"], 3), "spiking")

    assert not list(faults(ir.QuantizedRelu(2.0, 4), ir.FewSpike(3, 1.0, limit=7)))
    for levels, limit in ((0, 8), (-1, -1)):
        one, other = faults(ir.QuantizedRelu(2.0, levels), ir.FewSpike(3, 1.0, limit=limit))
        assert "levels" in one
        assert "limit" in other
