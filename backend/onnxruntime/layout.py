"""How a population's numbers lie in memory while the engine runs: channels first or last, and flat ones as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir import Network, Shape
from .emit import GraphBuilder, internal_shape


@dataclass(frozen=True)
class Layout:
    """Channels last is the IR's order, and what adding up weights per spike wants; onnxruntime wants channels first."""

    channels_first: bool

    @classmethod
    def of(cls, network: Network) -> Layout:
        """That of a spiking network: few-spike populations send numbers, which onnxruntime takes."""
        return cls(channels_first=network.is_phased)

    def shape(self, shape: Shape) -> Shape:
        """The shape of one example of a population."""
        return internal_shape(shape) if self.channels_first else shape

    def inward(self, x: np.ndarray) -> np.ndarray:
        """An array whose last axes are a population's shape in the IR, in this layout."""
        return np.ascontiguousarray(np.moveaxis(x, -1, -3)) if self.channels_first and x.ndim >= 4 else x

    def outward(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `inward`."""
        return np.ascontiguousarray(np.moveaxis(x, -3, -1)) if self.channels_first and x.ndim >= 4 else x

    def per_position(self, values: float | np.ndarray, shape: Shape) -> np.ndarray:
        """`values` (a number, one per channel, or one per position) for each neuron of `shape`, flat."""
        spread = np.broadcast_to(np.asarray(values, np.float32), shape)
        first = self.channels_first and len(shape) == 3
        return np.ascontiguousarray(np.moveaxis(spread, -1, 0) if first else spread).reshape(-1)

    def planes(self, x: np.ndarray, channels: int) -> np.ndarray:
        """(rows, neurons) as (rows, channels, positions)."""
        if self.channels_first:
            return x.reshape(len(x), channels, -1)
        return x.reshape(len(x), -1, channels).transpose(0, 2, 1)

    def entering(self, graph: GraphBuilder, name: str, shape: Shape) -> str:
        """An input of a graph in this layout, as the graph's own value."""
        value = graph.input(name, self.shape(shape))
        return graph.node("Transpose", [value], perm=(0, 3, 1, 2)) if self._turned(shape) else value

    def leaving(self, graph: GraphBuilder, value: str, name: str, shape: Shape) -> None:
        """An output of a graph in this layout."""
        value = graph.node("Transpose", [value], perm=(0, 2, 3, 1)) if self._turned(shape) else value
        graph.output(value, name, self.shape(shape))

    def _turned(self, shape: Shape) -> bool:
        return not self.channels_first and len(shape) == 3


CHANNELS_LAST = Layout(channels_first=False)
