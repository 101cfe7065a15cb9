"""A model as it was read, kept together with the model itself, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..ir import Network
from .graph import Graph, GraphInput
from .lowering import lower_with_tensors
from .support import Layer

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Computed:
    """Tensors of a model as they were computed by `tool`, with a relative rounding of `eps` in each operation."""

    arrays: Arrays
    tool: str
    eps: float = 2.0**-23


@dataclass(frozen=True)
class Reading:
    """The analog network of a model, and how the model itself computes the same tensors.

    `run(inputs, tensors)` has the source framework compute tensors for one image; `inputs` are by name of the network's
    input, (1, *shape). `outputs` are the tensors that the model gives. `ends` says which layer each tensor within the
    model comes out of, in the order in which they run; it is empty where only outputs can be seen. `inputs` are the
    model's, by the names of the network's. `layers` are the paths of all layers. `rounded` finds, among tensors of the
    model, those that a population rounds: with its name, and its activation. `reach` says how large the numbers
    are that a tensor is computed of, given all activations, or 0.
    """

    title: str
    network: Network
    run: Callable[[Arrays, Sequence[str]], Computed]
    tensor: Callable[[str, Arrays], np.ndarray | None]
    outputs: Sequence[str]
    parameters: int
    layers: Sequence[str]
    inputs: Mapping[str, GraphInput]
    ends: Mapping[str, Layer] = field(default_factory=dict)
    rounded: Callable[[Arrays], Mapping[str, tuple[str, np.ndarray]]] = field(default=lambda tensors: {})
    reach: Callable[[str, Arrays], float] = field(default=lambda tensor, activations: 0.0)


def read(
    graph: Graph,
    run: Callable[[Arrays, Sequence[str]], Computed],
    ends: Mapping[str, Layer],
) -> Reading:
    """Lower a graph; raises UnsupportedModelError with every layer in the way."""
    parameters = sum(array.size for array in graph.constants.values())  # the lowering lets them go
    lowered = lower_with_tensors(graph)
    layers = graph.layer_paths()
    return Reading(
        graph.title,
        lowered.network,
        run,
        lowered.tensor,
        graph.outputs,
        parameters,
        layers,
        {given.name: given for given in graph.inputs.values()},
        ends,
        lowered.rounded,
        lowered.reach,
    )
