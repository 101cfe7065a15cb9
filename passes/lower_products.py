"""Products as differences of squares, which are functions of one sum each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir import Function, Network, Population, Product, Stage
from .canonicalise import Canonicalise
from .manager import Context, Pass
from .ranges import Probe, Range, ranges
from .rewrite import Rewrite, Sum

_LEAST_SPREAD = 0.01  # of a port, as a share of its largest magnitude: far from 0 squares cancel to their rounding


@dataclass(frozen=True)
class LowerProducts(Pass):
    """Replace products by two squares each: a · b = u² − v² with u = (r·a + b/r) / 2 and v = (r·a − b/r) / 2.

    Exact in the analog network, whatever r is. The squares are `Function` neurons, `NAME/sum` and `NAME/difference`,
    and whoever read the product now reads both; at an output the name stays with a readout of their difference. A
    product with itself is one square, which keeps the name. Where a product applies a function to its second input, as
    in x₀ · rsqrt(x₁), that becomes a population of its own first, `NAME/rsqrt`.

    r brings both sides to the same scale: r² is how far b spreads in the calibration images, from its smallest number
    to its largest, by how far a does. Rectifiers in place of squares, as by `lower-functions`, are then off by least:
    by A·B / (4 · pieces²) in all, A and B being those spreads, if all of a comes with all of b. Without calibration r
    is 1.

    `lower-products,lower-functions` makes rectifiers of all neurons but products of matrices; with `lower-matmul`
    before it, of these too. Few-spike and tracking neurons multiply as they are, and need none of it.
    """

    name: ClassVar[str] = "lower-products"
    requires: ClassVar[Stage] = "canonical"
    ensures: ClassVar[Stage] = "canonical"
    keeps_function: ClassVar[bool] = True

    def run(self, network: Network, context: Context) -> Network:
        ratios = _ratios(network, context)
        for name, ratio in ratios.items():
            rewrite = Rewrite(network, network.populations[name], self.name)
            network = rewrite.network(_lowered(rewrite, ratio))
        return Canonicalise().run(network, context) if ratios else network


def _ratios(network: Network, context: Context) -> Mapping[str, float]:
    """r for every product."""
    found = [name for name in network.order if isinstance(network.populations[name].neuron, Product)]
    second = [Probe(name, 1, _function(network.populations[name])) for name in found]
    spreads = ranges(network, context, [*map(Probe, found), *second])
    if spreads is None:
        return dict.fromkeys(found, 1.0)
    sides = zip(spreads[: len(found)], spreads[len(found) :], strict=True)
    return {name: _ratio(a, b) for name, (a, b) in zip(found, sides, strict=True)}


def _ratio(a: Range, b: Range) -> float:
    """r for factors in these ranges."""
    first, second = (max(high - low, _LEAST_SPREAD * max(high, -low)) for low, high in (a, b))
    ratio = math.sqrt(second / first) if first else 1.0
    return ratio if 0 < ratio < math.inf else 1.0


def _lowered(rewrite: Rewrite, ratio: float) -> Sum:
    name, function = rewrite.old.name, _function(rewrite.old)
    a, b = rewrite.summed(0), rewrite.summed(1)
    if function.function != "identity":
        b = rewrite.population(f"{name}/{function.function}", function, b)
    elif _are_same(a, b):
        return rewrite.population(rewrite.heir("square"), Function("square"), a)
    a, b = a.scaled(ratio / 2), b.scaled(1 / (2 * ratio))
    squared = rewrite.population(f"{name}/sum", Function("square"), a.plus(b))
    return squared.minus(rewrite.population(f"{name}/difference", Function("square"), a.minus(b)))


def _function(population: Population) -> Function:
    """What a product applies to its second input."""
    assert isinstance(population.neuron, Product)
    return Function(population.neuron.function, population.neuron.parameter)


def _are_same(a: Sum, b: Sum) -> bool:
    """Whether two sums come from the same sources over the same operators, with the same bias."""
    edges = ([(term.source, term.operators) for term in each.terms] for each in (a, b))
    return next(edges) == next(edges) and np.array_equal(_bias(a), _bias(b))


def _bias(summed: Sum) -> np.ndarray:
    """The bias for every position."""
    return np.broadcast_to(0.0 if summed.bias is None else summed.bias, summed.shape)
