"""The IR's spiking neurons as mlGeNN neurons.

Each lives in the steps [Begin, End) of GeNN's time: it sets itself up in the first of them and stands still outside. So
images can follow one another and nothing has to be reset in between. Where layers wait for each other, its input counts
in as many steps that begin earlier, [Open, Shut). Here stands the code of every neuron, in few
words, which share the names of variables and parameters; a model has those that its code names. Parameters are numbers,
or arrays with one number per neuron.

A constant current is sent once, in the first step, and held by its targets: delivering it costs as much as delivering
a spike, of which most populations have fewer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ml_genn.neurons import Neuron
from ml_genn.neurons.input import Input
from ml_genn.utils.model import NeuronModel
from pygenn import VarAccess

from ...ir import FUNCTIONS, BackendError, Population, Shape, SpikingNeuron
from ...ir import neurons as ir

Value = float | np.ndarray

VARIABLES = {
    "V": ("scalar",),
    "Arrived": ("scalar",),  # what a few-spike neuron has collected for its next phase
    "Arrived1": ("scalar",),  # the same of its second port
    "Summed": ("scalar",),  # all the input so far
    "Summed1": ("scalar",),  # that at the second port
    "Count": ("unsigned int",),  # spikes so far in the window
    "Value": ("scalar",),  # what a spike counts as, where that is not 1
    "Held": ("scalar",),  # the constant current
    "Held1": ("scalar",),  # that of the second port
    "Sum": ("scalar",),  # of the values of those spikes
    "Input": ("scalar", VarAccess.READ_ONLY_DUPLICATE),
}
FIELDS = {
    "VThresh": "v_thresh",
    "VInit": "v_init",
    "Alpha": "alpha",
    "Largest": "largest_v",
    "Levels": "levels",
    "Bound": "max",
    "Slope": "slope",
}
STEADY = ("Steady", "Steady1")  # the inputs through which constant currents arrive at each port
SPIKES = ("Isyn", "Isyn1")  # and those for all else
SIGN = "(Input < 0.0 ? -1.0 : 1.0)"


@dataclass(frozen=True)
class Code:
    """What a neuron does.

    `always` runs in every step, then `start` in the first whose input counts, `collect` in each of those, and `step` in
    each of the window. If `condition` then holds, the neuron spikes and `spike` runs.
    """

    start: str
    collect: str = ""
    step: str = ""
    condition: str = ""
    spike: str = ""
    always: str = ""

    def names(self, name: str) -> bool:
        """Whether a variable or parameter occurs."""
        return re.search(rf"\b{name}\b", " ".join(vars(self).values())) is not None


class WindowNeuron(Neuron):
    """A neuron of the IR. `output` is the variable with its result; `sends_values`: its spikes count as `Value`."""

    def __init__(self, code: Code, parameters: dict[str, Value], readout: str | None = None):
        super().__init__(readout)
        self.code = code
        self.parameters = {name: parameters[name] for name in ("Begin", "End", "Open", "Shut")}
        self.parameters |= {name: value for name, value in parameters.items() if code.names(name)}
        self.output = next((name for name in ("Sum", "Count", "V") if code.names(name)), None)
        self.sends_values = code.names("Value")

    def get_model(self, population: Any, dt: float, batch_size: int) -> NeuronModel:
        variables = [(name, *kind) for name, kind in VARIABLES.items() if self.code.names(name)]
        model = {
            "params": [(name, "scalar") for name in self.parameters],
            "vars": variables,
            "additional_input_vars": [(name, "scalar", 0.0) for name in (*STEADY, SPIKES[1]) if self.code.names(name)],
            "sim_code": f"""
            {self.code.always}
            if (t == Open) {{ {self.code.start} }}
            if (t >= Open && t < Shut) {{ {self.code.collect} }}
            if (t >= Begin && t < End) {{ {self.code.step} }}
            """,
        }
        if self.code.condition:
            model["threshold_condition_code"] = f"t >= Begin && t < End && {self.code.condition}"
            model["reset_code"] = self.code.spike
        return NeuronModel(model, self.output, dict(self.parameters), {name: 0 for name, *_ in variables}, {})


class WindowInput(WindowNeuron, Input):
    """A neuron of the IR that is an input: its image is the GeNN variable `Input`."""

    def set_input(self, genn_pop: Any, batch_size: int, shape: Shape, input: np.ndarray) -> None:
        """Show `input`, (images, *shape) with at most `batch_size` images, in the coming window."""
        variable = genn_pop.vars["Input"]
        variable.view.reshape(batch_size, -1)[: len(input)] = input.reshape(len(input), -1)
        variable.push_to_device()


def neuron(
    population: Population,
    begin: int,
    timesteps: int,
    readout: str | None,
    holds: Collection[int] = (),
    ahead: int = 0,
) -> WindowNeuron:
    """The mlGeNN neuron of a population whose window begins at step `begin`; `holds`: ports with constant currents.

    Its input begins to count so many steps `ahead` of that.
    """
    spiking = population.neuron
    assert isinstance(spiking, SpikingNeuron)  # verified
    # a few-spike neuron with fewer bits than the phase has steps is silent in the rest
    parameters: dict[str, Value] = {"Begin": begin, "End": begin + getattr(spiking, "k", timesteps)}
    parameters |= {"Open": begin - ahead, "Shut": begin - ahead + timesteps}
    for name, (shape, bias) in zip(("Bias", "Bias1"), population.ports, strict=False):
        parameters[name] = 0.0 if bias is None else _per_neuron(bias, shape)
    for name, field in FIELDS.items():
        for holder in (spiking, spiking.soma):
            if hasattr(holder, field):
                parameters[name] = _per_neuron(getattr(holder, field), population.shape)
    kind = WindowInput if spiking.is_input else WindowNeuron
    code = _code(population.name, spiking)
    for port in holds:
        code = _holding(code, port)
    return kind(code, parameters, readout)


def _holding(code: Code, port: int) -> Code:
    """`code` with what arrives at `Steady` in the first step of the window as a part of the current in all of it."""
    held, current = ("Held", "Held1")[port], SPIKES[port]
    collect = re.sub(rf"\b{current}\b", f"{current} + {held}", code.collect)
    return replace(code, start=f"{held} = {STEADY[port]}; {code.start}", collect=collect)


def _code(name: str, neuron: SpikingNeuron) -> Code:
    match neuron:
        case ir.CurrentInput() | ir.GradedInput():
            return Code("Value = Input;", condition="t == Begin && Value != 0.0")
        case ir.SpikeInput():
            return _rate(neuron, condition=f"{_drive(neuron)} != 0.0")
        case ir.PoissonInput():
            return _rate(neuron, condition=f"gennrand_uniform() > exp(-{_drive(neuron)} / VThresh)")
        case ir.IntegrateFireInput() | ir.IntegrateFire():
            after = "V - VThresh" if neuron.reset == "subtract" else "0.0"
            fires = f"V {neuron.comparison} VThresh"
            return _rate(neuron, "V = VInit;", f"V += {_drive(neuron)};", fires, f"V = {after};")
        case ir.Integrate():
            return Code("V = 0.0;", f"V += {_drive(neuron)};")
        case ir.FewSpikeFunction(computes=ir.Function() | ir.Product() as computes):
            return _computing(neuron, computes)
        case ir.Tracking(computes=computes) if expression := _tracked(computes):
            return _tracking(neuron, expression)
        case ir.FewSpikeFunction(computes=computes) | ir.Tracking(computes=computes):
            raise BackendError(
                f"the mlgenn backend does not compute the {type(computes).__name__} of {name!r} in a soma"
            )
        case ir.FewSpikeNeuron():
            return _few_spike(neuron)
        case ir.FewSpikeReadout():
            return Code("V = Arrived + Bias; Arrived = 0.0;", always="Arrived += Isyn;")
    raise BackendError(f"the mlgenn backend does not know the neuron {type(neuron).__name__} of {name!r}")


def _rate(neuron: SpikingNeuron, start: str = "", collect: str = "", condition: str = "", spike: str = "") -> Code:
    """Counts spikes, which are 1 or, of a signed input, have its sign."""
    start, spike = f"{start} Count = 0;", f"{spike} Count++;"
    if neuron.sends_signs:
        start, spike = f"{start} Sum = 0.0; Value = {SIGN};", f"{spike} Sum += Value;"
    return Code(start, collect, condition=condition, spike=spike)


def _few_spike(neuron: ir.FewSpikeNeuron) -> Code:
    """A spike counts as 2^−k in step k. What arrives up to the first step of the window is for this window."""
    sign = SIGN if neuron.sends_signs else "1.0"
    start = "fmin(Arrived + Bias + VInit, Largest)" if getattr(neuron, "limit", 0) else "Arrived + Bias + VInit"
    return Code(
        f"V = {start}; Arrived = 0.0; Count = 0; Sum = 0.0; Value = {sign};",
        step="Value *= 0.5;",
        condition="V >= Alpha * fabs(Value)",
        spike="V -= Alpha * fabs(Value); Count++; Sum += Value;",
        always=f"Arrived = {_drive(neuron)};" if neuron.is_input else "Arrived += Isyn;",
    )


def _computing(neuron: ir.FewSpikeFunction, computes: ir.Function | ir.Product) -> Code:
    """As `_few_spike`, of what the soma makes of the input."""
    plain = _few_spike(neuron)
    second = "const scalar x1 = Arrived1 + Bias1;" if computes.ports > 1 else ""
    value = f"const scalar x = Arrived + Bias; {second} const scalar y = {_soma(computes)};"
    said = "V = fabs(y) + VInit; Value = y < 0.0 ? -1.0 : 1.0;" if neuron.signed else "V = y + VInit; Value = 1.0;"
    start = f"{value} {said} Arrived = 0.0; Count = 0; Sum = 0.0;"
    if computes.ports == 1:
        return replace(plain, start=start)
    return replace(plain, start=f"{start} Arrived1 = 0.0;", always=f"{plain.always} Arrived1 += {SPIKES[1]};")


def _soma(computes: ir.Function | ir.Product) -> str:
    """What a soma makes of its inputs in GeNN's language."""
    if isinstance(computes, ir.Function):
        return _expression(computes.function, computes.parameter, "x")
    return f"x * {_expression(computes.function, computes.parameter, 'x1')}"


