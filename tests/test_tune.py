"""Searching: what is chosen is what was wanted, interruptions change nothing, and nothing is chosen on calibration."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from networks import residual, weights
from rich.console import Console

import snnc
from snnc import candidates, ir, passes
from snnc import tune as search
from snnc.agreement import divergence
from snnc.backend.compiled import CompiledSpiking
from snnc.ir import Connection, Network, Population
from snnc.passes import manager
from snnc.plot import plot_tuning
from snnc.wish import Wish

tune_module, sweep_module = sys.modules["snnc.tune"], sys.modules["snnc.sweep"]
IMAGES = np.random.default_rng(5).uniform(-1, 1, (168, 8, 8, 2)).astype(np.float32)
CALIBRATION, CHOOSING = IMAGES[:40], IMAGES[40:]
BINARY = {"within": 20, "timesteps": 3, "fewest": "operations", "spikes": "binary"}
COMMAND_LINE = "from snnc.cli import main; main()"


def tuned(path=None, **given):
    return search(residual(), CALIBRATION, CHOOSING, journal=path, progress=False, **{**BINARY, **given})


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A whole search, and its journal."""
    path = tmp_path_factory.mktemp("search") / "journal.jsonl"
    return tuned(path), path.read_bytes()


def records(journal: bytes) -> list[dict]:
    return [json.loads(line) for line in journal.splitlines()][1:]


def gates() -> Network:
    """A function of both signs, and labels that a sigmoid tells."""
    return Network(
        [
            Population("x", (6,), ir.Input()),
            Population("hidden", (8,), ir.Function("tanh"), weights(1, 8, scale=0.2)),
            Population("holds", (3,), ir.Sigmoid()),
        ],
        [
            Connection("x", "hidden", (ir.Dense(weights(2, 6, 8)),)),
            Connection("hidden", "holds", (ir.Dense(weights(3, 8, 3)),)),
        ],
        ["x"],
        ["holds"],
    )


def pooled(neuron: ir.Neuron) -> Network:
    """Max pooling and a leak, then `neuron` as output."""
    return Network(
        [
            Population("image", (8, 8, 2), ir.Input()),
            Population("stem", (8, 8, 4), ir.LeakyRelu(0.2)),
            Population("pool", (4, 4, 4), ir.MaxPool2D((8, 8, 4), (2, 2), (2, 2))),
            Population("digit", (5,), neuron),
        ],
        [
            Connection("image", "stem", (ir.Conv2D(weights(1, 3, 3, 2, 4), padding=((1, 1), (1, 1))),)),
            Connection("stem", "pool"),
            Connection("pool", "digit", (ir.Dense(weights(2, 64, 5)),)),
        ],
        ["image"],
        ["digit"],
    )


# What is chosen


def test_the_chosen_network_is_the_command_and_does_what_was_measured(found):
    tuning, _ = found
    chosen = tuning.chosen
    assert tuning.is_met
    assert chosen.loss <= 20
    assert chosen.timesteps <= 3
    again = snnc.convert(residual(), chosen.pipeline, calibration=CALIBRATION, timesteps=chosen.timesteps)
    assert again == tuning.network
    model = snnc.compile(residual()).predict(CHOOSING).argmax(-1)
    result = snnc.compile(again).evaluate(CHOOSING, model)
    assert chosen.accuracy == {"digit": result.accuracy[-1]}
    assert chosen.loss == pytest.approx(100 * (1 - result.accuracy[-1]))
    assert chosen.differing == np.mean(result.predictions[-1] != model)
    assert chosen.spikes_per_image == sum(counts.sum() for counts in result.spike_counts.values()) / 128
    assert chosen.latency == again.latency
    np.testing.assert_array_equal(result.decoded, snnc.compile(again).predict(CHOOSING))


def test_every_other_trial_within_reach_has_more_operations(found):
    tuning, _ = found
    met = [trial for trial in tuning.trials if trial.loss <= 20]
    assert len(met) > 1
    assert tuning.chosen.synaptic_operations_per_image == min(trial.synaptic_operations_per_image for trial in met)
    assert tuning.chosen in tuning.front


@pytest.mark.parametrize("fewest", ["spikes", "steps"])
def test_fewest_is_of_what_is_said(found, fewest):
    tuning, _ = found
    met = [trial for trial in tuning.trials if trial.loss <= 20]
    wish = Wish(**{**BINARY, "fewest": fewest})
    assert wish.cost(wish.best(tuning.trials)) == min(
        trial.spikes_per_image if fewest == "spikes" else trial.latency for trial in met
    )


