"""Decode a CIFAR-10 archive of JPEG images into the .npz that the other benchmarks read.

    python benchmarks/cifar10.py ARCHIVE.npz OUT.npz [--train N] [--test N]

ARCHIVE holds, for `train` and for `test`, the files end to end (train_jpeg), where each begins and the last ends
(train_offsets) and the labels (train_labels). OUT gets x_train, y_train, x_test and y_test; the images are uint8,
(N, 32, 32, 3). --train and --test keep the first N images.
"""

import argparse
import io
import itertools
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    options = parse_arguments()
    with np.load(options.archive, allow_pickle=False) as archive:
        x_train, y_train = decode(archive, "train", options.train)
        x_test, y_test = decode(archive, "test", options.test)
    np.savez(options.out, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    print(f"{options.out}: {len(x_train)} training and {len(x_test)} test images")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    return parser.parse_args()


def decode(archive: np.lib.npyio.NpzFile, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` images of a part, uint8 (N, height, width, 3), and their labels."""
    files, offsets = archive[f"{part}_jpeg"], archive[f"{part}_offsets"][: count + 1]
    spans = itertools.pairwise(offsets)
    images = [np.asarray(Image.open(io.BytesIO(files[a:b].tobytes())).convert("RGB")) for a, b in spans]
    return np.stack(images), archive[f"{part}_labels"][: len(images)]


if __name__ == "__main__":
    main()
