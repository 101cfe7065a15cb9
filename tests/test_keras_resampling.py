"""Keras layers and operations that make images larger and smaller, move, mirror and mix them; Keras is the oracle."""

from contextlib import suppress

import keras
import numpy as np
import pytest
from frontend_models import randomise
from keras import layers as kl
from keras import ops
from reference import analog

from snnc import frontend, ir

MIXING = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
LAYERS = {
    "transposed": lambda: kl.Conv2DTranspose(5, 3, strides=2, padding="same"),
    "transposed-valid": lambda: kl.Conv2DTranspose(5, (2, 4), strides=(3, 1)),
    "transposed-padded": lambda: kl.Conv2DTranspose(5, 4, strides=3, output_padding=(1, 2)),
    "transposed-dilated": lambda: kl.Conv2DTranspose(5, 3, dilation_rate=2, padding="same"),
    "transposed-with-gaps": lambda: kl.Conv2DTranspose(5, 2, strides=3, padding="same"),
    "nearest": lambda: kl.UpSampling2D((2, 3)),
    "bilinear": lambda: kl.UpSampling2D(2, interpolation="bilinear"),
    "bicubic": lambda: kl.UpSampling2D(2, interpolation="bicubic"),
    "resizing": lambda: kl.Resizing(5, 11),
    "resizing-nearest": lambda: kl.Resizing(5, 11, interpolation="nearest"),
    "resizing-a-part": lambda: kl.Resizing(5, 4, crop_to_aspect_ratio=True),
    "cropping": lambda: kl.Cropping2D(((1, 0), (2, 3))),
    "turning": lambda: kl.Permute((2, 1, 3)),
    "adaptive": lambda: kl.AdaptiveAveragePooling2D((3, 5)),
    "adaptive-largest": lambda: kl.AdaptiveMaxPooling2D((3, 5)),
    "adaptive-to-one": lambda: kl.AdaptiveAveragePooling2D(1),
    "flip": lambda: lambda x: ops.flip(x, 1),
    "roll": lambda: lambda x: ops.roll(x, 2, 2),
    "take": lambda: lambda x: ops.take(x, np.array([3, 0, 0, 5]), 1),
    "take-channels": lambda: lambda x: ops.take(x, np.array([2, 0]), -1),
    "reflect": lambda: lambda x: ops.pad(x, ((0, 0), (1, 2), (3, 0), (0, 0)), mode="reflect"),
    "symmetric": lambda: lambda x: ops.pad(x, ((0, 0), (1, 2), (3, 0), (0, 0)), mode="symmetric"),
    "cumsum": lambda: lambda x: ops.cumsum(x, 1),
    "triangle": lambda: lambda x: ops.tril(x),
    "repeat": lambda: lambda x: ops.repeat(x, 2, 2),
    "tile": lambda: lambda x: ops.tile(x, (1, 2, 1, 3)),
    "turned-round": lambda: lambda x: ops.rot90(x, 1, (1, 2)),
    "mixed-rows": lambda: lambda x: ops.einsum("bhwc,hk->bkwc", x, MIXING),
    "product": lambda: lambda x: ops.prod(x, axis=-1),
    "patches": lambda: lambda x: ops.image.extract_patches(x, 2),
    "differences": lambda: lambda x: ops.diff(x, axis=1),
    "inverse-functions": lambda: lambda x: ops.arctan(x) + ops.sinh(x) + ops.arcsinh(x),
    "sign": lambda: lambda x: ops.sign(x) * ops.square(x),
}
SERIES = {
    "transposed": lambda: kl.Conv1DTranspose(5, 3, strides=2, padding="same"),
    "nearest": lambda: kl.UpSampling1D(3),
    "cropping": lambda: kl.Cropping1D((1, 2)),
    "adaptive": lambda: kl.AdaptiveAveragePooling1D(3),
    "adaptive-largest": lambda: kl.AdaptiveMaxPooling1D(3),
    "flip": lambda: lambda x: ops.flip(x, 1),
}


VECTORS = {"repeated": lambda: lambda x: kl.Conv1D(2, 3)(kl.RepeatVector(5)(x))}


@pytest.mark.parametrize(
    ("shape", "made"), [((8, 8, 3), LAYERS), ((8, 3), SERIES), ((6,), VECTORS)], ids=["images", "series", "vectors"]
)
def test_every_one(shape, made):
    """All behind one layer, in one model: a trace takes long."""
    keras.utils.set_random_seed(0)
    x = keras.Input(shape)
    y = kl.Dense(shape[-1], activation="leaky_relu")(x)
    ends = {}
    for name, build in made.items():
        with suppress(AttributeError):  # of a Keras that is older
            ends[name] = build()(y)
    model = randomise(keras.Model(x, list(ends.values())))
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    network = frontend.load(model)
    values = analog(network, ir.as_inputs(network, images))
    outputs = keras.tree.flatten(model(images))
    for name, output, expected in zip(ends, network.outputs, map(np.asarray, outputs), strict=True):
        found, near = values[output].reshape(expected.shape), 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=near, err_msg=name)


@pytest.mark.parametrize(
    ("interpolation", "reason"), [("area", "tf2onnx takes for nearest"), ("lanczos3", "Translate")]
)
def test_resizing_that_is_refused(interpolation, reason):
    model = keras.Sequential([keras.Input((8, 8, 3)), kl.Resizing(4, 5, interpolation=interpolation, name="resize")])
    with pytest.raises(ir.UnsupportedModelError, match=rf"resize \(Resizing\): .*{reason}"):
        frontend.load(model)
