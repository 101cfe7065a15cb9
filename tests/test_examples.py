"""The examples run as they stand."""

import runpy
from pathlib import Path

import snnc

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_keras_to_spikes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "keras_to_spikes.py"))
    printed = capsys.readouterr().out
    assert "ANN accuracy: 9" in printed
    assert "correlation 0.9" in printed
    assert snnc.load("digits.snn").timesteps == 32
