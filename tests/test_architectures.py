"""Models as people build them today, small: read from PyTorch as they are, equal to it, and said in few spikes."""

import math

import numpy as np
import pytest

import snnc

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

IMAGE = (3, 16, 16)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of an image, as ConvNeXt has it."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), ChannelNorm(width))
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.ones(width, 1, 1))
        self.top = nn.Sequential(nn.AdaptiveAvgPool2d(1), ChannelNorm(width), nn.Flatten(), nn.Linear(width, 5))

    def forward(self, x):
        x = self.stem(x)
        y = self.down(F.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return self.top(x + self.scale * y.permute(0, 3, 1, 2))


class SqueezeExcitation(nn.Module):
    """Gates for channels, from the mean of each [Hu 2018]; written as torchvision does."""

    def __init__(self, channels, squeezed, activation, gate):
        super().__init__()
        self.avgpool, self.activation, self.scale_activation = nn.AdaptiveAvgPool2d(1), activation(), gate()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        return self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


def _normed(inputs, outputs, activation, **window):
    size = window.pop("size", 1)
    return [nn.Conv2d(inputs, outputs, size, bias=False, **window), nn.BatchNorm2d(outputs), activation()]


class MBConv(nn.Module):
    """The block of EfficientNet, of MobileNetV3 and, without the expansion, of RegNetY."""

    def __init__(self, activation, squeezing, gate, groups=16):
        super().__init__()
        self.stem = nn.Sequential(*_normed(3, 8, activation, size=3, stride=2))
        self.block = nn.Sequential(
            *_normed(8, 16, activation),
            *_normed(16, 16, activation, size=3, padding=1, groups=groups),
            SqueezeExcitation(16, 4, squeezing, gate),
            *_normed(16, 8, nn.Identity),
        )
        self.top = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 5))

    def forward(self, x):
        x = self.stem(x)
        return self.top(x + self.block(x))


class VisionTransformer(nn.Module):
    def __init__(self, width=16, norm_first=True):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token, self.places = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 4, 32, 0.1, "gelu", batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.encoder(x))[:, 0])


class Windows(nn.Module):
    """Attention within windows of an image (Swin) or over a grid (MaxViT): windows and heads are axes of their own."""

    def __init__(self, grid, width=8, window=4, heads=2, shift=2):
        super().__init__()
        self.grid, self.window, self.heads, self.shift = grid, window, heads, 0 if grid else shift
        self.patches, self.norm, self.head = nn.Conv2d(3, width, 2, 2), nn.LayerNorm(width), nn.Linear(width, 5)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        places = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = (places[:, :, None] - places[:, None]) + window - 1
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1])
        self.register_buffer("mask", self._mask())

    def _mask(self):
        """What was not beside each other before the shift does not attend."""
        region = torch.zeros(1, 8, 8, 1)
        if self.shift:
            cuts = slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None)
            for number, (rows, columns) in enumerate((rows, columns) for rows in cuts for columns in cuts):
                region[:, rows, columns] = number
        parts = self._parts(region)[..., 0]
        return torch.zeros(4, 16, 16).masked_fill(parts[:, None] != parts[:, :, None], -100.0)

    def _parts(self, x):
        batch, height, _, width = x.shape
        n, w = height // self.window, self.window
        if self.grid:
            return x.view(batch, w, n, w, n, width).permute(0, 2, 4, 1, 3, 5).reshape(-1, w * w, width)
        return x.view(batch, n, w, n, w, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, width)

    def _whole(self, x, batch):
        w = self.window
        x = x.view(batch, 2, 2, w, w, -1)
        return x.permute(*((0, 3, 1, 4, 2, 5) if self.grid else (0, 1, 3, 2, 4, 5))).reshape(batch, 8, 8, -1)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        y = self._parts(torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2)))
        count, tokens, width = y.shape
        q, k, v = self.qkv(y).reshape(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        scores = scores + self.table[self.index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1)[None]
        scores = scores.view(-1, 4, self.heads, tokens, tokens) + self.mask[None, :, None]
        y = (scores.view(-1, self.heads, tokens, tokens).softmax(-1) @ v).transpose(1, 2).reshape(count, tokens, width)
        y = torch.roll(self._whole(self.out(y), len(x)), (self.shift, self.shift), (1, 2))
        return self.head((x + y).mean((1, 2)))


class Causal(nn.Module):
    """A block of a language model: what comes later is hidden, in each of the ways in which people write it."""

    def __init__(self, style, width=16, tokens=6, heads=2):
        super().__init__()
        self.style, self.heads = style, heads
        self.embedding, self.places = nn.Linear(5, width), nn.Parameter(torch.zeros(1, tokens, width))
        self.attention_norm, self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out, self.head = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Linear(width, 7)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU("tanh"), nn.Linear(2 * width, width))
        self.register_buffer("seen", torch.tril(torch.ones(tokens, tokens))[None, None])

    def forward(self, x):
        x = self.embedding(x) + self.places
        batch, tokens, width = x.shape
        split = self.qkv(self.attention_norm(x)).split(width, 2)
        y = self._attended(*(each.view(batch, tokens, self.heads, -1).transpose(1, 2) for each in split))
        x = x + self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return self.head(self.last(x + self.mlp(self.norm(x))))

    def _attended(self, q, k, v):
        match self.style:
            case "is_causal":
                return F.scaled_dot_product_attention(q, k, v, is_causal=True)
            case "attn_mask":
                return F.scaled_dot_product_attention(q, k, v, attn_mask=self.seen.bool())
            case number:
                scores = (q @ k.transpose(-2, -1)) / math.sqrt(k.shape[-1])
                return scores.masked_fill(self.seen == 0, number).softmax(-1) @ v


