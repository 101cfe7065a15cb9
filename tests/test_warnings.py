"""What costs accuracy without a word is said: ranges, silence, negative outputs, images that are all the same."""

import warnings

import keras
import numpy as np
import pytest
from frontend_models import randomise
from keras import layers as kl

import snnc
from snnc import ir
from snnc.backend.compiled import CompiledSpiking

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(64, 8, 8, 3)).astype(np.float32)
CONVERSIONS = ["data-norm", "data-norm{percentile=99.9,per-channel=true}", "data-norm{threshold=mse}", "few-spike"]
CONVERSIONS += ["few-spike{per-channel=true}", "spike-norm", "spike-norm{percentile=99.9,per-channel=true}"]


def network(stem_bias=None, last="linear"):
    """A convolution and a dense layer, with weights far from their defaults."""
    x = keras.Input((8, 8, 3), name="image")
    y = kl.Conv2D(6, 3, activation="relu", name="stem")(x)
    model = randomise(keras.Model(x, kl.Dense(5, last, name="top")(kl.Flatten(name="flat")(y))))
    if stem_bias is not None:
        weight, _ = model.get_layer("stem").get_weights()
        model.get_layer("stem").set_weights([weight, np.asarray(stem_bias, np.float32)])
    return snnc.load(model)


ALIVE = [2.0] * 6  # so that every channel fires


def converted(analog, pipeline, images=IMAGES, timesteps=16):
    return snnc.convert(analog, pipeline, calibration=images, timesteps=timesteps, progress=False)


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ir.ModelWarning)
        call()
    return [str(warning.message) for warning in caught if warning.category is ir.ModelWarning]


@pytest.mark.parametrize("pipeline", CONVERSIONS)
def test_what_is_all_well_is_not_warned_of(pipeline):
    snn = []
    assert said(lambda: snn.append(converted(network(ALIVE), pipeline))) == []
    assert said(lambda: snnc.compile(snn[0]).predict(IMAGES, progress=False)) == []


@pytest.mark.parametrize("pipeline", CONVERSIONS)
def test_layers_and_channels_that_no_image_wakes_are_named(pipeline):
    (dead,) = said(lambda: converted(network([-10] * 6), pipeline))
    assert "wakes stem (all of it)" in dead
    (channels,) = said(lambda: converted(network([2, 2, -10, 2, -10, 2]), pipeline))
    assert "wakes stem (2 of 6 channels: 2, 4)" in channels


def test_many_silent_channels_are_not_all_listed():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, kl.Conv2D(32, 3, activation="relu", name="wide", bias_initializer="ones")(x))
    weight, bias = model.get_layer("wide").get_weights()
    model.get_layer("wide").set_weights([0.01 * weight, np.where(np.arange(32) % 3, -1, bias)])
    (message,) = said(lambda: converted(snnc.load(model), "data-norm"))
    assert "21 of 32 channels: 1, 2, 4, 5, 7, 8, 10, 11, …" in message


def test_silent_neurons_of_flat_layers_are_nothing_to_speak_of():
    x = keras.Input((6,))
    model = keras.Model(x, kl.Dense(3, name="top")(kl.Dense(8, "relu", name="hidden", bias_initializer="ones")(x)))
    weight, bias = model.get_layer("hidden").get_weights()
    images = RNG.uniform(size=(9, 6)).astype(np.float32)
    for silent, messages in ((slice(0, 3), 0), (slice(None), 1)):
        changed = bias.copy()
        changed[silent] = -10
        model.get_layer("hidden").set_weights([weight, changed])
        assert len(said(lambda: converted(snnc.load(model), "data-norm", images))) == messages


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8, 3)), np.repeat(IMAGES[:1], 5, 0)], ids=["zero", "alike"])
def test_calibration_images_that_are_all_the_same_are_said_to_be(images):
    messages = said(lambda: converted(network(ALIVE), "data-norm", images))
    assert any("fit no others" in message for message in messages)


def test_an_image_that_overflows_is_named_in_spike_norm_too():
    """What is said of the analog network is tested with the passes that look at it."""
    analog = network(ALIVE)
    large = [
        ir.Connection(c.source, c.target, (ir.Dense(c.operators[-1].weight * 1e36),)) if c.target == "top" else c
        for c in analog.connections
    ]
    images = IMAGES.copy()
    images[9] *= 1e3
    pipeline = "spike-norm{readout=spikes}"
    with pytest.raises(ir.DataError, match=r"calibration image 9 drives .*top beyond"):
        converted(analog.replace(connections=large), pipeline, images)


