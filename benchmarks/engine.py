"""What the embedded engine costs, in forward passes of the ANN on onnxruntime, and how that grows.

    python benchmarks/engine.py [--model FILE.keras …] [--timesteps 8 64 256] [--networks NAME …] [--json FILE]

Networks with random weights on random images, as time does not depend on what they compute, and the models given. In
one process and in turns, each is evaluated as the ANN, at its best batch, and as spiking networks; the medians of
several rounds are divided. Rate-coded: time / (T × forward), constant current, data-norm. Few-spike: time / forward.

Then memory, each in a process of its own: how much more is resident after an evaluation of 10 000 images for 1 024
steps than after one of a single image, against the budget given. And exponents: log time against log T, images,
depth and width, fitted over the range that is printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import machine
import numpy as np

import snnc
from snnc import ir
from snnc.backend.compiled import CompiledSpiking
from snnc.backend.onnxruntime import analog

BATCHES = (16, 64, 128, 256)
MEMORY = "256MB"
SEED = 0


def main() -> None:
    options = parse_arguments()
    if options.memory_of:
        print(resident_growth(*options.memory_of))
        return
    networks = {"MLP 784-512-256-10": mlp(), "LeNet": lenet(), "ResNet-18": resnet18(), "VGG16": vgg16()}
    networks |= {path.stem: snnc.load(path) for path in options.model}
    chosen = {name: network for name, network in networks.items() if name in (options.networks or networks)}
    report = {"machine": machine.describe(), "rows": [row(name, network, options) for name, network in chosen.items()]}
    if chosen == networks:
        report |= {"exponents": exponents(), "memory": memory()}
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="*", default=())
    parser.add_argument("--networks", nargs="*", help="only these rows, and nothing else")
    parser.add_argument("--timesteps", type=int, nargs="+", default=(8, 64, 256))
    parser.add_argument("--k", type=int, nargs="+", default=(3, 8))
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", nargs=2, type=int, metavar=("IMAGES", "T"), help=argparse.SUPPRESS)
    return parser.parse_args()


def row(name: str, network: snnc.Network, options: argparse.Namespace) -> dict:
    """Costs of one network, in its own forward passes."""
    x, y = images(network, options.images), np.zeros(options.images, int)
    forward = best_batch(network, x)
    runs = {
        f"T={steps}": (converted(network, "data-norm{percentile=99.9,per-channel=true}", x, steps), steps)
        for steps in options.timesteps
    }
    runs |= {f"k={k}": (converted(network, f"few-spike{{k={k},per-channel=true}}", x, 1), 1) for k in options.k}
    ratios: dict[str, list[float]] = {label: [] for label in runs}
    for number in range(options.rounds + 1):  # the first makes sessions and buffers
        for label, (snn, steps) in runs.items():
            shown = x[: max(8, options.images * 8 // max(steps, 8))]
            seconds = snn.evaluate(shown, y[: len(shown)], progress=False).seconds / len(shown)
            if number:
                ratios[label].append(seconds / steps / forward())
    costs = {label: statistics.median(values) for label, values in ratios.items()}
    return {"network": name, "macs": macs(network), "forward_ms": 1e3 * forward(), "costs": costs}


def converted(network: snnc.Network, pipeline: str, x: np.ndarray, timesteps: int) -> CompiledSpiking:
    """The spiking network, compiled; max pooling is lowered before, for few-spike into the neurons' own."""
    before = "{before-neuron=true}" if pipeline.startswith("few-spike") else ""
    pipeline = f"lower-max-pool{before},{pipeline}"
    return snnc.compile(snnc.convert(network, pipeline, calibration=x[:32], timesteps=timesteps, progress=False))


def best_batch(network: snnc.Network, x: np.ndarray) -> Callable[[], float]:
    """What measures the seconds per image of a forward pass, at the batch that makes it shortest."""
    compiled = snnc.compile(network)

    def forward(batch: int) -> float:
        analog.LARGEST_BATCH = batch
        started = time.perf_counter()
        compiled.predict(x, progress=False)
        return (time.perf_counter() - started) / len(x)

    best = min(BATCHES, key=lambda batch: min(forward(batch) for _ in range(4)))
    return lambda: statistics.median(forward(best) for _ in range(5))


