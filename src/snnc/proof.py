"""Proof that a model was read right: the analog network and the model itself, on the same random images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ir
from .ir import MismatchError, Network

if TYPE_CHECKING:
    from .frontend.reading import Reading

LARGEST_ERROR = 1e-4  # of the largest output: what single precision gives, with room for deep networks
LARGEST_MODEL = 100_000_000  # parameters; the command line proves models up to here without being asked
_SEED = 0

Arrays = Mapping[str, np.ndarray]


def load(model: str | PathLike[str] | Any, inputs: Any = None, verify: bool | None = False) -> Network:
    """The network of a model, compared with the model if `verify` says so; None: if the model is not very large.

    A network file holds no model to compare with, so that `verify` changes nothing there.
    """
    if isinstance(model, (str, PathLike)) and Path(model).suffix.lower() == ".snn":
        return ir.load(model)
    from . import frontend

    reading = frontend.read(model, inputs)
    if wanted(reading, verify):
        prove(reading)
    return reading.network


def wanted(reading: Reading, verify: bool | None) -> bool:
    """Whether to compare: as told, or else if the network should be exact and the model is not very large."""
    return reading.exact and reading.parameters < LARGEST_MODEL if verify is None else verify


def prove(reading: Reading) -> float:
    """The largest relative error of the network's outputs, on an image of normal noise and one of bytes.

    Raises MismatchError with the first layer that differs where it is above LARGEST_ERROR.
    """
    from .backend.onnxruntime import CompiledAnalog

    compiled, largest = CompiledAnalog(reading.network), 0.0
    for image in _images(reading):
        (activations,) = compiled.activations(dict(image), progress=False)
        given = [tensor for tensor in reading.outputs if reading.tensor(tensor, activations) is not None]
        tensors = given or list(reading.ends)  # where the network gives something else, as scores in place of a class
        expected = reading.run(image, tensors)
        errors = [_error(reading, tensor, expected[tensor], activations) for tensor in tensors]
        if any(error is not None and not error <= LARGEST_ERROR for error in errors):
            raise _mismatch(reading, image, activations)
        largest = max(largest, *(error or 0.0 for error in errors))
    return largest


def _images(reading: Reading) -> list[Arrays]:
    """Noise around zero, and whole numbers as in images that are not scaled yet; inputs of integers take those only."""
    rng = np.random.default_rng(_SEED)
    shapes = {name: (1, *reading.network.populations[name].shape) for name in reading.network.inputs}
    noise = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    numbers = {name: rng.integers(0, 128, shape).astype(np.float32) for name, shape in shapes.items()}
    return [{**noise, **{name: numbers[name] for name in reading.integers}}, numbers]


def _error(reading: Reading, tensor: str, expected: np.ndarray, activations: Arrays) -> float | None:
    """The largest difference of a tensor, relative to its largest number; None if the network has no such tensor."""
    found = reading.tensor(tensor, activations)
    if found is None:
        return None
    if found.size != expected.size:
        return math.inf
    with np.errstate(invalid="ignore"):  # infinities give no number, which is no agreement
        difference = np.abs(found.reshape(-1) - expected.reshape(-1)).max()
    return float(difference / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def _mismatch(reading: Reading, image: Arrays, activations: Arrays) -> MismatchError:
    """What to say of a network that differs, from where it differs first."""
    title = f"{reading.title}: the network that was read does not compute what the model does"
    report = "this is a mistake of snnc's: please report it, with the model"
    expected = reading.run(image, [*reading.ends, *(name for name in reading.outputs if name not in reading.ends)])
    compared = 0
    for tensor, layer in reading.ends.items():
        if not np.isfinite(expected[tensor]).all():
            return MismatchError(f"{title}: {layer.path} ({layer.kind}) gives numbers that are not finite", layer.path)
        error = _error(reading, tensor, expected[tensor], activations)
        if error is not None and not error <= LARGEST_ERROR:
            where = f"the first layer that differs is {layer.path} ({layer.kind}), by {error:.1e} of its largest output"
            return MismatchError(f"{title}: {where}; {compared} layer outputs before it agree; {report}", layer.path)
        compared += error is not None
    if compared:
        return MismatchError(f"{title}: its outputs differ, although all {compared} layers within agree; {report}")
    return MismatchError(f"{title}; only its outputs could be compared, so that no layer can be named; {report}")
