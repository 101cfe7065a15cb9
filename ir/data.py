"""Images and labels as a network takes them: checked once, with errors that say what was expected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arguments import as_network
from .errors import DataError
from .network import Network
from .windows import Shape

Images = np.ndarray | Mapping[str, np.ndarray] | Sequence[np.ndarray]


def as_inputs(network: Network, x: Images, what: str = "input") -> dict[str, np.ndarray]:
    """`x` as a float32 array of shape (images, *population shape) for each of the network's inputs.

    `x` is one array for a network with one input; else a mapping from input names, or a sequence in the order of
    `network.inputs`. Where an input has a table, whole numbers stand for its rows, as for tokens. Raises DataError for
    what is no array (a generator, a DataLoader, a path), wrong shapes, unequal lengths, no images, or numbers that are
    not finite.
    """
    by_name = _by_name(as_network(network).inputs, x, f"{what} data", "input")
    arrays = {name: _as_images(network, name, array, what) for name, array in by_name.items()}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{what} data: the inputs differ in their number of images: {lengths}")
    if not next(iter(lengths.values())):
        raise DataError(f"{what} data: there are no images")
    return arrays


def as_labels(network: Network, y: Any, images: int) -> dict[str, np.ndarray]:
    """`y` as an int64 array of shape (images,) for each of the network's outputs, or bool of shape (images, labels).

    `y` holds class numbers, or a row per image whose largest entry is the class: shares of one, as one-hot rows,
    smoothed labels and probabilities are. Other rows have no class, be they targets of a regression, several labels at
    once or logits: of these, whoever means it gives `y.argmax(-1)`. For an output that a sigmoid is of, rows may have 1
    for each label that holds and 0 for others, and have to if it is only one. It is one array for a network with one
    output, else a mapping or sequence as in `as_inputs`. Raises DataError.
    """
    if len(as_network(network).outputs) > 1 and isinstance(y, np.ndarray) and y.ndim:
        y = list(y)
    by_name = _by_name(network.outputs, y, "labels", "output")
    return {name: _as_classes(network, name, labels, images) for name, labels in by_name.items()}


def _by_name(names: Sequence[str], given: Any, what: str, kind: str) -> dict[str, Any]:
    """What is given for each input or output."""
    if isinstance(given, Mapping):
        if set(given) != set(names):
            there = ", ".join(map(str, given)) or "nothing"
            raise DataError(f"{what}: given for {there}; the network's {kind}s are {', '.join(names)}")
        return {name: given[name] for name in names}
    listed = isinstance(given, (list, tuple))
    if len(names) == 1 and not (listed and len(given) == 1 and _array(given[0], what).ndim > 1):
        return {names[0]: given}
    if not listed or len(given) != len(names):
        raise DataError(f"{what}: the network has {kind}s {', '.join(names)}; give a mapping with an array for each")
    return dict(zip(names, given, strict=True))


def _as_images(network: Network, name: str, images: Any, what: str) -> np.ndarray:
    shape, table = network.populations[name].shape, network.populations[name].table
    what = f"{what} data for input {name!r}"
    array = _array(images, what)
    if table is not None and array.shape[1:] != shape:
        return _looked_up(array, table, shape, what)
    if array.shape[1:] != shape:
        if not array.shape or _longer_than_one(array.shape[1:]) != _longer_than_one(shape):
            raise DataError(f"{what} has shape {array.shape}; expected (images, *{shape})")
        array = array.reshape(
            len(array), *shape
        )  # grey images are commonly stored without their one channel, series flat
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
        raise DataError(
            f"{what} holds NaN or infinity in {len(bad)} image(s), first in image {bad[0]}, in single precision"
        )
    return array


def _looked_up(numbers: np.ndarray, table: np.ndarray, shape: Shape, what: str) -> np.ndarray:
    """The rows of a table, (images, L, 1, C), that whole numbers stand for."""
    if math.prod(numbers.shape[1:]) != shape[0] or numbers.ndim < 2:
        raise DataError(f"{what} has shape {numbers.shape}; expected whole numbers, (images, {shape[0]})")
    fits = (numbers >= 0) & (numbers < len(table)) & (numbers == np.round(numbers))
    bad = np.flatnonzero(~fits.reshape(len(numbers), -1).all(1))
    if len(bad):
        expected = f"other than whole numbers from 0 to {len(table) - 1}"
        raise DataError(f"{what} holds {expected} in {len(bad)} image(s), first in image {bad[0]}")
    return table[numbers.reshape(len(numbers), shape[0]).astype(np.int64)].reshape(len(numbers), *shape)


def _array(values: Any, what: str) -> np.ndarray:
    """`values` as an array of real numbers."""
    given = f"{what}: give an array of numbers, not a {type(values).__name__}"
    try:
        array = np.asarray(values)
        masked = np.ma.is_masked(values)
    except Exception as error:  # rows of different length, a tensor that will not be an array, …
        raise DataError(f"{given} that cannot become one: {' '.join(str(error).split())}") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"{given} of type {array.dtype}" if array.ndim else given)
    if masked:
        raise DataError(f"{given} of which a part is masked: fill it or leave it out")
    return array


def _longer_than_one(shape: Shape) -> Shape:
    """The axes that say something: those of size one may be left out."""
    return tuple(size for size in shape if size != 1)


def _as_classes(network: Network, name: str, given: Any, images: int) -> np.ndarray:
    population = network.populations[name]
    classes = population.shape[-1]
    labels = _array(given, f"labels for {name!r}")
    expected = f"{images} class numbers, or one-hot rows of {classes}"
    if population.neuron.tells_labels and (labels.shape[1:] == population.shape or population.size == 1):
        return _as_each(name, labels, images, population.size)
    if labels.shape == (images, classes) and classes > 1:
        labels = _largest(name, labels, expected)
    if labels.shape == (images, 1):
        labels = labels[:, 0]
    if labels.shape != (images,):
        raise DataError(f"labels for output {name!r} have shape {labels.shape}; expected {expected}")
    # before they become integers of a size that some do not fit into
    bad = np.flatnonzero(~((labels >= 0) & (labels < classes) & (labels == np.round(labels))))
    if len(bad):
        raise DataError(
            f"labels for output {name!r} are no class in {len(bad)} image(s), first {labels[bad[0]]} in image "
            f"{bad[0]}; it has {classes} classes, numbered from 0"
        )
    return labels.astype(np.int64)


def _as_each(name: str, labels: np.ndarray, images: int, size: int) -> np.ndarray:
    """Whether each label holds, (images, labels)."""
    if labels.size != images * size:
        expected = f"{images} rows of {size}" if size > 1 else f"{images}"
        raise DataError(f"labels for output {name!r} have shape {labels.shape}; expected {expected}, each 0 or 1")
    rows = labels.reshape(images, size)
    bad = np.flatnonzero(~((rows == 0) | (rows == 1)).all(1))
    if len(bad):
        raise DataError(f"labels for output {name!r} are not 0 or 1 in {len(bad)} image(s), first in image {bad[0]}")
    return rows == 1


def _largest(name: str, rows: np.ndarray, expected: str) -> np.ndarray:
    """The class of each row of shares, which are positive and add up to one, if only as half precision adds them."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.sum(-1, dtype=np.float64)
    bad = np.flatnonzero(~((rows >= 0).all(-1) & (np.abs(total - 1) < 1e-2)))
    if len(bad):
        raise DataError(
            f"labels for output {name!r} are rows of numbers, but no shares of one in {len(bad)} image(s), first in "
            f"image {bad[0]}; expected {expected}; if the largest of a row is its class, give y.argmax(-1)"
        )
    return rows.argmax(-1)
