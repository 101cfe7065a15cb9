"""Clipped rectifiers as differences of plain ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import AnalogNeuron, Clip, Relu
from .rewrite import Lowering, Rewrite, Sum


@dataclass(frozen=True)
class LowerClip(Lowering):
    """Replace each clip by two rectifiers: clip(x, 0, max) = relu(x) − relu(x − max).

    Exact in the analog network, and only for those who want plain rectifiers: the conversion passes take clips as they
    are, as a neuron that fires in every step stands for λ, so that with λ at most `max` it saturates exactly.

    The first rectifier keeps the population's name and the second is called `NAME/excess`; whoever read the population
    now reads both. At an output the name stays with a readout of their difference, and the first is called
    `NAME/unclipped`. Padded max pooling of a clip must be lowered before: lower-max-pool cannot see that the
    difference is never negative.
    """

    name: ClassVar[str] = "clip"
    lowers: ClassVar[type[AnalogNeuron]] = Clip

    def lowered(self, rewrite: Rewrite) -> Sum:
        assert isinstance(rewrite.old.neuron, Clip)
        x = rewrite.summed()
        unclipped = rewrite.population(rewrite.heir("unclipped"), Relu(), x)
        excess = rewrite.population(f"{rewrite.old.name}/excess", Relu(), x.shifted(-rewrite.old.neuron.max))
        return unclipped.minus(excess)
