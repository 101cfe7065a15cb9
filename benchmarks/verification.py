"""What the pass manager's verification costs in a conversion the size of VGG16.

    python benchmarks/verification.py [--images 16]

Converts VGG16 at 224 × 224 (random weights, average pooling) with data-norm, with every verification timed inside
the same run, and prints its share. Then the same with and without an idle instrument: unused hooks cost nothing.
"""

import argparse
import time
from unittest import mock

import machine
import numpy as np

import snnc
from snnc.frontend import keras_model
from snnc.passes import Instrument, manager


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    images = parser.parse_args().images
    keras_model.packages()
    import keras

    keras.utils.set_random_seed(0)
    average = {keras.layers.MaxPooling2D: lambda layer: keras.layers.AveragePooling2D(2, name=layer.name)}
    vgg = keras.models.clone_model(
        keras.applications.VGG16(weights=None),
        clone_function=lambda layer: average.get(type(layer), lambda same: same.from_config(same.get_config()))(layer),
    )
    network = snnc.load(vgg)
    x = np.random.default_rng(0).random((images, 224, 224, 3), np.float32)

    spent = []

    def timed(*arguments: object) -> None:
        started = time.perf_counter()
        manager_verify(*arguments)
        spent.append(time.perf_counter() - started)

    manager_verify = manager.verify
    with mock.patch.object(manager, "verify", timed):
        converting = seconds(network, x, ())
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    print(f"VGG16, {images} calibration images: {converting:.2f} s, {len(spent)} verifications: {sum(spent):.3f} s")
    print(f"verification: {sum(spent) / converting:.2%} of the conversion")
    bare, hooked = (min(seconds(network, x[:1], hooks) for _ in range(3)) for hooks in ((), (Instrument(),)))
    print(f"an idle instrument, 1 image, best of 3: {hooked / bare:.3f} times the time without")


def seconds(network: snnc.Network, x: np.ndarray, instruments: tuple[Instrument, ...]) -> float:
    started = time.perf_counter()
    snnc.convert(network, "data-norm", calibration=x, timesteps=8, instruments=instruments, progress=False)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
