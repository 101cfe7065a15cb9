"""One process of a pool: reads requests from stdin and answers on stdout, until stdin ends."""

from __future__ import annotations

import pickle
import sys

from ...ir import load
from .compiled import CompiledGenn
from .process import answers, reply


def main() -> None:
    """Build the network that the first message names, then simulate the images of every further one."""
    stream = answers()
    file, options = pickle.load(sys.stdin.buffer)
    compiled = CompiledGenn(load(file), options)
    with compiled.loaded():
        while True:
            try:
                inputs, wanted = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            reply(stream, list(compiled.stream(inputs, wanted)))


if __name__ == "__main__":
    main()
