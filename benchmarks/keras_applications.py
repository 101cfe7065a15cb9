"""Every model of keras.applications at its documented input size: read or refused, how exactly, and at what cost.

    python benchmarks/keras_applications.py [--json FILE] [--markdown docs/models.md] [MODEL ...]
    python benchmarks/keras_applications.py --convert [--size 64] [MODEL ...]

Weights are random, and so are the statistics of batch normalisation. Each model is read in a process of its own, and
its `.keras` file in another. The error is the largest difference of the logits from Keras's, relative to the largest
logit; where a deep random network amplifies the rounding of single precision, the error of Keras itself, from what it
gives in double precision, is beside it. Memory is the peak while reading, above what the process held before: of a
file this includes Keras's own model.

With `--convert`, models are read for small images of random numbers and converted with few-spike neurons, without
training: the table has the correlation of the logits with Keras's, and that of what is left of both where the mean over
images is subtracted. Other images calibrate. Statistics of batch normalisation are random, as above, where hardly
anything of the image reaches the logits ("logits differ by": their standard deviation over images, relative to that
of all), and then those of a batch, with random factors: as in a trained network images make a difference there, and
the random network magnifies what the code rounds off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np

import snnc
from snnc import ir, report
from snnc.frontend import keras_model

IMAGES = 2
LARGE = 1e-4  # an error beside which Keras's own is measured
CONVERTED = ("MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "ConvNeXtTiny")
BITS = (8, 10, 12)
CONVERTED_HEAD = (
    "| model | input | statistics of batch normalisation | logits differ by | "
    + " | ".join(f"k = {k}: correlation | without the mean" for k in BITS)
    + " |"
)
HEAD = (
    "| model | M parameters | read | error | seconds | MB of memory | × weights | seconds, file | × weights, file | "
    "populations | connections |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="only these; without, all")
    parser.add_argument(
        "--convert", action="store_true", help=f"convert models, {', '.join(CONVERTED)} if none is given"
    )
    parser.add_argument("--size", type=int, default=64, help="height and width of the images for --convert")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--markdown", type=Path, help="write the page with the table here")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)  # one model, in this process; kept in this file
    arguments = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    keras_model.packages()
    if arguments.alone:
        print(json.dumps(measure(arguments.models[0], arguments.alone) if arguments.models else read(arguments.alone)))
        return
    if arguments.convert:
        print(CONVERTED_HEAD, "|" + " --- |" * (CONVERTED_HEAD.count("|") - 1), sep="\n")
        for name in arguments.models or CONVERTED:
            for batch in (False, True):
                print(converted(name, arguments.size, batch), flush=True)
        print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
        return
    figures = []
    for name in arguments.models or names():
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "model.keras")
            facts = elsewhere(name, "--alone", file)
            if facts["read"]:
                facts["file"] = elsewhere("--alone", file)
        figures.append(facts)
        print(row(figures[-1]), flush=True)
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine.describe(), "models": figures}, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(page(figures))


def names() -> list[str]:
    """The functions that build a model."""
    import keras

    return sorted(name for name in dir(keras.applications) if name[0].isupper())


def elsewhere(*arguments: str) -> dict[str, Any]:
    """What this script prints in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def read(model: Any) -> dict[str, Any]:
    """What it costs to read a model, or a file."""
    snnc.load(warm_up())  # imports and TensorFlow's own start are not part of reading a model
    before = machine.peak_from_here()
    started = time.perf_counter()
    snnc.load(model)
    return {"seconds": time.perf_counter() - started, "memory": machine.peak() - before}


def measure(name: str, file: Path) -> dict[str, Any]:
    """All that is known of one model, which is kept in a file."""
    import keras

    keras.utils.set_random_seed(0)
    model = built(name)
    facts: dict[str, Any] = {"model": name, "parameters": model.count_params(), "input": model.input_shape[1:]}
    weights = sum(4 * weight.size for weight in model.get_weights())
    try:
        cost = read(model)
    except ir.UnsupportedModelError as refusal:
        found = report.grouped(refusal.problems)
        kinds = [[finding.kind, len(finding.layers), finding.advice or finding.why] for finding in found]
        return {**facts, "read": False, "refused": kinds}
    facts |= {"read": True, "weights": weights, **cost}
    model.save(file)
    randomise(model)
    network = snnc.load(model)
    x = np.random.default_rng(1).standard_normal((IMAGES, *model.input_shape[1:]), np.float32)
    expected = np.asarray(model(x, training=False))
    error = np.abs(snnc.compile(network).predict(x, progress=False) - expected).max() / np.abs(expected).max()
    sizes = {"populations": len(network.populations), "connections": len(network.connections)}
    own = {"own_error": own_error(name, model, x, expected)} if error > LARGE else {}
    return {**facts, "error": float(error), **own, **sizes}