def _tracking(neuron: ir.Tracking, expression: str) -> Code:
    """Says `expression`, t · f(X / t). The potential takes part in no division: quick arithmetic may round one."""
    second = neuron.computes.ports > 1
    start = "Summed = 0.0; Sum = 0.0; Count = 0;" + (" Summed1 = 0.0;" if second else "")
    summed = "Summed += Isyn + Bias;" + (f" Summed1 += {SPIKES[1]} + Bias1;" if second else "")
    return Code(
        start,
        summed,
        f"""const scalar steps = fmin(t, Shut - 1.0) - Open + 1.0;
            V = {expression} + VInit - VThresh * Sum;
            Value = 0.0;
            while (Value < Levels && V >= VThresh) {{ V -= VThresh; Value += 1.0; }}
            while (Value > -Levels && V < 0.0) {{ V += VThresh; Value -= 1.0; }}""",
        "Value != 0.0",
        "Count += (unsigned int) fabs(Value); Sum += Value;",
    )


def _tracked(computes: ir.AnalogNeuron) -> str:
    """t · f(X / t) in GeNN's language; nothing if no single neuron computes it."""
    match computes:
        case ir.Relu():
            return "fmax(Summed, 0.0)"
        case ir.Clip():
            return "fmin(fmax(Summed, 0.0), Bound * steps)"
        case ir.LeakyRelu():
            return "(fmax(Summed, 0.0) + Slope * fmin(Summed, 0.0))"
        case ir.Function() if computes.is_homogeneous:
            return _expression(computes.function, computes.parameter, "Summed")
        case ir.Function():
            return f"steps * {_expression(computes.function, computes.parameter, '(Summed / steps)')}"
        case ir.Product():
            second = _expression(computes.function, computes.parameter, "(Summed1 / steps)")
            return f"steps * ((Summed / steps) * {second})"
    return ""


