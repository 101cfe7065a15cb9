"""Modules that hypothesis draws from torch.nn: read exactly, whatever stands beside what."""

import copy
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from reference import analog

import snnc
from snnc import frontend
from snnc.frontend.affine import CHANNELS_FIRST, SERIES_FIRST

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

ACTIVATIONS = {
    **{name: getattr(nn, name) for name in ("ReLU", "ReLU6", "SELU", "GELU", "SiLU", "Mish", "Softplus", "Softsign")},
    **{name: getattr(nn, name) for name in ("Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink", "Hardsigmoid", "Hardswish")},
    "LeakyReLU": lambda: nn.LeakyReLU(0.3),
    "ELU": lambda: nn.ELU(0.4),
    "CELU": lambda: nn.CELU(0.6),
    "GELU tanh": lambda: nn.GELU("tanh"),
    "Softplus steep": lambda: nn.Softplus(2.5),
    "Hardshrink": lambda: nn.Hardshrink(0.3),
    "Hardtanh": lambda: nn.Hardtanh(-0.4, 0.9),
    "Threshold": lambda: nn.Threshold(0.2, 0.2),
}
LARGEST = 400  # numbers in a tensor


class Calling(nn.Module):
    """A function of tensors, and of layers of its own."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *x):
        return self.function(*x, *self.layers)


class Attention(nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.packed, self.out, self.heads, self.causal = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
            causal,
        )

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.packed(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


def divisors(number):
    return [each for each in range(1, number + 1) if number % each == 0]


def axes(shape):
    return range(1, len(shape) + 1)


def activation(pick):
    return ACTIVATIONS[pick(*ACTIVATIONS)]()


def gated(pick, width):
    inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 2, 1), activation(pick), nn.Conv2d(2, width, 1))
    return Calling(lambda x, inner, gate: x * gate(inner(x)), inner, pick(nn.Sigmoid, nn.Hardsigmoid)())


def of_square(function, x):
    return function(x * x + 0.5)


def powered(exponent, x):
    return (F.softplus(x) + 0.1) ** exponent


def below_largest(axis, x):
    return x - x.amax(axis, keepdim=True)


def stacked(axis, x):
    return torch.stack([x, torch.tanh(x)], axis)


def chosen(axis, x, y):
    return x * F.softmax(y, axis)


def joined(axis, x, y):
    return torch.cat([x, y], axis)


# What each makes of a tensor of a shape, batch left out; `pick` draws one of several things.

POINTWISE = {
    "named": lambda pick, shape: activation(pick),
    "PReLU": lambda pick, shape: nn.PReLU(pick(1, shape[0])),
    "Softshrink": lambda pick, shape: nn.Softshrink(0.4),
    "clamp": lambda pick, shape: Calling(lambda x: x.clamp(-0.4, 0.7)),
    "choice": lambda pick, shape: Calling(lambda x: torch.where(x > 0, x, 0.2 * x)),
    "wave": lambda pick, shape: Calling(pick(torch.sin, torch.cos, torch.erf)),
    "root": lambda pick, shape: Calling(partial(of_square, pick(torch.sqrt, torch.rsqrt, torch.log))),
    "power": lambda pick, shape: Calling(partial(powered, pick(1.7, 3, -0.6))),
    "lisht": lambda pick, shape: Calling(lambda x: x * torch.tanh(x)),
}
ALONG_AXES = {
    "softmax": lambda pick, shape: pick(nn.Softmax, nn.Softmin, nn.LogSoftmax)(pick(*axes(shape))),
    "GLU": lambda pick, shape: nn.GLU(pick(*axes(shape))),
    "layer norm": lambda pick, shape: pick(nn.LayerNorm, nn.RMSNorm)(shape[pick(*range(len(shape))) :], 0.01),
    "group norm": lambda pick, shape: nn.GroupNorm(pick(*divisors(shape[0])), shape[0], 0.01),
    "normalised": lambda pick, shape: Calling(partial(F.normalize, dim=pick(*axes(shape)))),
    "largest": lambda pick, shape: Calling(partial(below_largest, pick(*axes(shape)))),
    "reversed": lambda pick, shape: Calling(partial(torch.flip, dims=(pick(*axes(shape)),))),
    "linear": lambda pick, shape: nn.Linear(shape[-1], pick(2, 4)),
    "flatten": lambda pick, shape: nn.Flatten(),
}
ON_IMAGES = {
    "conv": lambda pick, shape: nn.Conv2d(
        shape[0], 4, pick(1, 3), pick(1, 2), 1, groups=pick(1, math.gcd(4, shape[0]))
    ),
    "depthwise": lambda pick, shape: nn.Conv2d(shape[0], 2 * shape[0], 3, padding=1, groups=shape[0]),
    "batch norm": lambda pick, shape: nn.BatchNorm2d(shape[0], 0.01),
    "instance norm": lambda pick, shape: nn.InstanceNorm2d(shape[0], 0.01, affine=pick(True, False)),
    "LRN": lambda pick, shape: nn.LocalResponseNorm(pick(2, 3, 5), 0.3, 0.6, 1.2),
    "pooling": lambda pick, shape: pick(nn.MaxPool2d, nn.AvgPool2d)(2, pick(1, 2), ceil_mode=pick(True, False)),
    "mean": lambda pick, shape: nn.AdaptiveAvgPool2d(1),
    "excitation": lambda pick, shape: gated(pick, shape[0]),
    "turned": lambda pick, shape: Calling(partial(torch.permute, dims=pick((0, 2, 3, 1), (0, 3, 2, 1)))),
    "tokens": lambda pick, shape: Calling(lambda x: x.flatten(2).transpose(1, 2)),
    "shuffle": lambda pick, shape: nn.ChannelShuffle(pick(*divisors(shape[0]))),
}
ON_SERIES = {
    "conv": lambda pick, shape: nn.Conv1d(shape[0], 4, 3, pick(1, 2), 1),
    "batch norm": lambda pick, shape: nn.BatchNorm1d(shape[0], 0.01),
    "attention": lambda pick, shape: Attention(shape[1], pick(*divisors(shape[1])), pick(True, False)),
    "encoder": lambda pick, shape: nn.TransformerEncoderLayer(
        shape[1], pick(*divisors(shape[1])), 6, 0.0, "gelu", batch_first=True, norm_first=pick(True, False)
    ),
    "LRN": lambda pick, shape: nn.LocalResponseNorm(3, 0.3, 0.6, 1.2),
    "pooling": lambda pick, shape: pick(nn.MaxPool1d, nn.AvgPool1d)(2, pick(1, 2)),
    "turned": lambda pick, shape: Calling(lambda x: x.transpose(1, 2)),
    "stack": lambda pick, shape: Calling(partial(stacked, pick(1, 2, 3))),
}
ON_VECTORS = {
    "batch norm": lambda pick, shape: nn.BatchNorm1d(shape[0], 0.01),
    "fold": lambda pick, shape: nn.Unflatten(1, (pick(*divisors(shape[0])), -1)),
    "outer product": lambda pick, shape: Calling(lambda x, p: x[:, :, None] * p(x)[:, None], nn.Linear(shape[0], 3)),
}
OF_TWO = {
    "residual": lambda pick, shape: Calling(
        lambda x, y, p, f: x + f(p(y)), nn.Linear(shape[-1], shape[-1]), activation(pick)
    ),
    "arithmetic": lambda pick, shape: Calling(pick(torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum)),
    "choice": lambda pick, shape: Calling(partial(chosen, pick(*axes(shape)))),
    "quotient": lambda pick, shape: Calling(lambda x, y: x / (F.softplus(y) + 0.3)),
    "concatenation": lambda pick, shape: Calling(partial(joined, pick(*axes(shape)))),
}


class Drawn(nn.Module):
    """Steps, each a module on some of the tensors before it; some tensors are outputs."""

    def __init__(self, steps, outputs):
        super().__init__()
        self.steps = nn.ModuleList([module for module, _ in steps])
        self.positions, self.outputs = [positions for _, positions in steps], outputs

    def forward(self, x):
        tensors = [x]
        for module, positions in zip(self.steps, self.positions, strict=True):
            tensors.append(module(*(tensors[position] for position in positions)))
        return tuple(tensors[position] for position in self.outputs)


@st.composite
def modules(draw):
    """Modules of up to six blocks, each on a tensor that there is, or on two; one, two or three tensors come out."""

    def pick(*choices):
        return draw(st.sampled_from(choices))

    tensors, steps = [torch.zeros(2, *pick((3, 5, 6), (4, 3, 5), (6, 4), (5, 4), (8,)))], []
    for _ in range(pick(3, 4, 5, 6)):
        position = len(tensors) - pick(1, 1, min(2, len(tensors)))
        shape = tuple(tensors[position].shape[1:])
        own = {1: ON_VECTORS, 2: ON_SERIES, 3: ON_IMAGES}[len(shape)]
        table = pick(POINTWISE, ALONG_AXES, own, own, OF_TWO)
        module = table[pick(*table)](pick, shape).eval()
        alike = [other for other, tensor in enumerate(tensors) if tensor.shape[1:] == shape]
        positions = (position, pick(*alike)) if table is OF_TWO else (position,)
        try:
            y = module(*(tensors[each] for each in positions))
        except (RuntimeError, ValueError):  # of a window that is larger than the image, or an odd axis for GLU
            continue
        if len(y.shape) <= 4 and 0 < math.prod(y.shape[1:]) <= LARGEST:
            tensors.append(y.detach())
            steps.append((module, positions))
    last = len(steps)
    outputs = {last, *draw(st.sets(st.integers(min(1, last), last), max_size=2))}
    return Drawn(steps or [(nn.Tanh(), (0,))], sorted(outputs) if last else [1]), tuple(tensors[0].shape[1:])


def randomise(module, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = math.prod(parameter.shape[1:])
            parameter.copy_(torch.randn_like(parameter) / max(2, fan_in**0.5) + (0.3 if parameter.ndim == 1 else 0))
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand_like(buffer))
    return module


def computed(module, x):
    with torch.no_grad():
        outputs = module(x)
    return [y.numpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


def assert_read_exactly(module, shape, seed):
    """The network is as near to the module in double precision as 1e-5, or as the module's own single precision is.

    Outputs are compared in the order of PyTorch's tensors, which the reading knows.
    """
    randomise(module, seed)
    x = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    own = computed(module, torch.from_numpy(x))
    exact = computed(copy.deepcopy(module).double(), torch.from_numpy(x).double())
    reading = frontend.read(module, torch.zeros(1, *shape))
    network, ((name, entry),) = reading.network, reading.inputs.items()
    images = np.moveaxis(x, 1, -1) if entry.layout in (CHANNELS_FIRST, SERIES_FIRST) else x
    images = images.reshape(1, *network.populations[name].shape)
    (by_engine,) = snnc.compile(network).activations({name: images}, progress=False)
    by_numpy = analog(network, {name: images.astype(np.float64)})
    for tensor, wanted, single in zip(reading.outputs, exact, own, strict=True):
        tolerance = max(1e-5 * max(np.abs(wanted).max(), 1e-3), 16 * np.abs(single - wanted).max())
        for found in (by_engine, by_numpy):
            np.testing.assert_allclose(
                reading.tensor(tensor, found).reshape(wanted.shape), wanted, rtol=0, atol=tolerance
            )


@given(drawn=modules(), seed=st.integers(0, 1000))
@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_drawn_modules_are_read_exactly(drawn, seed):
    module, shape = drawn
    note((shape, module, module.positions))
    assert_read_exactly(module, shape, seed)


FOUND = {
    "LRN": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.LocalResponseNorm(4, 0.3, 0.6, 1.2)), (3, 6, 5)),
    "LRN of a series": (lambda: nn.Sequential(nn.Conv1d(5, 6, 3), nn.LocalResponseNorm(3, 0.3, 0.6, 1.2)), (5, 7)),
    "soft shrinking": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Softshrink(0.4)), (6,)),
    "hard shrinking": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Hardshrink(0.3)), (6,)),
    "a stack": (lambda: Calling(lambda x: torch.stack([x, torch.tanh(x)], 2)), (5, 4)),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name):
    build, shape = FOUND[name]
    assert_read_exactly(build().eval(), shape, 3)


@pytest.mark.parametrize(
    "top",
    [
        nn.GroupNorm(2, 4),
        nn.Sequential(nn.GroupNorm(4, 4, affine=False), nn.SiLU()),
        nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 3, 5)), nn.Softsign()),
        nn.ChannelShuffle(2),
        Calling(lambda x: x.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2)),
        Calling(lambda x: torch.tanh(x.permute(0, 2, 3, 1))),
    ],
)
def test_outputs_have_their_channels_last(top):
    module = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), top).eval(), 5)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
    (expected,) = computed(module, torch.from_numpy(x))
    expected = np.moveaxis(expected, 1, -1) if expected.shape[1] == 4 else expected
    found = snnc.compile(snnc.load(module, inputs=x)).predict(np.moveaxis(x, 1, -1), progress=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
