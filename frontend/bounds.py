"""What a value is made of, as far as its one term tells: a population, stretched and shifted, or one that clamps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..ir import (
    FUNCTIONS,
    AveragePool2D,
    Clip,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    Function,
    Operator,
    Pad,
    Pick,
    Product,
    Relu,
    Resample,
    Scale,
    Sigmoid,
    Softmax,
)
from .affine import Source, Term, Value, merge
from .support import Unsupported


@dataclass(frozen=True)
class Affine:
    """`factor · source + offset`, everywhere the same."""

    source: Source
    factor: float
    offset: float


@dataclass(frozen=True)
class Clamped:
    """`min(max(inner, low), high)`, either of which may be infinite.

    `inner` is `offset − turned` where the model has turned a rectifier round.
    """

    inner: Value
    low: float = -np.inf
    high: float = np.inf
    turned: Value | None = None
    offset: float = 0.0


def affine(x: Value) -> Affine | None:
    """The one population that a value is a multiple of, if it is one."""
    offset = 0.0 if x.bias is None else float(x.bias.flat[0])
    if len(x.terms) != 1 or (x.bias is not None and (x.bias != offset).any()):
        return None
    factors = [uniform(operator) for operator in x.terms[0].operators]
    if not all(factors):
        return None
    return Affine(x.terms[0].source, math.prod(factor for factor in factors if factor), offset)


def clamped(x: Value, turned_only: bool = False) -> Clamped:
    """What a value clamps, a multiple of a rectifier plus a number; or else itself, between no bounds.

    With `turned_only` the multiple is 1 or −1.
    """
    found = affine(x)
    summed = None if found is None else found.source.summed
    if found is None or summed is None or not isinstance(found.source.neuron, (Relu, Clip)):
        return Clamped(x)
    if turned_only and abs(found.factor) != 1:
        return Clamped(x)
    source, factor, offset = found.source, found.factor, found.offset
    layers = merge(summed.layers, (source.layer.path, *x.layers))
    rectified = replace(summed, layers=layers, layout=x.layout)
    largest = source.neuron.max if isinstance(source.neuron, Clip) else np.inf
    inner = raised(rectified if factor == 1 else rectified.scaled(np.array(factor), ()), offset, ())
    low, high = sorted((offset, offset + factor * largest))
    turned = rectified if factor == -1 and not all(map(_is_turned, rectified.terms)) else None
    return Clamped(inner, low, high, turned, offset)


def lowest(x: Value) -> float:
    """What a value does not fall below, where that follows from a function that it is a multiple of."""
    found = affine(x)
    if found is None or not isinstance(found.source.neuron, Function):
        return -np.inf
    definition = FUNCTIONS[found.source.neuron.function]
    bound = definition.low if found.factor > 0 else definition.high
    summed = found.source.summed
    if definition.name == "reciprocal" and found.factor > 0 and summed is not None and lowest(summed) >= 0:
        bound = 0.0
    return found.factor * bound + found.offset


def magnitude(x: Value, seen: Callable[[Source], float]) -> float:
    """How large the numbers are that a value is computed of, as they count in it; infinite where that is open.

    `seen` is the largest activation of a population that there was. Of functions with bounds their bounds count, and of
    sums the length of their weights: so large are the parts of which all of it is rounded.
    """
    offset = 0.0 if x.bias is None else float(np.abs(x.bias).max())
    parts = [math.prod(map(_gain, term.operators)) * _largest(term.source, seen) for term in x.terms]
    return max(parts, default=0.0) + offset


def _gain(operator: Operator) -> float:
    """What an operator makes of numbers of size one and of either sign."""
    match operator:
        case Scale(factor):
            return float(np.abs(factor).max())
        case Conv2D(weight) | ConvTranspose2D(weight) | Dense(weight) | Resample(weight=weight):
            return math.sqrt(float(np.square(weight).sum(tuple(range(weight.ndim - 1))).max()))
        case AveragePool2D() | Flatten() | Pad() | Pick():
            return 1.0
    return math.inf


def _largest(source: Source, seen: Callable[[Source], float]) -> float:
    """What a population's activations do not exceed."""
    match source.neuron:
        case Sigmoid() | Softmax():
            largest = 1.0
        case Function(function):
            largest = max(abs(FUNCTIONS[function].low), abs(FUNCTIONS[function].high))
        case Product("identity"):
            largest = math.prod(magnitude(value, seen) for value in source.given)
        case _:
            largest = math.inf
    return largest if math.isfinite(largest) else seen(source)


