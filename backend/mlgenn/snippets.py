"""Edges as mlGeNN connectivity: mlGeNN's own where it expresses the edge, else an explicit matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_genn import connectivity
from ml_genn.connectivity.sparse_base import SparseBase
from ml_genn.utils.snippet import ConnectivitySnippet
from pygenn import SynapseMatrixType, init_sparse_connectivity
from scipy.sparse import coo_array, csr_array

from ...ir import NO_PADDING, Conv2D, Dense, Scale
from .connectivity import Edge
from .matrices import matrix


class DenseMatrix(connectivity.Dense):
    """mlGeNN's `Dense`, also from populations of shape (H, W, C), which count as flat with channels last."""

    def connect(self, source: Any, target: Any) -> None:
        pass


class SparseMatrix(SparseBase):
    """One synapse for every entry of `matrix`, of shape (source neurons, target neurons)."""

    def __init__(self, matrix: csr_array, delay: int = 0):
        entries = matrix.tocoo()
        if not entries.nnz:  # pygenn cannot load a connection without synapses
            entries = coo_array(([np.float32(0)], ([0], [0])), shape=matrix.shape)
        super().__init__(entries.data, delay)
        self.pre_ind, self.post_ind = entries.coords

    def connect(self, source: Any, target: Any) -> None:
        pass

    def get_snippet(self, connection: Any, supported_matrix_type: Any) -> Any:
        return self._get_snippet(supported_matrix_type, None)


class Convolution(connectivity.Connectivity):
    """A convolution whose synapses a GPU makes from the kernel; other than mlGeNN's with any padding."""

    def __init__(self, conv: Conv2D, delay: int = 0):
        super().__init__(conv.weight, delay)
        self.conv = conv

    def connect(self, source: Any, target: Any) -> None:
        pass

    def get_snippet(self, connection: Any, supported_matrix_type: Any) -> ConnectivitySnippet:
        conv, source = self.conv, connection.source().shape
        sizes = [*conv.weight.shape[:2], *conv.strides, *(before for before, _ in conv.padding)]
        sizes += [*source, *conv.output_shape(source)]
        names = ("kh", "kw", "sh", "sw", "padh", "padw", "ih", "iw", "ic", "oh", "ow", "oc")
        parameters = {f"conv_{name}": size for name, size in zip(names, sizes, strict=True)}
        return ConnectivitySnippet(
            init_sparse_connectivity("Conv2D", parameters),
            SynapseMatrixType.PROCEDURAL_KERNELG,
            self.weight,
            self.delay,
        )


def connectivity_of(edge: Edge) -> connectivity.Connectivity:
    """What mlGeNN is given; spikes take the edge's delay more than the one step that GeNN's always take."""
    operators, delay = edge.operators, edge.connection.delay
    match edge.kind, operators:
        case "OneToOne", ():
            return connectivity.OneToOne(1.0, delay)
        case "OneToOne", (Scale(factor),):
            return connectivity.OneToOne(float(factor.flat[0]), delay)
        case "Convolution", (Conv2D() as conv,):
            return Convolution(conv, delay)
        case "Conv2D", (Conv2D(weight) as conv,):
            mode = "valid" if conv.padding == NO_PADDING else "same"
            return connectivity.Conv2D(weight, weight.shape[3], weight.shape[:2], conv_padding=mode, delay=delay)
        case "DenseMatrix", (Dense(weight),):
            return DenseMatrix(weight, delay)
    composed = matrix(operators, edge.shape)
    return DenseMatrix(composed.toarray(), delay) if edge.kind == "DenseMatrix" else SparseMatrix(composed, delay)