def built(name: str) -> Any:
    """A model at its documented input size, without a last activation."""
    import keras

    build = getattr(keras.applications, name)
    model = build(weights=None, classifier_activation=None)
    if None in model.input_shape[1:]:  # MobileNetV3, whose documented size is the default of the others
        model = build(weights=None, classifier_activation=None, input_shape=(224, 224, 3))
    return model


def converted(name: str, size: int, batch: bool) -> str:
    """One line of the table of conversions; batch normalisation has random statistics, or those of a `batch`."""
    import keras

    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    model = build(weights=None, classifier_activation=None, input_shape=(size, size, 3))
    randomise(model)
    rng = np.random.default_rng(1)
    calibration, x = (rng.standard_normal((images, size, size, 3), np.float32) for images in (32, 8))
    if batch:
        take_statistics(model, calibration)
    expected = np.asarray(model(x, training=False))
    network = snnc.load(model)
    cells = []
    for k in BITS:
        snn = snnc.convert(
            network, f"{snnc.LOWERING},few-spike{{k={k},per-channel=true}}", calibration=calibration, progress=False
        )
        found = snnc.compile(snn).predict(x, progress=False)
        pairs = (found, expected), (found - found.mean(0), expected - expected.mean(0))
        cells += [f"{np.corrcoef(a.ravel(), b.ravel())[0, 1]:.4f}" for a, b in pairs]
    differ = (expected - expected.mean(0)).std() / expected.std()
    statistics = "of a batch" if batch else "random"
    return f"| {name} | {size}×{size}×3 | {statistics} | {differ:.0e} | {' | '.join(cells)} |"


def take_statistics(model: Any, x: np.ndarray) -> None:
    """Give batch normalisation the statistics of a batch, as training does."""
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)


def own_error(name: str, model: Any, x: np.ndarray, found: np.ndarray) -> float:
    """How far what Keras gives in single precision is from what it gives in double precision."""
    import keras

    keras.config.set_dtype_policy("float64")
    double = built(name)
    keras.config.set_dtype_policy("float32")
    double.set_weights([weight.astype(np.float64) for weight in model.get_weights()])
    exact = np.asarray(double(x.astype(np.float64), training=False))
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def randomise(model: Any) -> None:
    """Give batch normalisation random factors and statistics, as zeros and ones would hide mistakes.

    They are not those of a batch: random deep networks would then amplify the rounding of single precision, Keras's
    own included (ResNet152 by three thousand times).
    """
    import keras

    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if not isinstance(layer, keras.layers.BatchNormalization):
            continue
        shape = layer.moving_mean.shape
        layer.moving_mean.assign(rng.normal(0, 0.2, shape))
        layer.moving_variance.assign(rng.uniform(0.5, 1.5, shape))
        if layer.gamma is not None:
            layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
        if layer.beta is not None:
            layer.beta.assign(rng.normal(0, 0.2, shape))


def warm_up() -> Any:
    import keras

    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, activation="relu")])


def row(facts: dict[str, Any]) -> str:
    """One line of the table."""
    start = f"| {facts['model']} | {facts['parameters'] / 1e6:.1f} |"
    if not facts["read"]:
        reasons = "; ".join(f"{count} × {kind}: {advice}" for kind, count, advice in facts["refused"])
        return f"{start} refused: {reasons} | | | | | | | | |"
    memory = f"{facts['memory'] / 2**20:.0f} | {facts['memory'] / facts['weights']:.1f}"
    file = f"{facts['file']['seconds']:.1f} | {facts['file']['memory'] / facts['weights']:.1f}"
    size = f"{facts['populations']} | {facts['connections']}"
    own = f" (Keras's own: {facts['own_error']:.0e})" if "own_error" in facts else ""
    return f"{start} yes | {facts['error']:.0e}{own} | {facts['seconds']:.1f} | {memory} | {file} | {size} |"


def page(figures: list[dict[str, Any]]) -> str:
    """The whole document."""
    table = [HEAD, "|" + " --- |" * HEAD.count(" | ") + " --- |", *map(row, figures)]
    return machine.page("The models of keras.applications", __doc__, "keras_applications.py", table)


if __name__ == "__main__":
    main()
