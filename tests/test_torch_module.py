"""Modules in memory and fresh exports, where torch is installed; PyTorch is the oracle."""

import io
import sys
import warnings

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch_models  # noqa: E402
from test_exported_files import NAMES, assert_equal  # noqa: E402
from torch import nn  # noqa: E402

import snnc  # noqa: E402
from snnc import frontend, ir  # noqa: E402


@pytest.mark.parametrize("name", NAMES)
def test_modules_in_memory(name):
    model, x = torch_models.build(name)
    assert_equal(frontend.load(model, x), x, torch_models.outputs(model, x))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", NAMES)
def test_fresh_exports(name, exporter, dynamic):
    model, x = torch_models.build(name)
    proto = torch_models.export(model, x, exporter == "dynamo", dynamic)
    assert_equal(frontend.load(proto), x, torch_models.outputs(model, x))


def test_a_module_is_left_as_it_was():
    model, x = torch_models.build("vgg")
    model.train()
    model[1].eval()
    modes = [part.training for part in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frontend.load(model, torch.from_numpy(x))
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


class Shared(nn.Module):
    """Modules that are called twice, lie in containers that are never called, and are named to mislead."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.act_1 = nn.ReLU()
        self.heads = nn.ModuleDict({"act": nn.Linear(6, 6), "a/b c'd": nn.Linear(6, 6)})
        self.deep = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.ModuleList([nn.Linear(6, 6)])[0])
        self.conv2d = nn.Linear(6, 6)

    def forward(self, x):
        x = self.act(self.heads["act"](x))
        x = self.act_1(self.heads["a/b c'd"](x))
        x = self.act(self.heads["act"](x))
        return self.deep(torch.relu(self.conv2d(x)))


def test_origins_are_module_paths_exactly():
    network = frontend.load(Shared(), np.zeros((2, 6)))
    origins = {name: population.origin.layers for name, population in network.populations.items()}
    assert origins == {
        "x": ("x",),
        "act": ("heads.act", "act"),
        "act_1": ("heads.a/b c'd", "act_1"),
        "act#2": ("heads.act", "act"),
        "relu_3": ("conv2d", "relu_3"),
        "deep.0.1": ("deep.0.0", "deep.0.1"),
        "deep.1": ("deep.1",),
    }


def test_origins_in_files_from_torchscript():
    """Exact for modules with weights; of others the file holds only scopes, numbered where they are called the same."""
    model, x = Shared().eval(), np.zeros((1, 6), np.float32)
    network = frontend.load(torch_models.export(model, x, dynamo=False, dynamic=True))
    assert [population.origin.layers for population in network.populations.values()] == [
        ("x",),
        ("heads.act", "act_1"),
        ("heads.a/b c'd", "act_1"),
        ("heads.act", "act_3"),
        ("conv2d", "Relu"),
        ("deep.0.0", "deep.0.1"),
        ("deep.1",),
    ]


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_batches_of_a_fixed_size(exporter):
    model, x = torch_models.build("lenet")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.from_numpy(x),), file, dynamo=exporter == "dynamo")
    assert_equal(frontend.load(onnx.load_from_string(file.getvalue())), x, torch_models.outputs(model, x))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_other_precisions(kind):
    """The weights are as that precision has them; the network computes in its own."""
    model, x = torch_models.build("lenet")
    network = frontend.load(model.to(kind), x)
    assert_equal(network, x, torch_models.outputs(model.float(), x))


class Two(nn.Module):
    def forward(self, left, right):
        return torch.relu(left + 2 * right), right.amax(dim=(2, 3))


def test_several_inputs_and_outputs():
    network = frontend.load(Two(), (np.zeros((1, 2, 3, 4)), torch.zeros(1, 2, 3, 4)))
    assert network.inputs == ("left", "right")
    assert [network.populations[name].shape for name in network.outputs] == [(3, 4, 2), (2,)]


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Threshold(0.5, 0.0), nn.RReLU(), nn.ReLU()])

    def forward(self, x):
        return [block(x) for block in self.blocks]


def test_without_onnxscript(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxscript.optimizer", None)
    with pytest.raises(ir.ModelFileError, match=r"needs onnxscript.*snnc\[torch\]"):
        frontend.load(nn.ReLU(), np.zeros((1, 4)))


def test_messages():
    with pytest.raises(ir.UnsupportedModelError, match=r"give an example .* inputs="):
        frontend.load(nn.ReLU())
    with pytest.raises(ir.UnsupportedModelError, match="ReLU cannot be run on its inputs"):
        frontend.load(nn.ReLU(), "image")
    with pytest.raises(ir.UnsupportedModelError, match="Branching cannot be exported"):
        frontend.load(Branching(), np.zeros((1, 4)))
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(Unsupported(), np.zeros((1, 4)))
    assert [line.split(":")[0] for line in error.value.problems] == ["blocks.0 (Threshold)", "blocks.1 (RReLU)"]


class Subtracted(torch.nn.Module):
    """The trainable clipping layer as it is often written: λ − relu(λ − relu(x))."""

    def __init__(self, bound):
        super().__init__()
        self.bound = bound

    def forward(self, x):
        return self.bound - torch.relu(self.bound - torch.relu(x))


class Clamped(Subtracted):
    def forward(self, x):
        return torch.clamp(x, 0.0, self.bound)


@pytest.mark.parametrize("levels", [2, 4, 8])
def test_a_clip_that_is_written_with_two_rectifiers_is_one_neuron_with_its_activation(levels):
    """Not one that says λ − y, which fires all the time for what is silent, and rounds ties to the other side."""
    linear = torch.nn.Linear(1, 1, bias=False)
    linear.weight.data.fill_(1.0)
    x = np.linspace(-0.5, 2.5, 4 * levels + 1, dtype=np.float32)[:, None]
    spikes = {}
    for act in (Subtracted(2.0), Clamped(2.0)):
        model = torch.nn.Sequential(linear, act, torch.nn.Linear(1, 1, bias=False)).eval()
        model[2].weight.data.fill_(1.0)
        network = snnc.load(model, inputs=torch.zeros(1, 1), verify=True)
        (hidden,) = [name for name, p in network.populations.items() if p.neuron == ir.Clip(2.0)]
        snn = snnc.convert(network, "data-norm", calibration=x, timesteps=levels, progress=False)
        result = snnc.compile(snn).simulate(x, record=True, progress=False)
        spikes[type(act)] = result.spike_counts[hidden]
        np.testing.assert_array_equal(
            snnc.compile(snn).predict(x, progress=False), result.spike_counts[hidden] * 2 / levels
        )
    np.testing.assert_array_equal(spikes[Subtracted], spikes[Clamped])
    np.testing.assert_array_equal(spikes[Clamped], np.floor(np.clip(x, 0, 2) / 2 * levels + 0.5))
