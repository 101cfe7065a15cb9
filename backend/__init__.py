"""Backends: what makes a network runnable."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..ir import BackendError, Network, as_network, shown

if TYPE_CHECKING:
    from .compiled import CompiledSpiking
    from .onnxruntime import CompiledAnalog

Backend = Literal["onnxruntime", "mlgenn"]


def compile(network: Network, backend: Backend = "onnxruntime", **options: Any) -> CompiledSpiking | CompiledAnalog:
    """Make `network` ready to run.

    `onnxruntime` is the embedded engine, for analog and spiking networks; `mlgenn` emits an mlGeNN network, which GeNN
    compiles, for spiking ones. `options` are the backend's own: see `compile` of `snnc.backend.onnxruntime` and of
    `snnc.backend.mlgenn`. Raises BackendError where the backend is unknown, is not installed, has no such option or
    cannot run the network, and VerificationError for a network that breaks its stage's rules.
    """
    network = as_network(network)
    module = import_module(f".{as_backend(backend)}", __name__)
    known = list(signature(module.compile).parameters)[1:]
    unknown = ", ".join(repr(name) for name in options if name not in known)
    if unknown:
        raise BackendError(f"the backend {backend!r} has no option {unknown}; its options are {', '.join(known)}")
    compiled: CompiledSpiking | CompiledAnalog = module.compile(network, **options)
    return compiled


def as_backend(given: Any) -> Backend:
    """`given`, if it is the name of a backend. Raises BackendError."""
    known: tuple[Backend, ...] = get_args(Backend)
    found = next((name for name in known if isinstance(given, str) and name == given), None)
    if found is None:
        raise BackendError(f"there is no backend {shown(given)}; there are: {', '.join(known)}")
    return found


__all__ = ["Backend", "as_backend", "compile"]
