"""Keras models for the frontend's tests: randomised, and compared with their networks."""

import keras
import numpy as np
from reference import analog

import snnc
from snnc import frontend, ir


def randomise(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight a random value, as default initialisers hide mistakes (zeros and ones)."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.name == "seed_generator_state":
            continue
        fan_in = np.prod(variable.shape[:-1])
        if "variance" in variable.path:
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif "gamma" in variable.path:
            variable.assign(rng.uniform(-1.5, 1.5, variable.shape))
        else:
            variable.assign(rng.normal(size=variable.shape) / np.sqrt(max(fan_in, 4)))
    return model


def assert_equal(model: keras.Model, source: object = None, images: int = 3) -> ir.Network:
    """Load `source`, by default the model itself, and compare all outputs with Keras's on random inputs.

    The analog network is evaluated in numpy and on onnxruntime.
    """
    network = frontend.load(model if source is None else source)
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(images, *network.populations[name].shape)).astype(np.float32) for name in network.inputs]
    inputs = dict(zip(network.inputs, x, strict=True))
    by_name = isinstance(getattr(model, "_inputs_struct", None), dict)
    fed = inputs if by_name else x if len(x) > 1 else x[0]
    expected = [np.asarray(y) for y in keras.tree.flatten(model(fed, training=False))]
    compiled = snnc.compile(network).predict(inputs)
    by_onnxruntime = compiled if isinstance(compiled, dict) else {network.outputs[0]: compiled}
    assert len(expected) == len(network.outputs)
    for values in (analog(network, inputs), by_onnxruntime):
        for name, y in zip(network.outputs, expected, strict=True):
            assert values[name].shape == y.shape
            np.testing.assert_allclose(values[name], y, rtol=0, atol=1e-4 * max(np.abs(y).max(), 1e-6))
    return network
