"""Frontends: what reads a model and produces an analog network."""

from __future__ import annotations

import sys
from os import PathLike
from pathlib import Path
from typing import Any

from ..ir import ModelFileError, Network


def load(model: str | PathLike[str] | Any) -> Network:
    """Read a Keras 3 model in memory, or a `.keras`, `.h5` or `.onnx` file, as an analog network.

    Raises ModelFileError for a file that cannot be read and UnsupportedModelError with every layer that has no
    spiking counterpart.
    """
    if isinstance(model, (str, PathLike)):
        return _load_file(Path(model))
    keras = sys.modules.get("keras")  # who has a Keras model has imported Keras
    if keras is not None and isinstance(model, keras.Model):
        from .keras import load_keras

        return load_keras(model)
    raise ModelFileError(f"cannot read a {type(model).__name__}; give a Keras model or the path of a model file")


def _load_file(path: Path) -> Network:
    from .files import load_keras_file, load_onnx_file

    readers = {".keras": load_keras_file, ".h5": load_keras_file, ".hdf5": load_keras_file, ".onnx": load_onnx_file}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ModelFileError(f"{path}: unknown kind of file; known are {', '.join(readers)} and, for networks, .snn")
    if not path.is_file():
        raise ModelFileError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    return reader(path)


__all__ = ["load"]