def raised(x: Value, by: float, layers: tuple[str, ...]) -> Value:
    """`x + by`."""
    return x.shifted(np.array(by), layers) if by else x


def stretched(x: Value, factor: float, offset: float, layers: tuple[str, ...]) -> Value:
    """`factor · x + offset`."""
    return raised(x if factor == 1 else x.scaled(np.array(factor), layers), offset, layers)


def below(bound: float, x: Value, layers: tuple[str, ...]) -> Value:
    """`bound − x`."""
    return raised(x.scaled(np.array(-1.0), layers), bound, layers)


def number(bound: np.ndarray) -> float:
    """A bound, infinite if it is no bound in single precision."""
    if not bound.size or (bound != bound.flat[0]).any():
        raise Unsupported("activations can be clipped at one number only, the same for all of them")
    found = float(bound.flat[0])
    return found if abs(found) < np.finfo(np.float32).max else float(np.copysign(np.inf, found))


def uniform(operator: object) -> float | None:
    """The factor of a scale that is the same for all; None for other operators, and for 0."""
    if isinstance(operator, Scale) and (operator.factor == operator.factor.flat[0]).all():
        return float(operator.factor.flat[0])
    return None


def _is_turned(term: Term) -> bool:
    """Whether a term has its sign from `below`, which is how a value is bounded from above alone."""
    match term.operators:
        case (*_, Scale(factor)):
            return bool((factor == -1).all())
    return False


def multiple(x: Value, of: Value, depth: int = 3) -> float | None:
    """The factor that one value is of another, as far as the structure tells.

    What is computed twice of one thing is the same, for as many populations one behind the other as `depth` says.
    """
    if x.shape != of.shape or x.dims != of.dims or len(x.terms) != len(of.terms):
        return None
    pairs = [(stripped(term), stripped(other)) for term, other in zip(x.terms, of.terms, strict=True)]
    if not all(_is_same(term, other, depth) for (term, _), (other, _) in pairs):
        return None
    factors = [factor / other for (_, factor), (_, other) in pairs]
    biases = [np.zeros(x.shape) if value.bias is None else value.bias for value in (x, of)]
    same = all(math.isclose(factor, factors[0], rel_tol=1e-6) for factor in factors)
    if not same or not np.allclose(biases[0], factors[0] * biases[1], rtol=1e-6, atol=1e-12):
        return None
    return 1.0 if math.isclose(factors[0], 1.0, rel_tol=1e-6) else factors[0]


def stripped(term: Term) -> tuple[Term, float]:
    """A term without the uniform scales at its end, and their product."""
    operators, factor = list(term.operators), 1.0
    while operators and (scale := uniform(operators[-1])):
        factor *= scale
        operators.pop()
    return Term(term.source, tuple(operators)), factor


def _is_same(term: Term, other: Term, depth: int) -> bool:
    return (
        (term.source is other.source or _compute_the_same(term.source, other.source, depth - 1))
        and len(term.operators) == len(other.operators)
        and all(map(_do_the_same, term.operators, other.operators))
    )


def _compute_the_same(source: Source, other: Source, depth: int) -> bool:
    if depth < 0 or source.neuron.is_input or source.neuron != other.neuron or len(source.given) != len(other.given):
        return False
    return all(multiple(x, y, depth) == 1 for x, y in zip(source.given, other.given, strict=True))


def _do_the_same(first: Operator, second: Operator) -> bool:
    """Whether two operators are one, or equal; only of equal tables Pick takes one."""
    if isinstance(first, Pick) and isinstance(second, Pick):
        return first.indices is second.indices
    return first is second or first == second
