"""Keras's layers that multiply activations, normalise them or attend: read exactly, and said in few spikes."""

import keras
import numpy as np
import pytest
from frontend_models import randomise
from keras import layers as kl
from reference import analog

import snnc

IMAGE, TOKENS, VECTOR = (7, 7, 3), (6, 8), (7,)


def on_image(layer):
    """A layer behind a convolution of eight channels."""
    x = keras.Input(IMAGE, name="image")
    y = layer(kl.Conv2D(8, 3, name="conv")(x))
    return keras.Model(x, kl.Dense(3, name="top")(kl.Flatten(name="flat")(y)))


def on_tokens(attend):
    """What a function makes of a series, added to it."""
    x = keras.Input(TOKENS, name="tokens")
    y = kl.Add(name="add")([x, attend(x)])
    return keras.Model(x, kl.Dense(3, name="top")(kl.Flatten(name="flat")(y)))


def on_vector(combine):
    x = keras.Input(VECTOR, name="x")
    parts = [kl.Dense(6, activation, name=activation)(x) for activation in ("tanh", "sigmoid", "relu")]
    return keras.Model(x, kl.Dense(3, name="top")(combine(*parts)))


def excited(activation, gate):
    def excite(y):
        g = kl.GlobalAveragePooling2D(keepdims=True, name="pool")(y)
        g = kl.Conv2D(8, 1, activation=gate, name="expand")(kl.Conv2D(3, 1, activation=activation, name="squeeze")(g))
        return kl.Multiply(name="excite")([y, g])

    return on_image(excite)


def cross():
    x = keras.Input(TOKENS, name="tokens")
    y = kl.MultiHeadAttention(2, 3, value_dim=5, output_shape=4, name="cross")(
        kl.Conv1D(8, 3, name="q")(x), x, kl.Dense(8)(x)
    )
    return keras.Model(x, kl.Dense(3, name="top")(kl.Flatten(name="flat")(y)))


def mixer():
    x = keras.Input(TOKENS, name="tokens")
    y = kl.LayerNormalization(name="norm")(x)
    y = kl.Permute((2, 1), name="back")(kl.Dense(6, "gelu", name="mix")(kl.Permute((2, 1), name="turn")(y)))
    y = kl.Add(name="add")([x, y])
    return keras.Model(x, kl.Dense(3, name="top")(kl.GlobalAveragePooling1D(name="pool")(y)))


def repeated():
    x = keras.Input(VECTOR, name="x")
    y = kl.RepeatVector(4, name="repeat")(kl.Dense(5, "relu", name="few")(x))
    return keras.Model(x, kl.Flatten(name="flat")(kl.Conv1D(3, 2, name="conv")(y)))


def folded():
    x = keras.Input(VECTOR, name="x")
    y = kl.Reshape((4, 4, 3), name="fold")(kl.Dense(48, "relu", name="many")(x))
    return keras.Model(x, kl.Flatten(name="flat")(kl.Conv2D(2, 3, name="conv")(y)))


def similar(**how):
    x = keras.Input(TOKENS, name="tokens")
    y = kl.Dot((2, 2), name="dot", **how)([x, kl.Dense(8, name="other")(x)])
    return keras.Model(x, kl.Dense(3, name="top")(kl.Flatten(name="flat")(y)))


def attend(layer, **how):
    return lambda: on_tokens(lambda x: layer(x, x, **how))


MODELS = {
    "squeeze-excitation": lambda: excited("silu", "sigmoid"),
    "hard squeeze-excitation": lambda: excited("relu", "hard_sigmoid"),
    "gate": lambda: on_vector(lambda a, b, c: kl.Multiply(name="times")([a, b])),
    "three factors": lambda: on_vector(lambda a, b, c: kl.Multiply(name="times")([a, b, c])),
    "largest of three": lambda: on_vector(lambda a, b, c: kl.Maximum(name="max")([a, b, c])),
    "smallest of three": lambda: on_vector(lambda a, b, c: kl.Minimum(name="min")([a, b, c])),
    "softmax within": lambda: on_vector(lambda a, b, c: kl.Softmax(name="soft")(kl.Add()([a, b, c]))),
    "log-softmax within": lambda: on_vector(lambda a, b, c: kl.Dense(4, "log_softmax", name="log")(a)),
    "softmax over space": lambda: on_image(kl.Softmax(axis=(1, 2), name="soft")),
    "softmax over rows": lambda: on_image(kl.Softmax(axis=1, name="soft")),
    "layer norm": lambda: on_image(kl.LayerNormalization(name="norm")),
    "layer norm over all": lambda: on_image(kl.LayerNormalization(axis=(1, 2, 3), epsilon=1e-2, name="norm")),
    "layer norm over space": lambda: on_image(kl.LayerNormalization(axis=(1, 2), name="norm")),
    "group norm": lambda: on_image(kl.GroupNormalization(groups=4, name="norm")),
    "instance norm": lambda: on_image(kl.GroupNormalization(groups=-1, name="norm")),
    "RMS norm": lambda: on_image(kl.RMSNormalization(name="norm")),
    "unit norm": lambda: on_image(kl.UnitNormalization(name="norm")),
    "attention": attend(kl.MultiHeadAttention(3, 5, name="attend")),
    "causal attention": attend(kl.MultiHeadAttention(2, 4, name="attend"), use_causal_mask=True),
    "cross-attention": cross,
    "grouped queries": attend(kl.GroupQueryAttention(4, 4, 2, name="attend")),
    "dot-product attention": lambda: on_tokens(lambda x: kl.Attention(name="attend")([x, kl.Dense(8, name="k")(x)])),
    "additive attention": lambda: on_tokens(
        lambda x: kl.AdditiveAttention(name="attend")([x, kl.Dense(8, name="k")(x)])
    ),
    "dot": similar,
    "cosine": lambda: similar(normalize=True),
    "mixer": mixer,
    "repeat": repeated,
    "fold": folded,
}


def read(name, count):
    """The network, verified, images as it takes them, and what Keras makes of them."""
    model = randomise(MODELS[name]())
    network = snnc.load(model, verify=True)
    images = np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype(np.float32)
    expected = model.predict(images, verbose=0)
    return network, images.reshape(count, *network.populations[network.inputs[0]].shape), expected


@pytest.mark.parametrize("name", MODELS)
def test_they_are_read_exactly(name):
    network, images, expected = read(name, 3)
    (output,) = network.outputs
    for found in (analog(network, {network.inputs[0]: images})[output], snnc.compile(network).predict(images)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["squeeze-excitation", "attention", "mixer", "group norm", "softmax within", "cosine"])
def test_few_spikes_say_them(name):
    network, images, expected = read(name, 64)
    spiking = snnc.convert(network, calibration=images, progress=False)
    found = snnc.compile(spiking).predict(images, progress=False)
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected).mean()
