"""Functions as sums of rectifiers, for spikes that can say nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..ir import (
    Clip,
    Conv2D,
    Function,
    Network,
    Operator,
    Pick,
    PipelineError,
    Population,
    Relu,
    Scale,
    Shape,
    Stage,
    UnsupportedModelError,
)
from ..ir.functions import at_most
from .canonicalise import Canonicalise
from .expansion import LARGEST_PIECES, Expansion, ExpansionError, expansion, tends_to_lines
from .manager import Context, Pass
from .ranges import Probe, Range, ranges
from .rewrite import Rewrite, Sum

_MARGIN = 0.05  # beyond the range that calibration shows, on either side, as a share of it


@dataclass(frozen=True)
class LowerFunctions(Pass):
    """Replace functions (SiLU, GELU, sigmoid, tanh, exp …) by rectifiers, within an error that is certain.

    A function becomes a broken line: f(x) ≈ y₀ + Σ Δᵢ · clip((x − kᵢ) / wᵢ, 0, 1), a rectifier that ends at 1 for each
    stretch, and a plain one for an end that is not level. Stretches left of the one corner that is nearest to 0 count
    from there downwards, so that an input near 0 evokes few spikes. The corners are where the largest error is least,
    and that error is a note of the conversion, for each layer.

    A function that tends to a line on either side is that line from the last corner on, and the error holds for every
    input. On a side without such a line (exp, log, square …) the broken line reaches as far as the summed input does
    for the calibration images, and a little farther; there the error holds, and beyond the line is level.

    All stretches are one population, `NAME/pieces`, with `pieces` channels in place of each; the ends are `NAME/left`
    and `NAME/right`. At an output the name stays with a readout of their sum.

    Rectifiers that end are said more exactly than plain ones: they are wrong by a bit of their own stretch, and not at
    all where they are full. What this costs is spikes. All take in what the function did: expanding relu(x) and
    relu(−x) instead would save synapses, but they are rounded first, as finely as the largest input allows.

    - pieces: rectifiers in place of a function, at most.
    - tolerance: instead, as few as keep the error below this, in units of the activations.
    """

    name: ClassVar[str] = "lower-functions"
    requires: ClassVar[Stage] = "canonical"
    ensures: ClassVar[Stage] = "canonical"

    pieces: int = 16
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.pieces <= LARGEST_PIECES:
            raise PipelineError(f"lower-functions: pieces is {self.pieces}; a function takes 1 to {LARGEST_PIECES}")
        if not 0 <= self.tolerance < math.inf:
            raise PipelineError(f"lower-functions: tolerance is {self.tolerance}; it is an error, 0 for none given")

    def run(self, network: Network, context: Context) -> Network:
        found = [name for name in network.order if isinstance(network.populations[name].neuron, Function)]
        if not found:
            return network
        for name, line in self._expansions(network, context, found).items():
            context.note(f"{self.name}: {_described(network.populations[name])}: {line}")
            rewrite = Rewrite(network, network.populations[name], self.name)
            network = rewrite.network(_lowered(rewrite, line))
        return Canonicalise().run(network, context)

    def _expansions(self, network: Network, context: Context, names: Sequence[str]) -> Mapping[str, Expansion]:
        """The broken line for each population. Raises UnsupportedModelError with all that there is none for."""
        ranges = _ranges(network, context, [n for n in names if not all(_lines(network.populations[n]))])
        lines, problems = {}, []
        for name in names:
            try:
                lines[name] = self._expansion(network.populations[name], ranges.get(name))
            except ExpansionError as error:
                problems.append(f"{_described(network.populations[name])}: {error}")
        if problems:
            raise UnsupportedModelError(f"{self.name} cannot make rectifiers of these populations:", problems)
        return lines

    def _expansion(self, population: Population, inputs: Range | None) -> Expansion:
        if inputs is None:
            return self._within(population, (-math.inf, math.inf))
        margin = _MARGIN * (inputs[1] - inputs[0])
        try:
            return self._within(population, (inputs[0] - margin, inputs[1] + margin))
        except ExpansionError:  # as of a logarithm, which the margin takes to 0
            return self._within(population, inputs)

    def _within(self, population: Population, inputs: Range) -> Expansion:
        assert isinstance(population.neuron, Function)
        left, right = _lines(population)
        low, high = -math.inf if left else inputs[0], math.inf if right else inputs[1]
        neuron = population.neuron
        return expansion(neuron.function, neuron.parameter, self.pieces, low, high, self.tolerance)


def _lines(population: Population) -> tuple[bool, bool]:
    """Whether a population's function tends to a line on the left, and on the right."""
    assert isinstance(population.neuron, Function)
    return tends_to_lines(population.neuron.function, population.neuron.parameter)


