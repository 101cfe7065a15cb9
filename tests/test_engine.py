"""The embedded backend: its analog network against numpy, its spiking engine against itself and the equations."""

import threading

import dyadic
import numpy as np
import pytest
from hypothesis import given, settings
from networks import operator_chains, residual, weights
from reference import analog

import snnc
from snnc import ir
from snnc.backend.onnxruntime import CompiledAnalog, CompiledEngine, layer
from snnc.backend.onnxruntime.resources import Chunk, Resources
from snnc.ir import Connection, Network, Population

IMAGES = weights(100, 40, 8, 8, 2)


def converted(timesteps=16, pipeline="data-norm{percentile=99.0,per-channel=true}") -> Network:
    return snnc.convert(residual(), pipeline, calibration=IMAGES, timesteps=timesteps)


def test_analog_network_equals_numpy():
    expected = analog(residual(), {"image": IMAGES})
    compiled = snnc.compile(residual())
    np.testing.assert_allclose(compiled.predict(IMAGES), expected["digit"], atol=1e-5)
    batches = list(compiled.activations(IMAGES))
    for name, values in expected.items():
        np.testing.assert_allclose(np.concatenate([batch[name] for batch in batches]), values, atol=1e-4)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(operator_chains())
def test_every_operator_equals_numpy(drawn):
    shape, operators = drawn
    output = ir.output_shape(operators, shape)
    network = Network(
        [Population("x", shape, ir.Input()), Population("y", output, ir.Identity())],
        [Connection("x", "y", operators)],
        ["x"],
        ["y"],
    )
    x = weights(7, 3, *shape)
    expected = ir.apply(operators, x.astype(np.float64))
    found = CompiledAnalog(network).predict(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((0, 1), (1, 1))])
def test_max_pooling_of_negative_numbers_ignores_the_padding(padding):
    pool = ir.MaxPool2D((5, 5, 3), (2, 2), (2, 2), padding)
    network = Network(
        [Population("x", (5, 5, 3), ir.Input()), Population("y", pool.output_shape((5, 5, 3)), pool)],
        [Connection("x", "y")],
        ["x"],
        ["y"],
    )
    x = -1 - np.abs(weights(3, 4, 5, 5, 3))
    np.testing.assert_array_equal(CompiledAnalog(network).predict(x), analog(network, {"x": x})["y"])
    assert analog(network, {"x": x})["y"].max() < 0


def test_one_run_gives_what_a_run_of_every_length_would():
    labels = snnc.compile(residual()).predict(IMAGES).argmax(-1)
    full = snnc.compile(converted(16)).evaluate(IMAGES, labels)
    assert full.accuracy.shape == (16,)
    assert full.predictions.shape == (16, 40)
    for timesteps in (1, 5, 16):
        part = snnc.compile(converted(timesteps)).evaluate(IMAGES, labels)
        np.testing.assert_array_equal(part.predictions, full.predictions[:timesteps])
        assert part.accuracy[-1] == full.accuracy[timesteps - 1] == (part.predictions[-1] == labels).mean()


def test_accuracy_comes_close_to_the_analog_network():
    labels = snnc.compile(residual()).predict(IMAGES).argmax(-1)
    assert snnc.compile(converted(256)).evaluate(IMAGES, labels).accuracy[-1] >= 0.95


def test_decoded_activations_lie_within_the_staircase_of_the_analog_ones():
    """One population, so nothing but quantisation is left: half a λ/T, as v_init is λ/2."""
    network = Network(
        [Population("x", (50,), ir.Input()), Population("y", (50,), ir.Relu())], [Connection("x", "y")], ["x"], ["y"]
    )
    x = weights(1, 20, 50)
    snn = snnc.convert(network, "data-norm", calibration=x, timesteps=32)
    decoded = snnc.compile(snn).predict(x)
    error = np.abs(decoded - np.maximum(x, 0)).max()
    assert error <= snn.populations["y"].neuron.v_thresh / 32 / 2 * 1.001


@pytest.mark.parametrize(
    "options", [{"memory": 1}, {"memory": 2**16}, {"threads": 1}, {"threads": 3, "memory": "1 MB"}, {"threads": 100}]
)
def test_chunks_and_threads_change_nothing(options):
    snn = converted()
    whole = CompiledEngine(snn).simulate(IMAGES, record=True)
    cut = snnc.compile(snn, **options).simulate(IMAGES, record=True)
    for kind in ("spike_counts", "trains"):
        for name, expected in getattr(whole, kind).items():
            assert (getattr(cut, kind)[name] != expected).mean() < 1e-3  # float weights: sums may round apart
    np.testing.assert_allclose(cut.decoded["digit"], whole.decoded["digit"], atol=0.05)


@pytest.mark.parametrize("build", dyadic.NETWORKS.values(), ids=dyadic.NETWORKS)
def test_chunks_and_threads_change_no_bit_of_exact_sums(build):
    network = build()
    images = dyadic.images(network, 7)
    expected = snnc.compile(network, threads=1).simulate(images, record=True)
    for options in ({"memory": 1, "threads": 1}, {"memory": 2**12, "threads": 2}, {"threads": 3}, {"threads": 20}):
        found = snnc.compile(network, **options).simulate(images, record=True)
        for kind in ("trains", "spike_counts", "potentials", "decoded"):
            for name, values in getattr(expected, kind).items():
                np.testing.assert_array_equal(getattr(found, kind)[name], values, f"{kind} of {name!r}, {options}")


