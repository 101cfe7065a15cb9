"""Run a command with GeNN's CUDA backend on a GPU that is not there; the README beside this file says more."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1] / "build" / "cuda-emulation"
LIBRARIES = HOME / "lib"
USUAL = Path("/usr/local/cuda")
CURAND = "nvidia-curand==10.4.0.35"
TOOLKIT = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-nvvm==13.0.88",
    CURAND,
]
SETTINGS = "FAKECUDA_DEVICES, _CC, _MEMORY, _INIT and _BUSY in the environment say what the GPU is like: see device.h."


def main():
    options = parse()
    HOME.mkdir(parents=True, exist_ok=True)
    toolkit = find_toolkit()
    build(toolkit)
    if not options.command:
        print(f"built in {HOME}, with the CUDA toolkit in {toolkit}")
        return
    require(find_spec("pygenn") and find_spec("pygenn.cuda_backend"), f"{sys.executable} has no pygenn with CUDA")
    os.environ |= variables(toolkit, options.nvcc)
    try:
        os.execvp(options.command[0], options.command)
    except OSError as error:
        sys.exit(f"{options.command[0]}: {error.strerror}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, epilog=SETTINGS)
    parser.add_argument("--build", action="store_true", help="only build the emulation, which is always done first")
    parser.add_argument("--nvcc", action="store_true", help="the real nvcc compiles everything too: 20 s a network")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="such as: python -m pytest tests/test_cuda.py")
    options = parser.parse_args()
    if bool(options.command) == options.build:
        parser.error("give either a command or --build")
    return options


def find_toolkit():
    """The folder of a CUDA toolkit: CUDA_PATH, the usual one, or one made of NVIDIA's wheels."""
    if given := os.environ.get("CUDA_PATH"):
        require(is_toolkit(Path(given)), f"CUDA_PATH={given} has no include/cuda_runtime.h")
        return Path(given)
    return USUAL if is_toolkit(USUAL) else from_wheels("toolkit", TOOLKIT)


def is_toolkit(folder):
    return (folder / "include" / "cuda_runtime.h").is_file()


def from_wheels(name, packages):
    """A folder with what NVIDIA's wheels hold, from PyPI if it has not been got before."""
    folder = HOME / name
    if not folder.is_dir():
        print(f"getting {', '.join(packages)}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=HOME) as parts:
            run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", parts, *packages)
            made = Path(parts, "nvidia", "cu13")
            (made / "lib64").symlink_to("lib")  # where nvcc looks
            made.rename(folder)
    return folder


def build(toolkit):
    """Make the two libraries, and a folder that GeNN takes for a toolkit. It takes a second, so it is always done."""
    for compiler in ("gcc", "g++"):
        require(shutil.which(compiler), f"{compiler} was not found; on Debian, apt-get install g++")
    for folder in (LIBRARIES, HOME / "bin"):
        folder.mkdir(exist_ok=True)
    include = f"-I{toolkit / 'include'}"
    api = (toolkit / "include" / "cuda_runtime_api.h").read_text()
    version = int(re.search(r"define CUDART_VERSION +(\d+)", api)[1]) // 1000
    library("libcuda.so.1", "fakecuda.c", include)
    library(f"libcudart.so.{version}", "fakecudart.c", include, f"-L{LIBRARIES}", "-lcuda")
    # the real nvcc links the runtime into what it makes, too
    make(HOME / "fakecudart.o", "gcc", "-O1", "-fvisibility=hidden", "-c", "fakecudart.c", include)
    # fortified, longjmp refuses to leave one stack for another
    make(HOME / "threads.o", "g++", "-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-c", "threads.cpp", "-Iinclude", include)
    link(HOME / "bin" / "nvcc", HERE / "nvcc.py")
    link(HOME / "include", HERE / "include")


def library(name, source, *options):
    make(LIBRARIES / name, "gcc", "-O1", "-shared", f"-Wl,-soname,{name}", source, *options)
    link(LIBRARIES / f"{name.split('.')[0]}.so", name)


def make(file, *command):
    """What a compiler makes is put in place as a whole, as other processes may be using what was there."""
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        made = Path(folder, file.name)
        run(*command, "-fPIC", "-Wall", "-o", made)
        made.replace(file)


def link(file, to):
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        made = Path(folder, file.name)
        made.symlink_to(to)
        made.replace(file)


def variables(toolkit, nvcc):
    """What a command needs in its environment."""
    paths = {"LD_LIBRARY_PATH": LIBRARIES, "PATH": Path(sys.executable).parent}
    found = {name: os.pathsep.join(filter(None, [str(path), os.environ.get(name)])) for name, path in paths.items()}
    found |= {"CUDA_PATH": str(HOME), "SNNC_EMULATION_TOOLKIT": str(toolkit)}
    if nvcc:
        require((toolkit / "bin" / "nvcc").is_file(), f"{toolkit} has no bin/nvcc")
        found["SNNC_EMULATION_NVCC"] = "1"
        if not (toolkit / "include" / "curand_kernel.h").is_file() and "NVCC_PREPEND_FLAGS" not in os.environ:
            found["NVCC_PREPEND_FLAGS"] = f"-I{from_wheels('curand', [CURAND]) / 'include'}"
    return found


def run(*command):
    if subprocess.run(list(map(str, command)), cwd=HERE).returncode:
        sys.exit(f"this failed: {' '.join(map(str, command))}")


def require(condition, complaint):
    if not condition:
        sys.exit(complaint)


if __name__ == "__main__":
    main()