def test_the_front_is_what_no_trial_beats(found):
    tuning, _ = found
    for trial in tuning.trials:
        point = (trial.loss, *trial.costs)
        beaten = [
            other
            for other in tuning.trials
            if all(a <= b for a, b in zip((other.loss, *other.costs), point, strict=True))
            and (other.loss, *other.costs) != point
        ]
        assert (trial in tuning.front) == (not beaten)


def test_most_candidates_see_few_images(found):
    seen = [record["images"] for record in records(found[1]) if "images" in record]
    counts = [seen.count(images) for images in (32, 128)]
    assert set(seen) == {32, 128}
    assert counts[1] < counts[0] / 2


def test_a_wish_that_cannot_be_met_gives_the_nearest():
    tuning = tuned(within=0, timesteps=1)
    assert not tuning.is_met
    assert tuning.chosen.loss == min(trial.loss for trial in tuning.trials) > 0
    assert tuning.verdict.startswith("not met (within 0 points, T at most 1")
    assert tuning.network.timesteps == 1


def test_without_a_bound_the_nearest_probabilities_are_wanted():
    tuning = tuned(within=None, fewest=None, timesteps=3)
    assert tuning.chosen.divergence == min(trial.divergence for trial in tuning.trials)
    assert {trial.timesteps for trial in tuning.trials} == {2, 3}


def test_longer_runs_are_not_tried_once_they_can_only_cost_more():
    tuning = tuned(within=60, timesteps=None)
    assert tuning.is_met
    assert max(trial.timesteps for trial in tuning.trials) < 64
    late = tuned(within=60, timesteps=None, fewest=None)
    assert late.is_met
    assert max(trial.timesteps for trial in late.trials) < 64


def test_labels_are_what_accuracy_is_of(found):
    y = snnc.compile(residual()).predict(CHOOSING).argmax(-1)
    y = np.where(np.arange(128) % 4, y, (y + 1) % 5)
    tuning = search(residual(), CALIBRATION, CHOOSING, y, progress=False, **{**BINARY, "timesteps": 2})
    assert tuning.labelled
    assert tuning.ann == {"digit": 0.75}
    for trial in tuning.trials:
        assert trial.loss == 100 * (0.75 - trial.accuracy["digit"])
    same = {(trial.pipeline, trial.timesteps): trial for trial in found[0].trials}
    shared = [(trial, same[key]) for trial in tuning.trials if (key := (trial.pipeline, trial.timesteps)) in same]
    assert len(shared) > 3
    assert all(trial.divergence == other.divergence for trial, other in shared)


def test_several_outputs_are_held_to_the_one_that_loses_most():
    network = Network(
        [*pooled(ir.Softmax()).populations.values(), Population("parity", (2,), ir.Softmax())],
        [*pooled(ir.Softmax()).connections, Connection("pool", "parity", (ir.Dense(weights(3, 64, 2)),))],
        ["image"],
        ["digit", "parity"],
    )
    tuning = search(network, CALIBRATION, CHOOSING, within=3, timesteps=2, progress=False)
    assert tuning.ann == {"digit": 1.0, "parity": 1.0}
    for trial in tuning.trials:
        assert trial.loss == pytest.approx(100 * (1 - min(trial.accuracy.values())))
        assert trial.differing == pytest.approx(trial.loss / 100)
    console = Console(width=120, file=StringIO())
    console.print(tune_module.to_table(tuning))
    assert "parity" in console.file.getvalue()


def test_what_the_page_shows_holds_on_test_images(digits):
    model, x_train, y_train, x, y = digits
    ann = (model.predict(x, verbose=0).argmax(-1) == y).mean()
    page = (Path(__file__).parents[1] / "docs" / "tuning.md").read_text()
    said = {"snnc": snnc, "network": snnc.load(model), "x_train": x_train, "y_train": y_train}
    exec(re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1], said)
    tuning = said["found"]
    assert tuning.is_met
    assert snnc.compile(tuning.network).evaluate(x, y).accuracy[-1] > ann - 0.02
    longest = snnc.convert(said["network"], calibration=x_train[:512], timesteps=64)
    found = snnc.compile(longest).evaluate(x, y)
    spikes = sum(counts.sum() for counts in found.spike_counts.values()) / len(x)
    assert tuning.chosen.spikes_per_image < spikes / 5


