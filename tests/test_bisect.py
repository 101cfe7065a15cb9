"""Bisection: one planted bad pass among eight is found, and its reproducer reproduces."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from networks import residual, weights
from rich.console import Console

import snnc
from snnc import ir
from snnc.bisect import bisect, measure, to_json, to_table, write_reproducer
from snnc.ir import Connection, Network, Population
from snnc.passes import BiasCorrection, Canonicalise, Context, DataNorm, Pass, parse, run, to_text

IMAGES = weights(100, 40, 8, 8, 2)


@dataclass(frozen=True)
class Touch(Pass):
    """Changes nothing that can be measured: one more pass in every origin."""

    name: ClassVar[str] = "touch"
    requires: ClassVar[ir.Stage] = "canonical"
    ensures: ClassVar[ir.Stage] = "canonical"

    def run(self, network: Network, context: Context) -> Network:
        marked = [replace(p, origin=p.origin.by(self.name)) for p in network.populations.values()]
        return network.replace(populations=marked)


@dataclass(frozen=True)
class ShiftBias(Pass):
    """Adds to one class's logit, so that it always wins; `shift=-s` undoes `shift=s`."""

    name: ClassVar[str] = "shift-bias"
    requires: ClassVar[ir.Stage] = "canonical"
    ensures: ClassVar[ir.Stage] = "canonical"

    shift: float = 4096.0

    def run(self, network: Network, context: Context) -> Network:
        digit = network.populations["digit"]
        shifted = replace(digit, bias=digit.bias + self.shift * np.eye(1, digit.size)[0])
        return network.replace(populations={**network.populations, "digit": shifted})


@dataclass(frozen=True)
class Deafen(Pass):
    """Thresholds so high that nothing spikes."""

    name: ClassVar[str] = "deafen"
    requires: ClassVar[ir.Stage] = "spiking"
    ensures: ClassVar[ir.Stage] = "spiking"

    def run(self, network: Network, context: Context) -> Network:
        return network.replace(populations=map(_deaf, network.populations.values()))


def _deaf(population: Population) -> Population:
    if not isinstance(population.neuron, ir.IntegrateFire):
        return population
    return replace(population, neuron=replace(population.neuron, v_thresh=1e6, v_init=0.0))


@dataclass(frozen=True)
class Unreachable(Pass):
    """A pass that must not be reached: the scan stops before it."""

    name: ClassVar[str] = "unreachable"
    requires: ClassVar[ir.Stage] = "canonical"
    ensures: ClassVar[ir.Stage] = "canonical"

    def run(self, network: Network, context: Context) -> Network:
        raise AssertionError("this pass was run")


@pytest.fixture(scope="module")
def labels():
    classes = snnc.compile(residual()).predict(IMAGES, progress=False).argmax(-1)
    assert np.bincount(classes).max() < 20, "no class may be right for most images, or breaking things would not show"
    return classes


def found(passes, labels, floor=0.9, network=None, **options):
    options = {"calibration": IMAGES, "timesteps": 64} | options
    return bisect(network or residual(), passes, IMAGES, labels, floor, **options)


GOOD = (Canonicalise(), Touch(), Touch(), Touch(), Touch(), Touch(), Touch(), DataNorm(99.0, per_channel=True))


@pytest.mark.parametrize("place", range(1, 8))
def test_one_bad_analog_pass_among_eight_is_found(labels, place):
    passes = (*GOOD[:place], ShiftBias(), *GOOD[place + 1 :])[:8]
    result = found(passes, labels)
    assert (result.bad.number, result.bad.step) == (place + 1, ShiftBias())
    assert [m.number for m in result.measured] == list(range(place + 2))
    assert [m.accuracy for m in result.measured[:-1]] == [1.0] * (place + 1)
    assert result.bad.accuracy == (labels == 0).mean()
    assert result.before == run(passes[:place], residual(), Context())
    assert f"pass {place + 1} (shift-bias) takes accuracy from 100.00%" in result.verdict


def test_a_bad_spiking_pass_is_found_and_nothing_beyond_it_runs(labels):
    result = found((*GOOD[:2], GOOD[-1], Deafen(), Unreachable()), labels)
    assert (result.bad.number, result.bad.step) == (4, Deafen())
    assert result.before.is_spiking


def test_none_bad(labels):
    result = found(GOOD, labels)
    assert result.bad is None
    assert [m.number for m in result.measured] == list(range(9))
    assert (
        result.measured[-1].accuracy
        == snnc.compile(snnc.convert(residual(), GOOD[-1:], calibration=IMAGES, timesteps=64))
        .evaluate(IMAGES, labels)
        .accuracy[-1]
    )
    assert result.verdict == "accuracy stays at or above 90.00% after every pass"


def test_bad_from_the_start_is_said(labels, tmp_path):
    result = found((Unreachable(),), (labels + 1) % 5)
    assert (result.bad.number, result.bad.step, len(result.measured)) == (0, None, 1)
    assert "the network as given has an accuracy of 0.00%, below 90.00% before any pass" in result.verdict
    with pytest.raises(ir.PipelineError, match="nothing to reproduce"):
        write_reproducer(result, tmp_path / "bad")
    assert not list(tmp_path.iterdir())


