"""The command line, from the user's side: what is printed, what is written, what is left behind."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from networks import residual, weights

import snnc
from snnc import ir

IMAGES = weights(100, 40, 8, 8, 2)


@pytest.fixture
def snn(tmp_path):
    """A spiking network's file, and labelled images that fit it, in an otherwise empty folder."""
    spiking = snnc.convert(residual(), calibration=IMAGES, timesteps=32)
    snnc.save(residual(), tmp_path / "analog.snn")
    snnc.save(spiking, tmp_path / "net.snn")
    labels = snnc.compile(residual()).predict(IMAGES).argmax(-1)
    np.savez(tmp_path / "data.npz", x_train=IMAGES, x_test=IMAGES, y_test=labels)
    return tmp_path


def test_convert_evaluate_show(digits, tmp_path, snnc_command):
    model, x_train, y_train, x_test, y_test = digits
    model.save(tmp_path / "model.keras")
    np.savez(
        tmp_path / "digits.npz",
        x_train=(16 * x_train).astype(np.uint8),
        y_train=y_train,
        x_test=(16 * x_test).astype(np.uint8),
        y_test=y_test,
    )
    net, data, scale = tmp_path / "net.snn", tmp_path / "digits.npz", ("--scale", "1/16")
    code, out, err = snnc_command("convert", tmp_path / "model.keras", "-c", data, *scale, "-t", 32, "-o", net)
    assert (code, out) == (0, "")
    assert "spiking network: 7 populations" in err
    code, out, _ = snnc_command("evaluate", net, "--data", data, *scale, "--json", "--plot", tmp_path / "plot.png")
    assert code == 0
    report = json.loads(out)
    assert len(report["accuracy"]["digit"]) == 32
    assert report["accuracy"]["digit"][-1] > 0.95
    assert report["images"] == len(x_test)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = snnc_command("evaluate", tmp_path / "model.keras", "--data", data, *scale)
    assert "ANN accuracy of digit: 9" in out
    code, out, err = snnc_command("show", net)
    assert out == str(snnc.load(net))
    assert set(os.listdir(tmp_path)) == {"model.keras", "digits.npz", "net.snn", "plot.png"}


def test_evaluate_prints_tables(snn, snnc_command):
    code, out, _ = snnc_command("evaluate", snn / "net.snn", "--data", snn / "data.npz", "--images", 10, "-t", 7)
    assert code == 0
    assert "accuracy against timesteps" in out
    assert "merged" in out
    assert "10 images" in out


def test_convert_reads_network_files_and_takes_a_pipeline(snn, snnc_command):
    pipeline = "data-norm{percentile=99,reset=zero}"
    code, _, _ = snnc_command(
        "convert", snn / "analog.snn", "-c", snn / "data.npz", "-p", pipeline, "-t", 9, "-o", snn / "new.snn"
    )
    assert code == 0
    network = snnc.load(snn / "new.snn")
    assert network.timesteps == 9
    assert network.populations["stem"].neuron.reset == "zero"


def test_evaluate_leaves_out_a_transient(snn, snnc_command):
    data = np.load(snn / "data.npz")
    compiled = snnc.compile(snnc.load(snn / "net.snn"))
    curves = {}
    for transient in (0, 8):
        code, out, _ = snnc_command(
            "evaluate", snn / "net.snn", "--data", snn / "data.npz", "--transient", transient, "--json"
        )
        assert code == 0
        curves[transient] = json.loads(out)["accuracy"]["digit"]
        result = compiled.evaluate(data["x_test"], data["y_test"], transient=transient)
        assert curves[transient] == result.accuracy.tolist()
    assert curves[0][:8] == curves[8][:8]
    assert curves[0] != curves[8]


