"""How a population's numbers lie in memory while the engine runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir import Network, Shape
from .blocked import Tensor, arranged, block_size, in_blocks, out_of_blocks
from .emit import GraphBuilder, emit_bias, internal_shape


@dataclass(frozen=True)
class Layout:
    """Images have their channels last, as in the IR, or `block` of them side by side; 1 means channels first.

    Flat populations have one order only.
    """

    block: int | None  # None: channels last

    @classmethod
    def of(cls, network: Network, name: str) -> Layout:
        """That of a population of a spiking network.

        Weights are added up per spike with channels last. What few-spike populations send goes to onnxruntime.
        """
        if not network.is_phased:
            return CHANNELS_LAST
        shape = network.populations[name].shape
        return cls(block_size() if len(shape) == 3 and shape[2] % block_size() == 0 else 1)

    def shape(self, shape: Shape) -> Shape:
        """The shape of one example, as graphs call it."""
        return shape if self._same(shape) else internal_shape(shape)

    def inward(self, x: np.ndarray, shape: Shape) -> np.ndarray:
        """(…, *shape), a population's shape in the IR, in this layout."""
        return x if self._same(shape) else in_blocks(x, self.block or 1)

    def outward(self, x: np.ndarray, shape: Shape) -> np.ndarray:
        """(…, neurons) in this layout as (…, *shape)."""
        x = x.reshape(*x.shape[:-1], *self.shape(shape))
        return x if self._same(shape) else out_of_blocks(x, self.block or 1)

    def per_position(self, values: float | np.ndarray, shape: Shape) -> np.ndarray:
        """`values` (a number, one per channel, or one per position) for each neuron of `shape`, flat."""
        spread = np.broadcast_to(np.asarray(values, np.float32), shape)
        return np.ascontiguousarray(self.inward(spread, shape)).reshape(-1)

    def entering(self, graph: GraphBuilder, name: str, shape: Shape) -> Tensor:
        """An input of a graph in this layout; channels are last in no graph."""
        value = graph.input(name, self.shape(shape))
        if self.block is None and len(shape) == 3:
            value = graph.node("Transpose", [value], perm=(0, 3, 1, 2))
        return Tensor(value, self.is_blocked(shape))

    def arranged(self, graph: GraphBuilder, tensor: Tensor, shape: Shape) -> str:
        """A value of a graph on its way to leave it in this layout."""
        return arranged(graph, tensor, shape, self.is_blocked(shape))

    def shifted(self, graph: GraphBuilder, value: str, bias: np.ndarray | None, shape: Shape) -> str:
        """An arranged value plus a bias."""
        if bias is None or not self.is_blocked(shape):
            return emit_bias(graph, value, bias, shape)
        positions = self.per_position(bias, shape).reshape(self.shape(shape))
        return graph.node("Add", [value, graph.array(positions)])

    def leaving(self, graph: GraphBuilder, value: str, name: str, shape: Shape) -> None:
        """Make an arranged value an output of a graph."""
        if self.block is None and len(shape) == 3:
            value = graph.node("Transpose", [value], perm=(0, 2, 3, 1))
        graph.output(value, name, self.shape(shape))

    def _same(self, shape: Shape) -> bool:
        return self.block is None or len(shape) < 3

    def is_blocked(self, shape: Shape) -> bool:
        """Whether the channels of what has this shape lie in blocks."""
        return len(shape) == 3 and (self.block or 1) > 1


CHANNELS_LAST = Layout(None)
CHANNELS_FIRST = Layout(1)
