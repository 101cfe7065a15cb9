"""Train small CNNs whose activations are no rectifiers, and see what few spikes make of them.

    python benchmarks/functions.py DATA.npz [--activations silu gelu tanh hard_swish] [--epochs 12] [--seed 0]

DATA holds x_train, y_train, x_test, y_test; the images are uint8, (N, 28, 28, 1), and the networks take image / 255.
Two convolutions with batch normalisation and average pooling, two dense layers; the same activation behind all but the
last. Converted by few-spike at several k, nothing else being chosen; the test images serve only to report.
"""

import argparse
from pathlib import Path

import machine
import numpy as np
import torch
from quantised import BATCH, CALIBRATION, accuracy, train
from torch import nn

import snnc

K = (3, 4, 5, 6, 8)
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
    print("| Activation | ANN | " + " | ".join(f"k = {k}" for k in K) + " |")
    print("| --- " + "| ---: " * (len(K) + 1) + "|")
    for name in options.activations:
        torch.manual_seed(options.seed)
        module = cnn(ACTIVATIONS[name])
        train(module, images["train"], labels["train"], options.epochs)
        x = torch.from_numpy(np.moveaxis(images["test"], -1, 1).copy())
        with torch.no_grad():
            exact = accuracy(module(x).numpy(), labels["test"])
        network = snnc.load(module, inputs=x[:1], verify=True)
        found = [accuracy(decoded(network, k, images), labels["test"]) for k in K]
        print(f"| {name} | {exact:.2%} | " + " | ".join(f"{share:.2%}" for share in found) + " |")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--activations", nargs="+", choices=ACTIVATIONS, default=["silu", "gelu", "tanh", "hard_swish"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def cnn(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), activation(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 128), activation(), nn.Linear(128, 10)),
    )


def decoded(network: snnc.Network, k: int, images: dict[str, np.ndarray]) -> np.ndarray:
    """The scores of the test images, after few spikes."""
    pipeline = f"{snnc.LOWERING},few-spike{{k={k},per-channel=true}}"
    snn = snnc.convert(network, pipeline, calibration=images["train"][:CALIBRATION], progress=False)
    return np.asarray(snnc.compile(snn).predict(images["test"], progress=False))


if __name__ == "__main__":
    main()
