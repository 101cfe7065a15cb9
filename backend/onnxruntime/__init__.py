"""The embedded backend: runs anywhere on PyPI packages alone."""

from __future__ import annotations

from ...ir import Network
from .analog import CompiledAnalog
from .spiking import CompiledEngine
from .sweep import sweep


def compile(network: Network) -> CompiledAnalog | CompiledEngine:
    """Make `network`, analog or spiking, ready to run. Raises VerificationError or BackendError."""
    return CompiledEngine(network) if network.is_spiking else CompiledAnalog(network)


__all__ = ["CompiledAnalog", "CompiledEngine", "compile", "sweep"]
