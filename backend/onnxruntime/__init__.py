"""The embedded backend: runs anywhere on PyPI packages alone."""

from __future__ import annotations

from ...ir import Network
from .analog import CompiledAnalog
from .resources import Resources
from .spiking import CompiledEngine
from .sweep import sweep


def compile(
    network: Network, *, memory: int | str | None = None, threads: int | None = None
) -> CompiledAnalog | CompiledEngine:
    """Make `network`, analog or spiking, ready to run.

    A spiking network takes at most `memory` for spikes and currents, in bytes or as in "2GB", by default 256 MB, and
    runs on `threads`, by default as many as there are cores. Neither changes a result. Raises VerificationError or
    BackendError.
    """
    resources = Resources.of(memory, threads)
    return CompiledEngine(network, resources) if network.is_spiking else CompiledAnalog(network)


__all__ = ["CompiledAnalog", "CompiledEngine", "compile", "sweep"]