def exponents() -> dict[str, dict]:
    """For each of T, images, depth and width the exponent of time, and the values that it was fitted on."""
    base = {"steps": 64, "images": 256, "depth": 4, "width": 32}
    values = {"steps": (64, 256, 1024), "images": (128, 512, 2048), "depth": (4, 8, 16), "width": (32, 64, 128)}
    found = {}
    for name, range_ in values.items():
        seconds = [stack_seconds(**base | {name: value}) for value in range_]
        slope = np.polyfit(np.log(range_), np.log(seconds), 1)[0]
        found[name] = {"values": range_, "seconds": seconds, "exponent": float(slope)}
    return found


def stack_seconds(steps: int, images: int, depth: int, width: int) -> float:
    """Seconds to evaluate a stack of 3×3 convolutions at 16 × 16."""
    network = stack([3, *[width] * depth], 16)
    x = np.random.default_rng(SEED).random((images, 16, 16, 3), np.float32)
    snn = converted(network, "data-norm", x, steps)
    snn.evaluate(x[:4], np.zeros(4, int), progress=False)
    return min(snn.evaluate(x, np.zeros(images, int), progress=False).seconds for _ in range(2))


def memory() -> dict[str, float]:
    """The growth of resident memory over that of one image, in bytes, and the budget."""
    grown = subprocess.run(
        [sys.executable, __file__, "--memory-of", "10000", "1024"], capture_output=True, text=True, check=True
    )
    return {"budget": MEMORY, "growth_bytes": float(grown.stdout.split()[-1])}


def resident_growth(images: int, steps: int) -> int:
    """Bytes that become resident during an evaluation, beyond those for a single image."""
    network = lenet()
    x = np.random.default_rng(SEED).random((images, *network.populations["image"].shape), np.float32)
    snn = snnc.compile(
        snnc.convert(network, "data-norm", calibration=x[:32], timesteps=steps, progress=False), memory=MEMORY
    )
    snn.evaluate(x[:1], np.zeros(1, int), progress=False)
    before = machine.peak_from_here()
    snn.evaluate(x, np.zeros(images, int), progress=False)
    return machine.peak() - before


def images(network: snnc.Network, count: int) -> np.ndarray:
    return np.random.default_rng(SEED).random((count, *network.populations[network.inputs[0]].shape), np.float32)


def macs(network: snnc.Network) -> int:
    """Multiplications of one forward pass."""
    total = 0
    for edge in network.connections:
        shape = network.populations[edge.source].shape
        for operator in edge.operators:
            shape = operator.output_shape(shape)
            if isinstance(operator, (ir.Conv2D, ir.Dense)):
                total += operator.weight.size * (shape[0] * shape[1] if len(shape) == 3 else 1)
    return total


# Networks with random weights that keep activations of one size.


def weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)


def mlp(sizes: Sequence[int] = (784, 512, 256, 10)) -> snnc.Network:
    rng, graph = np.random.default_rng(SEED), Graph((sizes[0],))
    last = "image"
    for size in sizes[1:-1]:
        last = graph.add(last, (ir.Dense(weight(rng, graph.shapes[last][0], size)),))
    return graph.network(last, (ir.Dense(weight(rng, graph.shapes[last][0], sizes[-1])),))


def lenet() -> snnc.Network:
    rng, graph, pool = np.random.default_rng(SEED), Graph((28, 28, 1)), ir.AveragePool2D((2, 2), (2, 2))
    last = graph.add("image", (ir.Conv2D(weight(rng, 5, 5, 1, 6)),))
    last = graph.add(last, (pool, ir.Conv2D(weight(rng, 5, 5, 6, 16))))
    for inputs, units in ((256, 120), (120, 84)):
        last = graph.add(last, (*((pool, ir.Flatten()) if inputs == 256 else ()), ir.Dense(weight(rng, inputs, units))))
    return graph.network(last, (ir.Dense(weight(rng, 84, 10)),))


def stack(channels: Sequence[int], size: int) -> snnc.Network:
    rng, graph, last = np.random.default_rng(SEED), Graph((size, size, channels[0])), "image"
    for before, after in pairwise(channels):
        last = graph.add(last, (convolution(rng, before, after),))
    return graph.network(last, (ir.Flatten(), ir.Dense(weight(rng, size * size * channels[-1], 10))))


