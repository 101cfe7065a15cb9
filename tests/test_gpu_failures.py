"""A GPU that cannot be used is an error that says why and what to do: the process lives, and leaves nothing behind.

Runs on the emulated GPU, whose faults the environment chooses, with compilers that fail in their own ways:
python tests/cuda_emulation/emulate.py python -m pytest tests/test_gpu_failures.py
"""

import gc
import os
import re
import stat
import subprocess
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import dyadic
import numpy as np
import pytest

import snnc
from snnc import ir
from snnc.backend.mlgenn import gpu, plan, toeplitz

if not (find_spec("pygenn") and find_spec("ml_genn")):
    pytest.skip("pygenn is not installed", allow_module_level=True)
if "SNNC_EMULATION_TOOLKIT" not in os.environ:
    pytest.skip("the GPU is not an emulated one", allow_module_level=True)


def network():
    return dyadic.few_spike(3)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """What is built goes into a folder of the test's, from which it is gone when the test is over."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield
    gc.collect()
    assert not list(folder.glob("snnc-*"))


def refuses(match, **options):
    """Compiling for the GPU is one error, and for whichever device there is, a warning with the same cause."""
    with pytest.raises(ir.BackendError, match=match):
        snnc.compile(network(), "mlgenn", device="gpu", **options)


def falls_back(match):
    with pytest.warns(ir.BackendWarning, match=match):
        compiled = snnc.compile(network(), "mlgenn")
    images = dyadic.images(network())
    np.testing.assert_array_equal(compiled.predict(images)["y"], snnc.compile(network()).predict(images)["y"])


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ({"FAKECUDA_DEVICES": "0"}, r"CUDA finds no GPU \(cudaErrorNoDevice, 100\): .*compile with device='cpu'"),
        ({"FAKECUDA_BUSY": "1"}, r"GPU 0, .*, cannot be used \(CUDA_ERROR_DEVICE_UNAVAILABLE, 46\): another process"),
        ({"FAKECUDA_INIT": "35"}, r"older than the CUDA that pygenn was built with: update the driver"),
    ],
    ids=["missing", "busy", "driver"],
)
def test_a_gpu_that_cannot_be_had(fault, match, monkeypatch):
    for name, value in fault.items():
        monkeypatch.setenv(name, value)
    refuses(match)
    falls_back(match)


def test_gpus_that_are_hidden(monkeypatch):
    monkeypatch.setenv("FAKECUDA_DEVICES", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    refuses("CUDA_VISIBLE_DEVICES=-1 hides them")


def test_a_gpu_that_is_too_small(monkeypatch):
    monkeypatch.setenv("FAKECUDA_MEMORY", "2000")
    refuses("the GPU has too little memory free: compile with a smaller batch_size", batch_size=3)


def test_a_gpu_that_fills_up_after_the_build(monkeypatch):
    compiled = snnc.compile(network(), "mlgenn", device="gpu", batch_size=3)
    images = dyadic.images(network())
    expected = compiled.predict(images)["y"]
    monkeypatch.setenv("FAKECUDA_MEMORY", str(compiled._gpu_bytes - 1))
    with pytest.raises(ir.BackendError, match=r"needs .* on the GPU, and .* are free: .* batch_size below 3"):
        compiled.predict(images)
    monkeypatch.delenv("FAKECUDA_MEMORY")
    np.testing.assert_array_equal(compiled.predict(images)["y"], expected)


def test_a_batch_over_the_limit():
    refuses("up to 1023 images at once, not 1024", batch_size=1024)


# libraries and compilers


def compiler(folder: Path, script: str) -> Path:
    """A CUDA_PATH whose nvcc is a shell script; $REAL is the one that works."""
    real = Path(os.environ["CUDA_PATH"], "bin", "nvcc")
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\nREAL='{real}'\nexport CUDA_PATH='{real.parents[1]}'\n{script}\n")
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IXUSR)
    return folder


CURAND = 'echo "includes.cc:1:10: fatal error: curand_kernel.h: No such file or directory" >&2; exit 1'
OLD = "echo \"nvcc fatal   : Unsupported gpu architecture 'compute_60'\" >&2; exit 1"
CRASH = "kill -SEGV $$"
IN_SEARCH = (
    'case "$*" in *-cubin*) echo "synapseUpdate.cc(3): error: nothing fits" >&2; exit 1;; esac; exec "$REAL" "$@"'
)
IN_BUILD = 'case "$*" in *-dc*) echo "synapseUpdate.cc(3): error: nothing fits" >&2; exit 1;; esac; exec "$REAL" "$@"'


@pytest.mark.parametrize(
    ("script", "match"),
    [
        (CURAND, r"curand_kernel\.h was not found: install cuRAND.*NVCC_PREPEND_FLAGS=-I"),
        (OLD, r"the GPU is too old for this CUDA toolkit: set CUDA_PATH to an older one"),
        (CRASH, r"CUDA's compiler .*bin/nvcc does not work"),
    ],
    ids=["no-curand", "too-old", "crash"],
)
def test_a_compiler_that_does_not_work_here(script, match, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_PATH", str(compiler(tmp_path / "cuda", script)))
    refuses(match)
    falls_back(match)


@pytest.mark.parametrize(("script", "cause"), [(IN_SEARCH, "nvcc failed"), (IN_BUILD, "make")], ids=["abort", "make"])
def test_a_compiler_that_fails_in_the_build(script, cause, tmp_path, monkeypatch):
    """In the search for block sizes this ends the process that it happens in, by signal 6."""
    monkeypatch.setenv("CUDA_PATH", str(compiler(tmp_path / "cuda", script)))
    with pytest.raises(
        ir.BackendError, match=rf"(?s)GeNN could not build the network: .*{cause}.*nothing fits"
    ) as raised:
        snnc.compile(network(), "mlgenn", device="gpu")
    assert str(raised.value).startswith("GeNN could not build the network")
    assert "device='cpu'" in str(raised.value)


def test_a_compiler_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    match = rf"CUDA's compiler was not found: CUDA_PATH={re.escape(str(tmp_path))} has no bin/nvcc\. Set CUDA_PATH"
    refuses(match)
    falls_back(match)


def test_cuda_path_is_not_set(tmp_path, monkeypatch):
    """CUDA is looked for where it usually is."""
    home = compiler(tmp_path / "cuda", 'exec "$REAL" "$@"')
    monkeypatch.delenv("CUDA_PATH")
    monkeypatch.setattr(gpu, "_CUDA", tmp_path)
    refuses(rf"CUDA_PATH is not set, and {re.escape(str(tmp_path))} has no bin/nvcc")
    monkeypatch.setattr(gpu, "_CUDA", home)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gpu.require()
    assert os.environ["CUDA_PATH"] == str(home)


@pytest.mark.parametrize("library", ["libcuda.so.1", "libcudart.so.13"])
def test_a_library_that_is_missing(library, tmp_path):
    """Found out by the loader when pygenn is imported, so in a process of its own."""
    bare = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    if not subprocess.run([sys.executable, "-c", f"import ctypes; ctypes.CDLL('{library}')"], env=bare).returncode:
        pytest.skip("this machine has another one")
    for path in os.environ["LD_LIBRARY_PATH"].split(os.pathsep):
        for file in Path(path or ".").glob("libcuda*"):
            if not file.name.startswith(library):
                (tmp_path / file.name).symlink_to(file)
    code = (
        "import dyadic, snnc, warnings\n"
        "try: snnc.compile(dyadic.few_spike(3), 'mlgenn', device='gpu')\n"
        "except snnc.ir.BackendError as error: print(error)\n"
        "with warnings.catch_warnings(record=True) as caught: snnc.compile(dyadic.few_spike(3), 'mlgenn')\n"
        "print(caught[0].message)\n"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    refused, warned = done.stdout.splitlines()
    remedy = {"libcuda.so.1": "install NVIDIA's driver", "libcudart.so.13": r"add .*/lib64, to LD_LIBRARY_PATH"}[
        library
    ]
    assert re.match(rf"GeNN's CUDA backend cannot be loaded \({re.escape(library)}: cannot open.*\): {remedy}", refused)
    assert warned == f"GeNN runs on the CPU, as {refused}"


# what a later GeNN can do


@pytest.fixture
def later(monkeypatch, tmp_path):
    """GeNN as if it were a later one, of which nothing is known yet."""
    monkeypatch.setattr(toeplitz, "version", lambda package: "5.5.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    toeplitz.sends_values.cache_clear()
    yield tmp_path / "caches" / "snnc"
    toeplitz.sends_values.cache_clear()


def test_a_later_genn_has_to_show_that_it_gets_toeplitz_right(later):
    assert not toeplitz.sends_values()  # it is 5.4.0, which does not compile it
    assert [file.read_text() for file in later.iterdir()] == ["wrong"]
    toeplitz.sends_values.cache_clear()
    next(later.iterdir()).write_text("right")
    assert toeplitz.sends_values()


def test_where_it_is_right_toeplitz_comes_back(later, monkeypatch):
    monkeypatch.setattr(toeplitz, "CurrentInput", lambda: ir.SpikeInput(1.0))
    conv = ir.Conv2D(dyadic.dyadic(1, 3, 3, 2, 4))
    large = ir.Network(
        [ir.Population("x", (24, 24, 2), ir.CurrentInput()), ir.Population("y", (22, 22, 4), ir.Integrate())],
        [ir.Connection("x", "y", (conv,))],
        ["x"],
        ["y"],
        4,
    )
    with pytest.raises(ir.BackendError, match="cannot be TOEPLITZ"):
        plan(large, device="gpu", matrix_type="TOEPLITZ")
    toeplitz.sends_values.cache_clear()
    monkeypatch.setattr(toeplitz, "_try", lambda: True)
    next(later.iterdir()).unlink()
    assert plan(large, device="gpu", matrix_type="TOEPLITZ")[0].matrix_type == "TOEPLITZ"
