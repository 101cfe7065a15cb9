"""mlGeNN's inference compiler, with spikes that carry values and without what the windows make unnecessary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ml_genn.compilers import InferenceCompiler
from ml_genn.compilers.compiled_network import CompiledNetwork
from ml_genn.compilers.compiler import SupportedMatrixType
from ml_genn.compilers.few_spike_compiler import CompiledFewSpikeNetwork
from ml_genn.compilers.inference_compiler import CompiledInferenceNetwork
from ml_genn.utils.model import WeightUpdateModel
from pygenn import ParallelismHint, SynapseMatrixConnectivity, SynapseMatrixType

SYNAPSES_OF_A_THREAD = 16
# TOEPLITZ first, as two SPARSE convolutions of different kernel shape in one network do not build.
IN_MEMORY = [SynapseMatrixType.TOEPLITZ, SynapseMatrixType.SPARSE, SynapseMatrixType.DENSE]


def by_spike(synapse_groups: Iterable[Any]) -> None:
    """Have a GPU work on the spikes of SPARSE connections side by side, with some threads for each; before the build.

    By itself GeNN has one thread for each synapse of a row, which goes through all spikes. That is slow, and wrong
    where a target is no larger than a block of threads: see `connectivity._is_safe`.
    """
    for synapses in synapse_groups:
        if synapses.matrix_type & SynapseMatrixConnectivity.SPARSE:
            synapses.parallelism_hint = ParallelismHint.PRESYNAPTIC
            row = synapses.max_connections
            synapses.num_threads_per_spike = 2 ** min(max((row // SYNAPSES_OF_A_THREAD).bit_length() - 1, 0), 5)


class WindowCompiler(InferenceCompiler):
    """Compiles networks made of this package's neurons. GeNN's time starts again every `period` steps.

    `arriving` says what a connection adds to, where that is not Isyn; `phases` says for each population of a few-spike
    network how many periods it lags behind the inputs. `settings` are those of mlGeNN's compiler.
    """

    def __init__(
        self,
        period: int,
        batch_size: int,
        seed: int,
        arriving: Mapping[Any, str],
        phases: Mapping[Any, int] | None = None,
        **settings: Any,
    ):
        super().__init__(
            period,
            batch_size=batch_size,
            rng_seed=seed,
            reset_vars_between_batches=False,
            optimize_code=True,  # GeNN compiles without optimisation unless told otherwise
            **settings,
        )
        self.arriving = arriving
        self.phases = phases
        self.supported_matrix_type = SupportedMatrixType(IN_MEMORY)  # what is PROCEDURAL says so itself

    def build_weight_update_model(self, connection: Any, connect_snippet: Any, compile_state: Any) -> WeightUpdateModel:
        """As mlGeNN's, but a spike counts as its source's variable `Value` where the source has one."""
        if not connection.source().neuron.sends_values:
            return super().build_weight_update_model(connection, connect_snippet, compile_state)
        model = {
            "params": [("g", "scalar")],
            "pre_neuron_var_refs": [("Value", "scalar")],
            "pre_spike_syn_code": "addToPost(g * Value);",
        }
        return WeightUpdateModel(model, {"g": connect_snippet.weight}, pre_neuron_var_refs={"Value": "Value"})

    def create_compiled_network(
        self, genn_model: Any, neuron_populations: Any, connection_populations: Any, compile_state: Any
    ) -> CompiledNetwork:
        """As mlGeNN's, but without a reset between examples, as the neurons start themselves.

        And constant currents, and what goes to second ports, arrive where their targets expect them.
        """
        for connection, synapses in connection_populations.items():
            if connection in self.arriving:
                synapses.post_target_var = self.arriving[connection]
        by_spike(connection_populations.values())
        parts = (genn_model, neuron_populations, connection_populations, self.communicator, self.evaluate_timesteps)
        if self.phases is None:
            return CompiledInferenceNetwork(*parts, [])
        return CompiledFewSpikeNetwork(*parts, self.phases)