# What is tried


@pytest.mark.parametrize("spikes", ["binary", "signed"])
def test_spikes_have_signs_only_where_they_may(spikes):
    x = np.random.default_rng(1).standard_normal((120, 6)).astype(np.float32)
    y = snnc.compile(gates()).predict(x[40:]) > 0.5
    tuning = search(gates(), x[:40], x[40:], y, spikes=spikes, timesteps=4, progress=False)
    neurons = [population.neuron for population in tuning.network.populations.values()]
    assert any("tracking" in trial.pipeline for trial in tuning.trials) == (spikes == "signed")
    assert all(("split-signs" in trial.pipeline) == (spikes == "binary") for trial in tuning.trials)
    assert any(neuron.sends_signs for neuron in neurons) == (spikes == "signed" and not tuning.network.lag > 1)
    assert tuning.ann == {"holds": 1.0}


def test_divergence_is_that_of_probabilities():
    rng = np.random.default_rng(0)
    found, wanted = rng.standard_normal((2, 50, 7)) * 3
    p, q = (np.exp(each) / np.exp(each).sum(-1, keepdims=True) for each in (wanted, found))
    assert divergence(found, wanted) == pytest.approx((p * np.log(p / q)).sum(-1).mean())
    p, q = (1 / (1 + np.exp(-each)) for each in (wanted, found))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert divergence(found, wanted, labels=True) == pytest.approx(expected.sum(-1).mean() / 7)
    assert divergence(wanted * 1e4, wanted) > 0


@pytest.mark.parametrize("backend", ["onnxruntime", "mlgenn"])
def test_every_candidate_converts_and_the_backend_takes_it(backend):
    network = pooled(ir.Softmax())
    tried = candidates.by_timesteps(network, 3, "signed", backend)
    assert list(tried) == [2, 3]
    pipelines = {candidate.pipeline for groups in tried.values() for group in groups for candidate in group}
    assert any("before-neuron" in pipeline for pipeline in pipelines) == (backend == "onnxruntime")
    for pipeline in pipelines:
        snn = snnc.convert(network, pipeline, calibration=CALIBRATION, timesteps=3)
        if backend == "mlgenn":
            from snnc.backend.mlgenn import _require_runnable

            _require_runnable(snn)
        else:
            snnc.compile(snn).predict(CHOOSING[:2])


def test_ladders_end_where_they_have_to():
    for most in range(1, 20):
        tried = candidates.by_timesteps(residual(), most, "binary", "onnxruntime")
        assert list(tried)[-1] == most
        assert list(tried) == sorted(tried)
        bits = [c.timesteps for groups in tried.values() for g in groups for c in g[:1] if "few" in c.pipeline]
        assert bits == list(range(min(2, most), min(8, most) + 1))


def test_corrections_that_nobody_offers_are_not_tried():
    base = candidates.Candidate("data-norm", 4)
    offered = base.corrected(["", "bias-correction{rounds=4}", "no-such-correction"])
    assert [candidate.pipeline for candidate in offered] == ["data-norm", "data-norm,bias-correction{rounds=4}"]


def test_statistics_are_collected_once(monkeypatch):
    collected, whole = [], manager.calibrate
    monkeypatch.setattr(manager, "calibrate", lambda *given: collected.append(1) or whole(*given))
    assert len(tuned(timesteps=2).trials) > 3
    assert len(collected) == 2  # for the search, and for the network that is chosen


@pytest.mark.parametrize("pipeline", ["data-norm,bias-correction", "lower-max-pool,few-spike{k=2}"])
def test_prefixes_are_run_once_and_change_nothing(pipeline, monkeypatch):
    texts = [pipeline + correction for correction in ("", ",bias-correction", ",bias-correction{rounds=2}")]
    expected = [snnc.convert(residual(), text, calibration=CALIBRATION, timesteps=3) for text in texts]
    converter = sweep_module.Converter(residual(), snnc._context(CALIBRATION, None, False))
    pipelines = [(passes.Canonicalise(), *passes.parse(text)) for text in texts]
    ran, whole = [], passes.run
    monkeypatch.setattr(passes, "run", lambda steps, *rest: ran.extend(steps) or whole(steps, *rest))
    assert [converter.converted(steps, 3) for steps in pipelines] == expected
    assert len(ran) == len({steps[:end] for steps in pipelines for end in range(1, len(steps) + 1)})
    converter.forget()
    assert converter.converted(pipelines[-1], 3) == expected[-1]


