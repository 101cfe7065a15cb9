"""Functions of one activation: operators that are one, and products of several that come to one.

Frameworks write many of them as products: x · sigmoid(x), x/2 · (1 + erf(x/√2)). What is multiplied is then one thing,
seen through different functions. The product is compared with the functions that there are, number by number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..ir import FUNCTIONS, AnalogNeuron, Clip, Function, LeakyRelu, QuantizedRelu, Relu, Scale, Sigmoid
from .affine import Term, Value
from .bounds import affine, multiple, stretched, uniform
from .call import Activation, Call
from .support import Unsupported

Curve = Callable[[np.ndarray], np.ndarray]  # in double precision

_POINTWISE: tuple[type[AnalogNeuron], ...] = (Clip, Function, LeakyRelu, QuantizedRelu, Relu)
_GRID = np.linspace(-9, 9, 360)  # without 0, where some have a pole, and other neat numbers, where some jump
_CLOSE = 1e-5  # of each number on the grid: constants are written in single precision
_BEYOND = 1e6  # times the largest number: as good as a pole
_ABOVE = ("log", "rsqrt", "sqrt", "power")  # which have no value below 0

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


def log1p(call: Call) -> Activation:
    """`log(1 + x)`."""
    return _function(call.value().shifted(np.array(1.0), call.layers), "log", call)


def xlogy(call: Call) -> Value:
    """`x · log(y)`, which is 0 where x is: the logarithm of 0 is a number here."""
    return call.product(call.value(), call.population(Function("log"), call.value(1), "log"))


def xlog1py(call: Call) -> Value:
    """`x · log(1 + y)`."""
    below = call.value(1).shifted(np.array(1.0), call.layers)
    return call.product(call.value(), call.population(Function("log"), below, "log"))


def elu(call: Call) -> Activation:
    return _function(call.value(), "elu", call, call.attributes.get("alpha", 1.0))


def celu(call: Call) -> Activation:
    return _function(call.value(), "celu", call, call.attributes.get("alpha", 1.0))


def selu(call: Call) -> Activation:
    alpha, gamma = (call.attributes.get(name, usual) for name, usual in (("alpha", 1.6732632), ("gamma", 1.0507010)))
    if np.allclose((alpha, gamma), (1.6732632, 1.0507010), rtol=1e-5):
        return _function(call.value(), "selu", call)
    return _line_of(_function(call.value(), "elu", call, alpha), gamma, 0.0, call)


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


def total(x: Value, call: Call) -> Activation | None:
    """The function that a sum of several comes to, as max(x, 0) + min(exp(x) − 1, 0) does, if there is one."""
    if len(x.terms) == 1 or not any(isinstance(term.source.neuron, Function) for term in x.terms):
        return None
    return _combined((x,), lambda t, own: own(t), call)


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
    return _combined(
        (x, upper, lower), lambda t, own, *branches: np.where(own(t) > bound, *(f(t) for f in branches)), call
    )


def limited(x: Value, bound: float, upper: Value | np.ndarray, lower: Value | np.ndarray) -> str | None:
    """Of what is `upper` where x lies above a bound, and `lower` elsewhere: `low`, if that is always the larger one.

    `high` if it is the smaller one; None if it is neither.
    """
    for _, (own, *branches) in _curves(x, upper, lower):
        first, second = (branch(_GRID) for branch in branches)
        both = np.where(own(_GRID) > bound, first, second)
        for name, extreme in (("low", np.maximum), ("high", np.minimum)):
            if np.allclose(both, extreme(first, second), rtol=0, atol=_CLOSE * np.abs(both).max()):
                return name
    return None


def is_at_least(x: Value, bound: float) -> bool:
    """Whether a value is a function, of whatever thing, that is nowhere below a bound."""
    scales = np.concatenate([_GRID * scale for scale in (1e-3, 1.0, 1e3)])
    with np.errstate(all="ignore"):
        return any((own(scales) >= bound).all() for _, (own,) in _curves(x))


def _combined(values: Sequence[Value | np.ndarray], curve: Callable[..., np.ndarray], call: Call) -> Activation | None:
    """The function that something made of several values is, all of them being functions of one thing."""
    for base, curves in _curves(*values):
        found = _recognised(functools.partial(_of, curve, curves))
        if found is not None:
            return _line_of(_plain(base, *found[:2]), found[2], 0.0, call)
    return None


def _of(curve: Callable[..., np.ndarray], curves: Sequence[Curve], t: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return curve(t, *curves)


def _curves(*values: Value | np.ndarray) -> Iterator[tuple[Value, list[Curve]]]:
    """What several values are all functions of, with these functions, wherever there is such a thing."""
    values = tuple(value.settled() if isinstance(value, Value) else value for value in values)
    for base in _bases(*(value for value in values if isinstance(value, Value))):
        curves = [function_of(value, base) for value in values]
        found = [curve for curve in curves if curve is not None]
        if len(found) == len(values):
            yield base, found


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
    neuron = Relu() if name == "elu" and not parameter else Function(name, float(parameter))
    return Activation(neuron, x.settled())


def _bases(*values: Value) -> list[Value]:
    """What the values may be functions of: themselves, and what the populations that they are made of take in."""
    found: list[Value] = []
    pending = list(values)
    while pending:
        value = pending.pop(0)
        found += _without_factors(value)
        for term in value.terms:
            summed = term.source.summed
            if summed is not None and _is_pointwise(term.source.neuron) and len(found) < 24:
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


def _is_pointwise(neuron: AnalogNeuron) -> bool:
    """Whether a neuron does the same to every number, and says no more than one number of each."""
    return isinstance(neuron, _POINTWISE) and not isinstance(getattr(neuron, "slope", None), np.ndarray)


def function_of(value: Value | np.ndarray, base: Value) -> Curve | None:
    """A value as a function of another, if it is one: a line, and functions of lines."""
    if isinstance(value, np.ndarray):
        number = value.flat[0]
        return (lambda t: np.full_like(t, number)) if (value == number).all() else None
    bent = [(term, curve) for term in value.terms if (curve := _bend(value, term, base)) is not None]
    straight = replace(value, terms=tuple(term for term in value.terms if all(term is not other for other, _ in bent)))
    found = line(straight, base)
    if found is None:
        return None
    factor, offset = found
    return lambda t: sum((curve(t) for _, curve in bent), factor * t + offset)


def _bend(value: Value, term: Term, base: Value) -> Curve | None:
    """One term of a value as a function of another value, if it is a pointwise neuron's."""
    found = affine(replace(value, terms=(term,), bias=None))
    if found is None or found.source.summed is None or not _is_pointwise(found.source.neuron):
        return None
    inner = function_of(replace(found.source.summed, layout=value.layout), base)
    if inner is None:
        return None
    neuron, factor = found.source.neuron, found.factor
    return lambda t: factor * neuron.apply(inner(t))


