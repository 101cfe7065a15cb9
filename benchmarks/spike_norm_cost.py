"""What spike-norm costs, in evaluations of the same images for as many timesteps, against the depth of the network.

    python benchmarks/spike_norm_cost.py [--layers 4 8 16] [--json FILE]

The networks are plain stacks of 3×3 convolutions with random weights on random images: time does not depend on what
they compute. One spiking network is balanced and evaluated in turn, and the median of the ratios is reported.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import machine
import numpy as np
from rich.console import Console
from rich.table import Table

import snnc
from snnc import ir

SEED = 0
SIZE, CHANNELS, CLASSES = 16, 32, 10
PIPELINES = ("spike-norm", "spike-norm{percentile=99.9}", "data-norm,bias-correction")


def main() -> None:
    options = parse_arguments()
    rng = np.random.default_rng(SEED)
    x = rng.random((options.images, SIZE, SIZE, 3), np.float32)
    y = np.zeros(options.images, np.int64)
    rows = [
        {"layers": layers, "pipeline": pipeline, "ratio": cost(stack(layers, rng), pipeline, x, y, options)}
        for layers in options.layers
        for pipeline in PIPELINES
    ]
    report = {"machine": machine.describe(), "timesteps": options.timesteps, "images": options.images, "rows": rows}
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def stack(layers: int, rng: np.random.Generator) -> ir.Network:
    """`layers` rectified convolutions and a dense readout; the weights keep activations of one size."""
    names = ["image", *(f"conv{number}" for number in range(1, layers + 1)), "classes"]
    populations = [
        ir.Population("image", (SIZE, SIZE, 3), ir.Input()),
        *(ir.Population(name, (SIZE, SIZE, CHANNELS), ir.Relu()) for name in names[1:-1]),
        ir.Population("classes", (CLASSES,), ir.Identity()),
    ]
    channels = [3, *[CHANNELS] * layers]
    operators = [
        ir.Conv2D(rng.normal(0, np.sqrt(2 / (9 * fan)), (3, 3, fan, CHANNELS)), padding=((1, 1), (1, 1)))
        for fan in channels[:-1]
    ]
    readout = ir.Dense(rng.normal(0, 0.01, (SIZE * SIZE * CHANNELS, CLASSES)))
    connections = [
        ir.Connection(source, target, (operator,))
        for source, target, operator in zip(names, names[1:], [*operators, readout], strict=False)
    ]
    return ir.Network(populations, connections, ["image"], ["classes"])


def cost(network: ir.Network, pipeline: str, x: np.ndarray, y: np.ndarray, options: argparse.Namespace) -> float:
    """The median of seconds of converting over seconds of evaluating, both on the images `x`."""
    ratios = []
    for repeat in range(options.repeats + 1):  # the first is just-in-time compilation
        started = time.perf_counter()
        snn = snnc.convert(network, pipeline, calibration=x, timesteps=options.timesteps, progress=False)
        converting = time.perf_counter() - started
        if repeat:
            ratios.append(converting / snnc.compile(snn).evaluate(x, y, progress=False).seconds)
    return statistics.median(ratios)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", type=int, default=(4, 8, 16))
    parser.add_argument("--timesteps", type=int, default=32)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def show(report: dict) -> None:
    console = Console(width=120)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), highlight=False)
    title = f"converting / evaluating, {report['images']} images for {report['timesteps']} timesteps"
    layers = sorted({row["layers"] for row in report["rows"]})
    table = Table("pipeline", *(f"{n} layers" for n in layers), title=title)
    for pipeline in PIPELINES:
        ratios = {row["layers"]: row["ratio"] for row in report["rows"] if row["pipeline"] == pipeline}
        table.add_row(pipeline, *(f"{ratios[n]:.2f}" for n in layers))
    console.print(table)


if __name__ == "__main__":
    main()
