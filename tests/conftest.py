"""Fixtures that several test modules share."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if find_spec("pygenn"):  # before TensorFlow, whatever a test imports first
    import_module("snnc.backend.mlgenn.genn")


GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def assert_golden():
    """Compares a network with a golden text; to accept a new one, delete the file, run the test, and read the diff."""

    def check(network, name):
        path = GOLDEN / f"{name}.txt"
        if not path.exists():
            path.write_text(str(network))
            pytest.fail(f"{path} was missing and is now written: read it, then run again")
        assert str(network) == path.read_text()

    return check


@pytest.fixture(scope="session")
def digits():
    """The demo's model, trained, and its data: model, x_train, y_train, x_test, y_test."""
    from snnc import demo

    x_train, y_train, x_test, y_test = demo.digits()
    return demo.train(x_train, y_train), x_train, y_train, x_test, y_test


@pytest.fixture
def snnc_command(monkeypatch, capsys):
    """Runs the `snnc` command in this process: exit code, stdout, stderr."""
    from snnc import cli

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["snnc", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
