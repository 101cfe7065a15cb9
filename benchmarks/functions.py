"""Train small CNNs whose activations are no rectifiers, and see what few spikes make of them.

    python benchmarks/functions.py DATA.npz [--activations silu gelu tanh hard_swish] [--epochs 12] [--seed 0]
        [--lower PIECES]

DATA holds x_train, y_train, x_test, y_test; the images are uint8, (N, 28, 28, 1), and the networks take image / 255.
Two convolutions with batch normalisation and average pooling, two dense layers; the same activation behind all but the
last. Converted by few-spike at several k, and by tracking at several T, nothing else being chosen; with --lower, by way
of so many rectifiers in place of each function, and then to rate codes, too. The test images serve only to report.
"""

import argparse
from pathlib import Path

import machine
import numpy as np
import torch
from quantised import BATCH, CALIBRATION, accuracy, train
from torch import nn

import snnc

FEW = "few-spike{k=%d,per-channel=true}"
K = (3, 4, 5, 6, 8)
RATE = "data-norm{percentile=99.9,per-channel=true}"
T = (16, 64)
TRACKING = "tracking{levels=%d}"
TRACKED = [(levels, t) for levels in (1, 2) for t in (8, 16, 32)]
ACTIVATIONS = {
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "hard_swish": nn.Hardswish,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "relu": nn.ReLU,
}


def main() -> None:
    options = parse_arguments()
    data = np.load(options.data, allow_pickle=False)
    images = {part: data[f"x_{part}"].astype(np.float32) / 255 for part in ("train", "test")}
    labels = {part: data[f"y_{part}"].reshape(-1).astype(np.int64) for part in ("train", "test")}
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    print(f"batches of {BATCH}, {len(images['test'])} test images")
    lowering = f"{snnc.LOWERING},lower-functions{{pieces={options.lower}}}" if options.lower else snnc.LOWERING
    codes = [(f"k = {k}", f"{lowering},{FEW % k}", None) for k in K]
    codes += [(f"tracking, {n} a step, T = {t}", f"{lowering},{TRACKING % n}", t) for n, t in TRACKED]
    codes += [(f"T = {t}", f"{lowering},{RATE}", t) for t in T] if options.lower else []
    print("| Activation | ANN | " + " | ".join(title for title, *_ in codes) + " |")
    print("| --- " + "| ---: " * (len(codes) + 1) + "|")
    for name in options.activations:
        torch.manual_seed(options.seed)
        module = cnn(ACTIVATIONS[name])
        train(module, images["train"], labels["train"], options.epochs)
        x = torch.from_numpy(np.moveaxis(images["test"], -1, 1).copy())
        with torch.no_grad():
            exact = accuracy(module(x).numpy(), labels["test"])
        network = snnc.load(module, inputs=x[:1], verify=True)
        found = [accuracy(decoded(network, pipeline, t, images), labels["test"]) for _, pipeline, t in codes]
        print(f"| {name} | {exact:.2%} | " + " | ".join(f"{share:.2%}" for share in found) + " |", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=["silu", "gelu", "tanh", "hard_swish"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lower", type=int, metavar="PIECES")
    return parser.parse_args()


def cnn(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), activation(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 128), activation(), nn.Linear(128, 10)),
    )


def decoded(network: snnc.Network, pipeline: str, timesteps: int | None, images: dict[str, np.ndarray]) -> np.ndarray:
    """The scores of the test images, after spikes."""
    calibration = images["train"][:CALIBRATION]
    snn = snnc.convert(network, pipeline, calibration=calibration, timesteps=timesteps, progress=False)
    return np.asarray(snnc.compile(snn).predict(images["test"], progress=False))


if __name__ == "__main__":
    main()