@pytest.mark.parametrize("pipeline", ["data-norm{readout=spikes}", "spike-norm{readout=spikes}"])
def test_outputs_that_go_below_zero_are_not_for_spikes(pipeline):
    analog = network(ALIVE)
    lowest = snnc.compile(analog).predict(IMAGES).min()
    assert lowest < -1
    (message,) = said(lambda: converted(analog, pipeline))
    assert "top goes down to -" in message
    assert "readout=potential" in message
    assert said(lambda: converted(network(ALIVE, "relu"), pipeline)) == []


@pytest.mark.parametrize("pipeline", [*CONVERSIONS, "data-norm{readout=spikes,percentile=90}"])
def test_outputs_are_not_clipped(pipeline):
    """A network that ends in a rectifier, or in what was lowered from one, decodes its largest output."""
    x = keras.Input((8, 8, 3))
    last = kl.Conv2D(7, 3, activation="relu", name="last", bias_initializer="ones")(x)
    pooled = kl.MaxPooling2D(name="pool")(last)
    for end in (last, pooled):
        analog = snnc.load(randomise(keras.Model(x, end)))
        images = RNG.normal(size=(300, 8, 8, 3)).astype(np.float32)
        expected = snnc.compile(analog).predict(images)
        if "mse" in pipeline and not pipeline.startswith("few"):
            continue  # asked for: the least error, of which clipping is a part
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ir.ModelWarning)
            snn = snnc.convert(analog, f"{snnc.LOWERING},{pipeline}", calibration=images, timesteps=256, progress=False)
        found = snnc.compile(snn).predict(images, progress=False)
        steps = 15 if snn.is_phased else 256
        top = expected > 0.95 * expected.max()
        assert np.abs(found - expected)[top].max() < 3 * expected.max() / steps


def compiled(pipeline, images=IMAGES) -> CompiledSpiking:
    return snnc.compile(converted(network(ALIVE), pipeline, images))


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ("data-norm{input=integrate-fire}", r"its unsigned spikes \(IntegrateFireInput\) say 0 to 1"),
        ("data-norm{input=poisson}", r"its unsigned spikes \(PoissonInput\) say 0 to 1"),
        ("few-spike{input=few-spike,alpha=max}", r"its unsigned spikes \(FewSpikeInput\) say 0 to 1"),
        ("data-norm{input=integrate-fire,signed=true}", r"its signed spikes \(IntegrateFireInput\) say -1 to 1"),
        ("data-norm", "it was calibrated for -1 to 1"),
        ("few-spike", "it was calibrated for -1 to 1"),
    ],
)
def test_images_beyond_what_the_input_says_are_warned_of(pipeline, says):
    snn = compiled(pipeline)
    wrong = IMAGES.copy()
    wrong[7] *= 200
    for run in (
        lambda: snn.predict(wrong, progress=False),
        lambda: snn.evaluate(wrong, np.zeros(len(wrong), int), progress=False),
        lambda: snn.simulate(wrong, progress=False),
    ):
        with pytest.warns(ir.ModelWarning, match=f"'image' is given numbers from .*, first in image 7; {says}"):
            run()
    assert said(lambda: snn.predict(1.05 * IMAGES, progress=False)) == []
    negative = said(lambda: snn.predict(IMAGES - 0.5, progress=False))
    assert len(negative) == (1 if "unsigned" in says else 0)


def test_the_range_of_an_input_is_kept_in_files(tmp_path):
    snn = converted(network(ALIVE), "data-norm", 3 * IMAGES)
    snnc.save(snn, tmp_path / "net.snn")
    neuron = snnc.load(tmp_path / "net.snn").populations["image"].neuron
    assert neuron == ir.CurrentInput(3 * IMAGES.max())
    assert ir.CurrentInput().sayable == (-np.inf, np.inf)


def test_the_command_line_shows_warnings_and_stops_at_them(tmp_path, monkeypatch, snnc_command):
    monkeypatch.chdir(tmp_path)
    snnc.save(network([-10] * 6), "net.snn")
    np.savez("data.npz", x=IMAGES, x_test=300 * IMAGES, y_test=np.zeros(len(IMAGES), int))
    code, _, err = snnc_command("convert", "net.snn", "-c", "data.npz", "-o", "snn.snn")
    assert code == 0
    assert "warning: data-norm: no calibration image wakes stem (all of it)" in err
    code, _, err = snnc_command("evaluate", "snn.snn", "--data", "data.npz")
    assert code == 0
    assert "warning: input 'image' is given numbers" in err
    code, _, err = snnc_command("--strict", "convert", "net.snn", "-c", "data.npz", "-o", "strict.snn")
    assert code == 1
    assert "error: data-norm: no calibration image wakes stem" in err
    assert not (tmp_path / "strict.snn").exists()
