"""Accuracy and time of ml_genn_tf's converters on one model, to compare with those of benchmarks/accuracy.py.

    python benchmarks/ml_genn_tf_reference.py MODEL DATA.npz --scale 1/255 [--json FILE]

Needs an environment of its own: TensorFlow before 2.15, ml_genn, ml_genn_tf and pygenn, but not snnc. MODEL is a
Keras 3 file of a Sequential network, which that TensorFlow cannot read: its architecture is built again from the
file's configuration and takes the file's weights. DATA holds x_train, x_test and y_test; normalisation uses the first
images of x_train only. All runs on GeNN's single-threaded CPU backend, compiled with optimisation, image by image;
CPU seconds are those of the run, to compare where the machine is shared.

few-spike spends k timesteps in each layer, the others T timesteps in all. An error that a converter raises is its
result.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import h5py
import machine
import numpy as np
import tensorflow as tf
from ml_genn_tf.converters import Converter, DataNorm, FewSpike, Simple, spike_normalise

# What of a layer's Keras 3 configuration its tf.keras namesake needs and knows.
FIELDS = {
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "activation", "use_bias"),
    "Dense": ("units", "activation", "use_bias"),
    "AveragePooling2D": ("pool_size", "strides", "padding"),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Dropout": ("rate",),
    "Flatten": (),
}
# ml_genn prefers SPARSE convolutions, but two of them in one network abort GeNN's code generator; this takes TOEPLITZ.
GENN = {"prefer_in_memory_connect": False, "backend": "single_threaded_cpu", "optimize_code": True}

Batches = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Trial:
    """One converter with one input neuron and its number of timesteps: k for few-spike, T for the others."""

    converter: str
    input: str
    timesteps: int


def main() -> None:
    options = parse_arguments()
    os.environ.setdefault("MAKEFLAGS", "--silent")  # or GeNN's builds print amid the table
    data = np.load(options.data, allow_pickle=False)
    scale = np.float32(Fraction(options.scale))
    x, y = data["x_test"][: options.images].astype(np.float32) * scale, data["y_test"][: options.images].reshape(-1)
    x_train = data["x_train"][: options.calibration].astype(np.float32) * scale
    batches = [(image[np.newaxis], np.zeros(1)) for image in x_train]  # labels are asked for but not used

    model = load(options.model)
    ann = float((model.predict(x, verbose=0).argmax(-1) == y).mean())
    facts = machine.describe() | {"ml_genn_tf": version("ml_genn_tf")}
    facts = {key: value for key, value in facts.items() if value != "not installed"}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{options.model.name}: ANN {ann:.2%} on {len(x)} images")
    print(f"{'converter':<11} {'input':<10} {'T or k':>6} {'accuracy':>9} {'build s':>8} {'run s':>8} {'CPU s':>8}")
    rows = []
    for trial in trials(options):
        rows.append(asdict(trial) | measure(trial, model, batches, x, y, options.seed))
        show(rows[-1])
    report = {"machine": facts, "model": options.model.name, "images": len(x), "calibration": len(batches), "ann": ann}
    if options.json:
        options.json.write_text(json.dumps(report | {"rows": rows}, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scale", default="1")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--timesteps", type=int, nargs="+", default=(4, 8, 16, 32, 64, 128))
    parser.add_argument("--k", type=int, nargs="+", default=(3, 4, 6, 8))
    parser.add_argument("--seed", type=int, default=1, help="of the Poisson input; 0 lets GeNN choose")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load(path: Path) -> tf.keras.Model:
    """The Sequential network of a Keras 3 file, for tf.keras."""
    with zipfile.ZipFile(path) as archive:
        specifications = json.loads(archive.read("config.json"))["config"]["layers"]
        first, *others = ((each["class_name"], each["config"]) for each in specifications)
        image = tf.keras.Input(first[1]["batch_shape"][1:], name=first[1]["name"])
        model = tf.keras.Sequential([image, *(layer(*each) for each in others)])
        with archive.open("model.weights.h5") as stream, h5py.File(stream) as file:
            set_weights(model, file["layers"])
    return model


def layer(kind: str, configuration: dict) -> tf.keras.layers.Layer:
    """The tf.keras layer of one in a Keras 3 configuration, still without weights."""
    if kind not in FIELDS:
        raise SystemExit(f"layer {configuration['name']!r} is a {kind}; only {', '.join(FIELDS)} can be built again")
    known = {field: configuration[field] for field in FIELDS[kind]}
    return getattr(tf.keras.layers, kind)(name=configuration["name"], **known)


def set_weights(model: tf.keras.Model, groups: h5py.Group) -> None:
    """Keras 3 files name a layer by its class, in lower case, and count from the second: conv2d, conv2d_1."""
    seen: dict[str, int] = {}
    for each in model.layers:
        kind = type(each).__name__.lower()
        count = seen[kind] = seen.get(kind, -1) + 1
        if each.weights:
            stored = groups[f"{kind}_{count}" if count else kind]["vars"]
            each.set_weights([stored[str(k)][()] for k in range(len(stored))])


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    for source in ("poisson", "if"):
        yield from (Trial("data-norm", source, timesteps) for timesteps in options.timesteps)
    yield from (Trial("few-spike", "few-spike", k) for k in options.k)
    yield Trial("spike-norm", "poisson", max(options.timesteps))


def measure(trial: Trial, model: tf.keras.Model, batches: Batches, x: np.ndarray, y: np.ndarray, seed: int) -> dict:
    """The accuracy, and the seconds to convert and build and to run all images; or the first line of the error."""
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # GeNN builds in the current folder
            return run(trial, model, batches, x, y, seed)
    except Exception as error:
        first, *_ = str(error).splitlines() or [""]
        return {"error": f"{type(error).__name__}: {first}"}


def run(trial: Trial, model: tf.keras.Model, batches: Batches, x: np.ndarray, y: np.ndarray, seed: int) -> dict:
    """Convert, build and evaluate in the current folder."""
    started = time.perf_counter()
    converter = make_converter(trial, batches)
    network, inputs, outputs, _ = converter.convert(model)
    if trial.converter == "spike-norm":
        count = len(batches)
        spike_normalise(network, inputs, outputs, batches, trial.timesteps, num_batches=count, rng_seed=seed, **GENN)
    compiler = converter.create_compiler(rng_seed=seed, **GENN)
    compiled = compiler.compile(network, inputs=inputs, outputs=outputs)
    with compiled:
        built, used = time.perf_counter(), time.process_time()
        metrics, _ = compiled.evaluate({inputs[0]: x}, {outputs[0]: y}, callbacks=[])
        seconds, cpu_seconds = time.perf_counter() - built, time.process_time() - used
    return {
        "accuracy": float(metrics[outputs[0]].result),
        "build_seconds": built - started,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


def make_converter(trial: Trial, batches: Batches) -> Converter:
    if trial.converter == "data-norm":
        return DataNorm(trial.timesteps, norm_data=[batches], input_type=trial.input)
    if trial.converter == "few-spike":
        return FewSpike(trial.timesteps, norm_data=[batches])
    return Simple(trial.timesteps, input_type=trial.input)


def show(row: dict) -> None:
    result = row.get("error")
    if not result:
        times = (f"{row[key]:>8.1f}" for key in ("build_seconds", "seconds", "cpu_seconds"))
        result = f"{row['accuracy']:>9.2%} {' '.join(times)}"
    print(f"{row['converter']:<11} {row['input']:<10} {row['timesteps']:>6} {result}", flush=True)


if __name__ == "__main__":
    main()
