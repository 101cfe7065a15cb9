"""Accuracy of one model under every way of balancing it, each with settings chosen on training images.

    python benchmarks/accuracy.py MODEL DATA.npz --scale 1/255 [--methods rate few-spike …] [--json FILE]

DATA holds x_train, y_train, x_test, y_test. The first images of x_train calibrate. For each method, and each number of
timesteps, every candidate pipeline is tried on the images of x_train that follow, and the one whose class probabilities
are nearest to the ANN's is then run on the test images. Cost is the time of the run over that of one pass of the
analog network on onnxruntime, in the same process.
"""

import argparse
import json
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import machine
import numpy as np
from rich.console import Console
from rich.table import Table

import snnc
from snnc.agreement import divergence
from snnc.candidates import RATE
from snnc.ir import MaxPool2D
from snnc.passes.calibration import with_logits

LOWERING = "lower-max-pool,lower-leaky-relu,"
POOLING = "lower-max-pool{before-neuron=true},lower-leaky-relu,"
TIMESTEPS = (4, 8, 16, 32, 64)

CORRECTIONS = ("", ",bias-correction", ",bias-correction{rounds=4}")

# By method the candidate pipelines; {k} stands for each of `--k`, and the others run for each of `--timesteps`.
METHODS: Mapping[str, tuple[str, ...]] = {
    **{
        method: tuple(f"data-norm{{{options}{lag}}}{correction}" for options in RATE for correction in CORRECTIONS)
        for method, lag in (("rate", ""), ("rate, lag 2", ",lag=2"), ("rate, lag 3", ",lag=3"))
    },
    "spike-norm": tuple(
        f"spike-norm{options}{correction}"
        for options in ("", "{percentile=99.9}", "{percentile=99.9,per-channel=true}")
        for correction in CORRECTIONS[:2]
    ),
    "tracking": tuple(f"tracking{correction}" for correction in CORRECTIONS),
    "tracking, two spikes a step": tuple(f"tracking{{levels=2}}{correction}" for correction in CORRECTIONS),
    "tracking, T spikes a step": tuple(f"tracking{{levels=127}}{correction}" for correction in CORRECTIONS),
    "few-spike": tuple(
        f"few-spike{{k={{k}}{option}}}{correction}"
        for option in ("", ",per-channel=true")
        for correction in CORRECTIONS
    ),
    "few-spike input": tuple(
        f"few-spike{{k={{k}},input=few-spike{option}}}{correction}"
        for option in ("", ",per-channel=true")
        for correction in CORRECTIONS
    ),
    **{
        f"{method}, weights refitted": tuple(f"{conversion},weight-correction" for conversion in conversions)
        for method, conversions in {
            "rate": ("data-norm{threshold=mse,per-channel=true}",),
            "rate, lag 2": ("data-norm{threshold=mse,per-channel=true,lag=2}",),
            "rate, lag 3": ("data-norm{threshold=mse,per-channel=true,lag=3}",),
            "tracking": ("tracking",),
            "few-spike": ("few-spike{k={k}}", "few-spike{k={k},per-channel=true}"),
            "few-spike input": (
                "few-spike{k={k},input=few-spike}",
                "few-spike{k={k},input=few-spike,per-channel=true}",
            ),
        }.items()
    },
    "largest activation, reset to zero": ("data-norm{reset=zero,v-init=0.0}",),
    "the same, Poisson input": ("data-norm{reset=zero,v-init=0.0,input=poisson}",),
    "few-spike, largest, truncating": ("few-spike{k={k},alpha=max,rounding=false,input=few-spike}",),
}


