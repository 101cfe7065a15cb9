"""Agreement of a network with its model, without labels."""

import json

import keras
import keras.layers as kl
import numpy as np
import pytest
from frontend_models import randomise

import snnc
from snnc import ir
from snnc.agreement import Agreement

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    """Classes, boxes and a mask of one channel: three outputs of different kinds."""
    x = keras.Input((8, 8, 2), name="photo")
    y = kl.Conv2D(6, 3, padding="same", activation="relu", name="features")(x)
    classes = kl.Dense(4, activation="softmax", name="classes")(kl.GlobalAveragePooling2D()(y))
    boxes = kl.Conv2D(3, 1, name="boxes")(y)
    return randomise(keras.Model(x, [classes, boxes, kl.Conv2D(1, 1, activation="sigmoid", name="mask")(y)]))


@pytest.fixture(scope="module")
def pair(model):
    images = RNG.normal(size=(32, 8, 8, 2)).astype(np.float32)
    network = snnc.load(model)
    return network, snnc.convert(network, "few-spike{k=6}", calibration=images, progress=False), images


def test_the_measures():
    expected = np.array([[3.0, -4.0], [0.0, 2.0]])
    found = np.array([[3.0, -2.0], [3.0, 2.0]])
    measured = Agreement.of(found, expected)
    cosines = [(9 + 8) / (5 * np.hypot(3, 2)), 4 / (2 * np.hypot(3, 2))]
    assert measured.largest == pytest.approx(3 / 4)
    assert measured.mean == pytest.approx(5 / 9)
    assert measured.cosine == pytest.approx(np.mean(cosines))
    assert measured.top == 0.5
    assert Agreement.of(found[:, :1], expected[:, :1]).top is None


def test_of_every_output(pair, model):
    network, spiking, images = pair
    found = snnc.agreement(spiking, network, images, progress=False)
    assert list(found) == list(spiking.outputs)
    decoded, outputs = snnc.compile(spiking).predict(images), [np.asarray(y) for y in model(images)]
    for (name, measured), y in zip(found.items(), outputs, strict=True):
        z = decoded[name]
        if name == spiking.outputs[2]:  # nor is the sigmoid
            z = 1 / (1 + np.exp(-z))
        if name == spiking.outputs[0]:  # the softmax is not computed by spikes
            z = np.exp(z - z.max(-1, keepdims=True))
            z /= z.sum(-1, keepdims=True)
        assert 0 < measured.largest < 0.2
        assert measured.largest == pytest.approx(np.abs(z - y).max() / np.abs(y).max(), rel=1e-3)
        assert measured.mean == pytest.approx(np.abs(z - y).mean() / np.abs(y).mean(), rel=1e-3)
        assert measured.cosine > 0.99
        same = (z.argmax(-1) == y.argmax(-1)).mean()
        assert measured.top == (pytest.approx(same) if y.shape[-1] > 1 else None)
    perfect = snnc.agreement(network, network, images, progress=False)
    assert all(measured.largest == 0 and measured.cosine > 1 - 1e-9 for measured in perfect.values())


def test_networks_that_do_not_correspond(pair):
    network, spiking, images = pair
    fewer = network.replace(outputs=network.outputs[:2])
    with pytest.raises(ir.DataError, match="1 inputs and 3 outputs cannot be compared with one of 1 inputs and 2"):
        snnc.agreement(spiking, fewer, images)
    turned = network.replace(outputs=network.outputs[::-1])
    with pytest.raises(ir.DataError, match="has shape"):
        snnc.agreement(spiking, turned, images)


def test_on_the_command_line(pair, model, tmp_path, snnc_command):
    network, spiking, images = pair
    model.save(tmp_path / "model.keras")
    ir.save(spiking, tmp_path / "net.snn")
    np.savez(tmp_path / "data.npz", x=images)
    command = ["evaluate", tmp_path / "net.snn", "--against", tmp_path / "model.keras", "-d", tmp_path / "data.npz"]
    code, out, _ = snnc_command(*command)
    assert not code
    assert "agreement with the model over 32 images" in out
    assert all(name in out for name in spiking.outputs)
    code, out, _ = snnc_command(*command, "--json")
    said = json.loads(out)
    assert said["images"] == 32
    expected = snnc.agreement(spiking, network, images, progress=False)
    assert {name: Agreement(**each) for name, each in said["agreement"].items()} == expected
    code, _, err = snnc_command(*command, "--until-stable", "4")
    assert code
    assert "--against" in err
