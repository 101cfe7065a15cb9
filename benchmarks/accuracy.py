"""Accuracy against timesteps, and cost, of one model under several pipelines.

    python benchmarks/accuracy.py MODEL DATA.npz --scale 1/255 [--json FILE]

DATA holds x_train, y_train, x_test, y_test. Calibration uses the first images of x_train only. Cost is the
spiking network's time over that of T passes of the analog network on onnxruntime, in the same run.
"""

import argparse
import json
import time
from fractions import Fraction
from pathlib import Path

import machine
import numpy as np
from rich.console import Console
from rich.table import Table

import snnc

PIPELINES = (
    "data-norm",
    "data-norm{per-channel=true}",
    "data-norm{percentile=99.9}",
    "data-norm{percentile=99.9,per-channel=true}",
    "data-norm{percentile=99.0,per-channel=true}",
    "data-norm{reset=zero,v-init=0.0}",
)


def main() -> None:
    options = parse_arguments()
    data = np.load(options.data, allow_pickle=False)
    scale = np.float32(Fraction(options.scale))
    x_train = data["x_train"][: options.calibration].astype(np.float32) * scale
    x, y = data["x_test"][: options.images].astype(np.float32) * scale, data["y_test"][: options.images]

    network = snnc.load(options.model)
    analog = snnc.compile(network)
    analog.predict(x[:128])
    started = time.perf_counter()
    ann = float((analog.predict(x).argmax(-1) == y.reshape(-1)).mean())
    forward = time.perf_counter() - started

    rows = []
    for pipeline in options.pipelines:
        started = time.perf_counter()
        snn = snnc.convert(network, pipeline, calibration=x_train, timesteps=options.timesteps)
        converting = time.perf_counter() - started
        compiled = snnc.compile(snn)
        compiled.evaluate(x[:2], y[:2])  # just-in-time compilation
        result = compiled.evaluate(x, y)
        rows.append(
            {
                "pipeline": pipeline,
                "accuracy": result.accuracy.tolist(),
                "convert_seconds": converting,
                "seconds": result.seconds,
                "cost": result.seconds / (options.timesteps * forward),
                "spikes_per_image": sum(int(c.sum()) for c in result.spike_counts.values()) / len(x),
            }
        )
    report = {"machine": machine.describe(), "model": options.model.name, "images": len(x), "ann": ann, "rows": rows}
    show(report, options.timesteps)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--timesteps", type=int, default=64)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--pipelines", nargs="+", default=PIPELINES)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def show(report: dict, timesteps: int) -> None:
    console = Console(width=160)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), highlight=False)
    steps = [2**k for k in range(2, timesteps.bit_length())]
    title = f"{report['model']}: ANN {report['ann']:.2%} on {report['images']} images; SNN accuracy after t timesteps"
    table = Table("pipeline", *(f"t={t}" for t in steps), "time / (T × ANN)", "spikes per image", title=title)
    for row in report["rows"]:
        accuracies = (f"{row['accuracy'][t - 1]:.2%}" for t in steps)
        table.add_row(row["pipeline"], *accuracies, f"{row['cost']:.2f}", f"{row['spikes_per_image']:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
