"""What a Keras file says that it holds, looked at before any memory is taken for it."""

from __future__ import annotations

import copy
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..ir import ModelFileError

_LARGEST_CONFIG = 2**26  # bytes; the largest models of keras.applications have less than a megabyte
_SMALL = 2**27  # bytes that a part of an archive may unpack to however small it is
_CHUNK = 2**20
_DENSEST = 50  # bytes out of each byte of an archive: weights do not compress as well


def check(path: Path, config: Any) -> None:
    """Raise ModelFileError for weights that reach outside the file, or are fewer than the configuration needs.

    Keras takes the memory for a model before it looks at the weights.
    """
    held = 0
    with _weights(path) as file:
        if file is not None:
            _check_inside(path, file)
            held = _bytes_held(file)
    needed = _parameters(config)
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


@contextmanager
def _weights(path: Path) -> Iterator[Any]:
    """The HDF5 file with the weights; None where there is none."""
    import h5py

    try:
        if path.suffix.lower() != ".keras":
            with h5py.File(path, "r") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive:
            if "model.weights.h5" not in archive.namelist():
                yield None
                return
            with archive.open("model.weights.h5") as entry, tempfile.TemporaryFile() as unpacked:
                shutil.copyfileobj(entry, unpacked, _CHUNK)  # HDF5 jumps about, which is slow within an archive
                with h5py.File(unpacked, "r") as file:
                    yield file
    except ModelFileError:
        raise
    except Exception as error:  # h5py has no exception of its own for damage
        raise ModelFileError(f"{path} holds weights that cannot be read: {error}") from None


def _items(group: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every link within a group, at any depth: its path, the kind of link, and the group or dataset that it gives.

    An object that is linked to twice is given once, so that circles end.
    """
    import h5py

    seen: set[Any] = set()
    pending = [group]
    while pending:
        parent = pending.pop()
        for name in parent:
            link = parent.get(name, getlink=True)
            item = parent.get(name) if isinstance(link, h5py.HardLink) else None
            yield f"{parent.name}/{name}", link, item
            if isinstance(item, h5py.Group) and item.id not in seen:
                seen.add(item.id)
                pending.append(item)


def _check_inside(path: Path, file: Any) -> None:
    import h5py

    for name, link, item in _items(file):
        away = isinstance(link, h5py.ExternalLink)
        if away or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise ModelFileError(f"{path}: the weights {name} are in another file, which is not followed")


def _bytes_held(file: Any) -> int:
    """How many bytes of arrays a file really holds, and not only promises."""
    import h5py

    return sum(
        min(item.nbytes, _DENSEST * item.id.get_storage_size())
        for _, _, item in _items(file)
        if isinstance(item, h5py.Dataset)
    )


def _parameters(config: Any) -> int:
    """How many parameters a configuration asks for; 0 where Keras cannot build it, which loading will say better."""
    import keras

    with suppress(Exception), _without_memory(), keras.StatelessScope(initialize_variables=False):
        return keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True).count_params()
    return 0


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
