"""Train the CIFAR-10 networks whose conversions are measured.

    python benchmarks/train.py DATA.npz --out FOLDER [--epochs N] [--networks resnet maxpool se …] [--seed 0]

Two are of rectifiers, one with residual branches (resnet) and one with max pooling (maxpool). Three are not: `se` has
depthwise convolutions, SiLU and squeeze-excitation, as EfficientNet; `mobile` hard-swish and hard-sigmoid gates, as
MobileNetV3; `convnext` GELU, layer normalisation and layer scale, as ConvNeXt. DATA holds x_train, y_train, x_test,
y_test; the images are uint8 and the models take image / 255. FOLDER gets cifar10_NAME.keras. The test images serve only
to report the accuracy at the end. `transformer.py` trains a vision transformer.
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


def se() -> keras.Model:
    """Separable convolutions with SiLU, each followed by squeeze-excitation, after Tan & Le 2019 (EfficientNet)."""
    image = keras.Input((32, 32, 3), name="image")
    x = activated(image, "stem", "silu", 24, 3, 2)
    x = gated_blocks(x, ((24, 1), (48, 2), (48, 1), (96, 2), (96, 1)), "silu", ("silu", "sigmoid"))
    return classifier(image, activated(x, "head", "silu", 192, 1, 1), "se")


def mobile() -> keras.Model:
    """Inverted residuals with hard-swish and hard-sigmoid gates, after Howard et al. 2019 (MobileNetV3)."""
    image = keras.Input((32, 32, 3), name="image")
    x = activated(image, "stem", "hard_silu", 16, 3, 2)
    blocks = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1))
    x = gated_blocks(x, blocks, "hard_silu", ("relu", "hard_sigmoid"), expansion=3)
    return classifier(image, activated(x, "head", "hard_silu", 128, 1, 1), "mobile")


def gated_blocks(
    x: keras.KerasTensor,
    blocks: tuple[tuple[int, int], ...],
    activation: str,
    gate: tuple[str, str],
    expansion: int = 1,
) -> keras.KerasTensor:
    """Depthwise convolutions with squeeze-excitation, each of so many filters and strides, and residual branches.

    With an `expansion` they work on so many times the channels that they are given.
    """
    for number, (filters, strides) in enumerate(blocks, start=1):
        inner = x
        if expansion > 1:
            inner = activated(x, f"block{number}_expand", activation, expansion * x.shape[-1], 1, 1)
        inner = depthwise(inner, f"block{number}_depthwise", activation, 3, strides)
        inner = gated(inner, f"block{number}", *gate)
        inner = convolution(inner, f"block{number}_project", filters, kernel=1, rectify=False)
        x = layers.Add(name=f"block{number}_add")([x, inner]) if x.shape == inner.shape else inner
    return x


def convnext() -> keras.Model:
    """Depthwise 5x5 convolution, layer normalisation, two dense layers with GELU between them, layer scale; and a
    residual branch around it all, after Liu et al. 2022 (ConvNeXt). The layer scale is a depthwise 1x1 convolution.
    """
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(48, 4, 4, name="stem")(image)
    x = layers.LayerNormalization(epsilon=1e-6, name="stem_norm")(x)
    for stage, (filters, blocks) in enumerate(((48, 3), (96, 2)), start=1):
        if filters != x.shape[-1]:
            x = layers.LayerNormalization(epsilon=1e-6, name=f"down{stage}_norm")(x)
            x = layers.Conv2D(filters, 2, 2, name=f"down{stage}")(x)
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            inner = layers.DepthwiseConv2D(5, padding="same", name=f"{name}_depthwise")(x)
            inner = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(inner)
            inner = layers.Dense(4 * filters, "gelu", name=f"{name}_expand")(inner)
            inner = layers.Dense(filters, name=f"{name}_project")(inner)
            inner = layers.DepthwiseConv2D(
                1, use_bias=False, depthwise_initializer=keras.initializers.Constant(0.1), name=f"{name}_scale"
            )(inner)
            x = layers.Add(name=f"{name}_add")([x, inner])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.LayerNormalization(epsilon=1e-6, name="head_norm")(x)
    return keras.Model(image, layers.Dense(10, "softmax", name="classes")(x), name="convnext")


def activated(
    x: keras.KerasTensor, name: str, activation: str, filters: int, kernel: int, strides: int
) -> keras.KerasTensor:
    """A convolution and its batch normalisation, then an activation."""
    return layers.Activation(activation, name=f"{name}_act")(convolution(x, name, filters, kernel, strides, False))


def depthwise(x: keras.KerasTensor, name: str, activation: str, kernel: int, strides: int) -> keras.KerasTensor:
    """A depthwise convolution and its batch normalisation, then an activation."""
    x = layers.DepthwiseConv2D(kernel, strides, "same", name=name)(x)
    return layers.Activation(activation, name=f"{name}_act")(layers.BatchNormalization(name=f"{name}_bn")(x))


def gated(x: keras.KerasTensor, name: str, activation: str, gate: str) -> keras.KerasTensor:
    """Squeeze-excitation: every channel times a gate that the means of all channels open [Hu 2018]."""
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    y = layers.Conv2D(max(x.shape[-1] // 4, 8), 1, activation=activation, name=f"{name}_reduce")(y)
    y = layers.Conv2D(x.shape[-1], 1, activation=gate, name=f"{name}_expand_gate")(y)
    return layers.Multiply(name=f"{name}_gate")([x, y])


def classifier(image: keras.KerasTensor, x: keras.KerasTensor, name: str) -> keras.Model:
    x = layers.Dropout(0.1, name="dropout")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, layers.Dense(10, "softmax", name="classes")(x), name=name)


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "resnet": resnet,
    "maxpool": maxpool,
    "se": se,
    "mobile": mobile,
    "convnext": convnext,
}


if __name__ == "__main__":
    main()
