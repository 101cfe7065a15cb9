"""Proof that a model was read right: the analog network and the model itself, on the same random images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ir
from .ir import (
    Input,
    MismatchError,
    ModelWarning,
    Network,
    Population,
    QuantizedRelu,
    SnncError,
    SomaNeuron,
    UncomparableError,
)

if TYPE_CHECKING:
    from .frontend.reading import Computed, Reading
    from .frontend.support import Layer

LARGEST_ERROR = 1e-4  # of the largest output: what single precision gives, with room for deep networks
STRAYS = 0.01  # of the numbers of a layer that rounds, or two: they lie between two steps, and the last bit decides
LARGEST_MODEL = 100_000_000  # parameters; the command line proves models up to here without being asked
_SEED = 0
_ROUNDING = 2.0**-20  # of each number of an image: what the sums of a few layers are rounded by, or little more
_STEADY = 8  # times what a tensor moves by when the image does; more is no rounding
_CLOSE = 0.01  # of its largest number: a tensor that moves by more is told too badly for a comparison
_SMALLEST = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)  # less has fewer digits in single precision

Arrays = Mapping[str, np.ndarray]


def load(model: str | PathLike[str] | Any, inputs: Any = None, verify: bool | None = False) -> Network:
    """The network of a model, compared with the model if `verify` says so; None: if the model is not very large.

    A network file holds no model to compare with, so that `verify` changes nothing there. Where nothing can run the
    model, True raises UncomparableError, and None leaves it at a ModelWarning.
    """
    if isinstance(model, (str, PathLike)) and Path(model).suffix.lower() == ".snn":
        return ir.load(model)
    from . import frontend

    reading = frontend.read(model, inputs)
    compared(reading, verify)
    return reading.network


def compared(reading: Reading, verify: bool | None) -> float | None:
    """The largest relative error, as `prove` gives it; None where it was not wanted, or could not be compared."""
    if not (reading.parameters < LARGEST_MODEL if verify is None else verify):
        return None
    try:
        return prove(reading)
    except UncomparableError as error:
        if verify:
            raise
        warnings.warn(str(error), ModelWarning, stacklevel=3)
        return None


def prove(reading: Reading) -> float:
    """The largest relative error of the network's outputs, on an image of normal noise and one of bytes.

    Where activations are rounded, the last bit of a sum can move a number by a whole step: there, every layer is given
    what the model has before it, and up to a hundredth of its numbers are left out. An error may be as large as
    LARGEST_ERROR, or as what the model's own precision allows: it is rounded in parts of what it is computed of, as of
    the bounds of a function; and what moves when the image does by a rounding may differ by as much.
    Raises MismatchError with the first layer that differs by far more, and UncomparableError where that does not tell,
    or where the model cannot be run.
    """
    largest = 0.0
    for image in _tractable(reading):
        trial = _Trial.of(reading, image)
        outputs = [tensor for tensor in reading.outputs if trial.tensor(tensor) is not None]
        within = not outputs or trial.known  # or where the network gives scores in place of a class
        found = trial.differences((within and list(reading.ends)) or outputs)
        if any(difference.matters for difference in found.values()) and (fault := _fault(trial)):
            raise fault
        largest = max(largest, *(difference.error for difference in found.values()))
    return largest


@dataclass(frozen=True)
class _Trial:
    """A network and its model on one image.

    `activations` are those of all populations. `known` has, of populations that round, what the model has in their
    place, which is what the layers behind them were given; `rounded` are the tensors that say so.
    """

    reading: Reading
    image: Arrays
    activations: Arrays
    known: Arrays
    rounded: frozenset[str]

    @classmethod
    def of(cls, reading: Reading, image: Arrays) -> _Trial:
        from .backend.onnxruntime import CompiledAnalog

        rounds = any(isinstance(p.neuron, QuantizedRelu) for p in reading.network.populations.values())
        rounded = reading.rounded(_run(reading, image, list(reading.ends)).arrays) if rounds else {}
        known = dict(rounded.values())
        given = {**image, **{_stand_in(name): activation for name, activation in known.items()}}
        (activations,) = CompiledAnalog(_cut(reading.network, known)).activations(given, progress=False)
        return cls(reading, image, activations, known, frozenset(rounded))

    def tensor(self, name: str) -> np.ndarray | None:
        """A tensor of the model as the network has it; None where it has none."""
        given = {} if name in self.rounded else self.known
        return self.reading.tensor(name, {**self.activations, **given})

    def differences(self, tensors: Sequence[str]) -> Mapping[str, _Difference]:
        """How far apart those of the tensors are that the network has."""
        computed = _run(self.reading, self.image, tensors)
        found = {tensor: self.tensor(tensor) for tensor in tensors}
        return {
            tensor: _Difference.of(
                computed.arrays[tensor], array, computed, bool(self.known), self.reading.reach(tensor, self.activations)
            )
            for tensor, array in found.items()
            if array is not None
        }


def _cut(network: Network, known: Arrays) -> Network:
    """The network with inputs in place of some populations, for those that read them."""
    inputs = [Population(_stand_in(name), network.populations[name].shape, Input()) for name in known]
    connections = [
        replace(edge, source=_stand_in(edge.source)) if edge.source in known else edge for edge in network.connections
    ]
    return network.replace(
        populations=[*network.populations.values(), *inputs],
        connections=connections,
        inputs=[*network.inputs, *(population.name for population in inputs)],
    )


def _stand_in(name: str) -> str:
    return f"{name} as the model has it"


@dataclass(frozen=True)
class _Difference:
    """How far apart a tensor is in model and network: `error` of its largest number, and above `limit` too far.

    The limit is LARGEST_ERROR, or what the number format makes of the largest number that it is computed of.
    """

    error: float
    limit: float
    tool: str
    said: str

    @classmethod
    def of(cls, expected: np.ndarray, found: np.ndarray, by: Computed, rounds: bool, reach: float = 0.0) -> _Difference:
        """`reach` is how large the numbers are that the tensor is computed of: in parts of these it is rounded."""
        largest = max(float(np.abs(expected).max()), _SMALLEST)
        limit = max(LARGEST_ERROR, 16 * by.eps * max(1.0, reach / largest))
        if found.size != expected.size:
            return cls(np.inf, limit, by.tool, f"as {by.tool} gives {expected.shape} and the network {found.shape}")
        found = found.reshape(expected.shape)
        with np.errstate(invalid="ignore"):  # infinities give no number, which is no agreement
            difference = np.abs(found - expected) / largest
        difference = np.nan_to_num(difference, nan=np.inf)
        strays = min(max(2, int(STRAYS * difference.size)), difference.size - 1) if rounds else 0
        place = np.unravel_index(np.argsort(difference, axis=None)[-1 - strays], expected.shape)
        error, where = float(difference[place]), ", ".join(map(str, place))
        values = f"{by.tool} computes {expected[place]:.6g} where the network has {found[place]:.6g}"
        return cls(error, limit, by.tool, f"by {error:.1e} of its largest number: at ({where}) {values}")

    @property
    def matters(self) -> bool:
        return not self.is_allowed(0.0)

    def is_allowed(self, unsteady: float) -> bool:
        """Whether it is within the limit, or no more than a rounding moves the tensor, if that is little enough."""
        return self.error <= max(self.limit, unsteady if unsteady <= _CLOSE else 0.0)

    def exceeds(self, unsteady: float) -> bool:
        """Whether it is more than the limit, and more than rounding makes of it where that moves it so far."""
        return not self.error <= max(self.limit, _STEADY * unsteady)


def _unsteady(trial: _Trial, tensors: Sequence[str]) -> Mapping[str, float]:
    """How far tensors of the model move, as a share of their largest number, when its image moves by a rounding."""
    reading, rng = trial.reading, np.random.default_rng(_SEED)
    whole = _whole(reading)
    moved = {
        name: array if name in whole else array * (1 + _ROUNDING * rng.uniform(-1, 1, array.shape))
        for name, array in trial.image.items()
    }
    moved = {name: array.astype(np.float32) for name, array in moved.items()}
    before, after = (_run(reading, image, tensors) for image in (trial.image, moved))
    return {t: _Difference.of(before.arrays[t], after.arrays[t], before, False).error for t in tensors}


def _images(reading: Reading) -> list[Arrays]:
    """Noise around zero, and whole numbers as in images that are not scaled yet; inputs of integers take those only."""
    rng = np.random.default_rng(_SEED)
    given = {name: reading.inputs[name] for name in reading.network.inputs}
    shapes = {name: (1, *entry.shape) for name, entry in given.items()}
    tables = {name: reading.network.populations[name].table for name in given}
    limits = {name: 128 if table is None else len(table) for name, table in tables.items()}
    noise = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    numbers = {name: rng.integers(0, limits[name], shape).astype(np.float32) for name, shape in shapes.items()}
    return [{**noise, **{name: numbers[name] for name in _whole(reading)}}, numbers]


def _whole(reading: Reading) -> set[str]:
    """The inputs that take whole numbers."""
    populations = reading.network.populations
    return {name for name, entry in reading.inputs.items() if entry.whole or populations[name].table is not None}


def _tractable(reading: Reading) -> list[Arrays]:
    """The images that the model has an answer to, or all: an exponential of whole numbers overflows."""
    images = _images(reading)
    if not any(isinstance(population.neuron, SomaNeuron) for population in reading.network.populations.values()):
        return images
    answers = [_run(reading, image, reading.outputs).arrays.values() for image in images]
    finite = [all(np.isfinite(array).all() for array in arrays) for arrays in answers]
    return [image for image, is_finite in zip(images, finite, strict=True) if is_finite] or images


def _run(reading: Reading, image: Arrays, tensors: Sequence[str]) -> Computed:
    """Tensors as the model itself computes them."""
    try:
        return reading.run(image, tensors)
    except SnncError:
        raise
    except Exception as error:  # of whatever runs the model
        from .frontend.support import first_line

        message = f"{reading.title} was read, but could not be compared with the model, which cannot be run here"
        raise UncomparableError(f"{message}: {first_line(error)}") from None


def _fault(trial: _Trial) -> MismatchError | UncomparableError | None:
    """What to say of a network that differs, from where it differs first; None where it is no more than rounding."""
    reading = trial.reading
    title = f"{reading.title}: the network that was read does not compute what the model does"
    report = "this is a mistake of snnc's: please report it, with the model"
    overflow = _overflow(reading, trial.image)
    within = trial.differences(list(reading.ends)) if reading.ends else {}
    outputs = trial.differences(reading.outputs)
    unsteady = _unsteady(trial, [*within, *(tensor for tensor in outputs if tensor not in within)])
    for position, (tensor, difference) in enumerate(within.items()):
        layer = reading.ends[tensor]
        if layer == overflow:
            break
        if difference.exceeds(unsteady[tensor]):
            where = f"the first layer that differs is {layer.path} ({layer.kind}), {difference.said}"
            return MismatchError(f"{title}: {where}; {position} layer outputs before it agree; {report}", layer.path)
    if overflow is not None:
        where = f"{overflow.path} ({overflow.kind}) gives numbers that are not finite"
        return MismatchError(f"{title}: {where}", overflow.path)
    wrong = next((difference for tensor, difference in outputs.items() if difference.exceeds(unsteady[tensor])), None)
    if wrong is None:
        return _undetermined(reading, {**within, **outputs}, unsteady)
    if not within:
        return MismatchError(f"{title}; only its outputs could be compared, and differ {wrong.said}; {report}")
    agree = f"{title}: its outputs differ {wrong.said}; all {len(within)} layers within agree"
    tool = next(iter(within.values())).tool
    if tool != wrong.tool:
        reason = f"with what {tool} computes of the ONNX model that the exporter of {wrong.tool} wrote"
        return MismatchError(f"{agree} {reason}: it is the exporter's mistake; export it in another way, and give that")
    return MismatchError(f"{agree}; {report}")


def _undetermined(
    reading: Reading, differences: Mapping[str, _Difference], unsteady: Mapping[str, float]
) -> UncomparableError | None:
    """What to say of a model that single precision does not determine, from the first tensor that it does not."""
    open_ones = (t for t, found in differences.items() if not found.is_allowed(unsteady[t]))
    tensor = next(open_ones, None)
    if tensor is None:
        return None
    layer, difference = reading.ends.get(tensor), differences[tensor]
    where = f"from {layer.path} ({layer.kind}) on" if layer else "at its outputs"
    return UncomparableError(
        f"{reading.title} was read, but cannot be compared closely with the network: {where}, single precision does "
        f"not determine what it computes: where its input moves by a millionth, this moves by {unsteady[tensor]:.1e} "
        f"of its largest number, and {difference.tool} and the network differ by {difference.error:.1e}; is it trained?"
    )


def _overflow(reading: Reading, image: Arrays) -> Layer | None:
    """The first layer that gives numbers that are not finite."""
    computed = _run(reading, image, list(reading.ends)).arrays if reading.ends else {}
    return next((layer for tensor, layer in reading.ends.items() if not np.isfinite(computed[tensor]).all()), None)