# Images


def test_nothing_is_chosen_on_calibration_images(found):
    tuning, _ = found
    mixed = np.concatenate([CHOOSING[:50], CALIBRATION[7:9], CHOOSING[50:]])
    with pytest.warns(ir.ModelWarning, match="2 of 130 images to choose on are calibration images"):
        again = search(residual(), CALIBRATION, mixed, progress=False, **{**BINARY, "timesteps": 2})
    assert again.trials == tuple(trial for trial in tuning.trials if trial.timesteps == 2)
    with pytest.raises(ir.DataError, match="every image to choose on is a calibration image"):
        search(residual(), CALIBRATION, CALIBRATION[:5], progress=False, **BINARY)


def test_warnings_are_those_of_the_chosen_network():
    dark = CALIBRATION.copy()
    dark[:] = 0
    dark[0] = CALIBRATION[0] * 1e-3
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tuning = search(residual(), dark, CHOOSING, progress=False, **{**BINARY, "timesteps": 2})
        searched = len([w for w in said if issubclass(w.category, ir.ModelWarning)])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        snnc.convert(residual(), tuning.chosen.pipeline, calibration=dark, timesteps=tuning.chosen.timesteps)
        assert searched == len([w for w in said if issubclass(w.category, ir.ModelWarning)])


# Interruptions


@pytest.mark.parametrize("runs", [0, 7, 30])
def test_an_interrupted_search_goes_on_to_the_same_end(found, runs, tmp_path, monkeypatch):
    tuning, journal = found
    evaluate, done = CompiledSpiking.evaluate, []

    def interrupted(self, *given, **options):
        if len(done) == runs:
            raise KeyboardInterrupt
        done.append(1)
        return evaluate(self, *given, **options)

    path = tmp_path / "journal.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(CompiledSpiking, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuned(path)
    assert len(records(path.read_bytes())) == runs
    assert journal.startswith(path.read_bytes())
    assert os.listdir(tmp_path) == ["journal.jsonl"]
    again = tuned(path, resume=True)
    assert path.read_bytes() == journal
    assert again.trials == tuning.trials
    assert again.network == tuning.network


