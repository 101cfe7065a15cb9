"""The IR's spiking neurons as mlGeNN neurons.

Each lives in the steps [begin, end) of an example: it sets itself up in the first of them and stands still outside.
So examples can follow one another and nothing has to be reset in between. Parameters are numbers, or arrays with one
number per neuron.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_genn.neurons import Neuron
from ml_genn.neurons.input import Input
from ml_genn.utils.model import NeuronModel
from pygenn import VarAccess

from ...ir import BackendError, Population, Shape
from ...ir import neurons as ir

Value = float | np.ndarray

INSIDE = "t >= Begin && t < End"


class IntegrateFire(Neuron):
    """`ir.IntegrateFire` with bias; GeNN variables `V` and `Count`, the spikes so far, which is its output variable."""

    def __init__(
        self,
        v_thresh: Value,
        v_init: Value,
        bias: Value,
        begin: int,
        end: int,
        reset: str = "subtract",
        comparison: str = ">=",
        readout: Any = None,
    ):
        super().__init__(readout)
        self.reset = reset
        self.comparison = comparison
        self.parameters = {"Begin": begin, "End": end, "VThresh": v_thresh, "VInit": v_init, "Bias": bias}

    def get_model(self, population: Any, dt: float, batch_size: int) -> NeuronModel:
        model = {
            "params": [(name, "scalar") for name in self.parameters],
            "vars": [("V", "scalar"), ("Count", "unsigned int")],
            "sim_code": f"""
            if (t == Begin) {{ V = VInit; Count = 0; }}
            if ({INSIDE}) {{ V += Isyn + Bias; }}
            """,
            "threshold_condition_code": f"{INSIDE} && V {self.comparison} VThresh",
            "reset_code": f"V = {'V - VThresh' if self.reset == 'subtract' else '0.0'}; Count++;",
        }
        return NeuronModel(model, "Count", dict(self.parameters), {"V": 0.0, "Count": 0}, {})


class Integrate(Neuron):
    """`ir.Integrate` with bias; GeNN variable `V`, which is its output variable."""

    def __init__(self, bias: Value, begin: int, end: int, readout: Any = None):
        super().__init__(readout)
        self.parameters = {"Begin": begin, "End": end, "Bias": bias}

    def get_model(self, population: Any, dt: float, batch_size: int) -> NeuronModel:
        model = {
            "params": [(name, "scalar") for name in self.parameters],
            "vars": [("V", "scalar")],
            "sim_code": f"""
            if (t == Begin) {{ V = 0.0; }}
            if ({INSIDE}) {{ V += Isyn + Bias; }}
            """,
        }
        return NeuronModel(model, "V", dict(self.parameters), {"V": 0.0}, {})


class CurrentInput(Neuron, Input):
    """`ir.CurrentInput`: spikes in every step where its value, the GeNN variable `Input`, is not zero.

    The value itself is read by the weight updates of its connections, see `compiler.py`.
    """

    def __init__(self, end: int):
        super().__init__()
        self.end = end

    def get_model(self, population: Any, dt: float, batch_size: int) -> NeuronModel:
        model = {
            "params": [("End", "scalar")],
            "vars": [("Input", "scalar", VarAccess.READ_ONLY_DUPLICATE)],
            "threshold_condition_code": "t < End && Input != 0.0",
        }
        return NeuronModel(model, None, {"End": self.end}, {"Input": 0.0}, {})

    def set_input(self, genn_pop: Any, batch_size: int, shape: Shape, input: np.ndarray) -> None:
        """Show `input`, (images, *shape) with at most `batch_size` images, in the coming example."""
        variable = genn_pop.vars["Input"]
        # where connections with delays read it, GeNN keeps one copy for each of the past steps
        copies = variable.view.reshape(batch_size, -1, genn_pop.num_neurons)
        copies[: len(input)] = input.reshape(len(input), 1, -1)
        variable.push_to_device()


def neuron(population: Population, begin: int, timesteps: int, readout: str | None) -> Neuron:
    """The mlGeNN neuron of a population whose window begins at step `begin`."""
    end = begin + timesteps
    bias = 0.0 if population.bias is None else _per_neuron(population.bias, population.shape)
    match population.neuron:
        case ir.CurrentInput():
            return CurrentInput(end)
        case ir.Integrate():
            return Integrate(bias, begin, end, readout)
        case ir.IntegrateFire(v_thresh, v_init, reset, comparison):
            thresholds, potentials = (_per_neuron(value, population.shape) for value in (v_thresh, v_init))
            return IntegrateFire(thresholds, potentials, bias, begin, end, reset, comparison, readout)
    raise BackendError(
        f"the mlgenn backend does not know the neuron {type(population.neuron).__name__} of {population.name!r}"
    )


def _per_neuron(value: Value, shape: Shape) -> Value:
    return np.broadcast_to(value, shape).reshape(-1) if isinstance(value, np.ndarray) else value
