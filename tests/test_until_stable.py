"""Images that are no longer shown once their prediction is stable: the same as a whole run, cut off afterwards."""

import json

import dyadic
import numpy as np
import pytest
from networks import residual, weights

import snnc
from snnc import ir

IMAGES = weights(100, 40, 8, 8, 2)
RATE = [name for name, build in dyadic.NETWORKS.items() if not build().is_phased and build().lag == 1]


def shown_for(predictions: np.ndarray, wait: int) -> np.ndarray:
    """By the rule, image by image: predictions is (outputs, T, images)."""
    timesteps, images = predictions.shape[1:]
    steps = np.full(images, timesteps)
    for image in range(images):
        for end in range(wait, timesteps + 1, wait):
            seen = predictions[:, end - wait : end, image]
            if (seen == seen[:, -1:]).all():
                steps[image] = end
                break
    return steps


@pytest.mark.parametrize("wait", [1, 3, 4])
@pytest.mark.parametrize("build", [dyadic.NETWORKS[name] for name in RATE], ids=RATE)
def test_stopping_is_a_whole_run_cut_off(build, wait):
    network = build()
    images = dyadic.images(network, 7)
    compiled = snnc.compile(network)
    recording = compiled.simulate(images, record=True)
    labels = {name: np.zeros(7, int) for name in network.outputs}
    decoded = {name: values.reshape(*values.shape[:2], -1) for name, values in recording.decoded.items()}
    predictions = {name: values.argmax(-1) for name, values in decoded.items()}
    expected = shown_for(np.stack(list(predictions.values())), wait)
    for options in ({}, {"memory": 1, "threads": 1}, {"memory": 2**12, "threads": 2}, {"threads": 1}):
        result = snnc.compile(network, **options).evaluate(images, labels, until_stable=wait)
        np.testing.assert_array_equal(result.steps, expected)
        found = result.predictions if len(network.outputs) > 1 else {network.outputs[0]: result.predictions}
        for name, curve in predictions.items():
            held = np.minimum(np.arange(len(curve))[:, None], expected - 1)
            np.testing.assert_array_equal(found[name], np.take_along_axis(curve, held, 0))
        for name, train in recording.trains.items():
            before = np.arange(len(train))[:, None] < expected
            spikes = np.abs(train) * before.reshape(*before.shape, *[1] * (train.ndim - 2))
            np.testing.assert_array_equal(result.spike_counts[name], spikes.sum((0, 1)), name)


@pytest.mark.parametrize("pipeline", ["data-norm{input=poisson,signed=true}", "data-norm{readout=spikes}"])
def test_noise_and_counts_do_not_depend_on_who_has_stopped(pipeline):
    snn = snnc.convert(residual(), pipeline, calibration=IMAGES, timesteps=24)
    results = [
        snnc.compile(snn, **options).evaluate(IMAGES, np.zeros(40, int), until_stable=4)
        for options in ({}, {"memory": 1, "threads": 1})
    ]
    assert 4 < results[0].steps.mean() < 24
    np.testing.assert_array_equal(results[0].steps, results[1].steps)
    for name, counts in results[0].spike_counts.items():
        np.testing.assert_array_equal(counts, results[1].spike_counts[name])


def test_an_evaluation_that_does_not_stop_shows_all_steps():
    snn = snnc.convert(residual(), calibration=IMAGES, timesteps=8)
    result = snnc.compile(snn).evaluate(IMAGES, np.zeros(40, int))
    np.testing.assert_array_equal(result.steps, np.full(40, 8))


def test_what_cannot_stop():
    snn = snnc.convert(residual(), calibration=IMAGES, timesteps=8)
    with pytest.raises(ir.DataError, match="from 1 on"):
        snnc.compile(snn).evaluate(IMAGES, np.zeros(40, int), until_stable=0)
    with pytest.raises(ir.DataError, match="without a transient"):
        snnc.compile(snn).evaluate(IMAGES, np.zeros(40, int), until_stable=2, transient=1)
    few = snnc.convert(residual(), "few-spike", calibration=IMAGES)
    with pytest.raises(ir.DataError, match="answers once"):
        snnc.compile(few).evaluate(IMAGES, np.zeros(40, int), until_stable=2)


def test_genn_shows_everything():
    pytest.importorskip("pygenn", reason="GeNN is not installed")
    snn = snnc.convert(residual(), calibration=IMAGES, timesteps=8)
    with pytest.raises(ir.BackendError, match="embedded engine"):
        snnc.compile(snn, "mlgenn").evaluate(IMAGES, np.zeros(40, int), until_stable=2)


def test_from_the_command_line(tmp_path, monkeypatch, snnc_command):
    monkeypatch.chdir(tmp_path)
    snnc.save(snnc.convert(residual(), calibration=IMAGES, timesteps=32), "net.snn")
    np.savez("data.npz", x=IMAGES, y=np.zeros(40, int))
    arguments = ("evaluate", "net.snn", "--data", "data.npz", "--until-stable", "4")
    assert "steps on average" in snnc_command(*arguments)[1]
    assert 4 <= json.loads(snnc_command(*arguments, "--json")[1])["steps_per_image"] < 32
