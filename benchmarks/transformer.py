"""Train a small vision transformer on MNIST, with PyTorch, and save it as ONNX.

    python benchmarks/transformer.py DATA.npz --out FOLDER [--epochs 30] [--seed 0]

DATA holds x_train, y_train, x_test, y_test; the images are uint8, (N, 28, 28, 1), and the model takes image / 255.
Sixteen patches and a class token, positions that are learned, three blocks of multi-head attention and GELU, normalised
first [Dosovitskiy 2021]. FOLDER gets mnist_vit.onnx. The test images serve only to report the accuracy at the end.
"""

import argparse
import time
from pathlib import Path

import machine
import numpy as np
import torch
from quantised import accuracy, train
from torch import nn

WIDTH, HEADS, BLOCKS, PATCH = 48, 4, 3, 7


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (28 // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(BLOCKS)
            )
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.classes = nn.Linear(WIDTH, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.classes(self.norm(self.blocks(x)[:, 0]))


def main() -> None:
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    data = np.load(options.data, allow_pickle=False)
    images = {part: data[f"x_{part}"].astype(np.float32) / 255 for part in ("train", "test")}
    labels = {part: data[f"y_{part}"].reshape(-1).astype(np.int64) for part in ("train", "test")}
    print(", ".join(f"{key} {value}" for key, value in machine.describe().items()))
    torch.manual_seed(options.seed)
    module, started = VisionTransformer(), time.perf_counter()
    train(module, images["train"], labels["train"], options.epochs)
    seconds = time.perf_counter() - started
    x = torch.from_numpy(np.moveaxis(images["test"], -1, 1).copy())
    with torch.no_grad():
        share = accuracy(module(x).numpy(), labels["test"])
    torch.onnx.export(module, (x[:1],), dynamo=True, verbose=False).save(options.out / "mnist_vit.onnx")
    count = sum(parameter.numel() for parameter in module.parameters())
    print(f"vit: {share:.2%} on {len(x)} test images, {count} parameters, {seconds:.0f} s")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
