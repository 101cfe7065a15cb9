"""mlGeNN's compilers for networks of `snnc.converters.neurons`; other neurons they treat as mlGeNN does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ml_genn import compilers as mlgenn
from ml_genn.compilers.compiler import SupportedMatrixType
from ml_genn.utils.model import WeightUpdateModel
from pygenn import SynapseMatrixType as Type

from ..backend.mlgenn.compiler import IN_MEMORY, by_spike
from ..backend.mlgenn.connectivity import Machine
from ..backend.mlgenn.machine import describe, genn_backend
from ..ir import BackendError
from .neurons import Windowed, depth, window


class Matrices(SupportedMatrixType):
    """The matrix types that mlGeNN's connectivity chooses from, the first that it has, and what ours has to know.

    `reads_values` says of a population whether its spikes count as values.
    """

    def __init__(self, types: list[Any], machine: Machine, reads_values: Callable[[Any], bool]):
        super().__init__(types)
        self.machine = machine
        self.reads_values = reads_values

    def take(self, size: int) -> None:
        """Leave `size` bytes less for the connections to come."""
        self.machine = replace(self.machine, memory=self.machine.memory - size)


class SpikeValues:
    """What both compilers share: spikes that count as values, and matrix types that the machine has."""

    def choose_backend(self) -> None:
        """Have GeNN run where it can, with the matrix types that are right there."""
        backend = self.genn_kwargs.setdefault("backend", genn_backend(None))  # type: ignore[attr-defined]
        machine = describe(backend, self.batch_size)  # type: ignore[attr-defined]
        # two SPARSE convolutions of mlGeNN's in one network do not build, and a GPU is not always right with TOEPLITZ
        types = [Type.PROCEDURAL_KERNELG, Type.SPARSE, Type.DENSE] if machine.on_gpu else IN_MEMORY
        self.supported_matrix_type = Matrices(types, machine, self.reads_values)

    def create_compiled_network(self, genn_model: Any, neuron_populations: Any, *args: Any) -> Any:
        """As mlGeNN's; a GPU works on spikes side by side."""
        by_spike(args[0].values())
        return super().create_compiled_network(genn_model, neuron_populations, *args)  # type: ignore[misc]

    def reads_values(self, population: Any) -> bool:
        """Whether a spike of the population counts as its amplitude times its `Value`."""
        return getattr(population.neuron, "sends_values", False)

    def build_weight_update_model(self, connection: Any, connect_snippet: Any, compile_state: Any) -> WeightUpdateModel:
        """As mlGeNN's, but a spike counts as its source's amplitude times its `Value`, where the source has one."""
        source = connection.source().neuron
        if not getattr(source, "sends_values", False):
            return super().build_weight_update_model(connection, connect_snippet, compile_state)  # type: ignore[misc]
        model = {
            "params": [("g", "scalar"), ("Amplitude", "scalar")],
            "pre_neuron_var_refs": [("Value", "scalar")],
            "pre_spike_syn_code": "addToPost(g * Amplitude * Value);",
        }
        values = {"g": connect_snippet.weight, "Amplitude": source.amplitude}
        return WeightUpdateModel(model, values, pre_neuron_var_refs={"Value": "Value"})


class InferenceCompiler(SpikeValues, mlgenn.InferenceCompiler):
    """Rate-coded networks: shows each example for `evaluate_timesteps`, T, and until the last layer has seen all.

    A network of depth D takes T + D steps, in which every population has T steps of its own.
    """

    def __init__(
        self,
        evaluate_timesteps: int,
        dt: float = 1.0,
        batch_size: int = 1,
        rng_seed: int = 0,
        kernel_profiling: bool = False,
        prefer_in_memory_connect: bool = True,
        reset_time_between_batches: bool = True,
        reset_vars_between_batches: bool = True,
        reset_in_syn_between_batches: bool = False,
        communicator: Any = None,
        **genn_kwargs: Any,
    ):
        super().__init__(
            evaluate_timesteps,
            dt,
            batch_size,
            rng_seed,
            kernel_profiling,
            prefer_in_memory_connect,
            reset_time_between_batches,
            reset_vars_between_batches,
            reset_in_syn_between_batches,
            communicator,
            **{"optimize_code": True, **genn_kwargs},  # GeNN compiles without optimisation unless told otherwise
        )
        self.choose_backend()

    def build_neuron_model(self, pop: Any, model: Any, compile_state: Any) -> Any:
        """As mlGeNN's; closes the population's window after T steps."""
        model = super().build_neuron_model(pop, model, compile_state)
        if isinstance(pop.neuron, Windowed):
            if not self.reset_time_between_batches:
                raise BackendError(
                    f"population {pop.name!r} counts time from the start of each example: "
                    "leave out reset_time_between_batches=False"
                )
            model.param_vals |= window(depth(pop), self.evaluate_timesteps, self.dt)
        return model

    def create_compiled_network(
        self, genn_model: Any, neuron_populations: Any, connection_populations: Any, compile_state: Any
    ) -> Any:
        """As mlGeNN's, with the steps that the last spikes need to arrive."""
        compiled = super().create_compiled_network(
            genn_model, neuron_populations, connection_populations, compile_state
        )
        lag = max((depth(pop) for pop in neuron_populations if isinstance(pop.neuron, Windowed)), default=0)
        compiled.evaluate_timesteps += lag
        compiled.num_recording_timesteps += lag
        return compiled


class FewSpikeCompiler(SpikeValues, mlgenn.FewSpikeCompiler):
    """Few-spike networks. A population at depth d collects in the phases before phase d, and spikes in phase d."""

    def __init__(
        self,
        k: int = 10,
        dt: float = 1.0,
        batch_size: int = 1,
        rng_seed: int = 0,
        kernel_profiling: bool = False,
        prefer_in_memory_connect: bool = True,
        communicator: Any = None,
        **genn_kwargs: Any,
    ):
        super().__init__(
            k,
            dt,
            batch_size,
            rng_seed,
            kernel_profiling,
            prefer_in_memory_connect,
            communicator,
            **{"optimize_code": True, **genn_kwargs},
        )
        self.choose_backend()

    def pre_compile(self, network: Any, genn_model: Any, inputs: Any, outputs: Any, **kwargs: Any) -> Any:
        """As mlGeNN's, where a readout is complete one phase earlier, but for its last bit."""
        state = super().pre_compile(network, genn_model, inputs, outputs, **kwargs)
        windowed = [isinstance(population.neuron, Windowed) for population in network.populations]
        if any(windowed) and not all(windowed):
            raise BackendError("a few-spike network has either snnc's neurons or mlGeNN's: do not mix them")
        if not any(windowed):
            return state
        return state._replace(pop_pipeline_depth={population: depth(population) for population in network.populations})
