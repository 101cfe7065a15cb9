"""Every part of a network names the layer that it comes from, whatever the layers are called and however they nest.

The oracle is the model itself: when one layer's weights are changed after reading, the proof must find that layer.
"""

import keras
import numpy as np
import pytest
from frontend_models import randomise
from keras import layers as kl

import snnc
from snnc import frontend, ir, proof

NAMES = [
    *(
        "stem relu",
        "über",
        "日本",
        "a:b",
        "_x",
        "-x",
        "1",
        " ",
        "..",
        "$x",
        "a>b",
        "a\\b",
        "a\nb",
        "a'b",
        'a"b',
        "%s{}",
    ),
    *("a(b)", "snnc", "snnc0z", "snnc_0z", "add#2", "Identity", "Placeholder", "conv_1", "x" * 300),
    *("StatefulPartitionedCall", "Conv2D (ReLU): it; no"),
]


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_models_of_any_name(tmp_path, name):
    x = keras.Input((6, 6, 2), name=f"in {name}")
    inner = keras.Sequential(
        [keras.Input((6, 6, 3)), kl.BatchNormalization(name="norm"), kl.ReLU(name=name)], name=name
    )
    y = inner(kl.Conv2D(3, 3, padding="same", activation="relu", name=f"{name}.")(x))
    model = randomise(keras.Model(x, kl.Dense(2, name="top")(kl.Flatten(name="flat")(y)), name=f"m {name}"))
    network = snnc.load(model, verify=True)
    assert list(network.populations) == [f"in {name}", f"{name}.", f"{name}/{name}", "top"]
    assert network.populations[f"{name}/{name}"].origin.layers == (f"{name}/norm", f"{name}/{name}")
    snnc.save(network, tmp_path / "net.snn")
    assert snnc.load(tmp_path / "net.snn") == network


@pytest.mark.parametrize("name", NAMES)
def test_refusals_of_any_name(name):
    x = keras.Input((4,), name="x")
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(keras.Model(x, kl.Activation("sparse_plus", name=name)(kl.Dense(3, name="fine")(x))))
    (refusal,) = error.value.problems
    assert isinstance(refusal, ir.Refusal)
    assert (refusal.layer, refusal.kind) == (name, "Activation 'sparse_plus'")


def nested() -> keras.Model:
    """Layers of the same names at every depth, names that look like numbered calls, and layers shared across depths."""

    def block(name: str, *inside: kl.Layer) -> keras.Model:
        stack = [kl.Conv2D(3, 3, padding="same", name="conv"), kl.BatchNormalization(name="norm"), *inside]
        return keras.Sequential([keras.Input((6, 6, 3)), *stack, kl.ReLU(name="relu")], name=name)

    shared = kl.Conv2D(3, 1, activation="relu", name="shared")
    innermost = block("block", shared)
    inner = block("inner", innermost)
    x = keras.Input((6, 6, 3), name="x")
    y = kl.Conv2D(3, 1, activation="relu", name="conv")(x)
    y = kl.Conv2D(3, 1, activation="relu", name="shared#2")(shared(y))
    y = innermost(inner(kl.BatchNormalization(name="norm")(y)))
    y = kl.Dense(4, activation="relu", name="conv_1")(kl.Flatten(name="block_1")(kl.Add(name="relu")([y, x])))
    return randomise(keras.Model(x, kl.Dense(2, name="dense")(y), name="block"))


class Subclassed(keras.Model):
    """Layers in lists and in other layers, called in another order than made."""

    class Pair(kl.Layer):
        def __init__(self, name):
            super().__init__(name=name)
            self.late, self.early = kl.Dense(5, name="late"), kl.Dense(5, activation="relu", name="early")

        def call(self, x):
            return self.late(self.early(x))

    def __init__(self):
        super().__init__(name="subclassed")
        self.pairs = [self.Pair("second"), self.Pair("first")]
        self.top = kl.Dense(2, name="top")

    def call(self, x):
        for pair in reversed(self.pairs):
            x = keras.ops.relu(pair(x))
        return self.top(x)


def subclassed() -> keras.Model:
    model = Subclassed()
    model(np.ones((1, 4), np.float32))
    return randomise(model)


def _calls(model: keras.Model) -> dict[int, str]:
    """The path of each layer's first call, found by calling the model: independent of the frontend."""
    paths: dict[int, str] = {}
    stack: list[str] = []

    def follow(layer, call):
        def followed(*args, **kwargs):
            stack.append(layer.name)
            paths.setdefault(id(layer), "/".join(stack))
            try:
                return call(*args, **kwargs)
            finally:
                stack.pop()

        return followed

    layers = model._flatten_layers(include_self=False)
    for layer in layers:
        layer.__dict__["call"] = follow(layer, layer.call)
    shape = (1, 4) if isinstance(model, Subclassed) else (1, *model.input_shape[1:])
    model(np.ones(shape, np.float32))
    for layer in layers:
        del layer.__dict__["call"]
    return paths


@pytest.mark.parametrize("build", [nested, subclassed])
def test_a_changed_layer_is_found_by_its_path(build):
    model = build()
    reading = frontend.read(model)
    assert proof.prove(reading) < 1e-5
    paths = _calls(model)
    weighted = [layer for layer in model._flatten_layers() if layer.weights and not layer._layers]
    assert len(weighted) >= 5
    for layer in weighted:
        before = layer.get_weights()
        layer.set_weights([1.5 * weight for weight in before])
        with pytest.raises(ir.MismatchError) as error:
            proof.prove(reading)
        assert error.value.layer == paths[id(layer)]
        layer.set_weights(before)
