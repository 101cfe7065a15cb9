"""The mlGeNN backend: emits an mlGeNN network with the same meaning, which GeNN compiles to kernels."""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from typing import TYPE_CHECKING, Any

from ...ir import (
    BackendError,
    MatMul,
    MaxPool2D,
    Network,
    SpikingNeuron,
    as_flag,
    as_names,
    as_network,
    as_path,
    verify,
)
from ...ir.cost import products_text
from .connectivity import Edge, choose
from .machine import CPU, GPU_BATCH, describe, genn_backend
from .options import Device, Forced, MatrixType, Options

if TYPE_CHECKING:
    from .compiled import CompiledGenn


def compile(
    network: Network,
    *,
    device: Device | None = None,
    folder: str | PathLike[str] | None = None,
    matrix_type: Forced | None = None,
    batch_size: int | None = None,
    workers: int = 1,
    record_spikes: Collection[str] = (),
    kernel_profiling: bool = False,
    communicator: Any = None,
) -> CompiledGenn:
    """Build a spiking network with GeNN; takes seconds to minutes.

    `device`, "gpu" or "cpu", is the GPU where there is one that works, unless said otherwise; a BackendWarning says why
    it does not. A GPU's build is made in another process first, as GeNN ends the one in which it fails. `folder` keeps
    what is built, of any number of networks: one that differs from an earlier one in arrays alone (weights, biases,
    thresholds per channel) is not compiled again. `matrix_type`, "TOEPLITZ", "PROCEDURAL", "SPARSE" or "DENSE",
    forces how GeNN stores all connections, or, as a mapping from "source -> target", some; `plan` tells what is
    chosen otherwise. `batch_size` images are simulated at once on a GPU, 128 if not said otherwise and 1023 at most; a
    CPU takes one, and there `workers` processes simulate side by side, with the same results. `record_spikes` names
    populations on which mlGeNN's SpikeRecorder is to work, in `mlgenn_evaluate`; `simulate` records any without it.
    `kernel_profiling` measures the time in each of GeNN's kernels: `kernel_times`. `communicator` is mlGeNN's, for
    several GPUs.

    Raises BackendError for an analog network, for options that do not fit, where pygenn, ml_genn or scipy is not
    installed, and where GeNN cannot build the network; VerificationError for a network that breaks the rules of its
    stage.
    """
    kept = (
        None if folder is None or (isinstance(folder, str) and not folder) else as_path(folder, "folder", BackendError)
    )
    recorded = as_names(record_spikes, "record_spikes", BackendError)
    timed = as_flag(kernel_profiling, "kernel_profiling")
    options = Options(device, kept, matrix_type, batch_size, workers, recorded, timed, communicator)
    _require_runnable(network)
    try:
        from . import genn  # noqa: F401 - before what imports it in its own way
        from .compiled import CompiledGenn
    except ImportError as error:
        raise BackendError(
            f"the mlgenn backend needs pygenn, ml_genn and scipy, which are not all here ({error}): "
            'the README says in its section "GeNN" how to install them'
        ) from None
    return CompiledGenn(network, options)


def plan(
    network: Network,
    *,
    device: Device | None = None,
    matrix_type: Forced | None = None,
    batch_size: int | None = None,
) -> list[Edge]:
    """How `compile` would store each connection: matrix type, synapses, memory. Builds nothing and needs no GeNN.

    `device` None is as for `compile`, and a CPU where pygenn is not installed. For a GPU where there is none, 16 GB of
    memory are assumed. Errors are those of `compile`.
    """
    options = Options(device, matrix_type=matrix_type, batch_size=batch_size)
    _require_runnable(network)
    backend = _planned(options.device)
    batch = options.batch_size or (1 if backend == CPU else GPU_BATCH)
    return choose(network, describe(backend, batch), options.matrix_type)


def _planned(device: Device | None) -> str:
    """The GeNN backend, without asking whether a device that is named is here."""
    if device:
        return "cuda" if device == "gpu" else CPU
    try:
        return genn_backend(None)
    except ImportError:
        return CPU


def _require_runnable(network: Network) -> None:
    if not as_network(network).is_spiking:
        raise BackendError(
            "GeNN simulates spiking networks and this one is analog: convert it first, "
            "or compile it with the backend 'onnxruntime'"
        )
    verify(network, "spiking")
    _require_no_pooling(network)
    _require_no_matrices(network)


def _require_no_pooling(network: Network) -> None:
    pooling = [
        repr(name)
        for name, population in network.populations.items()
        if isinstance(neuron := population.neuron, SpikingNeuron)
        and (neuron.pooling or isinstance(neuron.soma, MaxPool2D))
    ]
    if pooling:
        raise BackendError(
            f"GeNN's neurons cannot take the largest of a window, as those of {', '.join(pooling)} do: "
            "run lower-max-pool without before-neuron"
        )


def _require_no_matrices(network: Network) -> None:
    multiplying = [
        f"{name!r} (from {', '.join(population.origin.layers) or 'no known layer'}): {products_text(soma)}"
        for name, population in network.populations.items()
        if isinstance(population.neuron, SpikingNeuron) and isinstance(soma := population.neuron.soma, MatMul)
    ]
    if multiplying:
        raise BackendError(
            "GeNN's neurons multiply numbers, not matrices: run lower-matmul before the conversion, "
            "or compile the network with the backend 'onnxruntime'. Lowered, these would be:\n"
            + "\n".join(f"  - {line}" for line in multiplying)
        )


__all__ = ["Device", "Edge", "Forced", "MatrixType", "Options", "compile", "plan"]