def test_what_the_journal_has_is_not_measured_again(found, tmp_path, monkeypatch):
    tuning, journal = found
    path = tmp_path / "journal.jsonl"
    path.write_bytes(journal)
    monkeypatch.setattr(CompiledSpiking, "evaluate", None)
    snnc.save(residual(), tmp_path / "analog.snn")
    again = search(tmp_path / "analog.snn", CALIBRATION, CHOOSING, journal=path, resume=True, progress=False, **BINARY)
    assert again.chosen == tuning.chosen
    assert path.read_bytes() == journal


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": lambda: residual().replace(outputs=["digit"], populations=_shifted())}, "model"),
        ({"calibration": CALIBRATION[1:]}, "calibration"),
        ({"x": CHOOSING[::-1]}, "images"),
        ({"y": np.zeros(128)}, "labels"),
        ({"within": 21}, "wish"),
        ({"spikes": "signed"}, "wish"),
    ],
)
def test_a_journal_of_something_else_is_refused(found, change, what, tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(found[1])
    monkeypatch.setattr(CompiledSpiking, "evaluate", None)
    given = {"model": residual(), "calibration": CALIBRATION, "x": CHOOSING, **BINARY, **change}
    given["model"] = given["model"]() if callable(given["model"]) else given["model"]
    with pytest.raises(ir.DataError, match=f"was begun with another {what}"):
        search(**given, journal=path, resume=True, progress=False)
    assert path.read_bytes() == found[1]


def _shifted():
    """The populations of `residual`, one bias moved by a hair."""
    return [
        p if p.name != "digit" else Population(p.name, p.shape, p.neuron, p.bias + np.float32(1e-4), p.origin)
        for p in residual().populations.values()
    ]


def test_a_journal_that_cannot_be_used_is_an_error(found, tmp_path):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(ir.DataError, match="no journal to resume at"):
        tuned(path, resume=True)
    with pytest.raises(ir.DataError, match="no journal to resume"):
        tuned(None, resume=True)
    with pytest.raises(ir.DataError, match="cannot write the journal"):
        tuned(tmp_path / "missing" / "journal.jsonl")
    lines = found[1].splitlines()
    about, first = lines[0], json.loads(lines[1])
    damaged = [b"", b"\xff", b"[]", about + b"\n{", about + b"\n3", found[1][: len(found[1]) // 2]]
    for text in damaged:
        path.write_bytes(text)
        with pytest.raises(ir.DataError, match="is not a journal that can be resumed"):
            tuned(path, resume=True)
    for key in ("accuracy", "loss", "divergence", "timesteps"):
        for value in ("x", None):
            path.write_bytes(about + b"\n" + json.dumps({**first, key: value}).encode())
            with pytest.raises(ir.DataError, match="is damaged"):
                tuned(path, resume=True)
    path.write_bytes(found[1])
    with pytest.raises(ir.DataError, match="is there already"):
        tuned(path)


# Errors


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"within": -1}, ir.PipelineError, "within is -1; it is a number of points"),
        ({"within": float("nan")}, ir.PipelineError, "within is nan"),
        ({"within": "1"}, ir.PipelineError, "within is '1'"),
        ({"timesteps": 0}, ir.PipelineError, "timesteps is 0; T is a number from 1"),
        ({"fewest": "synapses"}, ir.PipelineError, "fewest is one of steps, spikes, operations, not 'synapses'"),
        ({"spikes": "none"}, ir.PipelineError, "spikes is one of signed, binary, not 'none'"),
        ({"within": None}, ir.PipelineError, "fewest=operations needs within"),
        ({"backend": "genn"}, ir.BackendError, "there is no backend 'genn'"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(given, error, message, monkeypatch):
    monkeypatch.setattr(CompiledSpiking, "evaluate", None)
    with pytest.raises(error, match=message):
        tuned(**given)


def test_what_gives_no_class_is_refused():
    network = gates().replace(populations=[*gates().populations.values()][:2], connections=[gates().connections[0]])
    single = Network(
        [Population("x", (6,), ir.Input()), Population("y", (1,), ir.Identity())],
        [Connection("x", "y", (ir.Dense(weights(2, 6, 1)),))],
        ["x"],
        ["y"],
    )
    x = np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)
    with pytest.raises(ir.DataError, match="tune compares classes, and y gives none"):
        search(single, x[:4], x[4:], progress=False)
    with pytest.raises(ir.SnncError):
        search(network, x[:4], x[4:], progress=False)


def test_what_cannot_be_converted_is_said():
    """Exponentials have more bits than one; and no threshold can be found for what is not finite."""
    network = gates().replace(
        populations=[
            p if p.name != "hidden" else Population("hidden", (8,), ir.Function("exp"), p.bias)
            for p in gates().populations.values()
        ]
    )
    x = np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)
    with pytest.raises(ir.PipelineError, match=r"nothing can be converted so .*its phases have \d steps"):
        search(network, x[:20], x[20:], timesteps=1, spikes="binary", progress=False)
    tuned_by = CALIBRATION * np.float32(3e38)
    with pytest.raises(ir.PipelineError, match=r"nothing can be converted so .*beyond what float32 holds"):
        search(residual(), tuned_by, CHOOSING, progress=False, **{**BINARY, "timesteps": 2})


@pytest.mark.skipif(not (find_spec("pygenn") and find_spec("ml_genn")), reason="pygenn is not installed")
def test_the_backend_that_is_wanted_decides(monkeypatch):
    x = np.random.default_rng(1).standard_normal((120, 6)).astype(np.float32)
    given = {"timesteps": 1, "spikes": "signed", "progress": False}
    asked = []
    compiled = sweep_module.compile
    monkeypatch.setattr(sweep_module, "compile", lambda snn, backend: asked.append(backend) or compiled(snn, backend))
    on_genn = search(gates(), x[:40], x[40:], backend="mlgenn", **given)
    assert {"onnxruntime", "mlgenn"} == set(asked)
    assert asked.count("mlgenn") == len(on_genn.trials)
    ours = search(gates(), x[:40], x[40:], **given)
    assert [trial.pipeline for trial in on_genn.trials] == [trial.pipeline for trial in ours.trials]
    assert on_genn.network == ours.network


# How it is shown


