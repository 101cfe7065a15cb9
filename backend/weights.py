"""Weights as a spike meets them: λ folded in, so that every backend emits the same numbers."""

from __future__ import annotations

import numpy as np

from ..ir import Connection, IntegrateFire, Network, Operator, Scale, fold


def weighted(network: Network, connection: Connection) -> tuple[Operator, ...]:
    """The operators of `connection` on what its source sends: a spike, 0 or 1, counts as the source's λ.

    A graded input sends its value, and its operators stay as they are.
    """
    source = network.populations[connection.source]
    if not isinstance(source.neuron, IntegrateFire):
        return connection.operators
    scale = Scale(np.broadcast_to(np.float32(source.neuron.v_thresh), source.shape[-1:]))
    return fold((scale, *connection.operators), source.shape)
