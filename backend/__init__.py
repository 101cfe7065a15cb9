"""Backends: what makes a network runnable."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

from ..ir import BackendError, Network

if TYPE_CHECKING:
    from .compiled import CompiledSpiking
    from .onnxruntime import CompiledAnalog

Backend = Literal["onnxruntime", "mlgenn"]


def compile(network: Network, backend: Backend = "onnxruntime") -> CompiledSpiking | CompiledAnalog:
    """Make `network` ready to run.

    `onnxruntime` is the embedded engine, for analog and spiking networks; `mlgenn` emits an mlGeNN network, which GeNN
    compiles, for spiking ones. Raises BackendError where the backend is unknown, is not installed or cannot
    run the network, and VerificationError for a network that breaks its stage's rules.
    """
    if backend not in get_args(Backend):
        raise BackendError(f"there is no backend {backend!r}; there are: {', '.join(get_args(Backend))}")
    module = import_module(f".{backend}", __name__)
    compiled: CompiledSpiking | CompiledAnalog = module.compile(network)
    return compiled


__all__ = ["Backend", "compile"]
