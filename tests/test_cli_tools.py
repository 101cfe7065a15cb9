"""The commands for those who write passes and debug conversions."""

import json
import os
import re

import numpy as np
import pytest
from networks import residual, weights

import snnc

IMAGES = weights(100, 40, 8, 8, 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the residual network, a conversion of it, and images with the analog network's own labels."""
    monkeypatch.chdir(tmp_path)
    snnc.save(residual(), "analog.snn")
    snnc.save(snnc.convert(residual(), calibration=IMAGES, timesteps=32), "net.snn")
    labels = snnc.compile(residual()).predict(IMAGES).argmax(-1)
    np.savez("data.npz", x_train=IMAGES, x_test=IMAGES, y_test=labels)
    return tmp_path


PIPELINE = "canonicalise,data-norm{percentile=99.9,per-channel=true}"


def test_opt_does_what_convert_does(folder, snnc_command):
    code, out, err = snnc_command("opt", "analog.snn", "-p", PIPELINE, "-c", "data.npz", "-t", 32, "-o", "opt.snn")
    assert (code, out) == (0, "")
    assert all(line.startswith("warning: ") for line in err.splitlines())
    assert (folder / "opt.snn").read_bytes() == (folder / "net.snn").read_bytes()
    code, out, _ = snnc_command("opt", "analog.snn", "-p", PIPELINE, "-c", "data.npz", "-t", 32)
    assert out == str(snnc.load("net.snn"))


def test_opt_shows_what_changed(folder, snnc_command):
    arguments = ("opt", "analog.snn", "-p", PIPELINE, "-c", "data.npz", "--print-changed", "--time")
    _, out, err = snnc_command(*arguments, "--check-equivalence", "--print-after", "canonicalise")
    assert out.startswith("network timesteps=64")
    assert re.search(r"^\+  stem -> merged: one-to-one delay=1", err, re.MULTILINE)
    assert re.search(r"^-  merged \[8,8,8\] Clip\(max=6.0\)", err, re.MULTILINE)
    assert re.search(r"2 +data-norm +\d+\.\d+", err)


def test_a_dump_can_be_resumed_and_gives_the_same_bytes(folder, snnc_command):
    whole = ("opt", "analog.snn", "-p", PIPELINE, "-c", "data.npz", "--dump-dir", "steps", "-o", "straight.snn")
    assert snnc_command(*whole)[0] == 0
    assert {"000-input.snn", "001-canonicalise.snn", "002-data-norm.snn"} < set(os.listdir("steps"))
    for start in ("000-input", "001-canonicalise", "002-data-norm"):
        resumed = ("opt", "--resume-from", f"steps/{start}.snn", "-c", "data.npz", "-o", "resumed.snn")
        assert snnc_command(*resumed)[0] == 0
        assert (folder / "resumed.snn").read_bytes() == (folder / "straight.snn").read_bytes()


def test_passes_documents_every_option(snnc_command):
    code, out, _ = snnc_command("passes")
    assert code == 0
    for text in ("canonicalise", "analog → canonical", "data-norm", "percentile", "subtract | zero", "v-init"):
        assert text in out
    code, out, _ = snnc_command("passes", "data-norm")
    assert "canonicalise  (" not in out
    assert "there is no pass 'datanorm'" in snnc_command("passes", "datanorm")[2]


def test_diff_names_what_differs(folder, snnc_command):
    assert snnc_command("diff", "net.snn", "net.snn") == (0, "", "")
    code, out, _ = snnc_command("diff", "analog.snn", "net.snn")
    assert code == 1
    assert "forgotten" in out
    assert "population stem" in out


def test_profile_splits_every_layers_error(folder, snnc_command):
    arguments = ("profile", "analog.snn", "net.snn", "--data", "data.npz")
    code, out, _ = snnc_command(*arguments, "--json", "--plot", "profile.png")
    assert code == 0
    layers = {layer["population"]: layer for layer in json.loads(out)["layers"]}
    assert set(layers) == {"stem", "branch", "merged", "digit"}
    assert layers["stem"]["correlation"] > 0.99
    assert (folder / "profile.png").read_bytes().startswith(b"\x89PNG")
    assert "merged" in snnc_command(*arguments)[1]


def test_bisect_finds_the_pass_and_writes_a_reproducer(folder, snnc_command):
    bad = "canonicalise,data-norm{reset=zero,v-init=0.0}"
    arguments = ("bisect", "analog.snn", "--data", "data.npz", "--floor", 0.75, "-t", 6)
    code, out, _ = snnc_command(*arguments, "-p", bad, "--reproducer", "bad")
    assert code == 1
    assert "pass 2 (data-norm" in out
    assert {"before.snn", "pipeline.txt", "reproduce.sh"} < set(os.listdir("bad"))
    code, out, _ = snnc_command(*arguments, "-p", bad, "--json")
    assert [measured["number"] for measured in json.loads(out)["measured"]] == [0, 1, 2]
    code, out, _ = snnc_command(*arguments, "-p", PIPELINE, "--reproducer", "good")
    assert code == 0
    assert "stays at or above" in out
    assert not os.path.exists("good")


def test_show_writes_a_page(folder, snnc_command):
    code, out, err = snnc_command("show", "net.snn", "--html", "net.html")
    assert (code, out) == (0, "")
    assert "spiking network" in err
    assert "<html" in (folder / "net.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("opt", "analog.snn"), "give a network and a pipeline"),
        (("opt", "analog.snn", "-p", "data-norm", "-c", "data.npz"), "requires a network at stage 'canonical'"),
        (("opt", "--resume-from", "nowhere/001-x.snn"), "nowhere"),
        (("diff", "analog.snn", "missing.snn"), "missing.snn: no such file"),
        (("profile", "net.snn", "analog.snn", "--data", "data.npz"), "spiking"),
        (("show", "net.snn", "--html", "missing/net.html"), "cannot write"),
    ],
)
def test_errors_are_one_message(folder, snnc_command, arguments, message):
    before = set(os.listdir())
    code, _, err = snnc_command(*arguments)
    assert code in (1, 2)
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert set(os.listdir()) == before
