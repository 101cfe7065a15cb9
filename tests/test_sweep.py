"""Sweeps: every point against a conversion by hand, the cost against dense matrices, and how they are shown."""

import json
import os
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from networks import operator_chains, residual, weights
from rich.console import Console

import snnc
from snnc import ir
from snnc.backend.onnxruntime import CompiledAnalog
from snnc.ir import Connection, Network, Population
from snnc.ir.cost import synaptic_operations
from snnc.passes import DataNorm, parse
from snnc.plot import plot_sweep
from snnc.sweep import Point, Sweep, to_json, to_table

IMAGES = weights(100, 40, 8, 8, 2)
PIPELINES = ("data-norm", "lower-max-pool,data-norm{threshold=mse}", "data-norm,bias-correction", "few-spike{k=3}")


@pytest.fixture(scope="module")
def labels():
    """What the residual network itself says of IMAGES, with every fourth label wrong."""
    found = snnc.compile(residual()).predict(IMAGES).argmax(-1)
    return np.where(np.arange(40) % 4, found, (found + 1) % 5)


@pytest.fixture(scope="module")
def swept(labels):
    return snnc.sweep(residual(), PIPELINES, IMAGES, labels, calibration=IMAGES, timesteps=(8, 3))


def two_outputs() -> Network:
    """Max pooling, and two readouts."""
    return Network(
        [
            Population("image", (8, 8, 2), ir.Input()),
            Population("stem", (8, 8, 4), ir.Relu()),
            Population("pool", (4, 4, 4), ir.MaxPool2D((8, 8, 4), (2, 2), (2, 2))),
            Population("digit", (5,), ir.Softmax()),
            Population("parity", (2,), ir.Softmax()),
        ],
        [
            Connection("image", "stem", (ir.Conv2D(weights(1, 3, 3, 2, 4), padding=((1, 1), (1, 1))),)),
            Connection("stem", "pool"),
            Connection("pool", "digit", (ir.Dense(weights(2, 64, 5)),)),
            Connection("pool", "parity", (ir.Dense(weights(3, 64, 2)),)),
        ],
        ["image"],
        ["digit", "parity"],
    )


def test_every_point_is_a_conversion_and_its_evaluation(swept, labels):
    assert swept.ann == {"digit": 0.75}
    assert swept.images == 40
    assert swept.pipelines == PIPELINES
    assert [(point.pipeline, point.timesteps) for point in swept.points] == [
        *((pipeline, t) for pipeline in PIPELINES[:3] for t in (3, 8)),
        ("few-spike{k=3}", 3),
    ]
    for point in swept.points:
        snn = snnc.convert(residual(), point.pipeline, calibration=IMAGES, timesteps=point.timesteps)
        result = snnc.compile(snn).evaluate(IMAGES, labels)
        assert point.accuracy == {"digit": result.accuracy[-1]}
        assert point.spikes_per_image == sum(counts.sum() for counts in result.spike_counts.values()) / 40
        assert point.synaptic_operations_per_image == synaptic_operations(snn, result.spike_counts) / 40


def test_points_are_looked_up(swept):
    assert swept.at("data-norm", 8) is swept.of("data-norm")[1]
    with pytest.raises(KeyError, match="was not run for 64 timesteps, but for 3, 8"):
        swept.at("data-norm", 64)
    with pytest.raises(KeyError, match="no pipeline 'datanorm' in this sweep"):
        swept.of("datanorm")


@pytest.mark.parametrize("network", [residual, two_outputs])
def test_calibration_is_streamed_once(network, monkeypatch):
    streamed = []
    whole = CompiledAnalog.activations
    monkeypatch.setattr(
        CompiledAnalog, "activations", lambda self, *args, **kw: streamed.append(1) or whole(self, *args, **kw)
    )
    pipelines = [
        "lower-max-pool,data-norm",
        "lower-max-pool,data-norm{percentile=99.9}",
        "canonicalise,lower-max-pool,data-norm{threshold=mse}",
        "lower-max-pool,data-norm,bias-correction",
        "lower-max-pool,few-spike{k=3}",
    ]
    y = [np.zeros(40)] * len(network().outputs)
    y = y[0] if len(y) == 1 else y
    snnc.sweep(network(), pipelines, IMAGES, y, calibration=IMAGES, timesteps=[2, 4])
    assert len(streamed) == 1


