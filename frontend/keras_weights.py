"""What a Keras file says that it holds, looked at before any memory is taken for it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..ir import ModelFileError
from . import hdf5_copy
from .support import first_line

_LARGEST_CONFIG = 2**26  # bytes; the largest models of keras.applications have less than a megabyte
_SMALL = 2**27  # bytes that a part of an archive may unpack to however small it is
_SMALL_ARRAYS = 2**20  # bytes that arrays may have however small the file is
_CHUNK = 2**20
_WEIGHTS = "model.weights.h5"
_ALIGNED = 64  # bytes; TensorFlow's kernels want this
_DENSEST = 50  # bytes out of each byte of an archive: weights do not compress as well


def model_of(path: Path, weights: Path, config: Any) -> Any:
    """The Keras model of a configuration, with the weights of an HDF5 file; `path` is what errors call it.

    Keras would take memory for all variables, fill them with random numbers, and look at the file after that. Here the
    model is made without memory, so that each weight is held once. Raises ModelFileError for what does not fit.
    """
    import keras

    try:
        with _without_memory() as variables, keras.StatelessScope(initialize_variables=False) as state:
            model = _built(path, config)
            held, needed = _bytes_held(weights), model.count_params()
            if needed > max(held, 1):
                raise ModelFileError(
                    f"{path} is damaged: its layers have {needed} parameters, but it holds {held} bytes of them"
                )
            with _read_in_place(model.variables):
                model.load_weights(weights)
        for variable in variables:
            value = state.get_current_value(variable)
            if value is None:  # such as the seeds of dropout
                variable._deferred_initialize()
            else:
                variable._initialize(value)
    except ModelFileError:
        raise
    except Exception as error:  # whatever Keras raises about weights and configurations
        raise ModelFileError(f"{path} is damaged or from another version of Keras: {first_line(error)}") from None
    return model


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
    copy, source = folder / "model.h5", path  # by its name, Keras tells what a file is
    if path.suffix.lower() == ".keras":
        copy, source = folder / "model.weights.h5", folder / "unpacked.h5"
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


def _built(path: Path, config: Any) -> Any:
    import keras
    from keras.src.legacy.saving.saving_utils import model_from_config

    if path.suffix.lower() == ".keras":
        return keras.saving.deserialize_keras_object(config, safe_mode=True)
    return model_from_config(config)


@contextmanager
def _read_in_place(variables: Sequence[Any]) -> Iterator[None]:
    """Within this context, what variables are assigned is read once; TensorFlow would hold it three times meanwhile."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    for variable in variables:
        variable._convert_to_tensor = _tensor
    try:
        yield
    finally:
        for variable in variables:
            del variable._convert_to_tensor


def _tensor(value: Any, dtype: str) -> Any:
    """A tensor with the numbers of an HDF5 dataset, which are read straight into its memory."""
    import tensorflow as tf

    kind = tf.as_dtype(dtype).as_numpy_dtype
    if not value.size or np.dtype(kind).kind not in "fiu":  # kinds that cannot be handed over
        return tf.convert_to_tensor(value, dtype)
    memory = np.empty(value.size * np.dtype(kind).itemsize + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    array = memory[start : start + memory.size - _ALIGNED].view(kind).reshape(value.shape)
    array[...] = value
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


@contextmanager
def _without_memory() -> Iterator[list[Any]]:
    """Keras forgets the variables that are made in this context, which it would give memory at its next chance.

    Afterwards the list holds them.
    """
    from keras.src.backend.common import global_state

    pending = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    known = len(pending)
    made: list[Any] = []
    try:
        yield made
    finally:
        made += pending[known:]
        del pending[known:]
