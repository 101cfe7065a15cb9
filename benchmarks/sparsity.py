"""Where adding up the weights of single spikes pays: the density of spikes at which it is as fast as onnxruntime.

    python benchmarks/sparsity.py [--steps 32] [--json FILE]

For 3×3 convolutions, some after 2×2 average pooling, and dense layers of several sizes: the time of onnxruntime for
`steps` time steps of one image, on one thread and from channels first to channels first, over that of the engine's own
kernel (`backend/onnxruntime/events.py`), at several densities. Above 1 the kernel is faster. The crossover is
interpolated.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np

from snnc import ir
from snnc.backend.onnxruntime.emit import GraphBuilder, emit_operators
from snnc.backend.onnxruntime.events import SLACK, Events

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
# size, input channels, filters, pooling
CONVOLUTIONS = ((32, 32, 32, 1), (16, 64, 64, 1), (8, 128, 128, 1), (4, 256, 256, 1), (32, 32, 64, 2), (16, 64, 128, 2))
DENSE = ((784, 256), (2048, 256), (4096, 4096))
ROUNDS = 7


def main() -> None:
    options = parse_arguments()
    rng = np.random.default_rng(0)
    rows = [convolution(rng, options.steps, *shape) for shape in CONVOLUTIONS]
    rows += [
        edge(rng, options.steps, f"dense {n} to {m}", (ir.Dense(rng.normal(size=(n, m)).astype(np.float32)),), (n,))
        for n, m in DENSE
    ]
    report = {"machine": machine.describe(), "steps": options.steps, "rows": rows}
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def convolution(rng: np.random.Generator, steps: int, size: int, channels: int, filters: int, pool: int) -> dict:
    weight = rng.normal(size=(3, 3, channels, filters)).astype(np.float32)
    operators = (ir.Conv2D(weight, padding=((1, 1), (1, 1))),)
    if pool > 1:
        operators = (ir.AveragePool2D((pool, pool), (pool, pool)), *operators)
    name = f"convolution {size}×{size}×{channels} to {filters}" + (", pooled" if pool > 1 else "")
    return edge(rng, steps, name, operators, (size, size, channels))


def edge(
    rng: np.random.Generator, steps: int, name: str, operators: tuple[ir.Operator, ...], shape: tuple[int, ...]
) -> dict:
    """The ratios of one connection."""
    target = ir.output_shape(operators, shape)
    graph = GraphBuilder()
    value = emit_operators(graph, graph.input("x", channels_first(shape)), operators, shape)
    graph.output(value, "y", channels_first(target))
    session, events, ratios = graph.session(1), Events.of("x", operators, shape), []
    assert events is not None
    for density in DENSITIES:
        spikes = (rng.random((steps, *shape)) < density).astype(np.float32)
        turned = np.ascontiguousarray(np.moveaxis(spikes, -1, 1))
        flat, out = spikes.reshape(steps, -1), np.empty(steps * int(np.prod(target)) + SLACK, np.float32)

        def theirs(x: np.ndarray = turned) -> np.ndarray:
            return session.run(None, {"x": x})[0]

        def ours(x: np.ndarray = flat, out: np.ndarray = out) -> None:
            events.add(x, out, fresh=True)

        ratios.append(ratio(theirs, ours))
        found = out[:-SLACK].reshape(steps, *target)
        np.testing.assert_allclose(found, np.moveaxis(theirs(), 1, -1), atol=1e-2)
    return {"edge": name, "ratios": ratios}


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[-1], *shape[:-1])


def ratio(theirs: Callable[[], object], ours: Callable[[], object]) -> float:
    """The shortest time of one over that of the other, measured in turns."""
    seconds: dict[Callable[[], object], list[float]] = {theirs: [], ours: []}
    for _ in range(ROUNDS):
        for run, times in seconds.items():
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    return min(seconds[theirs]) / min(seconds[ours])


def crossover(ratios: list[float]) -> str:
    """The density at which the ratio is 1, interpolated in logarithms."""
    if ratios[0] < 1 or ratios[-1] > 1:
        return f"below {DENSITIES[0]:.0%}" if ratios[0] < 1 else f"above {DENSITIES[-1]:.0%}"
    return f"{np.exp(np.interp(0, -np.log(ratios), np.log(DENSITIES))):.0%}"


def markdown(report: dict) -> str:
    lines = [
        ", ".join(f"{key} {value}" for key, value in report["machine"].items()),
        "",
        "| Edge | " + " | ".join(f"{density:.0%}" for density in DENSITIES) + " | Crossover |",
        "| --- |" + " ---: |" * (len(DENSITIES) + 1),
    ]
    for row in report["rows"]:
        ratios = " | ".join(f"{value:.2f}" for value in row["ratios"])
        lines.append(f"| {row['edge']} | {ratios} | {crossover(row['ratios'])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