@pytest.mark.parametrize(("timesteps", "images"), [(16, 40), (400, 3)])
@pytest.mark.parametrize("threads", [1, 2])
def test_memory_stays_within_the_budget(timesteps, images, threads, monkeypatch):
    """What layers hold at once, onnxruntime's results included, is measured at every step."""
    budget = 2**20
    held = []
    step = layer.Layer.step

    def measured(layer, steps, state, spikes, first, buffers):
        result = step(layer, steps, state, spikes, first, buffers)
        held.append(result.nbytes + sum(array.nbytes for array in spikes.values()))
        return result

    monkeypatch.setattr(layer.Layer, "step", measured)
    snnc.compile(converted(timesteps), memory=budget, threads=threads).simulate(IMAGES[:images])
    assert budget / 4 / threads < max(held) <= budget / threads


def test_threads_without_images_of_their_own_help_with_linear_maps():
    assert Resources(2**30, 8).chunk(3, 10, 100) == Chunk(1, 10, 2)
    assert Resources(2**30, 8).chunk(1, 10, 100) == Chunk(1, 10, 8)
    assert Resources(2**30, 8).chunk(100, 10, 100).threads == 1
    assert Resources(1, 2).chunk(100, 10, 100) == Chunk(1, 1, 1)


@pytest.mark.parametrize("build", [residual, converted, lambda: converted(pipeline="few-spike{k=4}")])
def test_threads_that_share_a_network_get_its_results(build):
    compiled = snnc.compile(build(), threads=2)
    expected = compiled.predict(IMAGES)
    outcomes = []

    def ask():
        for _ in range(50):
            outcomes.append(np.array_equal(compiled.predict(IMAGES), expected))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert outcomes == [True] * 200


@pytest.mark.parametrize(
    ("memory", "size"), [(5, 5), ("7", 7), ("2GB", 2**31), ("1.5 MiB", 3 * 2**19), ("64k", 2**16), (" 3 b ", 3)]
)
def test_memory_is_given_in_bytes_or_words(memory, size):
    assert Resources.of(memory).memory == size


@pytest.mark.parametrize(
    "options", [{"memory": "much"}, {"memory": 0}, {"memory": -1}, {"threads": 0}, {"threads": "2"}, {"memory": "2PB"}]
)
def test_resources_that_there_are_not_are_refused(options):
    with pytest.raises(ir.BackendError, match=r"memory is a number of bytes, or|threads is a number from 1 on"):
        snnc.compile(converted(), **options)


def test_results_of_several_inputs_and_outputs_go_by_name():
    network = Network(
        [
            Population("left", (4,), ir.Input()),
            Population("right", (2, 2, 1), ir.Input()),
            Population("both", (6,), ir.Relu(), weights(0, 6)),
            Population("a", (3,), ir.Identity()),
            Population("b", (2,), ir.Relu()),
        ],
        [
            Connection("left", "both", (ir.Dense(weights(1, 4, 6)),)),
            Connection("right", "both", (ir.Dense(weights(2, 4, 6)),)),
            Connection("both", "a", (ir.Dense(weights(3, 6, 3)),)),
            Connection("both", "b", (ir.Dense(weights(4, 6, 2)),)),
        ],
        ["left", "right"],
        ["a", "b"],
    )
    x = {"left": weights(5, 30, 4), "right": weights(6, 30, 2, 2, 1)}
    expected = analog(network, x)
    outputs = snnc.compile(network).predict(x)
    np.testing.assert_allclose(outputs["a"], expected["a"], atol=1e-5)
    snn = snnc.convert(network, calibration=x, timesteps=128)
    labels = {name: outputs[name].argmax(-1) for name in ("a", "b")}
    result = snnc.compile(snn).evaluate(x, labels)
    assert set(result.accuracy) == set(result.predictions) == {"a", "b"}
    assert result.accuracy["a"][-1] > 0.9
    assert set(result.spike_counts) == {"both", "b"}
    listed = snnc.compile(snn).evaluate([x["left"], x["right"]], labels)
    np.testing.assert_array_equal(listed.predictions["b"], result.predictions["b"])


def test_spike_counts_sum_over_images():
    compiled = snnc.compile(converted())
    result = compiled.evaluate(IMAGES, np.zeros(40, int))
    recorded = compiled.simulate(IMAGES, record=True)
    assert set(result.spike_counts) == {"stem", "branch", "merged"}
    for name, counts in result.spike_counts.items():
        assert counts.shape == (8, 8, 8)
        np.testing.assert_array_equal(counts, recorded.spike_counts[name].sum(0))
        np.testing.assert_array_equal(recorded.spike_counts[name], recorded.trains[name].sum(0))


def test_an_unknown_backend_is_refused():
    with pytest.raises(ir.BackendError, match="onnxruntime, mlgenn"):
        snnc.compile(residual(), "brian")


def test_what_is_recorded_is_named_by_population_or_layer():
    snn = snnc.convert(residual(), "data-norm", calibration=IMAGES, timesteps=8, progress=False)
    compiled = snnc.compile(snn)
    everything = compiled.simulate(IMAGES[:3], record=True)
    assert set(everything.trains) == {"stem", "branch", "merged"}
    assert compiled.simulate(IMAGES[:3]).trains is None
    for record, expected in ((["stem"], {"stem"}), (["stem_bn", "merged"], {"stem", "merged"}), ("branch", {"branch"})):
        found = compiled.simulate(IMAGES[:3], record=record)
        assert set(found.trains) == expected
        assert set(found.spike_counts) == set(everything.spike_counts)
        for name in expected:
            np.testing.assert_array_equal(found.trains[name], everything.trains[name])
    with pytest.raises(ir.DataError, match="cannot record digit, stm: what fires is stem, branch, merged"):
        compiled.simulate(IMAGES, record=["stm", "digit", "stem"])
