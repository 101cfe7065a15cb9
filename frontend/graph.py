"""What the readers hand to the lowering: an ONNX graph with its weights aside and its layers known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..ir import Shape
from .affine import Layout
from .support import Layer

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class GraphInput:
    """A network input: its population's name and shape, and how the ONNX tensor lays it out.

    `whole` says that the model takes integers there, `batch` which of the tensor's axes is that of the batch.
    """

    name: str
    shape: Shape
    layout: Layout
    whole: bool = False
    batch: int = 0

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of the ONNX tensor."""
        return tuple(math.prod(self.shape[axis] for axis in part) for part in self.layout)


@dataclass(frozen=True)
class Graph:
    """An ONNX graph for a batch of one.

    `constants` holds the weights by tensor name; the lowering empties it, to let each go after its last use. `layers`
    has the layer of each node, by node name. A tensor that is neither an input, nor a constant, nor made by a node is
    the output of a layer that has already been refused; `refused` says why, `probes` are the tensors that such layers
    read, and `stand_ins` says what shapes they give. `absorbed` has, by node name, the layer that an exporter merged
    into the node's own. `shapes` are those of tensors within, batch first, as far as a file says them. `settings` are
    inputs of one number, which `constants` holds too. `channels_last` says that the model's outputs have their channels
    last, and not second.
    """

    title: str
    nodes: Sequence[onnx.NodeProto]
    inputs: Mapping[str, GraphInput]
    outputs: Sequence[str]
    constants: dict[str, np.ndarray]
    opset: int
    layers: Mapping[str, Layer]
    refused: Mapping[Layer, str] = field(default_factory=dict)
    probes: Sequence[str] = ()
    stand_ins: Mapping[str, GraphInput] = field(default_factory=dict)
    absorbed: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    settings: Mapping[str, np.ndarray] = field(default_factory=dict)
    channels_last: bool = False

    def layer_paths(self) -> list[str]:
        """Every layer once, in the order in which they run."""
        return list(dict.fromkeys(layer.path for layer in sorted(self.layers.values(), key=lambda layer: layer.rank)))
