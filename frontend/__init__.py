"""Everything that reads a trained model and makes an analog network of it."""

from __future__ import annotations

import sys
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import Any

from ..ir import ModelFileError, Network, UnsupportedModelError

_ACCEPTED = "a Keras 3 model, a torch.nn.Module, an onnx.ModelProto, or the path of a .keras, .h5 or .onnx file"


def load(model: str | PathLike[str] | Any, inputs: Any = None) -> Network:
    """Read a trained model as an analog network, with shapes (H, W, C) or (N,).

    `model` is a Keras 3 model, a torch.nn.Module or an onnx.ModelProto, which are left as they were, or the path of a
    `.keras`, `.h5`, `.hdf5` or `.onnx` file, of which no code is ever run. A torch module needs `inputs`, an example
    batch as an array or tensor, or one for each argument in a tuple. Raises ModelFileError for files that cannot be
    read, and UnsupportedModelError with every layer that has no spiking counterpart.
    """
    if isinstance(model, (str, PathLike)):
        return _load_file(Path(model))
    if _is_a(model, "keras", "Model"):
        from . import keras_model

        return keras_model.load(model)
    if _is_a(model, "torch", "nn.Module"):
        from . import torch_module

        return torch_module.load(model, inputs)
    if _is_a(model, "onnx", "ModelProto"):
        from . import onnx_file

        return onnx_file.load_proto(model)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise UnsupportedModelError(f"cannot read an object of type {kind}", [f"give {_ACCEPTED}"])


def _is_a(model: Any, package: str, name: str) -> bool:
    """Whether a model is of a class of a package; whoever holds such a model has imported it."""
    module = sys.modules.get(package)
    return module is not None and isinstance(model, attrgetter(name)(module))


def _load_file(path: Path) -> Network:
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file; give {_ACCEPTED}")
    match path.suffix.lower():
        case ".keras" | ".h5" | ".hdf5":
            from . import keras_file

            return keras_file.load(path)
        case ".onnx":
            from . import onnx_file

            return onnx_file.load(path)
    raise ModelFileError(f"{path}: cannot tell what this is from its name; give {_ACCEPTED}")


__all__ = ["load"]
