"""The shape of the project: who may import whom, and what importing snnc costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"ir", "frontend", "passes", "backend"}
FILES = [path for folder in (*FOLDERS, "src/snnc") for path in sorted((ROOT / folder).rglob("*.py"))]


def _imports(path: Path) -> list[str]:
    """The snnc package or the absolute module that each import of a file reads, as `snnc.ir` or `numpy`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = ("snnc", *(parts[2:] if parts[0] == "src" else parts))[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            found.append(".".join((*base, *(node.module or "").split("."))).rstrip("."))
            found += [".".join((*base, alias.name)) for alias in node.names if not node.module]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    names = _imports(path)
    assert not [name for name in names if name.split(".")[0] in FOLDERS], "bare names would import a second copy"
    if folder == "src":
        return
    allowed = {"snnc.ir", f"snnc.{folder}"}
    foreign = [name for name in names if name.startswith("snnc") and ".".join(name.split(".")[:2]) not in allowed]
    assert not foreign
    if folder == "ir":
        heavy = {"tensorflow", "keras", "onnx", "onnxruntime", "ml_genn", "pygenn"}
        assert not heavy & {name.split(".")[0] for name in names}


def test_importing_snnc_imports_nothing_heavy():
    heavy = [
        "tensorflow",
        "keras",
        "tf2onnx",
        "onnx",
        "onnxruntime",
        "numba",
        "matplotlib",
        "ml_genn",
        "pygenn",
        "scipy",
        "torch",
    ]
    code = f"import sys, snnc, snnc.cli; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
