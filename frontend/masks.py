"""Comparisons with a number, and what chooses by them: rectifiers and clips as people write them with `where`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..ir import LeakyRelu, Relu
from . import functions, points
from .activations import clamp, leaky
from .affine import Source, Value
from .bounds import clamped, multiple, number, raised, stretched
from .call import Activation, Argument, Call, Mask, Masked, Point, Result
from .support import JUMP, Unsupported


def compare(call: Call) -> Mask | np.ndarray:
    """Greater, Less and their like. At the number itself either branch is right, as rectifiers have no jump there."""
    above = call.node.op_type.startswith("Greater")
    match call.inputs:
        case (Value(source=Source(whole=True)) as x, np.ndarray() as bound) if not above and (bound <= 0).all():
            return np.zeros(np.broadcast_shapes(x.dims, bound.shape), bool)  # no number that is given is negative
        case (Value() as x, np.ndarray() as bound):
            return Mask(x, number(bound), above, call.layers[-1])
        case (np.ndarray() as bound, Value() as x):
            return Mask(x, number(bound), not above, call.layers[-1])
    raise Unsupported(JUMP)


def negate(call: Call) -> Mask | Point:
    match call.inputs[0]:
        case Mask() as mask:
            return replace(mask, above=not mask.above)
        case Point() as point:
            return replace(point, elsewhere=not point.elsewhere)
    raise Unsupported(JUMP)


def both(call: Call) -> Result:
    """And, of which one side is known."""
    return _together(call, neutral=True)


def either(call: Call) -> Result:
    """Or, of which one side is known."""
    return _together(call, neutral=False)


def _together(call: Call, neutral: bool) -> Result:
    for pair in (call.inputs, call.inputs[::-1]):
        match pair:
            case (Mask() | Point() as mask, np.ndarray() as known) if (known == neutral).all():
                return mask
            case (Mask() | Point(), np.ndarray() as known) if (known != neutral).all():
                return known
            case (Mask() as mask, Point(elsewhere=False) as point) if neutral:
                holds = points.holds(mask, point)
                if holds is not None:
                    return point if holds else np.zeros(point.value.dims, bool)
    raise Unsupported(JUMP)


def where(call: Call) -> Result:
    """`where(x > bound, upper, lower)`, if that is a rectifier, a clip, a leaky rectifier or a function of x."""
    mask, first, second = call.inputs
    if isinstance(mask, np.ndarray):
        return _selected(mask.astype(bool), first, second, call)
    if isinstance(mask, Point):
        return points.where(mask, first, second, call)
    if not isinstance(mask, Mask):
        raise Unsupported(JUMP)
    upper, lower = (first, second) if mask.above else (second, first)
    match upper, lower:
        case (Value(), np.ndarray()) if number(lower) == mask.bound and _is_clip_of(upper, mask):
            return clamp(upper, call, low=mask.bound)
        case (np.ndarray(), Value()) if number(upper) == mask.bound and _is_clip_of(lower, mask):
            return clamp(lower, call, high=mask.bound)
        case (Value(), Value()) if multiple(upper, mask.value) == 1 and mask.bound == 0:
            slope = multiple(lower, mask.value)
            if slope is not None:
                return leaky(mask.value, np.array(slope), call)
    if isinstance(upper, (Value, np.ndarray)) and isinstance(lower, (Value, np.ndarray)):
        found = _bent(mask, upper, lower, call) or functions.chosen(mask.value, mask.bound, upper, lower, call)
        if found is not None:
            return found
        match upper, lower:
            case (Value() as x, np.ndarray() as bound) | (np.ndarray() as bound, Value() as x):
                limits = functions.limited(mask.value, mask.bound, upper, lower)
                if limits is not None:
                    return clamp(x, call, **{limits: number(bound)})
    point = points.as_point(mask)
    if point is None:
        raise Unsupported(JUMP, mask.layer)
    return points.where(point, first, second, call)


def _bent(mask: Mask, upper: Value | np.ndarray, lower: Value | np.ndarray, call: Call) -> Result | None:
    """Two lines that meet at the bound."""
    right, left = (functions.line(branch, mask.value) for branch in (upper, lower))
    if right is None or left is None:
        return None
    (above, _), (below, _), over = right, left, raised(mask.value, -mask.bound, call.layers)
    corner, other = (slope * mask.bound + offset for slope, offset in (right, left))
    if not math.isclose(corner, other, rel_tol=1e-5, abs_tol=1e-6):
        return None
    if above == below:
        return stretched(over, above, corner, call.layers)
    if not above:
        over = over.scaled(np.array(-1.0), call.layers)
        return Activation(Relu(), over, lambda output: stretched(output, -below, corner, call.layers))
    neuron = LeakyRelu(below / above) if below else Relu()
    return Activation(neuron, over.settled(), lambda output: stretched(output, above, corner, call.layers))


def _selected(mask: np.ndarray, first: Argument, second: Argument, call: Call) -> Value:
    """Each number from one of two tensors, as a constant mask says: what it hides counts as 0, and both are added."""
    parts = [
        branch if shown.all() else branch.scaled(shown.astype(np.float32), call.layers)
        for shown, branch in ((mask, first), (~mask, second))
        if isinstance(branch, Value) and shown.any()
    ]
    constants = [
        np.where(shown, branch, 0)
        for shown, branch in ((mask, first), (~mask, second))
        if isinstance(branch, np.ndarray)
    ]
    if not parts:
        raise Unsupported("its mask hides all activations")
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part, call.layers)
    return total.shifted(constants[0], call.layers) if constants else total


def times(x: Value | np.ndarray, mask: Mask, call: Call) -> Result:
    """`x · (x > 0)`; of other numbers, what is left of them where the mask says so."""
    if isinstance(x, np.ndarray):
        return Masked(x, mask) if x.any() else np.zeros(mask.value.dims, np.float32)
    factor = multiple(x, mask.value) if mask.bound == 0 else None
    if factor is None:
        return Masked(x, mask)
    if factor > 0:
        return clamp(x, call, low=0) if mask.above else clamp(x, call, high=0)
    return clamp(x, call, high=0) if mask.above else clamp(x, call, low=0)


def joined(half: Masked, call: Call) -> Result:
    """The sum of two halves, as a choice: `x · mask + y · (1 − mask)`, where y may be 0."""
    match call.inputs:
        case (Masked(mask=mask), Masked(mask=other, kept=rest)) if _is_opposite(mask, other):
            pass
        case (Masked(), np.ndarray() as rest) | (np.ndarray() as rest, Masked()) if not rest.any():
            pass
        case _:
            raise Unsupported(JUMP, half.mask.layer)
    if call.node.op_type != "Add":
        raise Unsupported(JUMP, half.mask.layer)
    return where(replace(call, inputs=(half.mask, half.kept, rest)))


def _is_opposite(mask: Mask, other: Mask) -> bool:
    return mask.value is other.value and mask.bound == other.bound and mask.above != other.above


def _is_clip_of(x: Value, mask: Mask) -> bool:
    """Whether a value is what the mask looks at, or that clipped between bounds on both sides of its number."""
    if multiple(x, mask.value) == 1:
        return True
    found = clamped(x, turned_only=True)
    return found.low <= mask.bound <= found.high and multiple(found.inner, mask.value) == 1
