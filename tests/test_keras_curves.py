"""Keras's activations beyond rectifiers: read as neurons of their own, and told by few spikes."""

import keras
import numpy as np
import pytest
from frontend_models import randomise
from keras import layers as kl

import snnc
from snnc import ir


@pytest.mark.parametrize(
    "name",
    [
        "silu",
        "gelu",
        "sigmoid",
        "tanh",
        "elu",
        "selu",
        "celu",
        "softplus",
        "softsign",
        "mish",
        "hard_silu",
        "exponential",
    ],
)
def test_keras_activations(name):
    x = keras.Input((6, 6, 3), name="image")
    y = kl.Conv2D(4, 3, activation=name, name="conv")(x)
    model = randomise(keras.Model(x, kl.Dense(3, name="top")(kl.Flatten(name="flat")(y))))
    network = snnc.load(model, verify=True)
    images = np.random.default_rng(1).normal(size=(40, 6, 6, 3)).astype(np.float32)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(snnc.compile(network).predict(images), expected, atol=1e-4 * np.abs(expected).max())
    assert all(population.origin.layers for population in network.populations.values())
    snn = snnc.convert(network, f"{snnc.LOWERING},few-spike{{k=10}}", calibration=images, progress=False)
    found = snnc.compile(snn).predict(images, progress=False)
    assert np.abs(found - expected).mean() < 0.01 * np.abs(expected).mean()


@pytest.mark.parametrize("name", ["silu", "gelu", "mish", "hard_silu", "softsign"])
def test_activations_behind_a_scale_that_is_the_same_for_all(name):
    """As batch normalisation at its defaults: its factor is no part of the function, but may look like it."""
    x = keras.Input((6, 6, 3), name="image")
    y = kl.BatchNormalization(name="norm")(kl.Conv2D(4, 3, name="conv")(x))
    y = kl.Activation(name, name="act")(kl.Rescaling(0.7, name="scale")(y))
    model = keras.Model(x, kl.Dense(3, name="top")(kl.Flatten(name="flat")(y)))
    network = snnc.load(model, verify=True)
    (function,) = [p.neuron for p in network.populations.values() if isinstance(p.neuron, ir.Function)]
    assert function.function == {"hard_silu": "hard_swish"}.get(name, name)
    assert function.parameter == 1


def test_rate_codes_refuse_functions_by_name():
    x = keras.Input((5,), name="x")
    model = randomise(keras.Model(x, kl.Dense(2, name="top")(kl.Dense(9, "silu", name="hidden")(x))))
    images = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
    with pytest.raises(ir.UnsupportedModelError, match=r"hidden \(Function, from hidden\): no single spiking neuron"):
        snnc.convert(snnc.load(model), "data-norm", calibration=images, progress=False)
