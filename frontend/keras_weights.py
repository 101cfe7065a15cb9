"""What a Keras file says that it holds, looked at before any memory is taken for it."""

from __future__ import annotations

import copy
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..ir import ModelFileError
from . import hdf5_copy
from .support import first_line

_LARGEST_CONFIG = 2**26  # bytes; the largest models of keras.applications have less than a megabyte
_SMALL = 2**27  # bytes that a part of an archive may unpack to however small it is
_SMALL_ARRAYS = 2**20  # bytes that arrays may have however small the file is
_CHUNK = 2**20
_WEIGHTS = "model.weights.h5"
_DENSEST = 50  # bytes out of each byte of an archive: weights do not compress as well


def check(path: Path, weights: Path, config: Any) -> None:
    """Raise ModelFileError for weights that are fewer than the configuration needs.

    Keras takes the memory for a model before it looks at the weights.
    """
    held, needed = _bytes_held(weights), _parameters(path, config)
    if needed > max(held, 1):
        raise ModelFileError(
            f"{path} is damaged: its layers have {needed} parameters, but it holds {held} bytes of them"
        )


def check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise ModelFileError for an archive that unpacks to far more than it is."""
    for entry in archive.infolist():
        limit = max(_SMALL, _DENSEST * entry.compress_size)
        if entry.filename == "config.json":
            limit = _LARGEST_CONFIG
        if entry.file_size > limit:
            raise ModelFileError(f"{path} is not a model: {entry.filename} in it unpacks to {entry.file_size} bytes")


def copied(path: Path, folder: Path) -> Path:
    """A sound copy, in a folder of ours, of the HDF5 file that holds the weights; raises ModelFileError."""
    copy, source = folder / "model.weights.h5", path
    if path.suffix.lower() == ".keras":
        source = folder / "unpacked.h5"
        _unpack(path, source)
    hdf5_copy.copy(source, copy, max(_SMALL_ARRAYS, _DENSEST * path.stat().st_size), str(path))
    return copy


def _unpack(path: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as entry, target.open("wb") as unpacked:
            shutil.copyfileobj(entry, unpacked, _CHUNK)  # HDF5 jumps about, which is slow within an archive
    except KeyError:
        raise ModelFileError(f"{path} holds no {_WEIGHTS}; save the whole model with Keras 3") from None
    except Exception as error:  # of zipfile and of the decompressors
        raise ModelFileError(f"{path} holds weights that cannot be read: {first_line(error)}") from None


def _bytes_held(weights: Path) -> int:
    """How many bytes of arrays a file holds."""
    import h5py

    sizes: list[int] = []
    with h5py.File(weights, "r") as file:
        file.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


def _parameters(path: Path, config: Any) -> int:
    """How many parameters a configuration asks for; raises ModelFileError where Keras cannot build it."""
    import keras
    from keras.src.legacy.saving.saving_utils import model_from_config

    build = keras.saving.deserialize_keras_object if path.suffix.lower() == ".keras" else model_from_config
    try:
        with _without_memory(), keras.StatelessScope(initialize_variables=False):
            return build(copy.deepcopy(config)).count_params()
    except Exception as error:  # whatever Keras raises about configurations
        raise ModelFileError(f"{path} is damaged or from another version of Keras: {first_line(error)}") from None


@contextmanager
def _without_memory() -> Iterator[None]:
    """Keras forgets the variables that are made in this context, which it would give memory at its next chance."""
    from keras.src.backend.common import global_state

    pending = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    known = len(pending)
    try:
        yield
    finally:
        del pending[known:]
