"""Fixtures that several test modules share."""

import os
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


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
