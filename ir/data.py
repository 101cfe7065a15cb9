"""Images and labels as a network takes them: checked once, with errors that say what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import DataError
from .network import Network
from .windows import Shape

Images = np.ndarray | Mapping[str, np.ndarray] | Sequence[np.ndarray]


def as_inputs(network: Network, x: Images, what: str = "input") -> dict[str, np.ndarray]:
    """`x` as a float32 array of shape (images, *population shape) for each of the network's inputs.

    `x` is one array for a network with one input; else a mapping from input names, or a sequence in the
    order of `network.inputs`. Raises DataError for wrong shapes, unequal lengths, no images, or numbers
    that are not finite.
    """
    arrays = {name: _as_images(network, name, array, what) for name, array in _by_name(network, x, what).items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{what} data: the inputs differ in their number of images: {lengths}")
    if not next(iter(lengths.values())):
        raise DataError(f"{what} data: there are no images")
    return arrays


def as_labels(network: Network, y: Any, images: int) -> dict[str, np.ndarray]:
    """`y` as an int64 array of shape (images,) for each of the network's outputs.

    `y` holds class numbers, or one row per image whose largest entry is the class (one-hot); one array for a
    network with one output, else a mapping or sequence as in `as_inputs`. Raises DataError.
    """
    names = network.outputs
    if len(names) == 1 and not isinstance(y, Mapping):
        y = {names[0]: y}
    labels = y if isinstance(y, Mapping) else dict(zip(names, y, strict=False))
    _same_names(labels, names, "labels", "output")
    return {name: _as_classes(network, name, _array(labels[name], f"labels for {name!r}"), images) for name in names}


def _by_name(network: Network, x: Images, what: str) -> dict[str, Any]:
    names = network.inputs
    if isinstance(x, Mapping):
        _same_names(x, names, f"{what} data", "input")
        return {name: x[name] for name in names}
    if len(names) == 1 and not (isinstance(x, (list, tuple)) and len(x) == 1 and np.ndim(x[0]) > 1):
        return {names[0]: x}
    if not isinstance(x, (list, tuple)) or len(x) != len(names):
        raise DataError(
            f"{what} data: the network has inputs {', '.join(names)}; give a mapping with an array for each"
        )
    return dict(zip(names, x, strict=True))


def _as_images(network: Network, name: str, images: Any, what: str) -> np.ndarray:
    shape = network.populations[name].shape
    array = _array(images, f"{what} data for input {name!r}")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} data for input {name!r} is of type {array.dtype}, not of numbers")
    if array.shape[1:] != shape:
        if not array.shape or _longer_than_one(array.shape[1:]) != _longer_than_one(shape):
            raise DataError(f"{what} data for input {name!r} has shape {array.shape}; expected (images, *{shape})")
        array = array.reshape(
            len(array), *shape
        )  # grey images are commonly stored without their one channel, series flat
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
        raise DataError(
            f"{what} data for input {name!r} holds NaN or infinity in {len(bad)} image(s), first in image {bad[0]}"
        )
    return array


def _array(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except Exception as error:  # rows of different length, a tensor that will not be an array, …
        raise DataError(f"{what}: give an array of numbers; this cannot become one: {error}") from None


def _longer_than_one(shape: Shape) -> Shape:
    """The axes that say something: those of size one may be left out."""
    return tuple(size for size in shape if size != 1)


def _as_classes(network: Network, name: str, labels: np.ndarray, images: int) -> np.ndarray:
    classes = network.populations[name].shape[-1]
    if labels.shape == (images, classes) and classes > 1:
        labels = labels.argmax(-1)
    if labels.shape == (images, 1):
        labels = labels[:, 0]
    if labels.shape != (images,) or labels.dtype.kind not in "fiub" or not np.array_equal(labels, np.round(labels)):
        raise DataError(
            f"labels for output {name!r} have shape {labels.shape} and type {labels.dtype}; "
            f"expected {images} class numbers, or one-hot rows of {classes}"
        )
    labels = labels.astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels for output {name!r} reach from {labels.min()} to {labels.max()}; it has {classes} classes"
        )
    return labels


def _same_names(given: Mapping[str, Any], names: Sequence[str], what: str, kind: str) -> None:
    if set(given) != set(names):
        raise DataError(f"{what}: given for {', '.join(map(str, given))}; the network's {kind}s are {', '.join(names)}")
