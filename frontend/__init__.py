"""Everything that reads a trained model and makes an analog network of it."""

from __future__ import annotations

import sys
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir import ModelFileError, Network, UnsupportedModelError

if TYPE_CHECKING:
    from .reading import Reading

_ACCEPTED = "a Keras 3 model, or the path of a .keras, .h5 or .onnx file"


def load(model: str | PathLike[str] | Any, inputs: Any = None) -> Network:
    """Read a trained model as an analog network, with shapes (H, W, C) or (N,).

    The arguments and errors are those of `read`.
    """
    return read(model, inputs).network


def read(model: str | PathLike[str] | Any, inputs: Any = None) -> Reading:
    """Read a trained model, and keep what is needed to compare the network with it.

    `model` is a Keras 3 model, which is left as it was, or the path of a `.keras`, `.h5`, `.hdf5` or `.onnx`
    file, of which no code is ever run. Raises ModelFileError for files that cannot be read, and
    UnsupportedModelError with every layer that has no spiking counterpart.
    """
    if isinstance(model, (str, PathLike)):
        return _read_file(Path(model))
    keras = sys.modules.get("keras")  # whoever holds a Keras model has imported it
    if keras is None or not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise UnsupportedModelError(f"cannot read an object of type {kind}", [f"give {_ACCEPTED}"])
    from . import keras_model

    return keras_model.read(model)


def _read_file(path: Path) -> Reading:
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; give {_ACCEPTED}")
    match path.suffix.lower():
        case ".keras" | ".h5" | ".hdf5":
            from . import keras_file

            return keras_file.read(path)
        case ".onnx":
            from . import onnx_file

            return onnx_file.read(path)
    raise ModelFileError(f"{path}: cannot tell what this is from its name; give {_ACCEPTED}")


__all__ = ["load", "read"]
