"""Readouts of labels: a model that ends in a sigmoid is left with its logits in spikes, as one with a softmax is."""

import numpy as np
import pytest
from test_conformance import BACKENDS

import snnc
from snnc import ir

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (200, 6)).astype(np.float32)


def keras_model(units, activation="sigmoid"):
    keras = pytest.importorskip("keras")
    given = keras.Input((6,))
    hidden = keras.layers.Dense(12, "relu", name="hidden")(given)
    model = keras.Model(given, keras.layers.Dense(units, activation, name="tags")(hidden))
    rng = np.random.default_rng(units)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def tags():
    """A model of five labels, and which of them Keras finds in X."""
    model = keras_model(5)
    return model, model.predict(X, verbose=0) > 0.5


def test_a_sigmoid_at_the_output_is_a_readout(tags):
    network = snnc.load(tags[0])
    assert isinstance(network.populations["tags"].neuron, ir.Sigmoid)
    np.testing.assert_allclose(snnc.compile(network).predict(X), tags[0].predict(X, verbose=0), rtol=0, atol=1e-6)
    assert snnc.compile(network).accuracy(X, tags[1])["tags"] == 1


def test_one_that_something_is_computed_of_is_a_function():
    keras = pytest.importorskip("keras")
    given = keras.Input((6,))
    shares = keras.layers.Dense(4, "sigmoid", name="shares")(given)
    model = keras.Model(given, [shares, keras.layers.Dense(3, name="more")(shares)])
    network = snnc.load(model)
    assert isinstance(network.populations["shares"].neuron, ir.Function)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pipeline", ["data-norm", "few-spike{k=8}", "tracking"])
def test_spikes_tell_every_label(tags, pipeline, backend):
    model, wanted = tags
    spiking = snnc.convert(snnc.load(model), pipeline, calibration=X, timesteps=64, progress=False)
    assert spiking.populations["tags"].neuron.scores == "labels"
    compiled = snnc.compile(spiking, backend)
    images = 200 if backend == "onnxruntime" else 40
    result = compiled.evaluate(X[:images], wanted[:images], progress=False)
    scores = compiled.predict(X[:images], progress=False)
    np.testing.assert_array_equal(result.predictions[-1], scores > 0)
    assert result.accuracy[-1] == (result.predictions[-1] == wanted[:images]).mean() > 0.97
    likely = compiled.predict(X[:images], probabilities=True, progress=False)
    np.testing.assert_allclose(likely, 1 / (1 + np.exp(-scores)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(likely, model.predict(X[:images], verbose=0), rtol=0, atol=0.1)


def test_one_score_tells_two_classes_apart():
    model = keras_model(1)
    wanted = (model.predict(X, verbose=0)[:, 0] > 0.5).astype(int)
    assert 0.2 < wanted.mean() < 0.8
    spiking = snnc.convert(snnc.load(model), "few-spike{k=8}", calibration=X, progress=False)
    for given in (wanted, wanted[:, None], wanted.astype(bool)):
        result = snnc.compile(spiking).evaluate(X, given, progress=False)
        assert result.accuracy[-1] > 0.98
        assert result.predictions.shape == (1, 200, 1)
    assert snnc.compile(snnc.load(model)).accuracy(X, wanted)["tags"] == 1


def test_the_largest_of_several_is_still_a_class(tags):
    model, _ = tags
    classes = model.predict(X, verbose=0).argmax(-1)
    spiking = snnc.convert(snnc.load(model), "few-spike{k=8}", calibration=X, progress=False)
    result = snnc.compile(spiking).evaluate(X, classes, progress=False)
    assert result.predictions.shape == (1, 200)
    assert result.accuracy[-1] > 0.95


def test_labels_that_are_none_are_refused(tags):
    network = snnc.load(tags[0])
    rows = tags[1].astype(np.float32)
    rows[17, 2] = 0.5
    with pytest.raises(ir.DataError, match=r"not 0 or 1 in 1 image.*first in image 17"):
        ir.as_labels(network, rows, 200)
    with pytest.raises(ir.DataError, match=r"expected 200 rows of 5, each 0 or 1"):
        ir.as_labels(network, rows[:100], 200)
    soft = snnc.load(keras_model(5, "softmax"))
    with pytest.raises(ir.DataError, match="no shares of one"):
        ir.as_labels(soft, tags[1], 200)


def test_images_stop_only_once_no_label_changes(tags):
    model, wanted = tags
    spiking = snnc.convert(snnc.load(model), "data-norm", calibration=X, timesteps=64, progress=False)
    compiled = snnc.compile(spiking)
    trace = compiled.evaluate(X, wanted, progress=False).predictions
    steps = compiled.evaluate(X, wanted, until_stable=8, progress=False).steps
    for image in np.flatnonzero(steps < 64):
        assert (trace[steps[image] - 8 : steps[image], image] == trace[steps[image] - 1, image]).all()
    assert (steps < 64).any()


def test_what_the_scores_are_of_is_kept_in_text_and_files(tags, tmp_path):
    spiking = snnc.convert(snnc.load(tags[0]), "few-spike", calibration=X, progress=False)
    assert "tags [5] FewSpikeReadout(scores=labels)" in str(spiking)
    snnc.save(spiking, tmp_path / "tags.snn")
    assert str(snnc.load(tmp_path / "tags.snn")) == str(spiking)
    assert str(ir.parse(str(spiking), ir.arrays_of(spiking))) == str(spiking)
