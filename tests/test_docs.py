"""The documents say what the code says: the IR page is generated, the quoted pass is the packaged one, and it runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import residual

import snnc
from snnc.passes import Canonicalise, Context, run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "examples" / "pass-package"
COMMAND_LINE = "from snnc.cli import main; main()"


def _blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def _python(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_ir_page_is_what_the_docstrings_say():
    _python(str(DOCS / "make_ir.py"), "--check")


def test_the_ir_page_has_every_class():
    page = (DOCS / "ir.md").read_text()
    names = ["Network", "Population", "Connection", "Origin", *snnc.ir.operators.OPERATORS, *snnc.ir.neurons.NEURONS]
    for name in names:
        assert len(re.findall(rf"^#+ {name}$", page, re.MULTILINE)) == 1, name
    for name in names[4:]:
        assert re.search(rf"^```\n{name}\(.*\)\n```$", page, re.MULTILINE), f"{name} has no example of its text form"


def test_the_quoted_pass_is_the_packaged_one():
    pages = _blocks("writing-a-pass.md", "python"), _blocks("writing-a-pass.md", "toml")
    code = (PACKAGE / "snnc_prune_weights.py").read_text()
    assert pages[0][0] == code
    assert pages[1] == [(PACKAGE / "pyproject.toml").read_text()]
    assert len(code.splitlines()) <= 40


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the example package is installed."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"  # a copy: setuptools leaves its build folder in the tree
    source.mkdir()
    for name in ("pyproject.toml", "snnc_prune_weights.py"):
        (source / name).write_bytes((PACKAGE / name).read_bytes())
    _python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(source))
    return str(folder / "site")


def _snnc(site: str, *arguments: str) -> str:
    return _python("-c", COMMAND_LINE, *arguments, PYTHONPATH=site)


def test_the_example_pass_is_found_documented_and_run(site, tmp_path):
    network, pruned = tmp_path / "network.snn", tmp_path / "pruned.snn"
    snnc.save(residual(), network)
    documented = _snnc(site, "passes", "prune-weights")
    assert "analog → analog" in documented
    assert "Set the smallest weights" in documented
    _snnc(site, "opt", str(network), "-p", "prune-weights{below=0.05}", "-o", str(pruned))

    for before, after in zip(residual().connections, snnc.load(pruned).connections, strict=True):
        for was, is_ in zip(before.operators, after.operators, strict=True):
            if not isinstance(was, (snnc.ir.Conv2D, snnc.ir.Dense)):
                assert was == is_
                continue
            small = np.abs(was.weight) < 0.05 * np.abs(was.weight).max()
            assert small.any()
            assert np.array_equal(is_.weight, np.where(small, 0, was.weight))
        assert after.origin.passes == (("prune-weights",) if before.operators else ())


def test_the_quoted_test_of_the_pass_runs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(PACKAGE))
    exec(_blocks("writing-a-pass.md", "python")[1], {"network": residual()})
    assert "by prune-weights" in capsys.readouterr().out


def test_a_canonical_network_stays_canonical_under_the_example_pass(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE))
    from snnc_prune_weights import PruneWeights

    pruned = run([Canonicalise(), PruneWeights(below=0.5)], residual(), Context())
    snnc.ir.verify(pruned, "canonical")


def test_the_commands_of_the_pages_exist():
    """Every `snnc` command that a page shows, with its options; what they do is tested elsewhere."""
    known: dict[str, str] = {}
    for page in sorted(DOCS.glob("*.md")):
        for line in "".join(_blocks(page.name, "sh")).splitlines():
            if not line.startswith("snnc "):
                continue
            command = line.split()[1]
            if command not in known:
                known[command] = _python("-c", COMMAND_LINE, command, "--help", COLUMNS="200")
            for option in re.findall(r" (--?[a-z][a-z-]*)", line):
                assert re.search(rf"(?<![\w-]){option}(?![\w-])", known[command]), f"{page.name}: {line}"
