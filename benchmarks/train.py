"""Train the two CIFAR-10 networks whose conversions are measured: one with residual branches, one with max pooling.

    python benchmarks/train.py DATA.npz --out FOLDER [--epochs N] [--networks resnet maxpool] [--seed 0]

DATA holds x_train, y_train, x_test, y_test; the images are uint8 and the models take image / 255. FOLDER gets
cifar10_resnet.keras and cifar10_maxpool.keras. The test images serve only to report the accuracy at the end.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import keras
import machine
import numpy as np
from keras import layers

BATCH = 128
LEARNING_RATE = 3e-3  # at the end of the warm-up, the largest
WEIGHT_DECAY = 0.02
SHIFT = 4  # pixels, the largest shift of an image in each direction
SCALE = np.float32(1 / 255)


def main() -> None:
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    data = np.load(options.data, allow_pickle=False)
    x_test, y_test = data["x_test"] * SCALE, data["y_test"].reshape(-1)
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    for name in options.networks:
        keras.utils.set_random_seed(options.seed)
        model = NETWORKS[name]()
        images = AugmentedImages(data["x_train"], data["y_train"].reshape(-1), options.seed)
        started = time.perf_counter()
        train(model, images, options.epochs)
        seconds = time.perf_counter() - started
        accuracy = model.evaluate(x_test, y_test, batch_size=500, verbose=0, return_dict=True)["accuracy"]
        model.save(options.out / f"cifar10_{name}.keras")
        print(
            f"{name}: {accuracy:.2%} on {len(x_test)} test images, {model.count_params()} parameters, {seconds:.0f} s"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=tuple(NETWORKS))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class AugmentedImages(keras.utils.PyDataset):
    """Batches of float32 images / 255 in a new order each epoch, each flipped at random and shifted by up to SHIFT."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int) -> None:
        super().__init__()
        self.x = np.pad(x, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
        self.y = y
        self.size = x.shape[1:3]
        self.random = np.random.default_rng(seed)
        self.order = self.random.permutation(len(x))

    def __len__(self) -> int:
        return len(self.x) // BATCH

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[index * BATCH : (index + 1) * BATCH]
        return np.stack([self.augment(self.x[k]) for k in chosen]) * SCALE, self.y[chosen]

    def on_epoch_end(self) -> None:
        self.order = self.random.permutation(len(self.x))

    def augment(self, padded: np.ndarray) -> np.ndarray:
        """A window of a padded image, mirrored half of the time."""
        (row, column), (height, width) = self.random.integers(0, 2 * SHIFT + 1, 2), self.size
        window = padded[row : row + height, column : column + width]
        return window[:, ::-1] if self.random.random() < 0.5 else window


def train(model: keras.Model, images: AugmentedImages, epochs: int) -> None:
    """Fit with AdamW under a cosine learning rate, after one epoch of warm-up."""
    warmup, steps = len(images), epochs * len(images)
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 10, max(steps - warmup, 1), warmup_target=LEARNING_RATE, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    model.fit(images, epochs=epochs, shuffle=False, verbose=2)


def resnet() -> keras.Model:
    """Three stages of two residual blocks each, after He et al. 2016 (CIFAR-10), with 1x1 projections when striding."""
    image = keras.Input((32, 32, 3), name="image")
    x = convolution(image, "stem", 16)
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in (1, 2):
            x = residual_block(x, f"stage{stage}_block{block}", filters, strides=2 if stage > 1 and block == 1 else 1)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, "softmax", name="classes")(x), name="resnet")


def residual_block(x: keras.KerasTensor, name: str, filters: int, strides: int) -> keras.KerasTensor:
    """Two convolutions beside a shortcut: the identity, or a strided 1x1 convolution where the shape changes."""
    inner = convolution(x, f"{name}_conv1", filters, strides=strides)
    inner = convolution(inner, f"{name}_conv2", filters, rectify=False)
    if strides > 1:
        x = convolution(x, f"{name}_shortcut", filters, kernel=1, strides=strides, rectify=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([inner, x]))


def maxpool() -> keras.Model:
    """Three stages of two convolutions and a max pooling, then two dense layers, after VGG."""
    image = x = keras.Input((32, 32, 3), name="image")
    for stage, filters in enumerate((24, 48, 96), start=1):
        x = convolution(x, f"stage{stage}_conv1", filters)
        x = convolution(x, f"stage{stage}_conv2", filters)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
        x = layers.Dropout(0.1, name=f"stage{stage}_dropout")(x)
    x = layers.Dense(128, "relu", name="dense")(layers.Flatten(name="flatten")(x))
    x = layers.Dropout(0.3, name="dropout")(x)
    return keras.Model(image, layers.Dense(10, "softmax", name="classes")(x), name="maxpool")


def convolution(
    x: keras.KerasTensor, name: str, filters: int, kernel: int = 3, strides: int = 1, rectify: bool = True
) -> keras.KerasTensor:
    """A convolution and its batch normalisation, then a ReLU unless told otherwise."""
    x = layers.Conv2D(filters, kernel, strides, "same", kernel_initializer="he_normal", name=name)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if rectify else x


NETWORKS: dict[str, Callable[[], keras.Model]] = {"resnet": resnet, "maxpool": maxpool}


if __name__ == "__main__":
    main()
