"""Reading .keras and .h5 files without running any code from them."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..ir import ModelFileError, UnsupportedModelError
from . import keras_model, keras_weights
from .other_files import REBUILD, is_too_old
from .reading import Reading
from .support import Layer, kind, refusal

_MODELS = {"Functional", "Model", "Sequential"}
FOREIGN = "its class is not part of Keras, and code is not run from files; load it in Python and give the model itself"
_WRAPPERS = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}  # layers of Keras that hold code
_FUNCTION = "it refers to Python code, which is not run from files; load it in Python and give the model itself"


def read(path: Path, title: str | None = None, inputs: Any = None) -> Reading:
    """The analog network of a Keras model file; `title` is what errors call it, if not by its path.

    `inputs` says the sizes that the model leaves open (`given.py`). Raises ModelFileError for a file that is damaged or
    no Keras model, and UnsupportedModelError with every layer that has no spiking counterpart or would run code.
    """
    title = title or str(path)
    keras_model.packages()
    return keras_model.read(loaded(path, title), title, inputs)


def loaded(path: Path, title: str) -> Any:
    """The Keras model of a file, on any backend; errors as for `read`.

    Only a sound copy of its weights is shown to Keras, and a configuration without code in it.
    """
    archived = path.suffix.lower() == ".keras"
    with tempfile.TemporaryDirectory() as folder:
        if archived:
            config = _archived(path)
            weights = keras_weights.copied(path, Path(folder))
        else:
            weights = keras_weights.copied(path, Path(folder))
            config = _attached(path, weights)
        _check_problems(config, title)
        return keras_weights.model_of(path, weights, config)


def _check_problems(config: Any, title: str) -> None:
    problems = list(_problems(config, ""))
    if any(code for *_, code in problems):
        lines = list(dict.fromkeys(layer.problem(reason) for layer, reason, _ in problems))
        raise UnsupportedModelError(
            f"{title} cannot be read safely, or holds layers without a spiking counterpart", lines
        )


def _archived(path: Path) -> Any:
    """The configuration inside a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            keras_weights.check_archive(path, archive)
            config = json.loads(archive.read("config.json"))
            return {**config, "compile_config": None}  # optimizers and losses are not loaded
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(f"{path} is not a .keras file, or only a part of one: {error}") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ModelFileError(f"{path} is a zip file, but not a model saved by Keras") from None


def _attached(path: Path, copy: Path) -> Any:
    """The configuration inside an .h5 file, of which there is a sound copy."""
    import h5py

    with h5py.File(copy, "r") as file:
        config, version = file.attrs.get("model_config"), _text(file.attrs.get("keras_version"))
    if config is None:
        raise ModelFileError(f"{path} holds no model, at most its weights; save the whole model")
    if is_too_old(version):
        raise ModelFileError(f"{path} was written by Keras {version}, whose layers no later one knows; {REBUILD}")
    try:
        return json.loads(config)
    except (ValueError, TypeError, RecursionError):
        raise ModelFileError(f"{path} is an HDF5 file, but not a model saved by Keras") from None


def _text(attribute: Any) -> str:
    """An attribute of an HDF5 file that should be a short text."""
    given = attribute.decode("utf-8", "replace") if isinstance(attribute, bytes) else attribute
    return given[:20].partition("\n")[0] if isinstance(given, str) else ""


def _problems(value: Any, outer: str, owner: Layer | None = None) -> Iterator[tuple[Layer, str, bool]]:
    """The layers in a configuration that are refused, each once, and whether they would run code.

    `outer` is the path of the enclosing models, `owner` the layer whose configuration this is.
    """
    match value:
        case {"class_name": str(name), "config": config} if not name.startswith("__") or name == "__lambda__":
            yield from _entry_problems(value, name, config, outer, owner)
        case {"value": [str(), _, _]} if owner and len(value) == 1:  # a lambda as Keras writes it for an activation
            yield owner, _FUNCTION, True
        case dict():
            for key, item in value.items():
                if owner and key.endswith("activation") and isinstance(item, str) and not _is_activation(item):
                    yield owner, _FUNCTION, True  # as Keras 2 writes functions: by their names alone
                elif key != "compile_config":  # optimizers and losses are not loaded
                    yield from _problems(item, outer, owner)
        case list():
            for item in value:
                yield from _problems(item, outer, owner)


def _entry_problems(
    entry: dict[str, Any], name: str, config: Any, outer: str, owner: Layer | None
) -> Iterator[tuple[Layer, str, bool]]:
    if not isinstance(config, dict) or "name" not in config or name.endswith("DTypePolicy"):
        if _is_foreign(entry):  # a function, initialiser or constraint of the layer
            yield owner or Layer(name, "function", 0), _FUNCTION, True
        return
    activation = config["activation"] if isinstance(config.get("activation"), str) else None
    path = f"{outer}{config['name']}"
    layer = Layer(path, kind(name, activation), 0)
    foreign = _is_foreign(entry)
    reason = FOREIGN if foreign else refusal([name], activation, config.get("data_format"))
    inside = list(_problems(config, f"{path}/" if owner and name in _MODELS else outer, layer))
    code = foreign or name in _WRAPPERS or any(code for *_, code in inside)
    if reason is not None:
        yield layer, reason, code
    elif name in _MODELS or not inside:
        yield from inside
    else:
        yield inside[0][0], inside[0][1], code


def _is_foreign(entry: dict[str, Any]) -> bool:
    """Whether a class or function is not part of Keras: reading it would need, or run, somebody's code."""
    import keras

    module = entry.get("module")
    if isinstance(module, str):
        return module != "keras" and not module.startswith("keras.")
    known = (keras.layers, keras.models, keras.initializers, keras.regularizers, keras.constraints)
    name = entry["class_name"]
    return name not in _MODELS and not any(hasattr(namespace, name) for namespace in known)


def _is_activation(name: str) -> bool:
    """Whether an activation is one of Keras's own."""
    import keras

    try:
        keras.activations.get(name)
    except ValueError:
        return False
    return True
