#!/usr/bin/env python3
"""nvcc's part for GeNN, on a machine without a GPU: kernels become functions of the host, which g++ compiles.

The environment comes from emulate.py. With SNNC_EMULATION_NVCC the real nvcc is told to do everything first, so that
what it refuses is refused, and kernels take the registers and the shared memory that it says.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["CUDA_PATH"])
TOOLKIT = Path(os.environ["SNNC_EMULATION_TOOLKIT"])
REGISTERS = 32  # of each kernel, so that small blocks fill a GPU
SIZES = {"unsigned int": 4, "float": 4, "double": 8}


def main(arguments):
    source = Path(arguments[-1])
    if "SNNC_EMULATION_NVCC" in os.environ:
        real(arguments)
    if "-M" in arguments:
        print(f"{source.with_suffix('.o')}: {source}")
    elif "-cubin" in arguments:
        if "SNNC_EMULATION_NVCC" not in os.environ:
            Path(output(arguments)).write_text("\n".join(kernels(source.read_text())))
    elif "-dc" in arguments:
        compile_for_the_host(source)
    elif "--shared" in arguments:
        objects = [argument for argument in arguments if argument.endswith(".o")]
        ours = [HOME / "threads.o", HOME / "fakecudart.o", f"-L{HOME}/lib", "-lcuda"]
        run("g++", "-shared", "-o", output(arguments), *objects, *ours)
    else:
        sys.exit(f"the emulated nvcc knows no {' '.join(arguments)}")


def real(arguments):
    """Have the real nvcc do it; what it links is a library that nobody loads."""
    if "--shared" in arguments:
        arguments = ["real.so" if argument == output(arguments) else argument for argument in arguments]
        arguments = [f"real-{argument}" if argument.endswith(".o") else argument for argument in arguments]
    elif "-dc" in arguments:
        arguments = [*arguments, "-o", f"real-{Path(arguments[-1]).with_suffix('.o')}"]
    run(TOOLKIT / "bin" / "nvcc", *arguments)


def output(arguments):
    return arguments[arguments.index("-o") + 1]


def kernels(text):
    """A line for each kernel of a source: its name, registers, and the bytes that a block's threads share."""
    for part in re.split(r"__global__\s+void\s+", text)[1:]:
        name = re.match(r"\w+", part)[0]
        shared = sum(map(size, re.findall(r"__shared__\s+(\w[\w ]*?)\s+\w+((?:\[\d+\])*);", part)))
        yield f"{name} {REGISTERS} {shared}"


def size(variable):
    kind, dimensions = variable
    return SIZES[kind] * math.prod(map(int, re.findall(r"\d+", dimensions)))


def compile_for_the_host(source):
    text = re.sub(
        r"(\w+)<<<\s*(\w+)\s*,\s*(\w+)\s*>>>\((.*?)\);", r"launch(\2, \3, [&] { \1(\4); });", source.read_text()
    )
    translated = source.with_suffix(".emulated.cpp")
    translated.write_text(text)
    includes = [f"-I{HOME}/include", f"-I{TOOLKIT}/include"]
    run("g++", "-std=c++17", "-O1", "-w", "-fPIC", *includes, "-c", translated, "-o", source.with_suffix(".o"))


def run(*command):
    done = subprocess.run(command)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