def test_table_and_plot(found, tmp_path):
    tuning, _ = found
    console = Console(width=120, file=StringIO())
    console.print(tune_module.to_table(tuning))
    text = console.file.getvalue()
    assert "128 images; accuracy is agreement with the ANN" in text
    assert text.count("data-norm") + text.count("few-spike") >= len(tuning.front)
    plot_tuning(tuning, tmp_path / "front.svg")
    content = (tmp_path / "front.svg").read_text()
    assert "data-norm" in content
    assert "few-spike" in content
    json.dumps(tune_module.to_json(tuning), allow_nan=False)


# The command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snnc.save(residual(), "analog.snn")
    labels = snnc.compile(residual()).predict(IMAGES).argmax(-1)
    np.savez("data.npz", x_train=IMAGES, y_train=labels)
    return tmp_path


COMMAND = ("tune", "analog.snn", "--data", "data.npz", "--calibration-images", "40", "-o", "net.snn")
ASKED = ("--within", "20", "-t", "3", "--fewest", "operations", "--spikes", "binary")


def test_command(folder, found, snnc_command):
    code, out, _ = snnc_command(*COMMAND, *ASKED, "--plot", "front.png", "--json")
    assert code == 0
    report = json.loads(out)
    tuning, _ = found  # the labels are the model's own answers, and the images the same
    assert report["chosen"] == {**tune_module.to_json(tuning)["chosen"]}
    assert report["met"]
    assert snnc.load("net.snn") == tuning.network
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    made = (folder / "net.snn").read_bytes()
    words = shlex.split(report["command"])
    (folder / "net.snn").unlink()
    assert snnc_command(*words[1:])[0] == 0
    assert (folder / "net.snn").read_bytes() == made
    code, out, err = snnc_command(*COMMAND, *ASKED)
    assert code == 1
    assert "net.tune.jsonl tells of an earlier search: give --resume" in " ".join(err.split())
    code, out, _ = snnc_command(*COMMAND, *ASKED, "--resume")
    assert code == 0
    assert report["command"] in out
    assert "met (within 20 points, T at most 3, fewest synaptic operations, no signed spikes" in " ".join(out.split())
    assert (folder / "net.snn").read_bytes() == made


def test_command_says_what_cannot_be_met(folder, snnc_command):
    code, out, _ = snnc_command(*COMMAND, "--within", "0", "-t", "1", "--spikes", "binary", "--agreement")
    assert code == 1
    assert "not met (within 0 points, T at most 1" in " ".join(out.split())
    assert snnc.load("net.snn").is_spiking


def test_command_can_be_interrupted_and_killed(folder, tmp_path):
    """Each in a process of its own, which gets a real signal; the ends are the same, byte for byte."""
    call = [sys.executable, "-c", COMMAND_LINE, *COMMAND, *ASKED]
    journal, net = folder / "net.tune.jsonl", folder / "net.snn"

    def hearing() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what runs in the background of a script is deaf

    def stopped(number: int, after: int, *more: str) -> subprocess.CompletedProcess:
        process = subprocess.Popen(
            [*call, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hearing
        )
        while process.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) > after):
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate()
        return subprocess.CompletedProcess(call, process.returncode, out, err)

    done = stopped(signal.SIGINT, 3)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "give the same command with --resume to go on" in " ".join(done.stderr.split())
    assert stopped(signal.SIGKILL, 12, "--resume").returncode == -signal.SIGKILL
    assert not net.exists()
    assert subprocess.run([*call, "--resume"], capture_output=True).returncode == 0
    ends = journal.read_bytes(), net.read_bytes()
    journal.unlink()
    net.unlink()
    assert subprocess.run(call, capture_output=True).returncode == 0
    assert ends == (journal.read_bytes(), net.read_bytes())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fewest", "spikes"), "fewest=spikes needs within"),
        (("--within", "-1"), "'--within'"),
        (("-t", "4", "--resume"), "no journal to resume at net.tune.jsonl"),
        (("--calibration-images", "168", "-t", "2"), "calibration takes all images of data.npz"),
        (("-c", "data.npz", "--calibration-images", "168", "-t", "2"), "every image to choose on is a calibration"),
        (("-o", "missing/net.snn", "-t", "2"), "cannot write the journal missing/net.tune.jsonl"),
    ],
)
def test_errors_are_one_message(folder, snnc_command, arguments, message):
    before = set(os.listdir())
    code, _, err = snnc_command(*COMMAND, *arguments)
    assert code in (1, 2)
    assert message in " ".join(err.replace("│", "").split())
    assert "Traceback" not in err
    assert set(os.listdir()) == before
