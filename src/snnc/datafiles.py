"""Images and labels from `.npz` and `.npy` files, for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .ir import DataError, Network, as_path


def read_images(
    path: Path, network: Network, names: tuple[str, ...], scale: str, limit: int | None
) -> dict[str, np.ndarray]:
    """The images for each of the network's inputs, as float32, times `scale`; at most `limit` of them.

    A file with one array per input, by name, gives those; for a network with one input, the first of
    `names` that the file has, or its only array. Raises DataError.
    """
    arrays = _open(path)
    inputs = network.inputs
    if set(inputs) <= set(arrays):
        keys = dict(zip(inputs, inputs, strict=True))
    elif len(inputs) == 1:
        keys = {inputs[0]: _key(path, arrays, names)}
    else:
        raise DataError(f"{path} has arrays {_names(arrays)}; expected one per input: {', '.join(inputs)}")
    factor = _factor(scale)
    return {name: _images(path, arrays, key, factor, limit) for name, key in keys.items()}


def read_labels(path: Path, network: Network, names: tuple[str, ...], limit: int | None) -> dict[str, np.ndarray]:
    """The labels for each of the network's outputs, found like the images of `read_images`. Raises DataError."""
    arrays = _open(path)
    outputs = network.outputs
    if set(outputs) <= set(arrays):
        return {name: _read(path, arrays, name)[:limit] for name in outputs}
    if len(outputs) > 1:
        raise DataError(f"{path} has arrays {_names(arrays)}; expected labels per output: {', '.join(outputs)}")
    found = next((name for name in names if name in arrays), None)
    if found is None:
        raise DataError(f"{path} has arrays {_names(arrays)} but no labels; name them {' or '.join(names)}")
    return {outputs[0]: _read(path, arrays, found)[:limit]}


def _open(path: Path) -> Mapping[str, np.ndarray]:
    path = as_path(path, "a data file", DataError)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        content = np.load(path, allow_pickle=False)
        return {"x": content} if isinstance(content, np.ndarray) else content
    except Exception as error:  # a damaged file can bring out any, of zipfile, zlib, tokenize or memory
        raise DataError(f"{path} is not a .npz or .npy file of plain arrays: {_words(error)}") from None


def _key(path: Path, arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> str:
    keys = list(arrays)
    found = next((name for name in names if name in keys), keys[0] if len(keys) == 1 else None)
    if found is None:
        raise DataError(f"{path} has arrays {_names(arrays)} but no images; name them {' or '.join(names)}")
    return found


def _read(path: Path, arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """One array; those of an .npz are read, and found to be damaged, only now."""
    try:
        array = arrays[key]
    except Exception as error:  # as in `_open`
        raise DataError(f"{path}: array {key!r} cannot be read: {_words(error)}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: array {key!r} cannot be read: it is not in numpy's format")
    return array


def _words(error: Exception) -> str:
    """What an error says, in one line, or its name."""
    return " ".join(str(error).split()) or type(error).__name__


def _images(path: Path, arrays: Mapping[str, np.ndarray], key: str, factor: float, limit: int | None) -> np.ndarray:
    array = _read(path, arrays, key)
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise DataError(f"{path}: array {key!r} of shape {array.shape} and type {array.dtype} does not hold images")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found where images are checked
        return array[:limit].astype(np.float32) * np.float32(factor)


def _factor(scale: str) -> float:
    numerator, slash, denominator = scale.partition("/")
    try:
        return float(numerator) / float(denominator if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise DataError(f"--scale takes a number or a fraction such as 1/255, not {scale!r}") from None


def _names(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(arrays) or "none"
