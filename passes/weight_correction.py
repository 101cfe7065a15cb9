"""Weights that make up for what spikes systematically lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from ..ir import (
    Connection,
    Conv2D,
    DataError,
    Dense,
    Flatten,
    Network,
    Operator,
    Pad,
    PipelineError,
    Shape,
    SpikingNeuron,
    Stage,
    apply,
    as_inputs,
    output_shape,
    shown,
)
from .bias_correction import MOST_ROUNDS, corrected, is_shiftable
from .calibration import with_logits
from .manager import Context, Drive, Pass

BIAS_ROUNDS = 4
SET_ASIDE = 8  # every eighth image chooses the penalty
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
MOST_INPUTS = 8192  # of a neuron, up to which all their covariances are held
STEPS = 16  # of conjugate gradients beyond that
_PIECE = 2**23  # numbers in a piece of patches
_LEAST_VARIANCE = 1e-9  # of the largest of an edge's inputs: what varies less says nothing


@dataclass(frozen=True)
class WeightCorrection(Pass):
    """Shift weights and biases by what the error of the decoded activation on calibration images depends on.

    In graph order, everything before being corrected already, the difference of the analog activation and what spikes
    decode to after T steps is regressed on what the spiking sources have said to each neuron, and weights and bias are
    shifted by what is found: the residual is then one that no linear map of the input explains. Bias correction
    [Li 2021, https://proceedings.mlr.press/v139/li21d.html], which follows for each population, is the same with
    nothing but a constant to depend on. It follows the pass that converts, and is for runs of just that pass's length.

    Convolutions and dense layers are corrected, one edge after the other; populations whose soma computes more than a
    rectifier or pools, and what other edges bring, count as given. The regression is a ridge regression, whose penalty
    for moving a weight is in proportion to the variance of its input: by normal equations, or by conjugate gradients
    where a neuron has more than 8 192 inputs. Every eighth calibration image is set aside to choose the penalty for
    each edge, and an edge that would do worse on those images keeps its weights.

    - rounds: how often an edge is corrected before it is the next population's turn.
    - penalty: in shares of the variance of each input, or 0 to choose it.
    """

    name: ClassVar[str] = "weight-correction"
    requires: ClassVar[Stage] = "spiking"
    ensures: ClassVar[Stage] = "spiking"
    needs_analog: ClassVar[bool] = True

    rounds: int = 2
    penalty: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise PipelineError(f"weight-correction: rounds is {shown(self.rounds)}; it lies from 1 to {MOST_ROUNDS}")
        if not 0 <= self.penalty < np.inf:
            raise PipelineError(f"weight-correction: penalty is {shown(self.penalty)}; it is a share of a variance")

    def run(self, network: Network, context: Context) -> Network:
        assert context.analog is not None  # the manager sees to it
        statistics = context.statistics(context.analog)
        wanted = Wanted.of(context)
        chosen: dict[str, list[float]] = {}

        def correct(drive: Drive) -> Drive:
            population = drive.population
            if population.name not in statistics or not is_shiftable(population.neuron):
                return drive
            mean = statistics[population.name].mean
            drive = corrected(drive, mean, BIAS_ROUNDS)
            chosen[population.name] = []
            for number in range(len(drive.incoming)):
                drive, penalties = self._refitted(drive, number, wanted)
                chosen[population.name] += penalties
            drive = corrected(drive, mean, BIAS_ROUNDS)
            return drive.having(replace(drive.population, origin=population.origin.by(self.name)))

        refitted = context.adjusted(network, correct)
        said = (f"{name}: {' '.join(map('{:g}'.format, each)) or 'weights kept'}" for name, each in chosen.items())
        context.note(f"weight-correction's penalties: {', '.join(said)}")
        return refitted

    def _refitted(self, drive: Drive, number: int, wanted: Wanted) -> tuple[Drive, list[float]]:
        """With one of the incoming edges refitted as is best on the images set aside, and the penalties for that."""
        chosen, inputs, least = list[float](), None, wanted.error(drive)
        for _ in range(self.rounds):
            edge = Weighted.of(drive, number)
            if edge is None:
                break
            inputs = inputs or Inputs.of(drive.only(~wanted.aside), edge)  # the same in every round
            regression = Regression.of(inputs, drive.only(~wanted.aside), edge, wanted)
            best = None
            for penalty in (self.penalty,) if self.penalty else PENALTIES:
                tried = edge.shifted(drive, *regression.shift(penalty))
                error = wanted.error(tried)
                if error >= least:
                    break
                best, least, used = tried, error, penalty
            if best is None:
                break
            drive = best
            chosen.append(used)
        return drive, chosen


@dataclass(frozen=True)
class Wanted:
    """What the analog network makes of the calibration images, of which some are set `aside`: (images,)."""

    context: Context
    analog: Network
    images: Mapping[str, np.ndarray]
    aside: np.ndarray

    @classmethod
    def of(cls, context: Context) -> Wanted:
        assert context.analog is not None
        assert context.calibration is not None
        images = as_inputs(context.analog, context.calibration, "calibration")
        count = len(next(iter(images.values())))
        if count < 2 * SET_ASIDE:
            raise DataError(f"weight-correction sets every eighth image aside: {count} are too few, give some hundred")
        return cls(context, with_logits(context.analog), images, np.arange(count) % SET_ASIDE == SET_ASIDE - 1)

    def residuals(self, drive: Drive, images: np.ndarray) -> Iterator[np.ndarray]:
        """Batch by batch what is wanted, as far as the neuron can say it, less what is decoded: (images, *shape)."""
        neuron = drive.population.neuron
        assert isinstance(neuron, SpikingNeuron)
        for activation, decoded in in_step(self._activations(drive, images), drive.only(images).decoded()):
            yield neuron.reach(activation) - decoded

    def error(self, drive: Drive) -> float:
        """The summed squared error on the images set aside."""
        return sum(float(np.square(each, dtype=np.float64).sum()) for each in self.residuals(drive, self.aside))

    def _activations(self, drive: Drive, images: np.ndarray) -> Iterator[np.ndarray]:
        assert self.context.activations is not None
        shown = {name: array[images] for name, array in self.images.items()}
        name = drive.population.name
        return (batch[name] for batch in self.context.activations(self.analog, shown, [name]))


def in_step(*streams: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Arrays of several streams, whose batches may differ, cut so that they are of the same images."""
    held = [np.empty((0,))] * len(streams)
    while True:
        try:
            held = [each if len(each) else next(stream) for each, stream in zip(held, streams, strict=True)]
        except StopIteration:
            return
        count = min(map(len, held))
        yield [each[:count] for each in held]
        held = [each[count:] for each in held]


@dataclass(frozen=True)
class Weighted:
    """One of the edges into a population, as a linear map with weights between others that have none.

    `before` comes what leads up to the weights, `after` what moves what they bring, of `shape`, to its place.
    """

    edge: Connection
    before: tuple[Operator, ...]
    operator: Conv2D | Dense
    after: tuple[Operator, ...]
    shape: Shape

    @classmethod
    def of(cls, drive: Drive, number: int) -> Weighted | None:
        """None for an edge that counts as given."""
        edge, neuron = drive.incoming[number], drive.population.neuron
        place = len(edge.operators) - 1
        while place > 0 and isinstance(edge.operators[place], (Flatten, Pad)):
            place -= 1
        operator = edge.operators[place] if edge.operators else None
        if not isinstance(operator, (Conv2D, Dense)) or (isinstance(neuron, SpikingNeuron) and neuron.pooling):
            return None
        shape = output_shape(edge.operators[: place + 1], drive.network.populations[edge.source].shape)
        return cls(edge, edge.operators[:place], operator, edge.operators[place + 1 :], shape)

    @property
    def groups(self) -> int:
        """How many parts of the source and of the target know nothing of each other."""
        return self.operator.groups if isinstance(self.operator, Conv2D) else 1

    def patches(self, said: np.ndarray) -> Iterator[np.ndarray]:
        """Of what the source has said, (images, *shape), what the neurons get, piece by piece: (groups, rows, inputs).

        A row is a neuron of each channel of the target, at one place of one image.
        """
        x = apply(self.before, said)
        if isinstance(self.operator, Dense):
            yield x.reshape(1, len(x), -1)
            return
        kernel = self.operator.weight.shape[0] * self.operator.weight.shape[1]
        images = max(_PIECE // (self.shape[0] * self.shape[1] * kernel * x.shape[3]), 1)
        for start in range(0, len(x), images):
            yield _windows(self.operator, x[start : start + images])

    def all_patches(self, drive: Drive) -> Iterator[np.ndarray]:
        """The patches of what the source has said to the images of a look."""
        for said in drive.received():
            yield from self.patches(said[self.edge.source])

    def rows(self, residual: np.ndarray) -> np.ndarray:
        """The residuals of the population, (images, *shape), where the weights reach it: (groups, rows, outputs)."""
        shapes = [output_shape(self.after[:number], self.shape) for number in range(len(self.after))]
        for operator, shape in zip(reversed(self.after), reversed(shapes), strict=True):
            if isinstance(operator, Pad):
                inside = (slice(low, low + size) for (low, _), size in zip(operator.amounts, shape, strict=True))
                residual = residual[(slice(None), *inside)]
            residual = residual.reshape(len(residual), *shape)
        outputs = self.shape[-1] // self.groups
        return residual.reshape(-1, self.groups, outputs).transpose(1, 0, 2).astype(np.float32, copy=False)

    def shifted(self, drive: Drive, weight: np.ndarray, bias: np.ndarray) -> Drive:
        """With weights and biases so much larger: (groups, inputs, outputs) and (groups, outputs)."""
        population, old = drive.population, self.operator.weight
        new = (old + weight.transpose(1, 0, 2).reshape(old.shape)).astype(np.float32)
        edge = replace(self.edge, operators=(*self.before, replace(self.operator, weight=new), *self.after))
        shift = apply(self.after, np.broadcast_to(bias.reshape(-1), self.shape)[None])[0]
        channels = shift.reshape(-1, shift.shape[-1])
        shift = channels[0] if (channels == channels[0]).all() else shift
        summed = shift if population.bias is None else population.bias + shift
        incoming = [edge if other is self.edge else other for other in drive.incoming]
        return drive.having(replace(population, bias=summed.astype(np.float32)), incoming)


def _windows(operator: Conv2D, x: np.ndarray) -> np.ndarray:
    """The patches of images, (images, H, W, C), in the order of the weights: (groups, rows, kh · kw · C / groups)."""
    kh, kw, inputs, _ = operator.weight.shape
    (dy, dx), (sy, sx) = operator.dilation, operator.strides
    x = np.pad(x, ((0, 0), *operator.padding, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, ((kh - 1) * dy + 1, (kw - 1) * dx + 1), (1, 2))
    windows = windows[:, ::sy, ::sx, :, ::dy, ::dx]
    windows = windows.reshape(*windows.shape[:3], operator.groups, inputs, kh, kw)
    return windows.transpose(3, 0, 1, 2, 5, 6, 4).reshape(operator.groups, -1, kh * kw * inputs)


@dataclass(frozen=True)
class Inputs:
    """What the neurons of a population get through one edge, over all rows: by group, centred."""

    mean: np.ndarray  # (groups, inputs)
    variance: np.ndarray  # (groups, inputs)
    gram: np.ndarray | None  # (groups, inputs, inputs), their covariances; None where those are too many

    @classmethod
    def of(cls, drive: Drive, edge: Weighted) -> Inputs:
        count, total, squares, gram = 0, np.zeros(1), np.zeros(1), np.zeros(1)
        for patches in edge.all_patches(drive):
            count += patches.shape[1]
            total = total + patches.sum(1, dtype=np.float64)
            squares = squares + np.einsum("gri,gri->gi", patches, patches)
            if patches.shape[2] <= MOST_INPUTS:
                gram = gram + patches.transpose(0, 2, 1) @ patches
        mean = total / count
        centred = gram / count - mean[:, :, None] * mean[:, None, :] if mean.shape[1] <= MOST_INPUTS else None
        return cls(mean, squares / count - mean**2, centred)


@dataclass(frozen=True)
class Regression:
    """What of the residuals of a population depends on what it gets through one edge."""

    inputs: Inputs
    mean: np.ndarray  # of the residuals, (groups, outputs)
    shared: np.ndarray  # their covariances with the inputs, (groups, inputs, outputs)
    patches: Callable[[], Iterator[np.ndarray]]  # what it gets, again

    @classmethod
    def of(cls, inputs: Inputs, drive: Drive, edge: Weighted, wanted: Wanted) -> Regression:
        count, total, shared = 0, np.zeros(1), np.zeros(1)
        said = (batch[edge.edge.source] for batch in drive.received())
        for x, residual in in_step(said, wanted.residuals(drive, ~wanted.aside)):
            rows, first = edge.rows(residual), 0
            for patches in edge.patches(x):
                here = rows[:, first : first + patches.shape[1]]
                first += patches.shape[1]
                total = total + here.sum(1, dtype=np.float64)
                shared = shared + patches.transpose(0, 2, 1) @ here
            count += first
        mean = total / count
        covariance = shared / count - inputs.mean[:, :, None] * mean[:, None, :]
        return cls(inputs, mean, covariance, partial(edge.all_patches, drive))

    def shift(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights, (groups, inputs, outputs), and biases, (groups, outputs), that bring it."""
        gram, variance = self.inputs.gram, self.inputs.variance
        if gram is None:
            weight = self._descended(penalty)
        else:
            weight = np.stack([_ridge(*group, penalty) for group in zip(gram, variance, self.shared, strict=True)])
        return weight, self.mean - np.einsum("gi,gio->go", self.inputs.mean, weight)

    def _descended(self, penalty: float) -> np.ndarray:
        """The weights by conjugate gradients, each step of which sees all that the population gets once more."""
        variance = self.inputs.variance[:, :, None]
        scale = np.where(_varies(variance), 1 / np.where(variance > 0, variance, 1), 0)
        weight, rest = np.zeros_like(self.shared), self.shared
        ahead = scale * rest
        size = (rest * ahead).sum(1, keepdims=True)
        for _ in range(STEPS):
            bent = self._covariance(ahead) + penalty * variance * ahead
            length = _quotient(size, (ahead * bent).sum(1, keepdims=True))
            weight, rest = weight + length * ahead, rest - length * bent
            before, size = size, (rest * scale * rest).sum(1, keepdims=True)
            ahead = scale * rest + _quotient(size, before) * ahead
        return weight

    def _covariance(self, weight: np.ndarray) -> np.ndarray:
        """The covariances of the inputs with what `weight` makes of them, (groups, inputs, outputs)."""
        count, products, single = 0, np.zeros(1), weight.astype(np.float32)
        for patches in self.patches():
            count += patches.shape[1]
            products = products + patches.transpose(0, 2, 1) @ (patches @ single)
        mean = self.inputs.mean
        return products / count - mean[:, :, None] * np.einsum("gi,gio->go", mean, weight)[:, None, :]


def _ridge(gram: np.ndarray, variance: np.ndarray, shared: np.ndarray, penalty: float) -> np.ndarray:
    """The weights, (inputs, outputs), of one group; none for inputs that do not vary."""
    varies = _varies(variance)
    weight = np.zeros_like(shared)
    if varies.any():
        loaded = gram[np.ix_(varies, varies)]
        loaded[np.diag_indices_from(loaded)] += penalty * variance[varies]
        weight[varies] = np.linalg.solve(loaded, shared[varies])
    return weight


def _varies(variance: np.ndarray) -> np.ndarray:
    return variance > _LEAST_VARIANCE * variance.max(initial=0)


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
