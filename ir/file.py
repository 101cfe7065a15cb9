"""Network files: the structure as JSON and the arrays as safetensors, in one file (`.snn`).

The file is a safetensors file whose header carries the structure, so that any safetensors reader can
look at the arrays. Reading it executes nothing: classes are looked up by name among the IR's own.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .arguments import as_network, as_path
from .errors import NetworkFileError, SnncError
from .network import Connection, Network, Origin, Population
from .neurons import NEURONS
from .operators import OPERATORS
from .record import Record, is_default
from .verify import verify

VERSION = 2  # 1 had no ports; all of its files are read
_CLASSES: dict[str, type] = {
    **{cls.__name__: cls for cls in (Population, Connection, Origin)},
    **NEURONS,
    **OPERATORS,
}


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write `network` to `path`: beside it first, then renamed, so that no half-written file is left.

    The same network gives the same bytes. Raises NetworkFileError where the file cannot be written.
    """
    from safetensors.numpy import save_file

    path = as_path(path, "a network file", NetworkFileError)
    network = as_network(network)
    arrays = _Arrays()
    structure = {
        "version": VERSION,
        "timesteps": network.timesteps,
        **({"lag": network.lag} if network.lag != 1 else {}),
        "inputs": network.inputs,
        "outputs": network.outputs,
        "populations": [_encode(network.populations[name], arrays) for name in network.populations],
        "connections": [_encode(connection, arrays) for connection in network.connections],
    }
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        try:
            save_file(arrays.by_key, beside, {"snnc": json.dumps(structure, separators=(",", ":"))})
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, path)
        finally:
            Path(beside).unlink(missing_ok=True)
    except OSError as error:
        raise NetworkFileError(f"cannot write {path}: {error.strerror or error}") from None


def load(path: str | os.PathLike[str]) -> Network:
    """Read a network file and verify it. Raises NetworkFileError on anything that is not one."""
    from safetensors import SafetensorError, safe_open

    path = as_path(path, "a network file", NetworkFileError)
    if not path.is_file():
        raise NetworkFileError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("snnc")
            arrays = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise NetworkFileError(f"{path} is not a network file written by snnc: {error}") from None
    if text is None:
        raise NetworkFileError(f"{path} is a safetensors file, but not a network file written by snnc")
    try:
        network = _network(json.loads(text), arrays)
        verify(network)
    except SnncError as error:
        raise NetworkFileError(f"{path} does not hold a valid network: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise NetworkFileError(f"{path} is a damaged network file: {type(error).__name__} {error}") from None
    return network


def _network(structure: dict[str, Any], arrays: dict[str, np.ndarray]) -> Network:
    if structure["version"] not in range(1, VERSION + 1):
        raise NetworkFileError(f"file version {structure['version']}, but this snnc reads version {VERSION}")
    return Network(
        [_decode(entry, arrays) for entry in structure["populations"]],
        [_decode(entry, arrays) for entry in structure["connections"]],
        structure["inputs"],
        structure["outputs"],
        structure["timesteps"],
        structure.get("lag", 1),
    )


class _Arrays:
    """The arrays of a network by their keys in the file; equal ones are one, as the weights of unrolled steps are."""

    def __init__(self) -> None:
        self.by_key: dict[str, np.ndarray] = {}
        self._alike: dict[Any, list[str]] = {}

    def key(self, array: np.ndarray) -> str:
        alike = self._alike.setdefault((array.shape, array.dtype, array.reshape(-1)[:16].tobytes()), [])
        same = next((key for key in alike if np.array_equal(self.by_key[key], array)), None)
        if same is not None:
            return same
        key = f"{len(self.by_key):06d}"
        self.by_key[key] = array
        alike.append(key)
        return key


def _encode(value: Any, arrays: _Arrays) -> Any:
    if isinstance(value, (Record, Origin)):
        told = [
            f for f in fields(value) if not ("later" in f.metadata and is_default(getattr(value, f.name), f.default))
        ]
        return {"class": type(value).__name__} | {f.name: _encode(getattr(value, f.name), arrays) for f in told}
    if isinstance(value, np.ndarray):
        return {"array": arrays.key(value)}
    if isinstance(value, tuple):
        return [_encode(item, arrays) for item in value]
    return value


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict) and "class" in value:
        cls = _CLASSES[value["class"]]
        return cls(**{name: _decode(item, arrays) for name, item in value.items() if name != "class"})
    if isinstance(value, dict):
        return arrays[value["array"]]
    if isinstance(value, list):
        return tuple(_decode(item, arrays) for item in value)
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
