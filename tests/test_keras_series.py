"""One-dimensional Keras models: a series (L, C) is an image (L, 1, C)."""

import keras
import numpy as np
import pytest
from frontend_models import randomise
from keras import layers as kl

import snnc
from snnc import ir

STACKS = {
    "conv": lambda: [kl.Conv1D(5, 3, activation="relu")],
    "strided-grouped": lambda: [kl.Conv1D(6, 3, strides=2, padding="same", groups=2)],
    "dilated": lambda: [kl.Conv1D(6, 3, dilation_rate=2, padding="same")],
    "causal": lambda: [kl.Conv1D(6, 3, padding="causal")],
    "depthwise": lambda: [kl.DepthwiseConv1D(3, depth_multiplier=2)],
    "separable": lambda: [kl.SeparableConv1D(5, 3, padding="same", activation="relu")],
    "max-pool": lambda: [kl.Conv1D(5, 3), kl.MaxPooling1D(3, 2, padding="same"), kl.GlobalMaxPooling1D()],
    "average-pool": lambda: [kl.AveragePooling1D(2, padding="same"), kl.GlobalAveragePooling1D(), kl.Dense(3)],
    "norm": lambda: [kl.BatchNormalization(), kl.Conv1D(5, 3), kl.BatchNormalization(), kl.ReLU()],
    "pad-crop": lambda: [kl.ZeroPadding1D(2), kl.Conv1D(3, 3), kl.Cropping1D((1, 2))],
    "dense": lambda: [kl.Dense(4, activation="relu"), kl.SpatialDropout1D(0.2), kl.Flatten(), kl.Dense(3)],
    "scaled": lambda: [kl.Rescaling(2.0, 1.0), kl.Conv1D(3, 3)],
}


@pytest.mark.parametrize("name", STACKS)
def test_series(name):
    x = y = keras.Input((16, 4), name="series")
    for layer in STACKS[name]():
        y = layer(y)
    model = randomise(keras.Model(x, y))
    network = snnc.load(model, verify=True)
    assert network.populations["series"].shape == (16, 1, 4)
    images = np.random.default_rng(0).normal(size=(3, 16, 4)).astype(np.float32)
    expected = np.asarray(model(images))
    found = snnc.compile(network).predict(images, progress=False)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_keyword_spotting_network_spikes():
    x = keras.Input((40, 8), name="sound")
    y = kl.ReLU(name="relu")(kl.BatchNormalization(name="norm")(kl.Conv1D(6, 5, strides=2, name="conv")(x)))
    y = kl.GlobalAveragePooling1D(name="mean")(kl.SeparableConv1D(8, 3, activation="relu", name="separable")(y))
    network = snnc.load(randomise(keras.Model(x, kl.Dense(4, name="word")(y))), verify=True)
    sounds = np.random.default_rng(0).normal(size=(20, 40, 8)).astype(np.float32)
    spiking = snnc.convert(network, "data-norm", calibration=sounds, timesteps=256, progress=False)
    trained = snnc.compile(network).predict(sounds, progress=False)
    result = snnc.compile(spiking).evaluate(sounds, trained.argmax(-1), progress=False)
    assert result.accuracy[-1] > 0.9


def test_masks_over_a_series_are_refused():
    x = keras.Input((16, 4), name="series")
    with pytest.raises(ir.UnsupportedModelError) as error:
        snnc.load(keras.Model(x, kl.Masking(name="masked")(kl.Conv1D(4, 3)(x))))
    assert [problem.layer for problem in error.value.problems] == ["masked"]
