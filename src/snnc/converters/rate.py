"""What the converters to integrate-and-fire neurons share."""

from __future__ import annotations

from typing import Any

from ml_genn import compilers, neurons

from .compilers import InferenceCompiler
from .converter import Converter
from .enum import InputType
from .neurons import BinarySpikeInput, IntegrateFire, IntegrateFireInput, PoissonInput

_RECTIFIERS = {"relu", "relu6", "ReLU", "Relu", "Relu6"}


class RateConverter(Converter):
    """Integrate-and-fire neurons; `mlgenn_neurons` means mlGeNN's, as ml_genn_tf takes them, and its compiler."""

    def __init__(self, evaluate_timesteps: int, signed_input: bool, input_type: InputType | str, mlgenn_neurons: bool):
        self.evaluate_timesteps = evaluate_timesteps
        self.signed_input = signed_input
        self.input_type = InputType(input_type)
        self.mlgenn_neurons = mlgenn_neurons

    def create_input_neurons(self, pre_convert_output: Any) -> neurons.Neuron:
        """The encoding that `input_type` names."""
        if self.input_type == InputType.SPIKE:
            return BinarySpikeInput() if self.signed_input else neurons.BinarySpikeInput()
        if self.input_type == InputType.POISSON:
            return PoissonInput() if self.signed_input else neurons.PoissonInput()
        return neurons.IntegrateFireInput() if self.mlgenn_neurons else IntegrateFireInput(self.signed_input)

    def create_compiler(self, **kwargs: Any) -> compilers.Compiler:
        """A compiler that shows each example for `evaluate_timesteps`; the arguments are those of InferenceCompiler."""
        signs = self.signed_input and self.input_type != InputType.IF  # which mlGeNN's compiler cannot deliver
        compiler = compilers.InferenceCompiler if self.mlgenn_neurons and not signs else InferenceCompiler
        return compiler(evaluate_timesteps=self.evaluate_timesteps, **kwargs)

    def integrate_fire(self, tf_layer: Any, threshold: float, is_output: bool) -> neurons.Neuron:
        """The neuron of a layer; an output counts its spikes, or is read from its potential if it is no rectifier."""
        if self.mlgenn_neurons:
            return neurons.IntegrateFire(v_thresh=threshold, readout="spike_count" if is_output else None)
        readout = ("spike_count" if _is_rectifier(tf_layer) else "var") if is_output else None
        return IntegrateFire(v_thresh=threshold, v=0.5 * threshold, readout=readout)


def _is_rectifier(tf_layer: Any) -> bool:
    names = {type(tf_layer).__name__, getattr(getattr(tf_layer, "activation", None), "__name__", None)}
    return bool(names & _RECTIFIERS)
