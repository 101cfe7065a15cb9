"""Where adding up the weights of single spikes would pay: the density of spikes at which it is as fast as onnxruntime.

    python benchmarks/sparsity.py [--steps 32] [--json FILE]

For 3×3 convolutions and dense layers of several sizes: the time of onnxruntime for `steps` time steps of one image, on
one thread, over that of a compiled loop which adds a row of weights to the output for each spike (for a convolution one
contiguous row for each row of its kernel), at several densities. Above 1 the loop is faster. The crossover is
interpolated.
"""

import argparse
import json
import time
from pathlib import Path

import machine
import numpy as np
from numba import njit

from snnc.backend.onnxruntime.emit import GraphBuilder

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
CONVOLUTIONS = ((32, 32, 32), (16, 64, 64), (8, 128, 128), (4, 256, 256))  # size, input channels, filters
DENSE = ((784, 256), (2048, 256), (4096, 4096))
ROUNDS = 7


def main() -> None:
    options = parse_arguments()
    rng = np.random.default_rng(0)
    rows = [convolution(rng, options.steps, *shape) for shape in CONVOLUTIONS]
    rows += [dense(rng, options.steps, *shape) for shape in DENSE]
    report = {"machine": machine.describe(), "steps": options.steps, "rows": rows}
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def convolution(rng: np.random.Generator, steps: int, size: int, channels: int, filters: int) -> dict:
    weight = rng.normal(size=(3, 3, channels, filters)).astype(np.float32)
    graph = GraphBuilder()
    image = graph.input("x", (channels, size, size))
    kernel = graph.array(weight.transpose(3, 2, 0, 1))
    graph.output(graph.node("Conv", [image, kernel], pads=(1, 1, 1, 1)), "y", (filters, size, size))
    # the taps of one kernel row meet neighbouring outputs, the last tap the first of them
    flat = np.ascontiguousarray(weight[:, ::-1].transpose(0, 2, 1, 3)).reshape(-1)
    first, starts, rows, lengths = _taps(size, channels, filters)
    session, ratios = graph.session(1), []
    for density in DENSITIES:
        spikes = rng.random((steps, size, size, channels)) < density
        dense_x = np.ascontiguousarray(np.moveaxis(spikes, -1, 1), np.float32)
        out = np.zeros((steps, size * size * filters), np.float32)
        arguments = (spikes.reshape(steps, -1), channels, 3 * filters, first, starts, rows, lengths, flat, out)
        ratios.append(ratio(lambda x=dense_x: session.run(None, {"x": x}), lambda a=arguments: add_rows(*a)))
        ours = out.reshape(steps, size, size, filters)
        np.testing.assert_allclose(ours, np.moveaxis(session.run(None, {"x": dense_x})[0], 1, -1), atol=1e-3)
    return {"edge": f"convolution {size}×{size}×{channels} to {filters}", "ratios": ratios}


def dense(rng: np.random.Generator, steps: int, inputs: int, outputs: int) -> dict:
    weight = rng.normal(size=(inputs, outputs)).astype(np.float32)
    graph = GraphBuilder()
    product = graph.node("MatMul", [graph.input("x", (inputs,)), graph.array(weight)])
    graph.output(product, "y", (outputs,))
    one = np.zeros(1, np.int64)
    session, ratios = graph.session(1), []
    for density in DENSITIES:
        spikes = rng.random((steps, inputs)) < density
        dense_x = spikes.astype(np.float32)
        out = np.zeros((steps, outputs), np.float32)
        arguments = (spikes, inputs, outputs, np.array([0, 1]), one, one, np.array([outputs]), weight.reshape(-1), out)
        ratios.append(ratio(lambda x=dense_x: session.run(None, {"x": x}), lambda a=arguments: add_rows(*a)))
        np.testing.assert_allclose(out, session.run(None, {"x": dense_x})[0], atol=1e-2)
    return {"edge": f"dense {inputs} to {outputs}", "ratios": ratios}


def _taps(size: int, channels: int, filters: int) -> tuple[np.ndarray, ...]:
    """For each input pixel the runs of outputs that it meets: where they start, in the output and the weights."""
    first, starts, rows, lengths = [0], [], [], []
    for y in range(size):
        for x in range(size):
            for tap in range(3):
                target = y + 1 - tap
                if 0 <= target < size:
                    left, right = max(x - 1, 0), min(x + 1, size - 1)
                    starts.append((target * size + left) * filters)
                    rows.append((tap * channels * 3 + (left - x + 1)) * filters)
                    lengths.append((right - left + 1) * filters)
            first.append(len(starts))
    return tuple(np.array(values) for values in (first, starts, rows, lengths))


@njit(cache=True)
def add_rows(
    spikes: np.ndarray,
    channels: int,
    stride: int,
    first: np.ndarray,
    starts: np.ndarray,
    rows: np.ndarray,
    lengths: np.ndarray,
    weight: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add, for each spike, its weights to the outputs that it meets. Unsigned indices, so that loops are vectorised."""
    for t in range(len(spikes)):
        summed, now = out[t], spikes[t]
        summed[:] = 0
        for pixel in range(len(first) - 1):
            for channel in range(channels):
                if not now[pixel * channels + channel]:
                    continue
                for run in range(first[pixel], first[pixel + 1]):
                    target, source = np.uint64(starts[run]), np.uint64(rows[run] + channel * stride)
                    for place in range(np.uint64(lengths[run])):
                        summed[target + place] += weight[source + place]


def ratio(theirs: object, ours: object) -> float:
    """The shortest time of one over that of the other, measured in turns."""
    seconds: dict[object, list[float]] = {theirs: [], ours: []}
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
