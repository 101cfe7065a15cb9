"""What lower-functions makes of each function: the certified largest error, by pieces. Prints markdown.

    python benchmarks/expansion.py [--pieces 4 8 16 32]

Functions that tend to a line on both sides are approximated everywhere; the others on the range that is given, and
beyond it on the side on which they tend to a line.
"""

import argparse
import math

from snnc.passes.expansion import at_most, expansion, tends_to_lines

PIECES = (4, 8, 16, 32)
FUNCTIONS = (
    *("silu", "gelu", "mish", "hard_swish", "elu", "selu", "softplus", "log_sigmoid", "squareplus"),
    *("sigmoid", "tanh", "erf", "softsign", "tanh_shrink", "abs"),
    *("exp", "square", "sin", "sqrt", "log", "reciprocal", "rsqrt"),
)
RANGES = {
    "exp": (-8.0, 0.0),
    "square": (-1.0, 1.0),
    "sin": (-math.pi, math.pi),
    "sqrt": (0.0, 4.0),
    "log": (0.1, 10.0),
    "reciprocal": (0.1, 10.0),
    "rsqrt": (0.1, 10.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, nargs="+", default=PIECES)
    pieces = parser.parse_args().pieces
    print("| Function | Inputs | " + " | ".join(f"{number} pieces" for number in pieces) + " |")
    print("| --- | --- " + "| ---: " * len(pieces) + "|")
    for name in FUNCTIONS:
        low, high = inputs(name)
        errors = (expansion(name, 1.0, number, low, high).bound for number in pieces)
        print(
            f"| {name} | {said(low, high)} | "
            + " | ".join(at_most(error) if error > 1e-9 else "0" for error in errors)
            + " |"
        )


def inputs(name: str) -> tuple[float, float]:
    left, right = tends_to_lines(name, 1.0)
    low, high = RANGES.get(name, (-math.inf, math.inf))
    return -math.inf if left else low, math.inf if right else high


def said(low: float, high: float) -> str:
    if low == -math.inf:
        return "all" if high == math.inf else f"up to {high:.3g}"
    return f"{low:.3g} … {high:.3g}"


if __name__ == "__main__":
    main()
