from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from snnc.ir import Connection, Conv2D, Dense, Network, Operator, PipelineError, Stage
from snnc.passes import Context, Pass


@dataclass(frozen=True)
class PruneWeights(Pass):
    """Set the smallest weights of every convolution and dense layer to zero.

    - below: weights smaller than this share of the operator's largest weight are zeroed.
    """

    name: ClassVar[str] = "prune-weights"
    requires: ClassVar[Stage] = "analog"
    ensures: ClassVar[Stage] = "analog"

    below: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.below < 1:
            raise PipelineError(f"prune-weights: below is {self.below}; it is a share, from 0 to below 1")

    def run(self, network: Network, context: Context) -> Network:
        return network.replace(connections=map(self._pruned, network.connections))

    def _pruned(self, connection: Connection) -> Connection:
        operators = tuple(map(self._operator, connection.operators))
        origin = connection.origin if operators == connection.operators else connection.origin.by(self.name)
        return replace(connection, operators=operators, origin=origin)

    def _operator(self, operator: Operator) -> Operator:
        if not isinstance(operator, (Conv2D, Dense)):
            return operator
        size = np.abs(operator.weight)
        return replace(operator, weight=np.where(size < self.below * size.max(), 0, operator.weight))
