"""What spikes make of trained networks that are more than rectifiers: gates, normalisation, attention.

    python benchmarks/beyond_rectifiers.py FOLDER CIFAR10.npz MNIST.npz [--networks se convnext vit mobile] [--images N]

FOLDER holds what `train.py --networks se convnext mobile` and `transformer.py` made. The data hold x_train, y_train,
x_test and y_test; the images are uint8 and the models take image / 255. Every network is converted by the same
pipelines, with the first training images as calibration; the test images serve only to report. Tracking was chosen
among levels of 1, 2 and 4 and rates of 1 and 2 on the last 1 500 training images of two of them. Then few-spike is
timed, in forward passes of the ANN on onnxruntime at the batch that makes it fastest.
"""

import argparse
import statistics
import time
from pathlib import Path

import machine
import numpy as np
from engine import best_batch

import snnc

CALIBRATION = 1024
TIMED = 1024
ROUNDS = 7
FILES = {"se": "cifar10_se.keras", "convnext": "cifar10_convnext.keras", "vit": "mnist_vit.onnx"}
FILES["mobile"] = "cifar10_mobile.keras"
EXPANDED = "lower-functions{pieces=16}"
PIPELINES = {
    "k = 8": "few-spike{k=8,per-channel=true}",
    "k = 6": "few-spike{k=6,per-channel=true}",
    "k = 5": "few-spike{k=5,per-channel=true}",
    "expanded, k = 8": f"{EXPANDED},few-spike{{k=8,per-channel=true}}",
    "tracking, T = 32": "tracking{levels=2,rate=2}",
}
TIMESTEPS = 32


def main() -> None:
    options = parse_arguments()
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    print("| Network | ANN | " + " | ".join(PIPELINES) + " |")
    print("| --- " + "| ---: " * (len(PIPELINES) + 1) + "|")
    data = {name: np.load(getattr(options, name), allow_pickle=False) for name in ("cifar10", "mnist")}
    costs = []
    for name in options.networks:
        images = data["mnist" if name == "vit" else "cifar10"]
        network = snnc.load(options.folder / FILES[name])
        calibration = images["x_train"][:CALIBRATION].astype(np.float32) / 255
        x = images["x_test"][: options.images].astype(np.float32) / 255
        y = images["y_test"].reshape(-1)[: options.images]
        shares = [accuracy(snnc.compile(network), x, y)]
        shares += [accuracy(converted(network, pipeline, calibration), x, y) for pipeline in PIPELINES.values()]
        print(f"| {name} | " + " | ".join(f"{share:.2%}" for share in shares) + " |", flush=True)
        costs.append(f"| {name} | {cost(network, calibration):.2f} |")
    print("\n| Network | few-spike, in forward passes of the ANN |\n| --- | ---: |\n" + "\n".join(costs))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--networks", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--images", type=int, default=10_000, help="test images, at most")
    return parser.parse_args()


def converted(network: snnc.Network, pipeline: str, calibration: np.ndarray) -> object:
    """The compiled spiking network."""
    pipeline = f"{snnc.LOWERING},{pipeline}"
    snn = snnc.convert(network, pipeline, calibration=calibration, timesteps=TIMESTEPS, progress=False)
    return snnc.compile(snn)


def accuracy(compiled: object, x: np.ndarray, y: np.ndarray) -> float:
    return float((compiled.predict(x, progress=False).argmax(-1) == y).mean())


def cost(network: snnc.Network, calibration: np.ndarray) -> float:
    """How long few-spike takes, in the ANN's own forward passes: the median of rounds in which both are timed."""
    x = calibration[:TIMED]
    forward = best_batch(network, x)
    compiled = converted(network, PIPELINES["k = 8"], calibration)
    compiled.predict(x, progress=False)
    ratios = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        compiled.predict(x, progress=False)
        ratios.append((time.perf_counter() - started) / len(x) / forward())
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
