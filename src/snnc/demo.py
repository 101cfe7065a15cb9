"""The demonstration: a residual CNN on scikit-learn's digits, from training to spikes."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import snnc

from .backend.compiled import CompiledSpiking
from .frontend import keras_model
from .ir import BackendError, Network, SnncError
from .plot import plot_accuracy

SEED = 0
CHECKED_IMAGES = 20
GENN_IS_MISSING = """\
GeNN is not installed, so this step is skipped. It is built from source and needs a C++ compiler, libffi's headers
and pkg-config. In a clone of snnc:
    echo "pybind11<3" > pybind11.txt
    pip install --build-constraint pybind11.txt --group genn    (pip 25.3 or newer)"""


def run(console: Console, timesteps: int, plot: Path) -> None:
    """Train, convert, evaluate, check against GeNN where it is installed, and plot."""
    from .cli.commands import accuracy_table

    started = time.perf_counter()
    x_train, y_train, x_test, y_test = digits()
    console.rule("[bold]1. Train an ANN with Keras", align="left")
    model = train(x_train, y_train)
    ann_accuracy = float((model.predict(x_test, verbose=0).argmax(-1) == y_test).mean())
    console.print(f"{model.count_params()} parameters; Keras accuracy {ann_accuracy:.1%} on {len(x_test)} test images")

    console.rule("[bold]2. Read it: network = snnc.load(model)", align="left")
    network = snnc.load(model)
    console.print(str(network), markup=False, highlight=False, soft_wrap=True, end="")
    difference = np.abs(snnc.compile(network).predict(x_test) - model.predict(x_test, verbose=0)).max()
    console.print(f"largest difference from Keras's outputs: {difference:.1e}")

    console.rule("[bold]3. Convert it: snn = snnc.convert(network, …)", align="left")
    console.print(f"pipeline: {snnc.DEFAULT_PIPELINE}", highlight=False)
    snn = snnc.convert(network, calibration=x_train[:512], timesteps=timesteps)
    compiled = snnc.compile(snn)
    assert isinstance(compiled, CompiledSpiking)
    result = compiled.evaluate(x_test, y_test)
    assert isinstance(result.accuracy, np.ndarray)
    console.print(f"{result.images} images for {timesteps} timesteps in {result.seconds:.1f} s")
    console.print(accuracy_table({"SNN": result.accuracy, "ANN": np.full(timesteps, ann_accuracy)}))

    console.rule("[bold]4. Check against GeNN", align="left")
    check_against_genn(console, snn, compiled, x_test[:CHECKED_IMAGES])
    plot_accuracy({"SNN": result.accuracy}, plot, ann_accuracy)
    console.print(f"accuracy against timesteps: {plot}; {time.perf_counter() - started:.0f} s in all")


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's 1 797 digits, (8, 8, 1) in [0, 1], three quarters for training: x, y, x_test, y_test."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise SnncError("the demo needs scikit-learn: pip install 'snnc[demo]'") from None
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    x_train, x_test, y_train, y_test = train_test_split(x, labels, test_size=0.25, random_state=SEED, stratify=labels)
    return x_train, y_train, x_test, y_test


def train(x: np.ndarray, y: np.ndarray, epochs: int = 20) -> Any:
    """A Keras CNN with biases, batch normalisation, average pooling and a residual branch, trained on `x`, `y`."""
    keras_model.packages()
    import keras
    from keras import layers

    keras.utils.set_random_seed(SEED)
    image = keras.Input((8, 8, 1), name="image")
    stem = layers.ReLU(name="stem")(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(image)))
    branch = layers.Conv2D(16, 3, padding="same", activation="relu", name="branch_1")(stem)
    branch = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(branch))
    merged = layers.ReLU(name="merged")(layers.Add()([stem, branch]))
    pooled = layers.AveragePooling2D(2)(merged)
    top = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="top")(pooled)
    hidden = layers.Dense(64, activation="relu", name="hidden")(layers.Dropout(0.2)(layers.Flatten()(top)))
    model = keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(hidden))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return model


def check_against_genn(console: Console, snn: Network, compiled: CompiledSpiking, x: np.ndarray) -> None:
    """Run a few images on GeNN too and say how far the spikes agree."""
    if find_spec("pygenn") is None or find_spec("ml_genn") is None:
        console.print(GENN_IS_MISSING, highlight=False)
        return
    try:
        genn = snnc.compile(snn, "mlgenn")
    except BackendError as error:
        console.print(f"skipped: {error}", markup=False)
        return
    assert isinstance(genn, CompiledSpiking)
    ours, theirs = compiled.simulate(x), genn.simulate(x)
    differing = sum(int((ours.spike_counts[name] != counts).sum()) for name, counts in theirs.spike_counts.items())
    neurons = sum(counts.size for counts in theirs.spike_counts.values())
    output = snn.outputs[0]
    same = (ours.decoded[output][-1].argmax(-1) == theirs.decoded[output][-1].argmax(-1)).mean()
    console.print(
        f"{len(x)} images: {same:.0%} same predictions; spike counts differ in {differing} of {neurons} neurons"
    )