class Gated(nn.Module):
    """The gates of a GRU, five steps by hand."""

    def __init__(self, inputs=4, hidden=6):
        super().__init__()
        self.inner, self.outer, self.head = (
            nn.Linear(inputs, 3 * hidden),
            nn.Linear(hidden, 3 * hidden),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        h = torch.zeros(len(x), 6)
        for step in range(5):
            (a, b, c), (d, e, f) = self.inner(x[:, step]).chunk(3, 1), self.outer(h).chunk(3, 1)
            update = torch.sigmoid(b + e)
            h = (1 - update) * torch.tanh(c + torch.sigmoid(a + d) * f) + update * h
        return self.head(h)


class Queries(nn.Module):
    """What learnt queries find in a series."""

    def __init__(self, block, width=8):
        super().__init__()
        self.queries, self.block, self.head = nn.Parameter(torch.zeros(1, 3, width)), block, nn.Linear(3 * width, 4)

    def forward(self, x):
        queries = self.queries.expand(len(x), -1, -1)
        if isinstance(self.block, nn.MultiheadAttention):
            return self.head(self.block(queries, x, x, need_weights=False)[0].flatten(1))
        return self.head(self.block(queries, x).flatten(1))


MODELS = {
    "ConvNeXt": (ConvNeXt, IMAGE),
    "EfficientNet": (lambda: MBConv(nn.SiLU, nn.SiLU, nn.Sigmoid), IMAGE),
    "MobileNetV3": (lambda: MBConv(nn.Hardswish, nn.ReLU, nn.Hardsigmoid), IMAGE),
    "RegNetY": (lambda: MBConv(nn.ReLU, nn.ReLU, nn.Sigmoid, groups=4), IMAGE),
    "ViT": (VisionTransformer, IMAGE),
    "ViT, normalised behind": (lambda: VisionTransformer(norm_first=False), IMAGE),
    "Swin": (lambda: Windows(grid=False), IMAGE),
    "MaxViT": (lambda: Windows(grid=True), IMAGE),
    "GRU": (Gated, (5, 4)),
    "causal": (lambda: Causal("is_causal"), (6, 5)),
    "causal by a mask": (lambda: Causal("attn_mask"), (6, 5)),
    "causal by infinity": (lambda: Causal(-math.inf), (6, 5)),
    "causal by the lowest number": (lambda: Causal(torch.finfo(torch.float32).min), (6, 5)),
    "cross-attention": (lambda: Queries(nn.MultiheadAttention(8, 2, batch_first=True)), (5, 8)),
    "decoder": (lambda: Queries(nn.TransformerDecoderLayer(8, 2, 16, 0.1, batch_first=True)), (5, 8)),
}
WITHOUT_MATRICES = ["ConvNeXt", "EfficientNet", "MobileNetV3", "GRU"]


def randomised(module):
    """In inference mode, with weights and statistics far from their defaults, but none that explodes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.2 / math.sqrt(max(parameter[0].numel(), 1)))
            elif "weight" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.3)
        for name, buffer in module.named_buffers():
            if "running_mean" in name:
                buffer.normal_(0, 0.5)
            elif "running_var" in name:
                buffer.uniform_(0.4, 2)
    return module.eval()


def read(name, count):
    """The network, verified, its images, and what PyTorch makes of them, the channels behind."""
    build, shape = MODELS[name]
    module = randomised(build())
    network = snnc.load(module, inputs=torch.zeros(1, *shape), verify=True)
    x = np.random.default_rng(1).normal(size=(count, *shape)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    ours = np.moveaxis(x, 1, -1) if len(shape) == 3 else x
    return network, ours.reshape(count, *network.populations[network.inputs[0]].shape), expected


@pytest.mark.parametrize("name", MODELS)
def test_they_are_read_exactly_and_said_in_few_spikes(name):
    network, images, expected = read(name, 48)
    found = snnc.compile(network).predict(images, progress=False)
    expected = expected.reshape(found.shape)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    spiking = snnc.convert(network, calibration=images, progress=False)
    decoded = snnc.compile(spiking).predict(images, progress=False)
    assert np.abs(decoded - expected).mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.filterwarnings("ignore::snnc.ir.BackendWarning")
@pytest.mark.parametrize("name", WITHOUT_MATRICES)
def test_genn_sends_the_spikes_of_the_engine(name):
    pytest.importorskip("pygenn")
    network, images, _ = read(name, 24)
    spiking = snnc.convert(network, calibration=images, progress=False)
    ours, theirs = (snnc.compile(spiking, backend).simulate(images[:4]) for backend in ("onnxruntime", "mlgenn"))
    assert set(ours.spike_counts) == set(theirs.spike_counts)
    apart = sum(np.abs(ours.spike_counts[name] - theirs.spike_counts[name]).sum() for name in ours.spike_counts)
    assert apart <= 1e-4 * sum(counts.sum() for counts in ours.spike_counts.values())
