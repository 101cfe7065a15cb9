"""What compiling costs, stage by stage, beside what the source framework itself takes for the same model.

    python benchmarks/compiler.py [VGG16 ResNet50 …] [--model FILE.keras …] [--images 32] [--json FILE]

Models are those of keras.applications with random weights, 224×224, and the files given. Reading and converting are
each measured once in a process of their own, several times over: seconds are medians, memory is the highest peak above
what the process held before, as multiples of the model's weights. Imports, TensorFlow's own start and just-in-time
compilation are not part of it: a tiny model goes through the same stage first.

Converting is canonicalisation, the lowering passes and data-norm{percentile=99.9,per-channel=true}. Calibration is
what data-norm waits for: the images streamed through the network that it is given, with their histograms. Its time per
image, once sessions exist, is divided by that of forward passes in one process and in turns: Keras's `predict` at
its best batch, the ANN in onnxruntime, and the network that is calibrated, in which max pooling is lowered.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np

import snnc
from snnc import passes
from snnc.frontend import keras_model

MODELS = ("VGG16", "ResNet50", "MobileNetV2")
BATCHES = (8, 16, 32)
LOWERED = f"canonicalise,{snnc.LOWERING}"
SEED = 0

Cost = dict[str, float]  # seconds, and bytes of memory


def main() -> None:
    options = parse_arguments()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.stage:
        print(json.dumps(STAGES[options.stage](options.model[0], options)))
        return
    names = options.models or ([] if options.model else MODELS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            file = Path(folder) / f"{name}.keras"
            elsewhere("build", file, options)
            rows.append(row(file, options))
            file.unlink()
    rows += [row(file, options) for file in options.model]
    report = {"machine": machine.describe(), "images": options.images, "rounds": options.rounds, "rows": rows}
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of keras.applications; by default {MODELS}")
    parser.add_argument("--model", type=Path, nargs="+", default=[], help="files, in place of the default models")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # of the one model, in this process
    return parser.parse_args()


def row(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All costs of one model."""
    stages: dict[str, list[Cost]] = {}
    for _ in range(options.rounds):
        costs = {stage: elsewhere(stage, file, options) for stage in ("keras", "file", "model")}
        for stage, cost in (costs | elsewhere("convert", file, options)).items():
            stages.setdefault(stage, []).append(cost)
    costs = {
        stage: {
            "seconds": statistics.median(cost["seconds"] for cost in found),
            "memory": max(cost["memory"] for cost in found),
        }
        for stage, found in stages.items()
    }
    return {"model": file.stem, "costs": costs, **elsewhere("turns", file, options)}


