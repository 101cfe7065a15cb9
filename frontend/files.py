"""Model files, which are untrusted: no code from them is run, and nothing outside them is read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..ir import ModelFileError, Network, UnsupportedModelError
from ..ir.errors import first_line
from .keras import load_keras, objection, require_keras
from .lowering import REFUSAL, Layer, Source, lower

LARGEST_CONFIG = 64 * 2**20


def load_keras_file(path: Path) -> Network:
    """Read a `.keras` or `.h5` file in Keras's safe mode.

    Raises ModelFileError for a file that is not one, UnsupportedModelError with every layer that has no
    spiking counterpart or that would run code of its own.
    """
    config = _keras_config(path) if path.suffix.lower() == ".keras" else _h5_config(path)
    require_keras()
    import keras

    objections = list(_objections(config["config"], ""))
    if any(runs_code for _, runs_code in objections):
        raise UnsupportedModelError(f"{path}: {REFUSAL}", [message for message, _ in objections])
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damage happens to cause
        raise ModelFileError(f"{path}: Keras cannot read this file: {first_line(error)}") from None
    return load_keras(model)


def _keras_config(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > LARGEST_CONFIG:
                raise ModelFileError(f"{path}: its config.json is too large to be that of a model")
            return _as_config(path, archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(f"{path} is not a Keras model file, or is damaged: {first_line(error)}") from None


def _h5_config(path: Path) -> dict[str, Any]:
    require_keras()
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelFileError(f"{path} is not an HDF5 file, or is damaged: {first_line(error)}") from None
    if text is None:
        raise ModelFileError(f"{path} holds no model, perhaps weights only; save it with model.save(…)")
    return _as_config(path, text)


def _as_config(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the model's description is damaged: {first_line(error)}") from None
    if not isinstance(config, dict) or "class_name" not in config or "config" not in config:
        raise ModelFileError(f"{path}: the model's description is not that of a Keras model")
    return config


def _objections(config: Any, prefix: str) -> Iterator[tuple[str, bool]]:
    """Messages for the layers of a model's description that cannot be converted, and whether each would run code.

    Found from the description alone, so that a layer that may not be built does not hide the others.
    """
    if isinstance(config, list):
        for item in config:
            yield from _objections(item, prefix)
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    path = f"{prefix}{name}" if name else prefix.rstrip("/")
    if (foreign := _foreign(config)) is not None:
        yield f"{path} ({config['class_name']}): {foreign}", True
    elif name and "inbound_nodes" in config and (message := _known_objection(config, path)) is not None:
        yield message, False
    else:
        nested = isinstance(inner, dict) and "layers" in inner
        for value in config.values():
            yield from _objections(value, f"{path}/" if nested else prefix)


def _foreign(config: dict[str, Any]) -> str | None:
    """Why an object of a model's description would run code that is not Keras's own, if it would."""
    module = config.get("module")
    if config.get("class_name") == "Lambda":
        return "it holds code, which snnc never runs from a file; say it with ordinary layers"
    if "class_name" in config and isinstance(module, str) and module.partition(".")[0] not in ("keras", "builtins"):
        return f"it is defined in {module!r}, not in Keras; load the model in Python and give that to snnc.load"
    return None


def _known_objection(config: dict[str, Any], path: str) -> str | None:
    import keras

    try:  # the descriptions in .h5 files leave out that a layer is one of Keras's own
        return objection(keras.layers.deserialize({"module": "keras.layers", "registered_name": None, **config}), path)
    except Exception:  # a layer that Keras cannot build alone says nothing; loading the model will tell
        return None


def load_onnx_file(path: Path) -> Network:
    """Read an ONNX file; its weights must lie inside it. Raises ModelFileError or UnsupportedModelError."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(io.BytesIO(path.read_bytes()), load_external_data=False)
        if any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer):
            raise ModelFileError(f"{path} keeps weights in other files; save it with all weights inside")
        onnx.checker.check_model(model)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelFileError(f"{path} is not an ONNX model, or is damaged: {first_line(error)}") from None
    initialisers = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value.name for value in model.graph.input if value.name not in initialisers}
    return lower(Source(model, inputs, {}, lambda node: Layer(node.name or node.output[0], node.op_type)), {})
