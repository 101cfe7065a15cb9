"""Products of matrices as products of numbers and sums, for backends whose neurons know two numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir import (
    AnalogNeuron,
    Conv2D,
    Function,
    MatMul,
    Network,
    Pick,
    PipelineError,
    Population,
    Product,
    UnsupportedModelError,
    only_moves,
)
from ..ir.cost import PRODUCT_BYTES, products_text, readable
from .manager import Context
from .rewrite import Lowering, Rewrite, Sum


@dataclass(frozen=True)
class LowerMatMul(Lowering):
    """Replace each product of matrices by products of numbers and sums: y[b, m, n] = Σ_k x₀[b, m, k] · x₁[b, k, n].

    Exact in the analog network. B·M·N·K neurons, called `NAME/products`, multiply one number by one; the edges to them
    repeat the matrices, and those from them sum over k. GeNN needs it; the embedded engine multiplies matrices as they
    are, which is faster and rounds less: once instead of for each product.

    Edges with weights are not repeated, as they would cost as much more. A matrix that comes through them is settled
    first, in a population `NAME/left` or `NAME/right`; and where such edges read the result, it is settled in a
    population with the old one's name. Each is one more rounding to few spikes.

    - largest: products in the whole network, at most. One takes about 220 bytes in GeNN on a CPU.
    """

    name: ClassVar[str] = "lower-matmul"
    lowers: ClassVar[type[AnalogNeuron]] = MatMul

    largest: int = 2**26

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.largest < 1:
            raise PipelineError(f"lower-matmul: largest is {self.largest}; it is a number of products, from 1 on")

    def run(self, network: Network, context: Context) -> Network:
        found = [p for p in network.populations.values() if isinstance(p.neuron, MatMul)]
        total = sum(_neuron(population).products for population in found)
        if total > self.largest:
            raise UnsupportedModelError(
                f"lower-matmul would make {total:,} products, which take {readable(total * PRODUCT_BYTES)} in GeNN; "
                f"its option largest allows {self.largest:,}. The embedded engine needs none: leave the pass out there",
                [_told(population) for population in found],
            )
        return super().run(network, context)

    def lowered(self, rewrite: Rewrite) -> Sum:
        neuron = _neuron(rewrite.old)
        batch, rows, columns, inner = neuron.sizes
        every = (batch, rows * columns, inner)
        left = np.arange(batch * rows * inner).reshape(batch, rows, 1, inner)
        right = np.arange(batch * inner * columns).reshape(batch, inner, 1, columns).transpose(0, 2, 3, 1)
        repeated = [
            _settled(rewrite, port, name).then(Pick(np.broadcast_to(places, (*neuron.sizes,)).reshape(every)))
            for port, (name, places) in enumerate({"left": left, "right": right}.items())
        ]
        products = rewrite.population(f"{rewrite.old.name}/products", Product(), *repeated)
        summing = Conv2D(np.ones((1, 1, inner, 1), np.float32))
        y = products.then(summing, Pick(np.arange(batch * rows * columns).reshape(batch, rows, columns)))
        reads = rewrite.before.outgoing(rewrite.old.name)
        if all(only_moves(read.operators) for read in reads):
            return y
        return rewrite.population(rewrite.heir("sum"), Function("identity"), y)


def _settled(rewrite: Rewrite, port: int, name: str) -> Sum:
    """The summed input at a port, as a population's output if edges with weights lead there and it is repeated."""
    summed = rewrite.summed(port)
    _, rows, columns, _ = _neuron(rewrite.old).sizes
    times = rows if port else columns
    if times == 1 or all(only_moves(term.operators) for term in summed.terms):
        return summed
    return rewrite.population(f"{rewrite.old.name}/{name}", Function("identity"), summed)


def _neuron(population: Population) -> MatMul:
    assert isinstance(population.neuron, MatMul)
    return population.neuron


def _told(population: Population) -> str:
    layers = ", ".join(population.origin.layers) or "no known layer"
    return f"{population.name} (MatMul, from {layers}): {products_text(_neuron(population))}"
