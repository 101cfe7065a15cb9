"""mlGeNN's inference compiler, with graded input and without what the neurons' windows make unnecessary."""

from __future__ import annotations

from typing import Any

from ml_genn.compilers import InferenceCompiler
from ml_genn.compilers.compiler import SupportedMatrixType
from ml_genn.compilers.inference_compiler import CompiledInferenceNetwork
from ml_genn.utils.model import WeightUpdateModel
from pygenn import SynapseMatrixType

from .neurons import CurrentInput


class WindowCompiler(InferenceCompiler):
    """Compiles networks made of this package's neurons, to run for `steps` steps per example."""

    def __init__(self, steps: int, batch_size: int):
        # GeNN compiles without optimisation unless told otherwise
        super().__init__(steps, batch_size=batch_size, reset_vars_between_batches=False, optimize_code=True)
        # no PROCEDURAL, which the CPU lacks; TOEPLITZ first, as two SPARSE convolutions in one network do not build
        order = [SynapseMatrixType.TOEPLITZ, SynapseMatrixType.SPARSE, SynapseMatrixType.DENSE]
        self.supported_matrix_type = SupportedMatrixType(order)

    def build_weight_update_model(self, connection: Any, connect_snippet: Any, compile_state: Any) -> WeightUpdateModel:
        """As mlGeNN's, but a `CurrentInput` sends its value instead of 1."""
        if not isinstance(connection.source().neuron, CurrentInput):
            return super().build_weight_update_model(connection, connect_snippet, compile_state)
        model = {
            "params": [("g", "scalar")],
            "pre_neuron_var_refs": [("Input", "scalar")],
            "pre_spike_syn_code": "addToPost(g * Input);",
        }
        return WeightUpdateModel(model, {"g": connect_snippet.weight}, pre_neuron_var_refs={"Input": "Input"})

    def create_compiled_network(
        self, genn_model: Any, neuron_populations: Any, connection_populations: Any, compile_state: Any
    ) -> CompiledInferenceNetwork:
        """As mlGeNN's, but without a reset between examples: the neurons start themselves."""
        return CompiledInferenceNetwork(
            genn_model, neuron_populations, connection_populations, self.communicator, self.evaluate_timesteps, []
        )
