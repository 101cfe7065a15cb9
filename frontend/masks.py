"""Comparisons with a number, and what chooses by them: rectifiers and clips as people write them with `where`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .activations import clamp, leaky
from .affine import Term, Value
from .bounds import clamped, number, uniform
from .call import Call, Mask, Result
from .support import JUMP, Unsupported


def compare(call: Call) -> Mask:
    """Greater, Less and their like. At the number itself either branch is right, as rectifiers have no jump there."""
    above = call.node.op_type.startswith("Greater")
    match call.inputs:
        case (Value() as x, np.ndarray() as bound):
            return Mask(x, number(bound), above, call.layers[-1])
        case (np.ndarray() as bound, Value() as x):
            return Mask(x, number(bound), not above, call.layers[-1])
    raise Unsupported(JUMP)


def negate(call: Call) -> Mask:
    mask = call.inputs[0]
    if not isinstance(mask, Mask):
        raise Unsupported(JUMP)
    return replace(mask, above=not mask.above)


def where(call: Call) -> Result:
    """`where(x > bound, upper, lower)`, if that is a rectifier, a clip or a leaky rectifier of x."""
    mask, first, second = call.inputs
    if not isinstance(mask, Mask):
        raise Unsupported(JUMP)
    upper, lower = (first, second) if mask.above else (second, first)
    match upper, lower:
        case (Value(), np.ndarray()) if number(lower) == mask.bound and _is_clip_of(upper, mask):
            return clamp(upper, call, low=mask.bound)
        case (np.ndarray(), Value()) if number(upper) == mask.bound and _is_clip_of(lower, mask):
            return clamp(lower, call, high=mask.bound)
        case (Value(), Value()) if _multiple(upper, mask.value) == 1 and mask.bound == 0:
            slope = _multiple(lower, mask.value)
            if slope is not None:
                return leaky(mask.value, np.array(slope), call)
    raise Unsupported(JUMP)


def times(x: Value, mask: Mask, call: Call) -> Result:
    """`x · (x > 0)`."""
    if mask.bound == 0 and _multiple(x, mask.value) == 1:
        return clamp(x, call, low=0) if mask.above else clamp(x, call, high=0)
    raise Unsupported(JUMP)


def _is_clip_of(x: Value, mask: Mask) -> bool:
    """Whether a value is what the mask looks at, or that clipped between bounds on both sides of its number."""
    if _multiple(x, mask.value) == 1:
        return True
    found = clamped(x, turned_only=True)
    return found.low <= mask.bound <= found.high and _multiple(found.inner, mask.value) == 1


def _multiple(x: Value, of: Value) -> float | None:
    """The factor that one value is of another, as far as the structure tells."""
    if x.shape != of.shape or x.dims != of.dims or len(x.terms) != len(of.terms):
        return None
    pairs = [(_stripped(term), _stripped(other)) for term, other in zip(x.terms, of.terms, strict=True)]
    if not all(_is_same(term, other) for (term, _), (other, _) in pairs):
        return None
    factors = [factor / other for (_, factor), (_, other) in pairs]
    biases = [np.zeros(x.shape) if value.bias is None else value.bias for value in (x, of)]
    same = all(math.isclose(factor, factors[0], rel_tol=1e-6) for factor in factors)
    if not same or not np.allclose(biases[0], factors[0] * biases[1], rtol=1e-6, atol=1e-12):
        return None
    return 1.0 if math.isclose(factors[0], 1.0, rel_tol=1e-6) else factors[0]


def _stripped(term: Term) -> tuple[Term, float]:
    """A term without the uniform scales at its end, and their product."""
    operators, factor = list(term.operators), 1.0
    while operators and (scale := uniform(operators[-1])):
        factor *= scale
        operators.pop()
    return Term(term.source, tuple(operators)), factor


def _is_same(term: Term, other: Term) -> bool:
    return (
        term.source is other.source
        and len(term.operators) == len(other.operators)
        and all(a is b for a, b in zip(term.operators, other.operators, strict=True))
    )