def test_pipelines_are_texts_passes_or_labelled(labels):
    given = {"coarse": [DataNorm()], "fine": "data-norm{percentile=99.0}"}
    found = snnc.sweep(residual(), given, IMAGES, labels, calibration=IMAGES, timesteps=[2])
    assert found.pipelines == ("coarse", "fine")
    unlabelled = snnc.sweep(
        residual(), [parse(given["fine"]), given["fine"]], IMAGES, labels, calibration=IMAGES, timesteps=[2]
    )
    (point,) = unlabelled.points
    assert point.pipeline == "data-norm{percentile=99.0}"
    assert point.accuracy == found.at("fine", 2).accuracy


@pytest.mark.parametrize(
    ("pipelines", "timesteps", "message"),
    [
        (["data-norm", "datanorm"], [4], "there is no pass 'datanorm'"),
        (["data-norm", "lower-max-pool"], [4], "'lower-max-pool' does not end in a spiking network"),
        ("data-norm", [4], r"in a list or a mapping, even a single one: \['data-norm'\]"),
        ([], [4], "no pipeline"),
        (["data-norm"], [], "needs one number of timesteps or more"),
        (["data-norm"], [4, 0], "each from 1 to"),
    ],
)
def test_mistakes_are_found_before_any_work(pipelines, timesteps, message, labels, monkeypatch):
    monkeypatch.setattr(CompiledAnalog, "__init__", None)
    with pytest.raises(ir.PipelineError, match=message):
        snnc.sweep(residual(), pipelines, IMAGES, labels, calibration=IMAGES, timesteps=timesteps)


def test_what_cannot_be_converted_is_found_before_any_evaluation(monkeypatch):
    monkeypatch.setattr(snnc.backend.compiled.CompiledSpiking, "evaluate", None)
    pipelines = ["lower-max-pool,data-norm", "data-norm"]
    y = {"digit": np.zeros(40), "parity": np.zeros(40)}
    with pytest.raises(ir.UnsupportedModelError, match="lower-max-pool"):
        snnc.sweep(two_outputs(), pipelines, IMAGES, y, calibration=IMAGES)
    with pytest.raises(ir.DataError, match="expected"):
        snnc.sweep(two_outputs(), pipelines[:1], IMAGES[:, :4], y, calibration=IMAGES)
    with pytest.raises(ir.VerificationError):
        snnc.sweep(snnc.convert(two_outputs(), calibration=IMAGES), pipelines[:1], IMAGES, y, calibration=IMAGES)


def paths(operators, shape) -> np.ndarray:
    """How many paths lead from each number of an input of `shape` to each of the output: dense, by unit vectors."""
    total = np.eye(int(np.prod(shape)))
    for operator in operators:
        units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
        shape = operator.output_shape(shape)
        total = total @ (operator.apply(units).reshape(len(units), -1) != 0)
    return total


@settings(deadline=None)
@given(chain=operator_chains())
def test_synaptic_operations_are_paths_times_spikes(chain):
    shape, operators = chain
    out = ir.output_shape(operators, shape)
    network = Network(
        [Population("x", shape, ir.IntegrateFire(1.0)), Population("y", out, ir.Integrate())],
        [Connection("x", "y", operators)],
        ["x"],
        ["y"],
        1,
    )
    counts = (weights(3, *shape, scale=8) + 8).astype(np.int64)
    expected = counts.reshape(-1) @ paths(operators, shape).sum(1)
    assert synaptic_operations(network, {"x": counts}) == expected


@pytest.mark.parametrize("pipeline", ["data-norm", "few-spike{k=3}", "few-spike{k=3,input=few-spike,signed=true}"])
def test_graded_inputs_send_no_spikes(pipeline, labels):
    snn = snnc.convert(residual(), pipeline, calibration=IMAGES, timesteps=4)
    counts = snnc.compile(snn).evaluate(IMAGES, labels).spike_counts
    expected = {
        str(c): counts[c.source].reshape(-1) @ paths(c.operators, snn.populations[c.source].shape).sum(1)
        for c in snn.connections
        if c.source in counts
    }
    assert ("image -> stem" in expected) == ("input=few-spike" in pipeline)
    assert synaptic_operations(snn, counts) == sum(expected.values())


def test_choosing_a_position_is_one_synapse():
    """Lowered max pooling picks positions with convolutions of one weight that is not zero."""
    snn = snnc.convert(two_outputs(), "lower-max-pool,data-norm", calibration=IMAGES, timesteps=4)
    ones = {name: np.ones(p.shape, np.int64) for name, p in snn.populations.items() if p.neuron.fires}
    # max(a, b, c, d) = a + r1 + r3, where r1 = relu(b − a), r2 = relu(d − c) and r3 = relu(c + r2 − a − r1)
    into_readouts, into_rectifiers = 3 * (5 + 2), 2 + 2 + 4
    assert synaptic_operations(snn, ones) == 4 * 4 * 4 * (into_readouts + into_rectifiers)


