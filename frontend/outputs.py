"""How the outputs of a model are arranged: which axis holds the channels is told by what its ONNX graph does last."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from .affine import CHANNELS_FIRST, FLAT, SERIES_FIRST
from .graph import Graph

_ON_CHANNELS_SECOND = {"AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_ON_CHANNELS_LAST = {"LayerNormalization", "MatMul"}


def has_channels_second(graph: Graph, tensor: str, rank: int, activations: Collection[str]) -> bool:
    """Whether the channels of a tensor, of `rank` axes, are behind its batch, as images have them; else they are last.

    The graph is followed back, through `activations`, to a node that knows of channels, or to the input. What is
    reshaped on the way is taken to keep its channels where they are.
    """
    makers = {name: node for node in graph.nodes for name in node.output if name}
    is_moved, by_matrix = False, None  # what a matrix says counts where nothing else knows: it may be of positions
    while tensor in makers and tensor not in graph.inputs:
        node = makers[tensor]
        given = [name for name in node.input if name in activations]
        if node.op_type in _ON_CHANNELS_SECOND:
            return not is_moved
        if node.op_type in _ON_CHANNELS_LAST and len(given) == 1 and by_matrix is None:
            by_matrix = is_moved
        is_moved ^= _moves_channels(node)
        tensor = next(iter(given), "")
    if by_matrix is not None:
        return by_matrix
    layout = graph.inputs[tensor].layout if tensor in graph.inputs else FLAT
    is_second = rank == 4 if layout == FLAT else layout in (CHANNELS_FIRST, SERIES_FIRST)
    return is_second != is_moved


def _moves_channels(node: onnx.NodeProto) -> bool:
    """Whether a node moves the second axis to the end, or the last one to its place."""
    order = [*node.attribute[0].ints] if node.op_type == "Transpose" and node.attribute else []
    return len(order) > 2 and (order[-1] == 1 or order[1] == len(order) - 1)