def _described(population: Population) -> str:
    assert isinstance(population.neuron, Function)
    layers = ", ".join(population.origin.layers) or "no known layer"
    return f"{population.name} ({population.neuron.function}, from {layers})"


def _ranges(network: Network, context: Context, names: Sequence[str]) -> Mapping[str, Range]:
    """The smallest and the largest summed input of populations that calibration shows."""
    found = ranges(network, context, [Probe(name) for name in names])
    if found is None:
        raise PipelineError(
            f"lower-functions: {', '.join(_described(network.populations[name]) for name in names)}: what tends to no "
            "line is replaced where its inputs lie: give calibration=… (or --calibration); few-spike applies "
            "the function as it is, and needs no lower-functions"
        )
    return dict(zip(names, found, strict=True))


def _lowered(rewrite: Rewrite, line: Expansion) -> Sum:
    """The broken line of what `rewrite.old` takes in. The first of its populations keeps the error of them all."""
    x, name = rewrite.summed(), rewrite.old.name
    knots, values = np.array(line.knots), np.array(line.values)
    base = int(np.abs(knots).argmin())
    starts = np.concatenate([knots[1 : base + 1], knots[base:-1]])
    widths = np.concatenate([-np.diff(knots)[:base], np.diff(knots)[base:]])
    rises = np.concatenate([-np.diff(values)[:base], np.diff(values)[base:]])
    total = replace(x, terms=(), bias=np.full(x.shape[-1:], values[base], np.float32))
    error: float | None = float(at_most(line.bound))
    if len(starts):
        spread = _spread(x, 1 / widths, -starts / widths)
        pieces, error = rewrite.population(f"{name}/pieces", Clip(1.0), spread, error=error), None
        for term in _gathered(pieces, rises):
            total = total.plus(term)
    if line.left:
        outwards = x.scaled(-1.0).shifted(float(knots[0]))
        beyond, error = rewrite.population(f"{name}/left", Relu(), outwards, error=error), None
        total = total.plus(beyond.scaled(-line.left))
    if line.right:
        outwards = x.shifted(-float(knots[-1]))
        beyond = rewrite.population(f"{name}/right", Relu(), outwards, error=error)
        total = total.plus(beyond.scaled(line.right))
    return total


def _spread(x: Sum, factors: np.ndarray, shifts: np.ndarray) -> Sum:
    """`factors · x + shifts`, one channel for each pair in place of every channel of x."""
    factors, shifts = factors.astype(np.float32), shifts.astype(np.float32)
    channels = x.shape[-1]
    spread = replace(x, bias=None).then(*_copies(x.shape, factors))
    bias = np.tile(shifts, channels)
    if x.bias is not None:
        bias = bias + np.repeat(x.bias, len(factors), axis=-1) * np.tile(factors, channels)
    return replace(spread, bias=bias)


def _copies(shape: Shape, factors: np.ndarray) -> Sequence[Operator]:
    """Operators that put every channel, times each of the factors, in place of that channel."""
    channels = shape[-1]
    if len(shape) == 3:
        return [Conv2D(np.tile(factors, channels)[None, None, None], groups=channels)]
    return [Pick(np.repeat(np.arange(channels), len(factors))), Scale(np.tile(factors, channels))]


def _gathered(pieces: Sum, rises: np.ndarray) -> Sequence[Sum]:
    """Sums that come to the pieces of each channel, weighted."""
    rises = rises.astype(np.float32)
    channels = pieces.shape[-1] // len(rises)
    if len(pieces.shape) == 3:
        return [pieces.then(Conv2D(np.tile(rises[:, None], channels)[None, None], groups=channels))]
    places = np.arange(channels) * len(rises)
    return [pieces.then(Pick(places + i)).scaled(float(rise)) for i, rise in enumerate(rises)]
