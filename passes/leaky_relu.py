"""Leaky rectifiers as pairs of plain ones, whose spikes need no sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import AnalogNeuron, LeakyRelu, Relu
from .rewrite import Lowering, Rewrite, Sum


@dataclass(frozen=True)
class LowerLeakyRelu(Lowering):
    """Replace each leaky rectifier by two plain ones: leaky(x) = relu(x) − slope · relu(−x).

    Exact in the analog network. The positive part keeps the population's name and the negative one is called
    `NAME/negative`; whoever read the population now reads both. At an output the name stays with a readout of their
    sum, and the positive part is called `NAME/positive`.
    """

    name: ClassVar[str] = "lower-leaky-relu"
    lowers: ClassVar[type[AnalogNeuron]] = LeakyRelu

    def lowered(self, rewrite: Rewrite) -> Sum:
        assert isinstance(rewrite.old.neuron, LeakyRelu)
        x = rewrite.summed()
        positive = rewrite.population(rewrite.heir("positive"), Relu(), x)
        negative = rewrite.population(f"{rewrite.old.name}/negative", Relu(), x.scaled(-1.0))
        return positive.minus(negative.scaled(rewrite.old.neuron.slope))
