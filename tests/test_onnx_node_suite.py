"""All node tests of the ONNX backend test suite: each agrees, or is refused in words; docs/onnx.md counts them."""

import re
from pathlib import Path

import node_suite
import onnx
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "onnx.md"
CASES = node_suite.cases()
MEASURED = onnx.__version__.startswith("1.23")  # other versions have other tests


@pytest.mark.parametrize("operator", CASES)
def test_every_test_agrees_or_is_refused(operator):
    outcomes = [node_suite.outcome(case) for case in CASES[operator]]
    assert all(outcome.message for outcome in outcomes if not outcome.agrees)
    assert not [outcome for outcome in outcomes if "do not fit together" in outcome.message]
    if MEASURED:
        agree = sum(outcome.agrees for outcome in outcomes)
        assert f"| {operator} | {len(outcomes)} | {agree} | {len(outcomes) - agree} |" in PAGE.read_text()


@pytest.mark.skipif(not MEASURED, reason="other versions have other tests")
def test_the_page_counts_all_tests():
    rows = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    counts = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    total = counts.pop("all")
    assert counts.keys() == CASES.keys()
    assert total == tuple(map(sum, zip(*counts.values(), strict=True)))