def test_few_spike_networks_are_converted_evaluated_and_shown(snn, snnc_command):
    net = snn / "few.snn"
    pipeline = "few-spike{k=8,input=few-spike,signed=true,layer-k=branch:6},bias-correction"
    code, _, err = snnc_command("convert", snn / "analog.snn", "-c", snn / "data.npz", "-p", pipeline, "-o", net)
    assert code == 0
    assert "8 timesteps" in err
    evaluate = ("evaluate", net, "--data", snn / "data.npz")
    code, out, _ = snnc_command(*evaluate)
    assert code == 0
    report = json.loads(snnc_command(*evaluate, "--json")[1])
    (accuracy,) = report["accuracy"]["digit"]  # it answers once
    assert accuracy > 0.9
    assert f"accuracy of digit after phases of 8 steps: {accuracy:.1%}" in out
    assert set(report["spikes_per_image"]) == {"image", "stem", "branch", "merged"}
    assert 0 < report["spikes_per_image"]["branch"] < 6 * 512
    _, out, err = snnc_command("show", net)
    assert out == str(snnc.load(net))
    assert "branch [8,8,8] FewSpike(k=6, alpha=" in out
    assert "image [8,8,2] FewSpikeInput(k=8, alpha=" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "missing.snn"), "missing.snn: no such file"),
        (("show", "data.npz"), "data.npz"),
        (("evaluate", "net.snn", "--data", "missing.npz"), "missing.npz: no such file"),
        (("evaluate", "net.snn", "--data", "net.snn"), "net.snn is not a .npz or .npy file"),
        (("evaluate", "net.snn", "--data", "data.npz", "--scale", "half"), "--scale takes a number"),
        (("evaluate", "net.snn", "--data", "images.npy"), "no labels"),
        (("evaluate", "net.snn", "--data", "pickle.npz"), "array 'x' cannot be read"),
        (("convert", "analog.snn", "-o", "out.snn"), "needs calibration images"),
        (("convert", "analog.snn", "-c", "nan.npy", "-o", "out.snn"), "holds NaN or infinity"),
        (("convert", "analog.snn", "-c", "shape.npy", "-o", "out.snn"), "has shape (5, 9, 9, 2)"),
        (("convert", "analog.snn", "-c", "two.npz", "-o", "out.snn"), "has arrays a, b but no images"),
        (("convert", "analog.snn", "-c", "data.npz", "-p", "data-nrm", "-o", "out.snn"), "did you mean 'data-norm'"),
        (("convert", "net.snn", "-c", "data.npz", "-o", "out.snn"), "requires a network at stage 'analog'"),
        (("convert", "analog.snn", "-c", "data.npz", "-o", "missing/out.snn"), "cannot write missing/out.snn"),
        (("evaluate", "net.snn", "--data", "data.npz", "--plot", "missing/a.png"), "cannot write the plot"),
        (("evaluate", "net.snn", "--data", "data.npz", "--plot", "a.xyz"), "cannot write the plot"),
        (("evaluate", "net.snn", "--data", "data.npz", "--transient", "32"), "the network runs for 32 timesteps"),
        (("evaluate", "net.snn", "--data", "data.npz", "--scale", "1e99999999999"), "holds NaN or infinity in"),
        (("evaluate", "x" * 5000, "--data", "data.npz"), "File name too long"),
        (("evaluate", "net.snn", "--data", "x" * 5000), "File name too long"),
        (("evaluate", "few.snn", "--data", "data.npz", "--transient", "1"), "the network answers once"),
        (("evaluate", "few.snn", "--data", "data.npz", "-t", "8"), "runs for its own 4 steps a phase"),
        (("evaluate", "few.snn", "--data", "data.npz", "--plot", "a.png"), "there is no curve to draw"),
        (
            ("convert", "analog.snn", "-c", "data.npz", "-p", "few-spike{input=few-spike}", "-o", "out.snn"),
            "input 'image' goes down to -1, which spikes of one sign cannot say",
        ),
    ],
)
def test_errors_are_one_message_and_leave_nothing_behind(snn, snnc_command, monkeypatch, arguments, message):
    monkeypatch.chdir(snn)
    snnc.save(snnc.convert(residual(), "few-spike", calibration=IMAGES), "few.snn")
    np.save("images.npy", IMAGES)
    np.save("nan.npy", np.full((5, 8, 8, 2), np.nan))
    np.save("shape.npy", np.zeros((5, 9, 9, 2)))
    np.savez("two.npz", a=IMAGES, b=IMAGES)
    np.savez("pickle.npz", x=np.array([{}, []], dtype=object), y=np.zeros(2))
    before = set(os.listdir())
    code, _, err = snnc_command(*arguments)
    assert code == 1
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert lines[0].startswith("error: ")
    assert message in " ".join(lines)
    assert "Traceback" not in err
    assert set(os.listdir()) == before


def test_a_note_about_bytes(snn, snnc_command, monkeypatch):
    monkeypatch.chdir(snn)
    np.savez("bytes.npz", x=np.full((4, 8, 8, 2), 255, np.uint8), y=np.zeros(4))
    _, _, err = snnc_command("evaluate", "net.snn", "--data", "bytes.npz")
    assert "--scale 1/255" in err


def test_version_and_help(snnc_command):
    assert snnc_command("--version")[1] == f"snnc {snnc.__version__}\n"
    for command in ("convert", "evaluate", "show", "demo"):
        code, out, _ = snnc_command(command, "--help")
        assert code == 0
        assert "Usage" in out


def header(text: bytes) -> bytes:
    """An array's file, up to where its numbers begin."""
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "member",
    [
        b"hello",
        b"",
        header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }"),
        header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1" + b"0" * 30 + b", 4), }"),
        header(b"{'descr':((((((("),
        header(b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 4), }") + bytes(128),
    ],
    ids=["no-array", "empty", "huge", "overflow", "no-python", "objects"],
)
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_whatever_a_data_file_holds_it_is_one_line_and_status_1(snn, tmp_path, snnc_command, kind, member):
    data = tmp_path / f"bad.{kind}"
    if kind == "npz":
        with zipfile.ZipFile(data, "w") as file:
            file.writestr("x_test.npy", member)
    else:
        data.write_bytes(member)
    code, out, err = snnc_command("evaluate", snn / "net.snn", "--data", data)
    assert code == 1
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert "bad." in err


def test_an_encrypted_array_is_one_line_and_status_1(snn, tmp_path, snnc_command):
    data = tmp_path / "bad.npz"
    np.savez(data, x_test=IMAGES)
    content = bytearray(data.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # as if it were: the lowest bit of its flags
        content[content.index(signature) + flags] |= 1
    data.write_bytes(content)
    code, _, err = snnc_command("evaluate", snn / "net.snn", "--data", data)
    assert code == 1
    assert "cannot be read" in err


def test_names_that_the_terminal_has_no_signs_for(tmp_path):
    ends = [ir.Population("höhe", (2,), ir.Input()), ir.Population("y", (2,), ir.Identity())]
    network = ir.Network(ends, [ir.Connection("höhe", "y")], ["höhe"], ["y"])
    snnc.save(network, tmp_path / "net.snn")
    command = [sys.executable, "-c", "from snnc.cli import main; main()", "show", tmp_path / "net.snn"]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[1]) == (0, r"  h\xf6he [2] Input()")
