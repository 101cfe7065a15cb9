"""Everything that reads a trained model and makes an analog network of it."""

from __future__ import annotations

import sys
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ir import ModelFileError, Network, UnsupportedModelError

if TYPE_CHECKING:
    from .reading import Reading

_ACCEPTED = (
    "a Keras model, a torch.nn.Module, a TensorFlow function, an onnx.ModelProto, "
    "or the path of a .keras, .h5 or .onnx file or of a SavedModel folder"
)


def load(model: str | PathLike[str] | Any, inputs: Any = None) -> Network:
    """Read a trained model as an analog network, with shapes (H, W, C) or (N,).

    The arguments and errors are those of `read`.
    """
    return read(model, inputs).network


def read(model: str | PathLike[str] | Any, inputs: Any = None) -> Reading:
    """Read a trained model, and keep what is needed to compare the network with it.

    `model` is a Keras model, of Keras 3 on any backend or of Keras 2 (`tf_keras`), a torch.nn.Module, a `tf.function`,
    an onnx.ModelProto, or the path of a `.keras`, `.h5`, `.hdf5` or `.onnx` file or of a SavedModel folder, of which no
    code is ever run. Models are left as they were. `inputs` says what a torch module takes, or a function without an
    input signature, and the sizes that other models leave open: an example, which is a batch, as an array or tensor, or
    its shape, as in (1, 32, 32, 3), or a number for an input of one number; for several inputs a tuple of them in
    order, or a mapping by name. Raises ModelFileError for files that cannot be read, DataError for inputs that the
    model does not take, and UnsupportedModelError with every layer that has no spiking counterpart, or every size that
    is open.
    """
    if isinstance(model, (str, PathLike)):
        return _read_file(Path(model), inputs)
    if _is_a(model, "keras", "Model"):
        from . import keras_elsewhere, keras_model

        return (keras_elsewhere if keras_elsewhere.runs_elsewhere() else keras_model).read(model, inputs=inputs)
    if _is_a(model, "tf_keras", "Model"):
        from . import keras2_model

        return keras2_model.read(model, inputs)
    if _is_a(model, "torch", "nn.Module"):
        from . import torch_module

        return torch_module.read(model, inputs)
    if _is_a(model, "torch", "export.ExportedProgram"):
        from . import torch_module

        return torch_module.read_program(model, inputs)
    if _is_a(model, "tensorflow", "types.experimental.Callable"):
        from . import tf_function

        return tf_function.read(model, inputs)
    if _is_a(model, "onnx", "ModelProto"):
        from . import onnx_file

        return onnx_file.read_proto(model, inputs)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise UnsupportedModelError(f"cannot read an object of type {kind}", [f"give {_ACCEPTED}"])


def _is_a(model: Any, package: str, name: str) -> bool:
    """Whether a model is of a class of a package; whoever holds such a model has imported it."""
    module = sys.modules.get(package)
    return module is not None and isinstance(model, attrgetter(name)(module))


def _read_file(path: Path, inputs: Any) -> Reading:
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    if (path / "saved_model.pb").is_file():
        from . import saved_model

        return saved_model.read(path, inputs)
    if not path.is_file():
        raise ModelFileError(f"{path} is not a file, nor a SavedModel; give {_ACCEPTED}")
    match path.suffix.lower():
        case ".keras" | ".h5" | ".hdf5":
            from . import keras_elsewhere, keras_file

            if keras_elsewhere.runs_elsewhere():
                return keras_elsewhere.read_file(path, inputs)
            return keras_file.read(path, inputs=inputs)
        case ".onnx":
            from . import onnx_file

            return onnx_file.read(path, inputs)
    from .other_files import what_it_is

    if said := what_it_is(path):
        raise ModelFileError(f"{path} {said}")
    raise ModelFileError(f"{path}: cannot tell what this is from its name; give {_ACCEPTED}")


__all__ = ["load", "read"]
