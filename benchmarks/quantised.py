"""Train networks of quantised activations, and compare what their spikes say with what they compute themselves.

    python benchmarks/quantised.py DATA.npz [--levels 4 8] [--epochs 12] [--seed 0]

DATA holds x_train, y_train, x_test, y_test; the images are uint8, (N, 28, 28, 1), and the networks take image / 255.
Activations are clipped at a trained λ and rounded to L levels, with straight-through gradients: quantisation
clip-floor-shift [Bu 2022, https://openreview.net/forum?id=7B3IJMM1k_M]. Each network is converted as by default, which
makes T = L, to tracking neurons of two spikes a step in as many timesteps, and to few-spike neurons of as many levels.
The test images serve only to report at the end.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import torch
from torch import nn

import snnc

BATCH = 64
CALIBRATION = 512
TRACKING = f"{snnc.LOWERING},tracking{{levels=2}}"


class Quantised(nn.Module):
    """`λ/L · clip(floor(x · L/λ + 1/2), 0, L)`, with the gradient of the clip alone."""

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels
        self.largest = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.clamp(x / self.largest, 0, 1) * self.levels
        return (steps + (torch.floor(steps + 0.5) - steps).detach()) / self.levels * self.largest


def mlp(levels: int) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), Quantised(levels), nn.Linear(256, 10))


def cnn(levels: int) -> nn.Module:
    """Two convolutions, batch-normalised, and two dense layers: three quantised layers one behind the other."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), Quantised(levels), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), Quantised(levels), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 128), Quantised(levels), nn.Linear(128, 10)),
    )


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"mlp": mlp, "cnn": cnn}


def main() -> None:
    options = parse_arguments()
    warnings.simplefilter("error", snnc.ir.ModelWarning)  # a conversion that only comes close would say so
    data = np.load(options.data, allow_pickle=False)
    images = {part: data[f"x_{part}"].astype(np.float32) / 255 for part in ("train", "test")}
    labels = {part: data[f"y_{part}"].reshape(-1).astype(np.int64) for part in ("train", "test")}
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    for levels in options.levels:
        for name, build in NETWORKS.items():
            torch.manual_seed(options.seed)
            module = build(levels)
            started = time.perf_counter()
            train(module, images["train"], labels["train"], options.epochs)
            print(f"{name}, L = {levels}: trained in {time.perf_counter() - started:.0f} s")
            report(module, images, labels, levels)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--levels", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def train(module: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    """Fit with AdamW under a learning rate that falls to zero along a cosine."""
    x, y = torch.from_numpy(np.moveaxis(images, -1, 1).copy()), torch.from_numpy(labels)
    optimiser = torch.optim.AdamW(module.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * (len(x) // BATCH))
    module.train()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(module(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    module.eval()


def report(module: nn.Module, images: dict[str, np.ndarray], labels: dict[str, np.ndarray], levels: int) -> None:
    """Accuracy, and the share of images for which the spikes decode to the scores of the network itself."""
    x = torch.from_numpy(np.moveaxis(images["test"], -1, 1).copy())
    with torch.no_grad():
        scores = module(x).numpy()
    print(f"  {'quantised ANN':34}{accuracy(scores, labels['test']):8.2%}")
    network = snnc.load(module, inputs=x[:1], verify=True)

    few_spike = f"{snnc.LOWERING},few-spike{{k={levels.bit_length()}}}"
    for title, pipeline in (("as by default", snnc.DEFAULT_PIPELINE), ("tracking", TRACKING), ("few-spike", few_spike)):
        snn = snnc.convert(network, pipeline, calibration=images["train"][:CALIBRATION], progress=False)
        found = snnc.compile(snn).predict(images["test"], progress=False)
        same = (np.abs(found - scores).max(1) < 1e-4 * np.abs(scores).max()).mean()
        told = f"{title}, {snn.timesteps} timesteps"
        print(f"  {told:34}{accuracy(found, labels['test']):8.2%}   the same scores: {same:.2%}")


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((scores.argmax(1) == labels).mean())


if __name__ == "__main__":
    main()
