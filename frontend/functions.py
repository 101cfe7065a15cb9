"""Functions of one activation: operators that are one, and products of several that come to one.

Frameworks write many of them as products: x · sigmoid(x), x/2 · (1 + erf(x/√2)). What is multiplied is then one thing,
seen through different functions. The product is compared with the functions that there are, number by number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..ir import FUNCTIONS, AnalogNeuron, Clip, Function, QuantizedRelu, Relu, Sigmoid
from .affine import Term, Value
from .bounds import affine, multiple, stretched, uniform
from .call import Activation, Call
from .support import Unsupported

Curve = Callable[[np.ndarray], np.ndarray]  # in double precision

_POINTWISE: tuple[type[AnalogNeuron], ...] = (Clip, Function, QuantizedRelu, Relu)
_GRID = np.delete(np.linspace(-9, 9, 361), 180)  # without 0, where some have a pole
_CLOSE = 1e-5  # of the largest number on the grid: constants are written in single precision
_BEYOND = 1e6  # times the largest number: as good as a pole
_ABOVE = ("log", "rsqrt", "sqrt", "power")  # which have no value below 0
_FREE = {"silu", "power", "squareplus"}  # whose parameter is told by what they are at 1

_OPERATORS = {
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "HardSwish": "hard_swish",
    "Log": "log",
    "Mish": "mish",
    "Reciprocal": "reciprocal",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}


def named(call: Call) -> Activation:
    """An operator that is a function by itself. A sigmoid that is an output is a readout, as a softmax is."""
    found = _function(call.value(), _OPERATORS[call.node.op_type], call)
    if call.is_last and found.neuron == Function("sigmoid"):
        return replace(found, neuron=Sigmoid())
    return found


OPERATORS = tuple(_OPERATORS)


# Operators of TensorFlow that have no ONNX form, and pass as they are.


def erfc(call: Call) -> Activation:
    """`1 − erf(x)`."""
    return _line_of(_function(call.value(), "erf", call), -1.0, 1.0, call)


def expm1(call: Call) -> Activation:
    """`exp(x) − 1`."""
    return _line_of(_function(call.value(), "exp", call), 1.0, -1.0, call)


def elu(call: Call) -> Activation:
    return _function(call.value(), "elu", call, call.attributes.get("alpha", 1.0))


def celu(call: Call) -> Activation:
    return _function(call.value(), "celu", call, call.attributes.get("alpha", 1.0))


def selu(call: Call) -> Activation:
    alpha, gamma = (call.attributes.get(name, 0.0) for name in ("alpha", "gamma"))
    if (alpha, gamma) != (0, 0) and not np.allclose((alpha, gamma), (1.6732632, 1.0507010), rtol=1e-5):
        raise Unsupported(f"SELU with alpha {alpha:g} and gamma {gamma:g} is not supported; use its own constants")
    return _function(call.value(), "selu", call)


def gelu(call: Call) -> Activation:
    return _function(call.value(), "gelu_tanh" if call.text("approximate", "none") == "tanh" else "gelu", call)


def swish(call: Call) -> Activation:
    return _function(call.value(), "silu", call, call.attributes.get("alpha", 1.0))


def shrink(call: Call) -> Activation:
    bound, bias = call.attributes.get("lambd", 0.5), call.attributes.get("bias", 0.0)
    if bias not in (0, bound):
        raise Unsupported(f"Shrink with a bias of {bias:g} is neither hard nor soft shrinking")
    return _function(call.value(), "soft_shrink" if bias else "hard_shrink", call, bound)


def power(call: Call) -> Activation | Value:
    exponent = call.weight(1)
    if exponent.size != 1:
        raise Unsupported("powers are supported with one exponent, the same for all")
    number = float(exponent.reshape(-1)[0])
    if number == 1:
        return call.value()
    return _function(call.value(), "square", call) if number == 2 else _function(call.value(), "power", call, number)


def product(x: Value, y: Value, call: Call) -> Activation | None:
    """The function that a product of two values comes to, if both are functions of one thing; else None."""
    return _combined((x, y), lambda t, first, second: first(t) * second(t), call)


def quotient(x: Value | np.ndarray, y: Value, call: Call) -> Activation | Value:
    """`x / y`: a function, if both are functions of one thing, or else x times what is 1 / y."""
    found = _combined((x, y), lambda t, above, below: above(t) / below(t), call) if isinstance(x, Value) else None
    if found is not None:
        return found
    inverse = _combined((y,), lambda t, below: 1 / below(t), call) or _plain(y, "reciprocal", 1.0)
    if isinstance(x, np.ndarray):
        first = inverse.finish
        return replace(inverse, finish=lambda output: first(output).scaled(x, call.layers))
    return call.product(x, inverse.finish(call.population(inverse.neuron, inverse.summed, "reciprocal")))


def chosen(
    x: Value, bound: float, upper: Value | np.ndarray, lower: Value | np.ndarray, call: Call
) -> Activation | None:
    """The function that is `upper` where x lies above a bound, and `lower` elsewhere; None if none is known."""
    values = [x, *(branch for branch in (upper, lower) if isinstance(branch, Value))]
    numbers = [branch for branch in (upper, lower) if isinstance(branch, np.ndarray)]
    if any((array != array.flat[0]).any() for array in numbers):
        return None

    def curve(t: np.ndarray, own: Curve, *branches: Curve) -> np.ndarray:
        rest = iter(branches)
        sides = [
            next(rest)(t) if isinstance(branch, Value) else np.full_like(t, branch.flat[0]) for branch in (upper, lower)
        ]
        return np.where(own(t) > bound, *sides)

    return _combined(values, curve, call)


def _combined(values: Sequence[Value], curve: Callable[..., np.ndarray], call: Call) -> Activation | None:
    """The function that something made of several values is, all of them being functions of one thing."""
    for base in _bases(*values):
        curves = [_curve(value, base) for value in values]
        if any(found is None for found in curves):
            continue
        with np.errstate(all="ignore"):
            found = _recognised(curve(_GRID, *curves))
        if found is not None:
            return _line_of(_plain(base, *found[:2]), found[2], 0.0, call)
    return None


def _line_of(activation: Activation, factor: float, offset: float, call: Call) -> Activation:
    """`factor · y + offset` of what an activation gives."""
    if (factor, offset) == (1, 0):
        return activation
    first = activation.finish
    return replace(activation, finish=lambda output: stretched(first(output), factor, offset, call.layers))


def _function(x: Value, name: str, call: Call, parameter: float = 1.0) -> Activation:
    """A function of a value; of what is a function already, the one that both together are, if there is such a one."""
    definition = FUNCTIONS[name]
    merged = _combined((x,), lambda t, inner: definition.apply(inner(t), parameter), call)
    return _plain(x, name, parameter) if merged is None else merged


def _plain(x: Value, name: str, parameter: float) -> Activation:
    return Activation(Function(name, float(parameter)), x.settled())


def _bases(*values: Value) -> list[Value]:
    """What the values may be functions of: themselves, and what the populations that they are made of take in."""
    found: list[Value] = []
    pending = list(values)
    while pending:
        value = pending.pop(0)
        found += _without_factors(value)
        for term in value.terms:
            summed = term.source.summed
            if summed is not None and isinstance(term.source.neuron, _POINTWISE) and len(found) < 24:
                pending.append(replace(summed, layout=value.layout) if summed.shape == value.shape else summed)
    return found[::-1]


def _without_factors(value: Value) -> list[Value]:
    """A value of one term without all factors at its end, without all but the first, and so on to the value itself.

    A factor may belong to what the function is applied to, or to what the function's own formula does with it.
    """
    found = [value]
    while len(value.terms) == 1 and (operators := value.terms[0].operators) and (factor := uniform(operators[-1])):
        term = replace(value.terms[0], operators=operators[:-1])
        value = replace(value, terms=(term,), bias=None if value.bias is None else value.bias / factor)
        found.append(value)
    return found[::-1]


def _curve(value: Value, base: Value) -> Curve | None:
    """A value as a function of another, if it is one: a line, and functions of lines."""
    bent = [(term, curve) for term in value.terms if (curve := _bend(value, term, base)) is not None]
    straight = replace(value, terms=tuple(term for term in value.terms if all(term is not other for other, _ in bent)))
    line = _line(straight, base)
    if line is None:
        return None
    factor, offset = line
    return lambda t: sum((curve(t) for _, curve in bent), factor * t + offset)


def _bend(value: Value, term: Term, base: Value) -> Curve | None:
    """One term of a value as a function of another value, if it is a pointwise neuron's."""
    found = affine(replace(value, terms=(term,), bias=None))
    if found is None or found.source.summed is None or not isinstance(found.source.neuron, _POINTWISE):
        return None
    inner = _curve(replace(found.source.summed, layout=value.layout), base)
    if inner is None:
        return None
    neuron, factor = found.source.neuron, found.factor
    return lambda t: factor * neuron.apply(inner(t))