def line(value: Value | np.ndarray, base: Value) -> tuple[float, float] | None:
    """The factor and the offset by which one value is another, stretched and shifted; None if it is something else."""
    if isinstance(value, np.ndarray):
        return (0.0, float(value.flat[0])) if (value == value.flat[0]).all() else None
    value = replace(value, terms=tuple(term for term in value.terms if not _is_silent(term)))
    factor = multiple(replace(value, bias=None), replace(base, bias=None)) if value.terms else 0.0
    if factor is None:
        return None
    nothing = np.zeros(1)
    rest = (nothing if value.bias is None else value.bias) - factor * (nothing if base.bias is None else base.bias)
    offset = float(rest.flat[0])
    return (factor, offset) if np.allclose(rest, offset, rtol=1e-6, atol=1e-7) else None


def _is_silent(term: Term) -> bool:
    """Whether a term is 0 whatever its source says."""
    return any(isinstance(operator, Scale) and not operator.factor.any() for operator in term.operators)


def _recognised(curve: Curve) -> tuple[str, float, float] | None:
    """The function, its parameter and a factor that give a curve over the grid.

    What has no value below 0, as a root, is one of those functions that have none there. What has a value at 0 has the
    function's own there.
    """
    wanted, at_zero = curve(_GRID), float(_at(curve, 0)[0])
    above = _GRID > 0
    everywhere = bool(np.isfinite(wanted).all())
    if not everywhere and not np.isfinite(wanted[above]).all():
        return None
    grid, wanted = (_GRID, wanted) if everywhere else (_GRID[above], wanted[above])
    names = [*sorted({*FUNCTIONS} - {*_PARAMETERS}), *_PARAMETERS] if everywhere else _ABOVE
    for name in names:
        with np.errstate(all="ignore"):
            parameter = _neat(_PARAMETERS[name](curve)) if name in _PARAMETERS else 1.0
            own = FUNCTIONS[name].apply(grid, parameter)
            known = grid > 0 if name in _ABOVE else np.isfinite(grid)  # a root below 0 is made up
            largest = np.abs(own[known]).argmax()
            scale = wanted[known][largest] / own[known][largest]
            size = np.abs(wanted[known]).max()
            near_zero = _CLOSE * min(size, abs(scale), 1)  # near a pole others are large
            is_close = np.isclose(wanted, scale * own, rtol=_CLOSE, atol=near_zero)
            is_close |= np.minimum(np.abs(wanted), np.abs(scale * own)) > _BEYOND * size
            is_same = not np.isfinite(at_zero) or np.isclose(
                scale * FUNCTIONS[name].apply(np.zeros(1), parameter)[0], at_zero, rtol=_CLOSE, atol=near_zero
            )
            if np.isfinite(own).all() and is_close.all() and is_same:
                near = round(scale)
                return name, parameter, float(near) if math.isclose(scale, near, rel_tol=1e-5) else float(scale)
    return None


