"""Lint and types, as part of the tests so that they cannot be forgotten."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ir", "frontend", "passes", "backend", "src")


def _run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


def test_lint():
    _run("-m", "ruff", "check", ".")
    _run("-m", "ruff", "format", "--check", ".")


def test_types_of_the_built_package(tmp_path):
    """The wheel is checked, not the tree: mypy cannot see through the mapping of an editable install."""
    source = tmp_path / "source"  # a copy: setuptools leaves its build folder in the tree
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site"), str(source))
    config = f"--config-file={ROOT / 'pyproject.toml'}"
    report = _run("-m", "mypy", config, "-p", "snnc", cwd=tmp_path, MYPYPATH=str(tmp_path / "site"))
    checked = re.search(r"in (\d+) source files", report)
    written = [
        path for folder in ("ir", "frontend", "passes", "backend", "src") for path in (ROOT / folder).rglob("*.py")
    ]
    assert checked is not None
    assert int(checked[1]) == len(written)
