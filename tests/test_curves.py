"""Functions beyond rectifiers, however PyTorch writes them: read as one neuron each, and told by few spikes."""

import warnings

import numpy as np
import pytest

import snnc
from snnc import ir

torch = pytest.importorskip("torch")
nn = torch.nn
X = 1.5 * np.random.default_rng(0).normal(size=(80, 3, 8, 8)).astype(np.float32)


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


FORMS = {
    "silu": (nn.SiLU(), ("silu", 1.0)),
    "quick-gelu": (lambda x: x * torch.sigmoid(1.702 * x), ("silu", 1.702)),
    "silu-by-division": (lambda x: x / (1 + torch.exp(-x)), ("silu", 1.0)),
    "gelu": (nn.GELU(), ("gelu", 1.0)),
    "gelu-half-first": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), ("gelu", 1.0)),
    "gelu-half-last": (lambda x: x * (1 + torch.erf(x / 2**0.5)) * 0.5, ("gelu", 1.0)),
    "gelu-tanh": (nn.GELU(approximate="tanh"), ("gelu_tanh", 1.0)),
    "sigmoid": (nn.Sigmoid(), ("sigmoid", 1.0)),
    "tanh": (nn.Tanh(), ("tanh", 1.0)),
    "hard-swish": (nn.Hardswish(), ("hard_swish", 1.0)),
    "hard-swish-of-relu6": (lambda x: x * torch.nn.functional.relu6(x + 3) / 6, ("hard_swish", 1.0)),
    "elu": (nn.ELU(0.7), ("elu", 0.7)),
    "selu": (nn.SELU(), ("selu", 1.0)),
    "celu": (nn.CELU(0.7), ("celu", 0.7)),
    "softplus": (nn.Softplus(), ("softplus", 1.0)),
    "softsign": (nn.Softsign(), ("softsign", 1.0)),
    "mish": (nn.Mish(), ("mish", 1.0)),
    "log-sigmoid": (nn.LogSigmoid(), ("log_sigmoid", 1.0)),
    "square": (lambda x: x * x, ("square", 1.0)),
    "square-by-power": (lambda x: x**2, ("square", 1.0)),
    "cube": (lambda x: x**3, ("power", 3.0)),
    "exp": (lambda x: torch.exp(x / 2), ("exp", 1.0)),
    "sin": (torch.sin, ("sin", 1.0)),
}


def network_of(activation):
    torch.manual_seed(0)
    act = activation if isinstance(activation, nn.Module) else Calling(activation)
    return nn.Sequential(nn.Conv2d(3, 32, 3), act, nn.Conv2d(32, 5, 3), nn.Flatten(), nn.Linear(80, 4)).eval()


def functions_of(network):
    neurons = [p.neuron for p in network.populations.values() if isinstance(p.neuron, ir.Function)]
    return [(neuron.function, pytest.approx(neuron.parameter, rel=1e-5)) for neuron in neurons]


@pytest.mark.parametrize("exporter", ["new", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_one_neuron(form, exporter, tmp_path):
    activation, expected = FORMS[form]
    module, source = network_of(activation), tmp_path / "model.onnx"
    if exporter == "legacy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (torch.zeros(1, 3, 8, 8),), source, dynamo=False)
    network = snnc.load(module if exporter == "new" else source, inputs=torch.zeros(1, 3, 8, 8), verify=True)
    assert functions_of(network) == [expected]
    with torch.no_grad():
        y = module(torch.from_numpy(X)).numpy()
    images = np.moveaxis(X, 1, -1)
    found = snnc.compile(network).predict(images, progress=False)
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-4 * np.abs(y).max())
    snn = snnc.convert(network, calibration=images, progress=False)
    assert snn.is_phased
    decoded = snnc.compile(snn).predict(images, progress=False)
    assert np.abs(decoded - y).mean() < 0.02 * np.abs(y).mean()


@pytest.mark.parametrize(
    "activation", [lambda x: x * torch.sigmoid(x.flip(1)), lambda x: x / (2 + torch.sigmoid(x.mean(1, True)))]
)
def test_what_comes_to_no_function_of_one_thing_is_a_product(activation):
    module = network_of(activation)
    network = snnc.load(module, inputs=torch.zeros(1, 3, 8, 8), verify=True)
    assert ir.Product in [type(population.neuron) for population in network.populations.values()]
    with torch.no_grad():
        y = module(torch.from_numpy(X)).numpy()
    found = snnc.compile(network).predict(np.moveaxis(X, 1, -1), progress=False)
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_rate_codes_refuse_functions_and_name_the_way_out():
    network = snnc.load(network_of(nn.SiLU()), inputs=torch.zeros(1, 3, 8, 8))
    images = np.moveaxis(X, 1, -1)
    for pipeline in ("data-norm", "spike-norm"):
        with pytest.raises(ir.UnsupportedModelError, match=r"1 \(Function, from 0, 1\)"):
            snnc.convert(network, pipeline, calibration=images, progress=False)
    assert snnc.default_pipeline(network).endswith("few-spike{k=8,per-channel=true}")


def test_the_command_line_says_which_pipeline_it_took(tmp_path, snnc_command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snnc.save(snnc.load(network_of(nn.SiLU()), inputs=torch.zeros(1, 3, 8, 8)), "net.snn")
    np.savez("data.npz", x=np.moveaxis(X, 1, -1), y=np.zeros(len(X), int))
    code, _, err = snnc_command("convert", "net.snn", "-c", "data.npz", "-o", "snn.snn")
    assert code == 0
    assert "note: activations are more than rectifiers, so the pipeline is lower-max-pool" in " ".join(err.split())
    code, out, _ = snnc_command("profile", "net.snn", "snn.snn", "--data", "data.npz")
    assert code == 0
    assert "1" in out