def shown(sweep: Sweep, width: int = 100) -> str:
    console = Console(width=width, file=StringIO())
    console.print(to_table(sweep))
    return console.file.getvalue()


def test_table_and_json(swept):
    text = shown(swept)
    assert "40 images; accuracy of the ANN: 75.00%" in text
    assert "lower-max-pool, data-norm{threshold=mse}" in text
    content = json.loads(json.dumps(to_json(swept), allow_nan=False))
    assert content["ann"] == {"digit": 0.75}
    assert content["points"][1] == {
        "pipeline": "data-norm",
        "timesteps": 8,
        "accuracy": dict(swept.points[1].accuracy),
        "spikes_per_image": swept.points[1].spikes_per_image,
        "synaptic_operations_per_image": swept.points[1].synaptic_operations_per_image,
        "seconds": swept.points[1].seconds,
    }


@pytest.mark.parametrize(
    ("operations", "text"), [(0, "0.00"), (7.256, "7.26"), (820, "820"), (999.6, "1.00 k"), (1.2345e13, "12.3 T")]
)
def test_large_numbers_are_short(operations, text):
    point = Point("p", 4, {"y": 0.5}, 12345.6, operations, 1.0)
    words = " ".join(shown(Sweep({"y": 0.5}, (point,), 3)).split())
    assert f"50.00% 12.3 k {text}" in words


def test_several_outputs_are_shown_apart(tmp_path):
    y = {"digit": np.arange(40) % 5, "parity": np.arange(40) % 2}
    found = snnc.sweep(two_outputs(), ["lower-max-pool,data-norm"], IMAGES, y, calibration=IMAGES, timesteps=[2, 4])
    assert set(found.ann) == set(found.points[0].accuracy) == {"digit", "parity"}
    text = shown(found)
    assert "(digit)" in text
    assert "(parity)" in text
    plot_sweep(found, tmp_path / "sweep.svg")
    assert "parity" in (tmp_path / "sweep.svg").read_text()


def test_plot_is_written_whole_or_not_at_all(swept, tmp_path):
    plot_sweep(swept, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    silent = Sweep({"y": 0.5}, tuple(Point("$\\frac{p$", t, {"y": 0.5}, 0.0, 0.0, 1.0) for t in (2, 4)), 1)
    plot_sweep(silent, tmp_path / "silent.png")
    with pytest.raises(ir.DataError, match="cannot write the plot"):
        plot_sweep(swept, tmp_path / "sweep.xyz")
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.png", "silent.png"}


@pytest.fixture
def folder(tmp_path, monkeypatch, labels):
    monkeypatch.chdir(tmp_path)
    snnc.save(residual(), "analog.snn")
    np.savez("data.npz", x_train=IMAGES, x_test=IMAGES, y_test=labels)
    return tmp_path


def test_command(folder, swept, snnc_command):
    options = [word for pipeline in PIPELINES for word in ("-p", pipeline)]
    arguments = ("sweep", "analog.snn", "--data", "data.npz", *options)
    code, out, err = snnc_command(*arguments, "-t", "3,8", "--json", "--plot", "sweep.png")
    assert code == 0
    assert len(err.splitlines()) == len(set(err.splitlines()))  # the same warning of each pass is said once
    assert all(line.startswith("warning: ") for line in err.splitlines())
    found = json.loads(out)
    expected = to_json(swept)
    for point in (*found["points"], *expected["points"]):
        point.pop("seconds")
    assert found == expected
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = snnc_command(*arguments[:-2], "-c", "data.npz", "-t", 3, "-t", 8, "--images", 4)
    assert code == 0
    assert "4 images" in out
    assert "bias-correction" in out


def test_command_has_pipelines_of_its_own(folder, snnc_command):
    code, out, _ = snnc_command("sweep", "analog.snn", "--data", "data.npz", "-t", "2", "--images", 4)
    assert code == 0
    assert "data-norm" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.keras", "--data", "data.npz", "-p", "datanorm"), "there is no pass 'datanorm'"),
        (("analog.snn", "--data", "data.npz", "-t", "4,x"), "--timesteps takes whole numbers, not '4,x'"),
        (("analog.snn", "--data", "data.npz", "-t", "0"), "each from 1 to 1,048,576"),
        (("analog.snn", "--data", "missing.npz"), "missing.npz: no such file"),
        (("analog.snn", "--data", "data.npz", "-t", "2", "--plot", "missing/sweep.png"), "cannot write the plot"),
    ],
)
def test_errors_are_one_message(folder, snnc_command, arguments, message):
    before = set(os.listdir())
    code, _, err = snnc_command("sweep", *arguments)
    assert code in (1, 2)
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert set(os.listdir()) == before
