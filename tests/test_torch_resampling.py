"""Modules of PyTorch that make images larger and smaller, move, mirror and mix them; PyTorch is the oracle."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch.nn.functional as f  # noqa: E402
from reference import analog  # noqa: E402
from torch import nn  # noqa: E402

import snnc  # noqa: E402
from snnc import frontend, ir  # noqa: E402


def assigned(x):
    y = x.clone()
    y[:, :, 1:3] = 2 * x[:, :, 5:7]
    return y


IMAGES = {
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    "transposed-dilated": nn.ConvTranspose2d(4, 2, (2, 4), stride=(1, 3), dilation=(2, 1)),
    "nearest": nn.Upsample(scale_factor=1.7),
    "nearest-exact": nn.Upsample(scale_factor=1.5, mode="nearest-exact"),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear-to-corners": nn.Upsample(size=(9, 13), mode="bilinear", align_corners=True),
    "bicubic": nn.Upsample(scale_factor=1.5, mode="bicubic"),
    "smooth": lambda x: f.interpolate(x, (5, 3), mode="bilinear", antialias=True),
    "area": lambda x: f.interpolate(x, (3, 5), mode="area"),
    "shuffled": nn.PixelShuffle(2),
    "unshuffled": nn.PixelUnshuffle(2),
    "channels": nn.ChannelShuffle(2),
    "reflected": nn.ReflectionPad2d((1, 2, 3, 0)),
    "replicated": nn.ReplicationPad2d((1, 2, 3, 0)),
    "circular": nn.CircularPad2d((1, 2, 3, 0)),
    "adaptive": nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive-in-one-axis": nn.AdaptiveAvgPool2d((None, 3)),
    "adaptive-largest": nn.AdaptiveMaxPool2d((3, 5)),
    "dilated-pooling": nn.MaxPool2d(3, stride=2, padding=1, dilation=2),
    "norms": nn.LPPool2d(3, 3, stride=2),
    "unfolded": nn.Unfold(3, padding=1, stride=2),
    "folded": lambda x: f.fold(x.reshape(1, 16, 16)[:, :, :9], (4, 4), (2, 2)),
    "rolled": lambda x: torch.roll(x, (1, -2), (2, 3)),
    "indexed": lambda x: x[:, [2, 2, 0]][:, :, [3, 0, 0, 5]],
    "gathered": lambda x: torch.gather(x, 3, torch.arange(7, -1, -1).expand(1, 4, 8, 8)),
    "assigned": assigned,
    "accumulated": lambda x: x.cumsum(2) + x.cumsum(1),
    "repeated": lambda x: x.repeat_interleave(2, 3).repeat(1, 2, 1, 1),
    "multiplied": lambda x: x.prod(1),
    "inverse-functions": lambda x: torch.atan(x) + torch.sinh(x) - torch.acosh(1.5 + x),
}
SERIES = {
    "transposed": nn.ConvTranspose1d(4, 3, 5, stride=2, padding=2, output_padding=1),
    "linear": nn.Upsample(scale_factor=2.5, mode="linear"),
    "reflected": nn.Conv1d(4, 2, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv1d(4, 2, 3, padding=2, padding_mode="circular"),
    "adaptive": nn.AdaptiveAvgPool1d(5),
    "adaptive-largest": nn.AdaptiveMaxPool1d(5),
    "dilated-pooling": nn.MaxPool1d(2, dilation=3),
}


class Behind(nn.Module):
    """A rectified convolution, and all that is tested behind it: one export for all."""

    def __init__(self, convolution, ends):
        super().__init__()
        self.convolution, self.ends = convolution, ends

    def forward(self, x):
        y = torch.relu(self.convolution(x))
        return tuple(end(y) for end in self.ends)


@pytest.mark.parametrize(
    ("convolution", "ends", "size"),
    [(nn.Conv2d(4, 4, 1), IMAGES, (8, 8)), (nn.Conv1d(4, 4, 1), SERIES, (8,))],
    ids=["images", "series"],
)
def test_every_one(convolution, ends, size):
    module, x = Behind(convolution, ends.values()).eval(), torch.rand(1, 4, *size)
    network = frontend.load(module, x)
    values = analog(network, ir.as_inputs(network, np.moveaxis(x.numpy(), 1, -1)))
    with torch.no_grad():
        outputs = module(x)
    for end, name, y in zip(ends, network.outputs, outputs, strict=True):
        expected = np.moveaxis(y.numpy(), 1, -1) if y.ndim > 2 else y.numpy()
        found = values[name].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=end)


def test_a_large_decoder_is_small():
    """256 channels on 64 × 64: no table has an entry for each number, and it is spiking within the memory of a test."""
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Conv2d(2, 256, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(256, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(8, 2, 1),
    ).eval()
    x = torch.rand(1, 2, 64, 64)
    network = frontend.load(decoder, x)
    assert sum(array.nbytes for array in ir.arrays_of(network).values()) < 2**18
    images = np.moveaxis(x.numpy(), 1, -1)
    spiking = snnc.convert(network, "few-spike{k=8}", calibration=images, timesteps=8, progress=False)
    with torch.no_grad():
        expected = np.moveaxis(decoder(x).numpy(), 1, -1)
    found = snnc.compile(spiking).predict(images, progress=False)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