def _expression(function: str, parameter: float, x: str) -> str:
    """The tree of a function's expression of x in GeNN's language."""

    def written(node: ast.expr) -> str:
        match node:
            case ast.Name(id="x"):
                return x
            case ast.Name(id="p"):
                return repr(float(parameter))
            case ast.Constant(value=int() | float() as number):
                return repr(float(number))
            case ast.UnaryOp(operand=operand):
                return f"(-{written(operand)})"
            case ast.Compare(left=left, comparators=[right]):
                return f"({written(left)} > {written(right)})"
            case ast.Call(func=ast.Name(id="where"), args=[condition, first, second]):
                return f"({written(condition)} ? {written(first)} : {written(second)})"
            case ast.Call(func=ast.Name(id=call), args=arguments):
                return f"{_CALLS.get(call, call)}({', '.join(map(written, arguments))})"
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Name(id="p")):
                return _power(written(left), float(parameter))
            case ast.BinOp(left=left, op=operator, right=right):
                return f"({written(left)} {_SIGNS[type(operator)]} {written(right)})"
        raise BackendError(f"the mlgenn backend does not know {ast.unparse(node)!r}, a part of {function}")

    return written(FUNCTIONS[function].tree)


def _power(x: str, exponent: float) -> str:
    """A power in GeNN's language: for a GPU it compiles with -use_fast_math, whose `pow` gives NaN for negative x."""
    whole = int(abs(exponent))
    if whole != abs(exponent):
        return f"pow({x}, {exponent!r})"
    if whole <= _PRODUCTS:
        power = f"({' * '.join([x] * whole) or '1.0'})"
    else:
        power = f"({x} * pow(fabs({x}), {whole - 1.0!r}))" if whole % 2 else f"pow(fabs({x}), {float(whole)!r})"
    return power if exponent >= 0 else f"(1.0 / {power})"


_PRODUCTS = 8  # up to which a power is written as one
_CALLS = {"abs": "fabs", "max": "fmax", "min": "fmin"}
_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def _drive(neuron: SpikingNeuron) -> str:
    """What adds to the potential: an input's magnitude, or the current."""
    if not neuron.is_input:
        return "Isyn + Bias"
    return "fabs(Input)" if neuron.sends_signs else "fmax(Input, 0.0)"


def _per_neuron(value: Value, shape: Shape) -> Value:
    return np.broadcast_to(value, shape).reshape(-1) if isinstance(value, np.ndarray) else value
