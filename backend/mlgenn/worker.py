"""One process of a pool: reads requests from stdin and answers on stdout, until stdin ends."""

from __future__ import annotations

import os
import pickle
import signal
import sys

from ...ir import load
from .compiled import CompiledGenn


def main() -> None:
    """Build the network that the first message names, then simulate the images of every further one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed must not stand among the answers
    file, options = pickle.load(sys.stdin.buffer)
    compiled = CompiledGenn(load(file), options)
    with compiled.loaded():
        while True:
            try:
                inputs, wanted = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(list(compiled.stream(inputs, wanted)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


if __name__ == "__main__":
    main()
