"""Preprocessing layers at the front of a model become part of the network."""

import keras
import numpy as np
import pytest
from frontend_models import assert_equal, randomise
from keras import layers as kl

import snnc

AUGMENTATIONS = {
    "RandomBrightness": {"factor": 0.1},
    "RandomContrast": {"factor": 0.1},
    "RandomCrop": {"height": 12, "width": 10},
    "RandomFlip": {},
    "RandomRotation": {"factor": 0.1},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "GaussianNoise": {"stddev": 0.1},
}


def behind(*layers: kl.Layer, **options) -> keras.Model:
    """A convolution and a dense layer behind preprocessing."""
    x = y = keras.Input((12, 10, 3), name="image", **options)
    for layer in layers:
        y = layer(y)
    y = kl.Flatten(name="flat")(kl.Conv2D(4, 3, activation="relu", name="conv")(y))
    return randomise(keras.Model(x, kl.Dense(2, name="top")(y)))


def adapted() -> kl.Normalization:
    layer = kl.Normalization(name="normalise")
    layer.adapt(np.random.default_rng(0).normal(100, 50, (20, 12, 10, 3)))
    return layer


@pytest.mark.parametrize(
    "layers",
    [
        [kl.Rescaling(1 / 255, name="scale")],
        [kl.Rescaling([1.0, 0.5, 0.1], offset=[0.0, 1.0, -1.0], name="scale")],
        [adapted()],
        [kl.CenterCrop(12, 10, name="crop")],
        [kl.CenterCrop(9, 6, name="crop"), kl.Rescaling(1 / 255, name="scale")],
        [kl.Cropping2D(((1, 2), (3, 0)), name="crop")],
        [kl.Resizing(12, 10, name="resize"), kl.Rescaling(1 / 127.5, offset=-1, name="scale")],
        [kl.Resizing(12, 10, interpolation="nearest", crop_to_aspect_ratio=True, name="resize")],
    ],
    ids=lambda layers: "-".join(type(layer).__name__ for layer in layers),
)
def test_preprocessing_becomes_weights_and_biases(layers):
    network = assert_equal(behind(*layers))
    assert list(network.populations) == ["image", "conv", "top"]


def test_bytes_in():
    model = behind(kl.Resizing(12, 10, name="resize"), kl.Rescaling(1 / 255, name="scale"), dtype="uint8")
    network = snnc.load(model, verify=True)
    assert network.populations["conv"].origin.layers[-2:] == ("scale", "conv")


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_does_nothing_at_inference(name):
    network = assert_equal(behind(getattr(kl, name)(**AUGMENTATIONS[name], name="augment")))
    assert list(network.populations) == ["image", "conv", "top"]


@pytest.mark.parametrize("layer", [kl.Resizing(6, 5, name="resize"), kl.UpSampling2D(name="resize")])
def test_resampling_is_a_part_of_the_edge_behind_it(layer):
    network = assert_equal(behind(layer))
    assert list(network.populations) == ["image", "conv", "top"]