def resnet18() -> snnc.Network:
    """As for CIFAR-10: a 3×3 stem and four stages of two blocks each, 64 to 512 channels."""
    rng, graph = np.random.default_rng(SEED), Graph((32, 32, 3))
    last, before = graph.add("image", (convolution(rng, 3, 64),)), 64
    for channels in (64, 128, 256, 512):
        for block in range(2):
            stride = 2 if block == 0 and channels > 64 else 1
            inner = graph.add(last, (convolution(rng, before, channels, stride),))
            merged = graph.add(inner, (convolution(rng, channels, channels),))
            short = (ir.Conv2D(weight(rng, 1, 1, before, channels), (stride, stride)),) if before != channels else ()
            graph.connect(last, merged, short)
            last, before = merged, channels
    return graph.network(last, (ir.AveragePool2D((4, 4), (4, 4)), ir.Flatten(), ir.Dense(weight(rng, 512, 10))))


def vgg16() -> snnc.Network:
    """At 32×32, with its max pooling."""
    rng, graph, last, before, size = np.random.default_rng(SEED), Graph((32, 32, 3)), "image", 3, 32
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            last, before = graph.add(last, (convolution(rng, before, channels),)), channels
        last = graph.add(last, (), ir.MaxPool2D((size, size, channels), (2, 2), (2, 2)))
        size //= 2
    last = graph.add(last, (ir.Flatten(), ir.Dense(weight(rng, 512, 512))))
    return graph.network(last, (ir.Dense(weight(rng, 512, 10)),))


def convolution(rng: np.random.Generator, before: int, after: int, stride: int = 1) -> ir.Conv2D:
    return ir.Conv2D(weight(rng, 3, 3, before, after), (stride, stride), ((1, 1), (1, 1)))


class Graph:
    """An analog network under construction, from an input called "image"."""

    def __init__(self, shape: ir.Shape):
        self.shapes = {"image": shape}
        self.populations = [ir.Population("image", shape, ir.Input())]
        self.connections: list[ir.Connection] = []

    def add(self, source: str, operators: tuple[ir.Operator, ...], neuron: ir.AnalogNeuron | None = None) -> str:
        """A population, of rectifiers unless told otherwise, that reads `source`; its name."""
        neuron, name = neuron or ir.Relu(), f"layer{len(self.populations)}"
        self.shapes[name] = neuron.output_shape(ir.output_shape(operators, self.shapes[source]))
        self.populations.append(ir.Population(name, self.shapes[name], neuron))
        self.connect(source, name, operators)
        return name

    def connect(self, source: str, target: str, operators: tuple[ir.Operator, ...]) -> None:
        self.connections.append(ir.Connection(source, target, operators))

    def network(self, source: str, operators: tuple[ir.Operator, ...]) -> snnc.Network:
        """The network, with a linear readout of `source`."""
        readout = self.add(source, operators, ir.Identity())
        return snnc.Network(self.populations, self.connections, ["image"], [readout])


def markdown(report: dict) -> str:
    labels = list(report["rows"][0]["costs"])
    lines = [
        ", ".join(f"{key} {value}" for key, value in report["machine"].items()),
        "",
        "| Network | MMAC | ANN forward, ms | " + " | ".join(labels) + " |",
        "| --- | ---: | ---: |" + " ---: |" * len(labels),
    ]
    for row in report["rows"]:
        costs = " | ".join(f"{row['costs'][label]:.2f}" for label in labels)
        lines.append(f"| {row['network']} | {row['macs'] / 1e6:.1f} | {row['forward_ms']:.3f} | {costs} |")
    if "exponents" not in report:
        return "\n".join(lines)
    lines += ["", "| Time against | Values | Exponent |", "| --- | --- | ---: |"]
    for name, fit in report["exponents"].items():
        lines.append(f"| {name} | {', '.join(map(str, fit['values']))} | {fit['exponent']:.2f} |")
    grown = report["memory"]["growth_bytes"] / 2**20
    lines += ["", f"Resident memory grows by {grown:.0f} MiB at memory={report['memory']['budget']!r}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
