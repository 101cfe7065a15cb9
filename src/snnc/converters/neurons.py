"""mlGeNN's own neurons, in name and attributes, with the dynamics of snnc's.

They are what the converters put into a network where a subclass does not return others. Each hands its equations over
to the mlGeNN backend, so a spike falls where it falls in `snnc.compile(…, backend="mlgenn")`: soft reset, a bias, and a
window of its own, [depth, depth + T) in a rate-coded network, in which it starts itself.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from ml_genn import neurons as mlgenn
from ml_genn.utils.model import NeuronModel

from .. import ir
from ..backend.mlgenn.neurons import neuron

FOREVER = 2**24  # steps; a compiler that knows T closes the windows


class Windowed:
    """What the neurons below share: they live from the step that is their depth, and they take a `bias`.

    `bias` is in the units of the potential: None, one number per channel, or one per neuron. `sends_values`: spikes
    count as `amplitude` times the GeNN variable `Value` rather than 1.
    """

    bias: np.ndarray | None = None
    sends_values = False
    amplitude = 1.0
    phased = False

    def get_model(self, population: Any, dt: float, batch_size: int) -> NeuronModel:
        """The GeNN model of the neuron as part of `population`, whose place in the network says when it begins."""
        node = ir.Population(population.name, tuple(population.shape), self.spiking(population), self.bias)
        emitted = neuron(node, 0, FOREVER, None)
        begin = 0 if self.phased else depth(population)
        steps = float(emitted.parameters["End"])  # K of a few-spike neuron
        emitted.parameters |= window(begin, steps, dt)
        return emitted.get_model(population, dt, batch_size)

    def spiking(self, population: Any) -> ir.SpikingNeuron:
        """The neuron in the IR."""
        raise NotImplementedError


class IntegrateFire(Windowed, mlgenn.IntegrateFire):
    """Integrate and fire that subtracts its threshold on a spike, whatever `v_reset` says.

    With the readout `var` it never fires and its potential is read: the sum of its input.
    """

    def spiking(self, population: Any) -> ir.SpikingNeuron:
        """`Integrate` where the potential is read, else `IntegrateFire`."""
        if reads_potential(self):
            return ir.Integrate()
        return ir.IntegrateFire(self.v_thresh, self.v)


class IntegrateFireInput(Windowed, mlgenn.IntegrateFireInput):
    """Integrate and fire on the image, by subtraction. If `signed`, on its magnitude, each spike with its sign."""

    def __init__(self, signed: bool = False):
        super().__init__(v=0.5)
        self.signed = self.sends_values = signed

    def spiking(self, population: Any) -> ir.SpikingNeuron:
        """`IntegrateFireInput`."""
        return ir.IntegrateFireInput(self.v_thresh, self.signed, self.v)


class PoissonInput(Windowed, mlgenn.PoissonInput):
    """Poisson spikes of the image's magnitude, each with the image's sign; mlGeNN's own do not build if signed."""

    sends_values = True

    def __init__(self) -> None:
        super().__init__(signed_spikes=True)

    def get_model(self, population: Any, dt: float, batch_size: int) -> NeuronModel:
        """The GeNN model; a rate of 1 is one spike in a unit of GeNN's time, on average."""
        model = super().get_model(population, dt, batch_size)
        model.param_vals["VThresh"] = 1 / dt
        return model

    def spiking(self, population: Any) -> ir.SpikingNeuron:
        """`PoissonInput`."""
        return ir.PoissonInput(signed=True)


class BinarySpikeInput(Windowed, mlgenn.BinarySpikeInput):
    """A spike with the image's sign in every step, where the image is not 0; mlGeNN's own do not build if signed."""

    sends_values = True

    def __init__(self) -> None:
        super().__init__(signed_spikes=True)

    def spiking(self, population: Any) -> ir.SpikingNeuron:
        """`SpikeInput`."""
        return ir.SpikeInput(signed=True)