def elsewhere(stage: str, file: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What one stage comes to in a process of its own."""
    numbers = ("--images", str(options.images), "--rounds", str(options.rounds))
    command = [sys.executable, __file__, "--stage", stage, *numbers, "--model", str(file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# The stages, each of which has a process to itself.


def build(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Not measured: the file of a model with random weights."""
    keras, _ = keras_model.packages()
    keras.utils.set_random_seed(SEED)
    make = getattr(keras.applications, file.stem)
    make(weights=None, classifier_activation=None, input_shape=(224, 224, 3)).save(file)
    return {}


def keras_load(file: Path, options: argparse.Namespace) -> Cost:
    """Keras's own reading of the file."""
    keras, _ = keras_model.packages()
    warm_up(lambda tiny: keras.saving.load_model(tiny, compile=False))
    return cost(lambda: keras.saving.load_model(file, compile=False))


def file_load(file: Path, options: argparse.Namespace) -> Cost:
    """snnc's reading of the file."""
    warm_up(snnc.load)
    return cost(lambda: snnc.load(file))


def model_load(file: Path, options: argparse.Namespace) -> Cost:
    """snnc's reading of the model that Keras has read."""
    keras, _ = keras_model.packages()
    model = keras.saving.load_model(file, compile=False)
    warm_up(lambda tiny: snnc.load(keras.saving.load_model(tiny, compile=False)))
    return cost(lambda: snnc.load(model))


def convert(file: Path, options: argparse.Namespace) -> dict[str, Cost]:
    """Canonicalisation, calibration and all else of one conversion."""
    network = snnc.load(file)
    x = images(network, options.images)
    warm_up(converted_file)
    watch = Watch()
    total = seconds(lambda: converted(network, x, watch))
    calibration = watch.costs.pop("calibration")
    rest = {
        "seconds": total - calibration["seconds"],
        "memory": max(cost["memory"] for cost in watch.costs.values()),
    }
    return {"canonicalise": watch.costs["canonicalise"], "calibration": calibration, "rest": rest}


def turns(file: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per image of forward passes and of calibration, in turns; and the size of the model."""
    keras, _ = keras_model.packages()
    model = keras.saving.load_model(file, compile=False)
    network = snnc.load(model)
    lowered = snnc.run_pipeline(network, LOWERED, progress=False)
    x = images(network, options.images)
    ann, calibrated = snnc.compile(network), snnc.compile(lowered)
    runs: dict[str, Callable[[], Any]] = {
        f"Keras, {batch}": lambda batch=batch: model.predict(x, batch_size=batch, verbose=0)
        for batch in BATCHES
        if batch <= len(x)
    }
    runs |= {
        "forward": lambda: ann.predict(x, progress=False),
        "lowered": lambda: calibrated.predict(x, progress=False),
        "calibration": lambda: passes.calibrate(lowered, calibrated.activations(x, progress=False)),
    }
    for run in runs.values():
        run()
    rounds = [{label: seconds(run) / len(x) for label, run in runs.items()} for _ in range(options.rounds)]
    medians = {label: statistics.median(times[label] for times in rounds) for label in runs}
    best = min((label for label in runs if label.startswith("Keras")), key=medians.__getitem__)
    ratios = {
        label: statistics.median(times["calibration"] / times[other] for times in rounds)
        for label, other in (("Keras", best), ("forward", "forward"), ("lowered", "lowered"))
    }
    weights = sum(4 * weight.size for weight in model.get_weights())
    return {"weights": weights, "per_image": medians, "Keras": best, "calibration_over": ratios}


STAGES: Mapping[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "build": build,
    "keras": keras_load,
    "file": file_load,
    "model": model_load,
    "convert": convert,
    "turns": turns,
}


class Watch(passes.Instrument):
    """What each pass costs, and calibration apart, which is called for before the pass that would."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}

    def before(self, number: int, step: passes.Pass, network: snnc.Network, context: passes.Context) -> None:
        if isinstance(step, passes.DataNorm):
            self.costs["calibration"] = cost(lambda: context.statistics(network))
        self._held, self._started = machine.peak_from_here(), time.perf_counter()

    def after(
        self, number: int, step: passes.Pass, before: snnc.Network, after: snnc.Network, context: passes.Context
    ) -> None:
        taken = time.perf_counter() - self._started
        self.costs[step.name] = {"seconds": taken, "memory": machine.peak() - self._held}


def warm_up(work: Callable[[Any], Any]) -> None:
    """Do the same with the file of a model that is read and converted in no time, but by the same code."""
    keras, _ = keras_model.packages()
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.MaxPooling2D(), keras.layers.Flatten()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tiny.keras"
        keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(2)]).save(file)
        work(file)


def converted_file(file: Path) -> None:
    network = snnc.load(file)
    converted(network, images(network, 32))


def converted(network: snnc.Network, x: np.ndarray, *instruments: passes.Instrument) -> snnc.Network:
    return snnc.convert(network, calibration=x, instruments=instruments, progress=False)


def images(network: snnc.Network, count: int) -> np.ndarray:
    return np.random.default_rng(SEED).random((count, *network.populations[network.inputs[0]].shape), np.float32)


def cost(work: Callable[[], Any]) -> Cost:
    """Seconds, and the peak of memory above what is held now, in bytes."""
    held = machine.peak_from_here()
    taken = seconds(work)
    return {"seconds": taken, "memory": machine.peak() - held}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def markdown(report: dict[str, Any]) -> str:
    """Where it ran, and three tables."""
    rows = report["rows"]
    return "\n\n".join(
        [
            ", ".join(f"{key} {value}" for key, value in report["machine"].items()),
            f"Calibration and forward passes on {report['images']} images.",
            table(["Seconds", "MB of weights", "Keras", "file", "file / Keras", *HEADINGS], map(stage_seconds, rows)),
            table(["Memory, × weights", "Keras", "file", *HEADINGS], map(stage_memory, rows)),
            table(
                ["Per image", "Keras, ms", "at batch", "ANN, ms", "lowered, ms", "calibration, ms", *OVER],
                map(turn, rows),
            ),
        ]
    )


HEADINGS = ("model in memory", "canonicalise", "calibration", "rest of convert")
OVER = ("calibration / Keras", "calibration / ANN", "calibration / lowered")


def table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stage_seconds(row: dict[str, Any]) -> list[str]:
    keras, file, *others = (cost["seconds"] for cost in row["costs"].values())
    numbers = [keras, file, file / keras, *others]
    return [row["model"], f"{row['weights'] / 2**20:.0f}", *(f"{number:.2f}" for number in numbers)]


def stage_memory(row: dict[str, Any]) -> list[str]:
    return [row["model"], *(f"{cost['memory'] / row['weights']:.2f}" for cost in row["costs"].values())]


def turn(row: dict[str, Any]) -> list[str]:
    times = row["per_image"]
    milliseconds = [f"{1e3 * times[label]:.1f}" for label in ("forward", "lowered", "calibration")]
    keras = [f"{1e3 * times[row['Keras']]:.1f}", row["Keras"].split()[-1]]
    return [row["model"], *keras, *milliseconds, *(f"{ratio:.2f}" for ratio in row["calibration_over"].values())]


if __name__ == "__main__":
    main()