def _neat(parameter: float) -> float:
    """A parameter as it was most likely written: constants are in single precision."""
    near = np.round(parameter * 1000) / 1000
    return float(near if np.isclose(parameter, near, rtol=1e-5) else parameter)


def _at(curve: Curve, *points: float) -> np.ndarray:
    return curve(np.array(points, float))


def _of_elu(curve: Curve) -> float:
    far, right, farther = _at(curve, -9, 8, 9)
    return far / (farther - right) / math.expm1(-9)


def _of_celu(curve: Curve) -> float:
    two, one = _at(curve, -2, -1)  # exp(−2/p) − 1 and exp(−1/p) − 1
    return -1 / np.log(two / one - 1)


def _of_hard_shrink(curve: Curve) -> float:
    """Where it jumps, between the last point at which it is nothing and the next."""
    points = _GRID[_GRID > 0]
    silent = np.flatnonzero(curve(points) == 0)
    if not len(silent) or silent[-1] == len(points) - 1:
        return np.nan
    low, high = points[silent[-1]], points[silent[-1] + 1]
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _at(curve, middle) == 0 else (low, middle)
    return float(low)


def _of_power(curve: Curve) -> float:
    one, two = _at(curve, 1, 2)
    return np.log2(two / one)


def _of_silu(curve: Curve) -> float:
    (one,) = _at(curve, 1)  # 1 / (1 + exp(−p))
    return -np.log(1 / one - 1)


def _of_soft_shrink(curve: Curve) -> float:
    one, two = _at(curve, 8, 9)
    return 9 - two / (two - one)


def _of_squareplus(curve: Curve) -> float:
    left, right = _at(curve, -1, 1)  # the difference is the factor, the product a quarter of p
    return 4 * left * right / (right - left) ** 2


_PARAMETERS: Mapping[str, Callable[[Curve], float]] = {
    "elu": _of_elu,
    "celu": _of_celu,
    "hard_shrink": _of_hard_shrink,
    "power": _of_power,
    "silu": _of_silu,
    "soft_shrink": _of_soft_shrink,
    "squareplus": _of_squareplus,
}
