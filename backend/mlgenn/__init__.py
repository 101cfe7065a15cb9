"""The mlGeNN backend: emits an mlGeNN network with the same meaning, which GeNN compiles to kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ir import BackendError, Network, verify

if TYPE_CHECKING:
    from .compiled import CompiledGenn


def compile(network: Network) -> CompiledGenn:
    """Build a spiking network with GeNN; takes seconds to minutes.

    Raises BackendError for an analog network, where pygenn, ml_genn or scipy is not installed, and where GeNN
    cannot build the network; VerificationError for a network that breaks the rules of its stage.
    """
    if not network.is_spiking:
        raise BackendError(
            "GeNN simulates spiking networks and this one is analog: convert it first, "
            "or compile it with the backend 'onnxruntime'"
        )
    verify(network, "spiking")
    try:
        from .compiled import CompiledGenn
    except ImportError as error:
        raise BackendError(
            f"the mlgenn backend needs pygenn, ml_genn and scipy, which are not all here ({error}): "
            'the README says in its section "GeNN" how to install them'
        ) from None
    return CompiledGenn(network)


__all__ = ["compile"]
