"""Model files, which are untrusted: no code from them is run, and nothing outside them is read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..ir import ModelFileError, Network, UnsupportedModelError

LARGEST_CONFIG = 64 * 2**20


def load_keras_file(path: Path) -> Network:
    """Read a `.keras` or `.h5` file in Keras's safe mode.

    Raises ModelFileError for a file that is not one, UnsupportedModelError with every layer that has no
    spiking counterpart or that would run code of its own.
    """
    from .keras import load_keras, require_keras

    config = _keras_config(path) if path.suffix.lower() == ".keras" else _h5_config(path)
    require_keras()
    import keras

    foreign = list(_foreign_layers(config, ""))
    if foreign:
        raise UnsupportedModelError(
            f"{path}: layer(s) of this model have no spiking counterpart in snnc:",
            [*(message for _, message in foreign), *_problems_beside(config)],
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damage happens to cause
        raise ModelFileError(f"{path}: Keras cannot read this file: {_first_line(error)}") from None
    return load_keras(model)


def _keras_config(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > LARGEST_CONFIG:
                raise ModelFileError(f"{path}: its config.json is too large to be that of a model")
            return _as_config(path, archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(f"{path} is not a Keras model file, or is damaged: {_first_line(error)}") from None


def _h5_config(path: Path) -> dict[str, Any]:
    from .keras import require_keras

    require_keras()
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelFileError(f"{path} is not an HDF5 file, or is damaged: {_first_line(error)}") from None
    if text is None:
        raise ModelFileError(f"{path} holds no model, perhaps weights only; save it with model.save(…)")
    return _as_config(path, text)


def _as_config(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the model's description is damaged: {_first_line(error)}") from None
    if not isinstance(config, dict) or "class_name" not in config:
        raise ModelFileError(f"{path}: the model's description is not that of a Keras model")
    return config


def _foreign_layers(config: Any, prefix: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The layers that would run code: Lambdas, and classes that are not Keras's own."""
    if isinstance(config, list):
        for item in config:
            yield from _foreign_layers(item, prefix)
    if not isinstance(config, dict):
        return
    name = config.get("config", {}).get("name") if isinstance(config.get("config"), dict) else None
    kind, module = config.get("class_name"), config.get("module")
    path = f"{prefix}{name}"
    if kind == "Lambda":
        yield config, f"{path} (Lambda): it holds code, which snnc never runs from a file; say it with ordinary layers"
    elif name and isinstance(module, str) and module.partition(".")[0] != "keras":
        yield config, f"{path} ({kind}): a class of {module!r}, which is not Keras's; load the model in Python instead"
    elif name is None and kind == "function" and not str(module or "keras").startswith(("keras", "builtins")):
        yield config, f"{prefix.rstrip('/')}: the function {config.get('config')!r} of {module!r} is not Keras's"
    inner = f"{path}/" if name and kind in ("Functional", "Sequential", "Model") and prefix is not None else prefix
    for key, value in config.items():
        if key not in ("class_name", "module"):
            yield from _foreign_layers(value, inner)


def _problems_beside(config: dict[str, Any]) -> list[str]:
    """What else is unsupported in a model with foreign layers: found with those replaced by the identity."""
    import keras

    from .keras import load_keras

    replaced = json.loads(json.dumps(config))
    for layer, _ in list(_foreign_layers(replaced, "")):
        layer.update(class_name="Identity", module="keras.layers", registered_name=None)
        layer["config"] = {"name": layer["config"]["name"]} if isinstance(layer.get("config"), dict) else {}
    try:
        load_keras(keras.saving.deserialize_keras_object(replaced, safe_mode=True))
    except UnsupportedModelError as error:
        return list(error.problems)
    except Exception:  # without its foreign layers the model may not even build: then they are all we can name
        return []
    return []


def load_onnx_file(path: Path) -> Network:
    """Read an ONNX file; its weights must lie inside it. Raises ModelFileError or UnsupportedModelError."""
    import onnx
    from google.protobuf.message import DecodeError

    from .lowering import Layer, Source, lower

    try:
        model = onnx.load_model(io.BytesIO(path.read_bytes()), load_external_data=False)
        if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
            raise ModelFileError(f"{path} keeps weights in other files; save it with all weights inside")
        onnx.checker.check_model(model)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelFileError(f"{path} is not an ONNX model, or is damaged: {_first_line(error)}") from None
    initialisers = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value.name for value in model.graph.input if value.name not in initialisers}
    return lower(Source(model, inputs, {}, lambda node: Layer(node.name or node.output[0], node.op_type)), {})


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