class FewSpikeRelu(Windowed, mlgenn.FewSpikeRelu):
    """Few-spike rectifier. As an output it does not spike: the sum of its input is read.

    `rounding`: activations are rounded to a multiple of alpha · 2^−k, not truncated. Sources may differ in alpha.
    """

    sends_values = phased = True

    def __init__(self, k: int = 10, alpha: float = 25, readout: Any = None, rounding: bool = True):
        super().__init__(k, alpha, readout)
        self.rounding = rounding

    @property
    def amplitude(self) -> float:  # type: ignore[override]
        """What the spikes of a phase count as is a share of this."""
        return self.alpha

    def spiking(self, population: Any) -> ir.SpikingNeuron:
        """`FewSpikeReadout` at the end of a network, else `FewSpike`."""
        if self.readout is not None and not population.outgoing_connections:
            return ir.FewSpikeReadout()
        return ir.FewSpike(self.k, self.alpha, _half_quantum(self))


class FewSpikeReluInput(Windowed, mlgenn.FewSpikeReluInput):
    """Few-spike code of the image; if `signed_input`, of its magnitude, every spike with the image's sign."""

    sends_values = phased = True

    def __init__(self, k: int = 10, alpha: float = 25, signed_input: bool = False, rounding: bool = True):
        super().__init__(k, alpha, signed_input)
        self.rounding = rounding
        self.var_name = "Input"  # where mlGeNN is to put the image

    @property
    def amplitude(self) -> float:  # type: ignore[override]
        """What the spikes of a phase count as is a share of this."""
        return self.alpha

    def spiking(self, population: Any) -> ir.SpikingNeuron:
        """`FewSpikeInput`."""
        return ir.FewSpikeInput(self.k, self.alpha, _half_quantum(self), self.signed_input)


class Biased:
    """Adds `bias`, one number per neuron, to the input of the mlGeNN neuron that it is mixed into."""

    bias: np.ndarray

    def get_model(self, population: Any, dt: float, batch_size: int) -> NeuronModel:
        """The neuron's own model with `Isyn + Bias` for `Isyn`."""
        model = deepcopy(super().get_model(population, dt, batch_size))  # type: ignore[misc]
        model.replace_sim_code("Isyn", "(Isyn + Bias)")
        model.add_param("Bias", "scalar", self.bias)
        return model


def with_bias(neuron: Any, bias: np.ndarray, layer: str) -> Any:
    """A copy of an mlGeNN `neuron` that adds `bias`, one number per neuron, in the units of its potential.

    Raises UnsupportedModelError, naming the `layer`, for mlGeNN's few-spike neurons, whose input has no room for it.
    """
    if isinstance(neuron, (mlgenn.FewSpikeRelu, mlgenn.FewSpikeReluInput)) and not isinstance(neuron, Windowed):
        problem = f"{layer}: it has a bias; leave it out, or use snnc.converters.neurons.FewSpikeRelu"
        raise ir.UnsupportedModelError("mlGeNN's FewSpikeRelu cannot take every layer", [problem])
    kind = type(neuron) if isinstance(neuron, Windowed) else type(type(neuron).__name__, (Biased, type(neuron)), {})
    biased: Any = object.__new__(kind)
    biased.__dict__ |= {**neuron.__dict__, "bias": bias}
    return biased


def depth(population: Any) -> int:
    """The length of the longest path from the inputs to an mlGeNN population."""
    known: dict[Any, int] = {}

    def of(population: Any) -> int:
        if population not in known:
            sources = [connection().source() for connection in population.incoming_connections]
            known[population] = max((of(source) + 1 for source in sources), default=0)
        return known[population]

    return of(population)


def window(begin: int, steps: float, dt: float) -> dict[str, float]:
    """The parameters of a window of so many steps, in GeNN's time: steps times dt, in single precision."""
    ends = {"Begin": begin, "End": begin + steps, "Open": begin, "Shut": begin + steps}
    return {name: float(np.float32(step) * np.float32(dt)) for name, step in ends.items()}


def reads_potential(neuron: Any) -> bool:
    """Whether a neuron's readout is its output variable and not its spikes."""
    return type(neuron.readout).__name__ == "Var"


def _half_quantum(neuron: Any) -> float:
    return neuron.alpha * 2.0 ** -(neuron.k + 1) if neuron.rounding else 0.0
