"""The whole house: a trained Keras model becomes a spiking network that classifies as well."""

import numpy as np
import pytest

import snnc
from snnc import ir
from snnc.passes import Canonicalise, DataNorm


def test_the_analog_network_equals_keras(digits):
    model, _, _, x, _ = digits
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(snnc.compile(snnc.load(model)).predict(x), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("pipeline", [snnc.DEFAULT_PIPELINE, "data-norm{percentile=99.9}", "data-norm"])
def test_the_spiking_network_is_within_a_point_of_the_ann(digits, pipeline):
    model, x_train, _, x, y = digits
    ann = (model.predict(x, verbose=0).argmax(-1) == y).mean()
    assert ann > 0.95
    snn = snnc.convert(snnc.load(model), pipeline, calibration=x_train[:512], timesteps=32)
    result = snnc.compile(snn, backend="onnxruntime").evaluate(x, y)
    assert result.accuracy.shape == (32,)
    assert result.predictions.shape == (32, len(x))
    assert result.seconds > 0
    assert abs(result.accuracy[32 - 1] - ann) <= 0.01


def test_populations_are_named_after_the_users_layers(digits):
    network = snnc.load(digits[0])
    assert set(network.populations) == {"image", "stem", "branch_1", "merged", "top", "hidden", "digit"}
    assert network.populations["merged"].origin.layers[-1] == "merged"


def test_scripts_can_stop_after_any_step(digits, tmp_path):
    model, x_train, _, x, y = digits
    network = snnc.load(model)
    snn = snnc.convert(network, [DataNorm(percentile=99.9)], calibration=x_train[:64], timesteps=8)
    snnc.save(network, tmp_path / "analog.snn")
    snnc.save(snn, tmp_path / "spiking.snn")
    resumed = snnc.convert(
        snnc.load(tmp_path / "analog.snn"),
        [Canonicalise(), DataNorm(percentile=99.9)],
        calibration=x_train[:64],
        timesteps=8,
    )
    assert resumed == snn == snnc.load(tmp_path / "spiking.snn")
    kept, straight = (snnc.compile(n).evaluate(x[:50], y[:50]) for n in (snnc.load(tmp_path / "spiking.snn"), snn))
    np.testing.assert_array_equal(kept.predictions, straight.predictions)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((10, 8, 9, 1)), r"calibration data for input 'image' has shape \(10, 8, 9, 1\)"),
        (np.full((10, 8, 8, 1), np.nan), "calibration data for input 'image' holds NaN or infinity in 10 image"),
        (np.zeros((0, 8, 8, 1)), "no images"),
        (None, "needs calibration images"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(digits, calibration, message):
    with pytest.raises(snnc.SnncError, match=message):
        snnc.convert(snnc.load(digits[0]), calibration=calibration)


def test_converting_twice_is_refused(digits):
    model, x_train, *_ = digits
    snn = snnc.convert(snnc.load(model), calibration=x_train[:64])
    with pytest.raises(ir.PipelineError, match="requires a network at stage 'analog'"):
        snnc.convert(snn, calibration=x_train[:64])
