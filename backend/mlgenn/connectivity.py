"""Linear maps as mlGeNN connectivity: mlGeNN's own where it expresses the map, else an explicit sparse matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_genn import connectivity
from ml_genn.connectivity.sparse_base import SparseBase
from scipy.sparse import coo_array, csr_array

from ...ir import NO_PADDING, Conv2D, Dense, Operator, Scale, Shape
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


def connect(operators: tuple[Operator, ...], shape: Shape, delay: int) -> connectivity.Connectivity:
    """`operators`, from a source of `shape`; spikes take `delay` steps more than the one that GeNN's always take."""
    match operators:
        case ():
            return connectivity.OneToOne(1.0, delay)
        case (Scale(factor),) if (factor == factor.flat[0]).all():
            return connectivity.OneToOne(float(factor.flat[0]), delay)
        case (Dense(weight),):
            return DenseMatrix(weight, delay)
        case (Conv2D(weight) as conv,) if _is_toeplitz(conv):
            mode = "valid" if conv.padding == NO_PADDING else "same"
            return connectivity.Conv2D(weight, weight.shape[3], weight.shape[:2], conv_padding=mode, delay=delay)
    composed = matrix(operators, shape)
    if any(isinstance(operator, Dense) for operator in operators):
        return DenseMatrix(composed.toarray(), delay)
    return SparseMatrix(composed, delay)


def _is_toeplitz(conv: Conv2D) -> bool:
    """Whether GeNN's Toeplitz convolution computes `conv`.

    It takes no padding argument: from the sizes it concludes how the padding of a `same` convolution is
    split, and for even kernels it gives the larger half to the top and left, where Keras gives the smaller.
    """
    same = tuple((k // 2, (k - 1) // 2) for k in conv.weight.shape[:2])
    plain = conv.strides == conv.dilation == (1, 1) and conv.groups == 1
    return plain and conv.padding in (NO_PADDING, same)
