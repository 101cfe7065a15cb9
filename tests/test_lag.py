"""Layers that wait for several steps of the one before them: what the option does, and what is said of it."""

import naive
import numpy as np
import pytest
from dyadic import dyadic, spiking
from networks import residual, weights

import snnc
from snnc import ir
from snnc.profile import profile

IMAGES = weights(100, 40, 8, 8, 2)
PIPELINES = ["data-norm{per-channel=true,lag=3}", "spike-norm{lag=3}", "tracking{lag=3}"]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_conversion_takes_a_lag(pipeline, tmp_path):
    network = snnc.convert(residual(), pipeline, calibration=IMAGES, timesteps=8, progress=False)
    assert (network.lag, network.timesteps, network.latency) == (3, 8, 8 + 3 * max(network.depth.values()))
    assert {edge.delay for edge in network.connections} == {0, 2, 3}  # 2 for the constant current
    assert str(network).startswith("network timesteps=8 lag=3 ")
    assert str(ir.parse(str(network), ir.arrays_of(network))) == str(network)
    snnc.save(network, tmp_path / "net.snn")
    assert snnc.load(tmp_path / "net.snn") == network


@pytest.mark.parametrize("lag", [1, 2, 4])
def test_charge_that_comes_late_and_goes_again_makes_no_spike(lag):
    """What one source brings early, another takes away in the last step: only who waits for all of it knows."""
    network = spiking(
        [
            ir.Population("x", (2,), ir.IntegrateFireInput(1.0)),
            ir.Population("late", (1,), ir.IntegrateFire(1.0)),
            ir.Population("y", (1,), ir.IntegrateFire(1.0)),
        ],
        [
            ir.Connection("x", "late", (ir.Dense(np.array([[0.0], [1.0]])),)),
            ir.Connection("x", "y", (ir.Dense(np.array([[1.0], [0.0]])),)),
            ir.Connection("late", "y", (ir.Dense(np.array([[-2.0]])),)),
        ],
        ["x"],
        ["y"],
        timesteps=4,
        lag=lag,
    )
    x = np.array([[0.5, 0.25]])  # spikes in steps 2 and 4; a spike in step 4
    expected = {1: 1, 2: 1, 4: 0}[lag]
    for recording in (naive.simulate(network, {"x": x}), snnc.compile(network).simulate(x, record=True)):
        assert recording.spike_counts["y"].tolist() == [[expected]]


def test_waiting_makes_spikes_more_even():
    analog = residual()
    errors = []
    for lag in (1, 2, 8):
        pipeline = f"data-norm{{threshold=mse,per-channel=true,lag={lag}}}"
        network = snnc.convert(analog, pipeline, calibration=IMAGES, timesteps=8, progress=False)
        layers = profile(
            snnc.run_pipeline(analog, f"canonicalise,{snnc.LOWERING}"), network, IMAGES, progress=False
        ).layers
        errors.append([layer.unevenness for layer in layers if layer.threshold])
    assert errors[0][0] == errors[1][0] == errors[2][0] < 1e-3  # what takes in constant current waits for nothing
    assert sum(errors[0]) > sum(errors[1])
    assert errors[0][1] > errors[1][1] > errors[2][1]


def test_a_readout_is_decoded_from_what_it_has_taken_in():
    """One spike in every step: all that is decoded is right from the first step on."""
    network = spiking(
        [ir.Population("x", (3,), ir.SpikeInput(2.0)), ir.Population("y", (2,), ir.Integrate(), dyadic(1, 2))],
        [ir.Connection("x", "y", (ir.Dense(dyadic(2, 3, 2)),))],
        ["x"],
        ["y"],
        timesteps=8,
        lag=4,
    )
    x = np.ones((1, 3), np.float32)
    expected = 2 * dyadic(2, 3, 2).sum(0) + dyadic(1, 2)
    for recording in (naive.simulate(network, {"x": x}), snnc.compile(network).simulate(x)):
        decoded = recording.decoded["y"]
        np.testing.assert_allclose(decoded, np.broadcast_to(expected, decoded.shape), rtol=1e-6)
        assert len(decoded) == 8


def test_lags_that_are_none_are_refused():
    with pytest.raises(ir.PipelineError, match="lag is 0; it is a number of steps, from 1 on"):
        snnc.convert(residual(), "data-norm{lag=0}", calibration=IMAGES, timesteps=8)
    with pytest.raises(ir.PipelineError, match="lag is 9, longer than the 8 timesteps"):
        snnc.convert(residual(), "tracking{lag=9}", calibration=IMAGES, timesteps=8)
    network = snnc.convert(residual(), "data-norm{lag=3}", calibration=IMAGES, timesteps=8, progress=False)
    with pytest.raises(ir.VerificationError, match="lag is 3; it is a number from 1 to T"):
        ir.verify(network.replace(timesteps=2), "spiking")
    with pytest.raises(ir.VerificationError, match="delay 3 does not align it, 1 does"):
        ir.verify(network.replace(lag=1), "spiking")
    with pytest.raises(ir.DataError, match="wait for each other; convert it with lag=1"):
        snnc.compile(network).evaluate(IMAGES, np.zeros(len(IMAGES), int), until_stable=2)


def test_what_cuts_a_run_changes_nothing():
    network = snnc.convert(residual(), "data-norm{lag=3}", calibration=IMAGES, timesteps=8, progress=False)
    whole = snnc.compile(network).predict(IMAGES, progress=False)
    np.testing.assert_array_equal(snnc.compile(network, memory="1MB", threads=1).predict(IMAGES, progress=False), whole)