def _line(value: Value, base: Value) -> tuple[float, float] | None:
    """The factor and the offset by which one value is another, stretched and shifted; None if it is something else."""
    factor = multiple(replace(value, bias=None), replace(base, bias=None)) if value.terms else 0.0
    if factor is None:
        return None
    nothing = np.zeros(1)
    rest = (nothing if value.bias is None else value.bias) - factor * (nothing if base.bias is None else base.bias)
    offset = float(rest.flat[0])
    return (factor, offset) if np.allclose(rest, offset, rtol=1e-6, atol=1e-7) else None


def _recognised(curve: np.ndarray) -> tuple[str, float, float] | None:
    """The function, its parameter and a factor that give a curve over the grid.

    What has no value below 0, as a root, is one of those functions that have none there.
    """
    above = _GRID > 0
    everywhere = bool(np.isfinite(curve).all())
    if not everywhere and not np.isfinite(curve[above]).all():
        return None
    names = FUNCTIONS if everywhere else _ABOVE
    for name in sorted(names, key=lambda name: name in _FREE):
        definition = FUNCTIONS[name]
        parameter = _parameter(name, curve) if name in _FREE else 1.0
        with np.errstate(all="ignore"):
            own = definition.apply(_GRID, parameter)
            if not everywhere:
                own, curve = own[-above.sum() :], curve[-above.sum() :]
            known = slice(-above.sum() if name in _ABOVE else 0, None)  # where a root below 0 is not made up
            largest = np.abs(own[known]).argmax()
            scale = curve[known][largest] / own[known][largest]
            size = np.abs(curve[known]).max()
            is_close = np.abs(curve - scale * own) <= _CLOSE * size
            is_close |= np.minimum(np.abs(curve), np.abs(scale * own)) > _BEYOND * size
            if np.isfinite(own).all() and is_close.all():
                near = round(scale)
                return name, parameter, float(near) if math.isclose(scale, near, rel_tol=1e-5) else float(scale)
    return None


def _parameter(name: str, curve: np.ndarray) -> float:
    """The parameter of a function that has this curve, from two of its points."""
    grid = _GRID[-len(curve) :]
    one, two = (float(curve[np.flatnonzero(at == grid)[0]]) for at in (1.0, 2.0))
    with np.errstate(all="ignore"):
        match name:
            case "silu":  # at 1: 1 / (1 + exp(−p))
                found = -math.log(1 / one - 1) if 0 < one < 1 else 1.0
            case "power":
                found = math.log2(two / one) if one and two / one > 0 else 1.0
            case _:
                found = 1.0
    near = round(found * 1000) / 1000
    return near if math.isclose(found, near, rel_tol=1e-5) else found