def test_table_and_json(labels):
    result = found((*GOOD[:2], ShiftBias()), labels)
    content = json.loads(json.dumps(to_json(result)))
    assert (content["bad"], content["floor"]) == (3, 0.9)
    assert [entry["pass"] for entry in content["measured"]] == [None, "canonicalise", "touch", "shift-bias"]
    console = Console(width=100, file=StringIO())
    console.print(to_table(result))
    assert re.search(r"pass 3 \(shift-bias\) *│ *\d+\.\d\d% ", console.file.getvalue())


def test_the_first_drop_is_found_though_a_later_pass_repairs_it(labels):
    """What binary search would miss: it looks good in the middle and good at the end."""
    passes = (Canonicalise(), ShiftBias(), ShiftBias(-4096.0), *GOOD[2:])
    assert measure(run(passes[:3], residual(), Context()), IMAGES, labels) > 0.9
    assert found(passes, labels).bad.number == 2


def test_the_accuracy_of_several_outputs_is_their_mean():
    network = Network(
        [Population("x", (2,), ir.Input()), Population("a", (2,), ir.Identity()), Population("b", (2,), ir.Identity())],
        [Connection("x", "a"), Connection("x", "b")],
        ["x"],
        ["a", "b"],
    )
    x = np.eye(2)
    y = {"a": [0, 1], "b": [0, 0]}
    assert measure(network, x, y) == 0.75
    relu = network.replace(populations={**network.populations, "b": Population("b", (2,), ir.Relu())})
    assert measure(snnc.convert(relu, calibration=x, timesteps=8), x, y) == 0.75


@pytest.mark.parametrize(
    ("floor", "images", "message"),
    [(95, IMAGES, "from 0 to 1, not 95"), (0.9, IMAGES[:3], "expected 3 class numbers"), (0.9, IMAGES[:, :3], "shape")],
)
def test_data_that_does_not_fit_is_refused(labels, floor, images, message):
    with pytest.raises(ir.DataError, match=message):
        bisect(residual(), GOOD, images, labels, floor)


def test_errors_of_passes_keep_their_number(labels):
    with pytest.raises(ir.PipelineError, match=r"pass 2 \(touch\) requires"):
        found((DataNorm(), Touch()), labels, network=run([Canonicalise()], residual(), Context()), floor=0)


def test_the_reproducer_reproduces(labels, tmp_path):
    result = found((*GOOD[:3], DataNorm(20.0, v_init=0.0)), labels, timesteps=4)
    folder = tmp_path / "bad"
    write_reproducer(result, folder)
    assert {path.name for path in folder.iterdir()} == {
        *("before.snn", "pipeline.txt", "data.npz", "calibration.npz", "reproduce.sh")
    }
    assert list(tmp_path.iterdir()) == [folder]
    passes = parse((folder / "pipeline.txt").read_text().strip())
    data, calibration = np.load(folder / "data.npz"), np.load(folder / "calibration.npz")
    again = bisect(
        snnc.load(folder / "before.snn"),
        passes,
        {"image": data["image"]},
        {"digit": data["digit"]},
        0.9,
        calibration={"image": calibration["image"]},
        timesteps=4,
    )
    assert again.bad.accuracy == result.bad.accuracy
    script = (folder / "reproduce.sh").read_text()
    assert f"# pass 4 ({to_text(passes)}) takes accuracy" in script
    pipeline = "'data-norm{percentile=20.0,v-init=0.0}'"
    opt = f"snnc opt before.snn -p {pipeline} --calibration calibration.npz --images 40 --timesteps 4 -o after.snn\n"
    assert opt in script
    commands = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    done = subprocess.run([folder / "reproduce.sh"], env=environment, capture_output=True, text=True, check=True)
    assert "ANN accuracy of digit: 100.00%" in done.stdout
    assert f"{result.bad.accuracy:.1%}" in done.stdout
    assert snnc.load(folder / "after.snn").timesteps == 4
    with pytest.raises(ir.DataError, match="cannot write the reproducer"):
        write_reproducer(result, folder)
    with pytest.raises(ir.DataError, match="cannot write the reproducer"):
        write_reproducer(result, tmp_path / "missing" / "bad")


def test_large_data_is_left_where_it_is(labels, tmp_path, monkeypatch):
    import snnc.bisect

    monkeypatch.setattr(snnc.bisect, "LARGEST_COPY", 1000)
    write_reproducer(found((*GOOD[:2], ShiftBias()), labels, calibration=None), tmp_path / "bad")
    assert {path.name for path in (tmp_path / "bad").iterdir()} == {"before.snn", "pipeline.txt", "reproduce.sh"}
    script = (tmp_path / "bad" / "reproduce.sh").read_text()
    assert "# data.npz is not here" in script
    assert "--calibration" not in script


def test_a_pass_that_compares_is_reproduced_from_the_analog_network(labels):
    passes = (Canonicalise(), Touch(), DataNorm(99.0), BiasCorrection())
    result = found(passes, labels, floor=0, timesteps=8)
    assert result.leading == (DataNorm(99.0),)
    assert not result.before.is_spiking
    again = snnc.run_pipeline(result.before, passes[2:], calibration=IMAGES, timesteps=8)
    assert again == snnc.run_pipeline(residual(), passes, calibration=IMAGES, timesteps=8)
