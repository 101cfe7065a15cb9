"""Weights as a spike meets them: λ or α folded in, so that every backend emits the same numbers."""

from __future__ import annotations

import numpy as np

from ..ir import Connection, Network, Operator, Scale, SpikingNeuron, fold


def weighted(network: Network, connection: Connection) -> tuple[Operator, ...]:
    """The operators of `connection` on what its source sends, which then has no unit.

    A spike is 1 or −1, or 2^−k in step k of a few-spike phase, and counts as so many of the source's amplitude. A
    graded input sends its value, and its operators stay as they are.
    """
    source = network.populations[connection.source]
    assert isinstance(source.neuron, SpikingNeuron)  # verified
    amplitude = source.neuron.amplitude
    if not isinstance(amplitude, np.ndarray) and amplitude == 1:
        return connection.operators
    scale = Scale(np.broadcast_to(np.float32(amplitude), source.shape[-1:]))
    return fold((scale, *connection.operators), source.shape)
