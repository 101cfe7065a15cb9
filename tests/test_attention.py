"""Attention, normalisation and gates: read exactly from PyTorch and Keras, and said in few spikes."""

import numpy as np
import pytest

import snnc
from snnc import ir

torch = pytest.importorskip("torch")
nn = torch.nn


class Residual(nn.Module):
    """`x + inner(x)`."""

    def __init__(self, *inner):
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x):
        return x + self.inner(x)


class Attention(nn.Module):
    """Two heads over packed queries, keys and values; with `causal`, what comes later is hidden."""

    def __init__(self, causal):
        super().__init__()
        self.causal = causal
        self.norm, self.packed, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.packed(self.norm(x)).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))


class SqueezeExcitation(nn.Module):
    def __init__(self, inner, gate):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 3, 1), inner, nn.Conv2d(3, 8, 1), gate)

    def forward(self, x):
        return x * self.gate(x)


def encoder(norm_first):
    return nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=norm_first)


TOKENS, IMAGE = (5, 8), (8, 6, 6)
MODULES = {
    "pre-norm encoder": (lambda: nn.Sequential(encoder(True), encoder(True)), TOKENS),
    "post-norm encoder": (lambda: encoder(False), TOKENS),
    "attention": (lambda: Attention(causal=False), TOKENS),
    "causal attention": (lambda: Attention(causal=True), TOKENS),
    "softmax within": (lambda: nn.Sequential(nn.Linear(8, 6), nn.Softmax(-1), nn.Linear(6, 4)), TOKENS),
    "RMS norm": (lambda: nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8, eps=1e-5)), TOKENS),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(4, 8), nn.Conv2d(8, 6, 1)), IMAGE),
    "instance norm": (lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, affine=True)), IMAGE),
    "squeeze-excitation": (lambda: nn.Sequential(nn.SiLU(), SqueezeExcitation(nn.SiLU(), nn.Sigmoid())), IMAGE),
    "hard gates": (lambda: nn.Sequential(nn.Hardswish(), SqueezeExcitation(nn.ReLU(), nn.Hardsigmoid())), IMAGE),
    "ConvNeXt block": (
        lambda: Residual(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.GroupNorm(1, 8), nn.GELU(), nn.Conv2d(8, 8, 1)),
        IMAGE,
    ),
}


def read(name):
    """A module with weights far from their defaults, and the network that it is read as, verified."""
    build, shape = MODULES[name]
    torch.manual_seed(3)
    module = build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter) + (0.5 if parameter.ndim == 1 else 0))
    return module, snnc.load(module, inputs=torch.zeros(1, *shape), verify=True), shape


def images(shape, count):
    """As PyTorch has them, and as networks do."""
    x = np.random.default_rng(5).normal(size=(count, *shape)).astype(np.float32)
    return torch.from_numpy(x), np.moveaxis(x, 1, -1) if len(shape) == 3 else x


@pytest.mark.parametrize("name", MODULES)
def test_what_is_read_is_what_pytorch_computes(name):
    module, network, shape = read(name)
    theirs, ours = images(shape, 6)
    with torch.no_grad():
        expected = module(theirs).numpy()
    found = snnc.compile(network).predict(ours.reshape(6, *network.populations[network.inputs[0]].shape))
    expected = np.moveaxis(expected, 1, -1) if len(shape) == 3 else expected
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["pre-norm encoder", "causal attention", "group norm", "squeeze-excitation"])
def test_few_spikes_say_it(name):
    _, network, shape = read(name)
    x = images(shape, 96)[1].reshape(96, *network.populations[network.inputs[0]].shape)
    spiking = snnc.convert(network, calibration=x[:64])
    expected, found = (snnc.compile(each).predict(x[64:]) for each in (network, spiking))
    assert np.abs(found - expected).mean() < 0.03 * np.abs(expected).mean()


@pytest.mark.filterwarnings("ignore::snnc.ir.BackendWarning")
def test_genn_runs_attention_as_products():
    pytest.importorskip("pygenn")
    _, network, shape = read("attention")
    x = images(shape, 36)[1].reshape(36, *network.populations[network.inputs[0]].shape)
    with pytest.raises(ir.BackendError, match="lower-matmul"):
        snnc.compile(snnc.convert(network, calibration=x), "mlgenn")
    pipeline = f"{snnc.LOWERING},lower-matmul,few-spike{{k=6,per-channel=true}}"
    spiking = snnc.convert(network, pipeline, calibration=x)
    engine, genn = (snnc.compile(spiking, name).predict(x[:4]) for name in ("onnxruntime", "mlgenn"))
    assert (np.abs(engine - genn) > 1e-4 * np.abs(engine).max()).mean() < 0.02