def main() -> None:
    options = parse_arguments()
    data = np.load(options.data, allow_pickle=False)
    scale = np.float32(Fraction(options.scale))
    x_train = data["x_train"][: options.calibration + options.selection].astype(np.float32) * scale
    x, y = data["x_test"][: options.images].astype(np.float32) * scale, data["y_test"][: options.images].reshape(-1)
    calibration, selection = x_train[: options.calibration], x_train[options.calibration :]
    network = snnc.load(options.model)
    ann, forward = run_analog(network, x, y)
    rows = []
    for method in options.methods:
        for steps, pipeline in choose(network, method, calibration, selection, options).items():
            point = snnc.sweep(network, [pipeline], x, y, calibration=calibration, timesteps=[steps]).points[0]
            rows.append(
                {
                    "method": method,
                    "pipeline": pipeline,
                    "timesteps": steps,
                    "accuracy": next(iter(point.accuracy.values())),
                    "cost": point.seconds / forward,
                    "spikes_per_image": point.spikes_per_image,
                    "synaptic_operations_per_image": point.synaptic_operations_per_image,
                }
            )
    report = {"machine": machine.describe(), "model": options.model.name, "images": len(x), "ann": ann, "rows": rows}
    print(markdown(report)) if options.markdown else show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def run_analog(network: snnc.Network, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy of the analog network, and the seconds of a forward pass."""
    analog = snnc.compile(network)
    analog.predict(x[:128])
    started = time.perf_counter()
    accuracy = float((analog.predict(x).argmax(-1) == y).mean())
    return accuracy, time.perf_counter() - started


def choose(
    network: snnc.Network, method: str, calibration: np.ndarray, x: np.ndarray, options: argparse.Namespace
) -> dict[int, str]:
    """For each number of timesteps the candidate whose outputs on `x` are nearest to the analog network's."""
    lowerings = [LOWERING]
    if "few-spike" in method and any(isinstance(p.neuron, MaxPool2D) for p in network.populations.values()):
        lowerings.append(POOLING)  # exact there, and with fewer populations
    candidates = [lowering + text for lowering in lowerings for text in METHODS[method]]
    if "{k}" in candidates[0]:
        tries = {k: [text.replace("{k}", str(k)) for text in candidates] for k in options.k}
    else:
        tries = dict.fromkeys(options.timesteps, candidates)
    if len(candidates) == 1:
        return {steps: pipelines[0] for steps, pipelines in tries.items()}
    wanted = snnc.compile(with_logits(network)).predict(x)

    def loss(pipeline: str, steps: int) -> float:
        snn = snnc.convert(network, pipeline, calibration=calibration, timesteps=steps)
        return divergence(snnc.compile(snn).predict(x), wanted)

    return {steps: min(pipelines, key=lambda text: loss(text, steps)) for steps, pipelines in tries.items()}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=tuple(METHODS))
    parser.add_argument("--timesteps", nargs="+", type=int, default=TIMESTEPS)
    parser.add_argument("--k", nargs="+", type=int, default=(2, 3, 4, 6, 8))
    parser.add_argument("--images", type=int, help="test images; all by default")
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--selection", type=int, default=1000, help="training images that settings are chosen on")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true", help="print the table as documents have it")
    return parser.parse_args()


def show(report: dict) -> None:
    console = Console(width=150)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), highlight=False)
    title = f"{report['model']}: ANN {report['ann']:.2%} on {report['images']} test images"
    table = Table("method", "T or k", "accuracy", "− ANN", "time / ANN", "spikes per image", "pipeline", title=title)
    for row in report["rows"]:
        table.add_row(
            row["method"],
            str(row["timesteps"]),
            f"{row['accuracy']:.2%}",
            f"{100 * (row['accuracy'] - report['ann']):+.2f}",
            f"{row['cost']:.1f}",
            f"{row['spikes_per_image']:.0f}",
            row["pipeline"].removeprefix(LOWERING),
        )
    console.print(table)


def markdown(report: dict) -> str:
    lines = [
        f"{report['model']}, {report['images']} test images, ANN {report['ann']:.2%}",
        "",
        "| Method | T or k | Accuracy | − ANN | Spikes per image | Pipeline chosen |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in report["rows"]:
        difference = f"{100 * (row['accuracy'] - report['ann']):+.2f}".replace("-", "−")
        lines.append(
            f"| {row['method']} | {row['timesteps']} | {row['accuracy']:.2%} | {difference} "
            f"| {row['spikes_per_image']:.0f} | `{row['pipeline'].removeprefix(LOWERING)}` |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
