"""Comparisons that tell one number from all others, and what chooses by them: quotients that are 0 instead of none.

People write `where(y == 0, 0, x / y)`, as TensorFlow's divide_no_nan does, or divide by `where(y == 0, 1, y)` first, so
that gradients are numbers. A choice at one number is read where what is chosen follows from what is there anyway, or
where it is 0 and stands for what a division by 0 would give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..ir import Flatten, Function, Pick, Product, Scale
from . import functions
from .affine import Source, Term, Value, alike, subtracts_nothing
from .bounds import lowest, multiple, number, raised
from .call import Activation, Argument, Call, Mask, Patched, Point, Result
from .constants import evaluate
from .support import JUMP, Unsupported

_POWERS = {"reciprocal": -1.0, "rsqrt": -0.5}  # of what they divide by
_ZERO_WITH = {"abs", "sqrt", "square"}  # which are 0 where their input is, and nowhere else


def compare(call: Call) -> Point | np.ndarray:
    """Equal. No activation is infinite but at a pole."""
    match call.inputs:
        case (Value() as x, np.ndarray() as bound) | (np.ndarray() as bound, Value() as x):
            at = float(bound.flat[0]) if bound.size and (bound == bound.flat[0]).all() else number(bound)
            if math.isinf(at):
                pole = _pole(x)
                return pole if at > 0 and pole is not None else np.zeros(x.dims, bool)
            return Point(raised(x, -at, call.layers), call.layers[-1])
    raise Unsupported(JUMP)


def infinite(call: Call) -> Point | np.ndarray:
    """IsInf: where a function has its pole, and nowhere else."""
    return _pole(call.value()) or np.zeros(call.value().dims, bool)


def undefined(call: Call) -> Point | np.ndarray:
    """IsNaN: where 0 is divided by 0, and nowhere else."""
    x = call.value()
    below = _divisor(x)
    is_quotient = below is not None and isinstance(x.terms[0].source.neuron, Product)
    return Point(below, call.layers[-1]) if below is not None and is_quotient else np.zeros(x.dims, bool)


def xdivy(call: Call) -> Value:
    """TensorFlow's `x / y` that is 0 where x is."""
    below = call.population(Function("reciprocal_no_nan"), call.value(1), "reciprocal")
    return call.product(call.value(), below)


def holds(mask: Mask, point: Point) -> bool | None:
    """Whether a mask holds at a point; None where that does not follow from what it is of."""
    found = _value_at(mask.value, point)
    return None if found is None else found > mask.bound if mask.above else found < mask.bound


def as_point(mask: Mask) -> Point | None:
    """A mask that only tells its bound from all other numbers, as no number is on the bound's other side."""
    x = mask.value
    known = lowest(x) >= mask.bound or _least(x) >= mask.bound or functions.is_at_least(x, mask.bound)
    return Point(raised(x, -mask.bound, ()), mask.layer, elsewhere=mask.above) if known else None


def _least(x: Value) -> float:
    """What a sum of what is never negative is at least."""
    plain = all(not t.source.neuron.is_signed and all(map(subtracts_nothing, t.operators)) for t in x.terms)
    return -math.inf if not plain else 0.0 if x.bias is None else float(x.bias.min())


def where(point: Point, first: Argument, second: Argument, call: Call) -> Result:
    """What is `there` at the point, and `rest` elsewhere."""
    there, kept = (second, first) if point.elsewhere else (first, second)
    point = replace(point, elsewhere=False)
    if isinstance(there, Patched) and _is_same(there.point, point):
        there = there.there
    if isinstance(kept, Patched) and _is_same(kept.point, point):
        kept = kept.kept
    if not isinstance(there, (Value, np.ndarray)) or not isinstance(kept, (Value, np.ndarray)):
        raise Unsupported(JUMP, point.layer)
    there = _at(there, point)
    if isinstance(there, np.ndarray) and isinstance(kept, Value) and there.size and (there == there.flat[0]).all():
        return _followed(kept, point, float(there.flat[0]), call) or Patched(kept, point, there)
    if isinstance(there, np.ndarray) and isinstance(kept, np.ndarray) and there.size and (there == kept).all():
        return np.broadcast_to(kept, np.broadcast_shapes(kept.shape, point.value.dims))
    return Patched(kept, point, there)


def within(call: Call, rule: Callable[[Call], Result]) -> Result:
    """What a node that computes number by number makes of what differs at one point: the same of both."""
    patched = [argument for argument in call.inputs if isinstance(argument, Patched)]
    point = patched[0].point
    if not all(_is_same(each.point, point) for each in patched):
        raise Unsupported(JUMP, point.layer)
    there, kept = (
        _computed(replace(call, inputs=tuple(map(part, call.inputs))), rule) for part in (_there, _elsewhere)
    )
    return where(point, there, kept, call)


def _there(argument: Argument) -> Argument:
    return argument.there if isinstance(argument, Patched) else argument


def _elsewhere(argument: Argument) -> Argument:
    return argument.kept if isinstance(argument, Patched) else argument


def _computed(call: Call, rule: Callable[[Call], Result]) -> Argument:
    constants = [argument for argument in call.inputs if argument is None or isinstance(argument, np.ndarray)]
    if len(constants) == len(call.inputs):
        return evaluate(call.node, constants, call.opset)[0]
    found = rule(call)
    if isinstance(found, Activation):
        return found.finish(call.population(found.neuron, found.summed))
    assert not isinstance(found, tuple)
    return found


def _at(x: Value | np.ndarray, point: Point) -> Value | np.ndarray:
    """What a tensor is at a point, if it is a function of what the point is of."""
    found = _value_at(x, point) if isinstance(x, Value) else None
    return x if found is None or not math.isfinite(found) else np.array(found)


def _value_at(x: Value, point: Point) -> float | None:
    found = functions.function_of(x, point.value)
    with np.errstate(all="ignore"):
        return None if found is None else float(found(np.zeros(1))[0])


def _followed(x: Value, point: Point, there: float, call: Call) -> Value | None:
    """What is `there` at a point and x elsewhere, if x is so anyway, or can be made so; None otherwise."""
    found = _value_at(x, point)
    if found is not None and math.isclose(found, there, rel_tol=1e-6, abs_tol=1e-7):
        return x
    if there or x.bias is not None:
        return None
    own, _ = alike(point.value, x)
    terms = [_nothing_at(term, own, x, call) for term in x.terms]
    return replace(x, terms=tuple(term for term in terms if term)) if all(terms) else None


def _nothing_at(term: Term, at_zero: Value, x: Value, call: Call) -> Term | None:
    """A term that is 0 where a value is: itself, or with quotients that are 0 where they have no value."""
    source, moves = term.source, _moves(term)
    if moves is None or not isinstance(source.neuron, (Function, Product)):
        return None
    ports = [value.then(*moves, layout=x.layout) for value in source.given]
    below = _divisor(replace(x, terms=(term,)))
    if below is not None and any(_vanish_together(port, at_zero) for port in (*ports, below)):
        return replace(term, source=_defined(source, call))
    if isinstance(source.neuron, Product) and below is None and any(_vanish_together(p, at_zero) for p in ports[:1]):
        return term
    return None


def _defined(source: Source, call: Call) -> Source:
    """A quotient that is 0 where it would be divided by 0."""
    neuron = source.neuron
    assert isinstance(neuron, (Function, Product))
    below, exponent = source.given[-1], _POWERS.get(neuron.function, neuron.parameter)
    if exponent != -1:
        root = Function("sqrt") if exponent == -0.5 else Function("power", -exponent)
        made = Source(root, below.shape, below, source.layer, part="below")
        call.made.append(made)
        below = made.value(below.layout)
    defined = replace(neuron, function="reciprocal_no_nan", parameter=1.0)
    given = (below,) if isinstance(neuron, Function) else (*source.given[:-1], below)
    made = replace(source, neuron=defined, summed=given[0], second=given[1] if len(given) > 1 else None)
    call.made.append(made)
    return made


def _pole(x: Value) -> Point | None:
    """Where a function of an activation is infinite, if it is anywhere."""
    below = _divisor(x)
    if below is None or not isinstance(x.terms[0].source.neuron, Function):
        return None
    return Point(below, x.terms[0].source.layer.path)


def _divisor(x: Value) -> Value | None:
    """What a value divides by, moved to where the quotient is; None where it divides by nothing."""
    if len(x.terms) != 1 or x.bias is not None:
        return None
    source, moves = x.terms[0].source, _moves(x.terms[0])
    if moves is None or not isinstance(source.neuron, (Function, Product)):
        return None
    exponent = source.neuron.parameter if source.neuron.function == "power" else _POWERS.get(source.neuron.function, 0)
    return source.given[-1].then(*moves, layout=x.layout) if exponent < 0 else None


def _moves(term: Term) -> list[Flatten | Pick] | None:
    """The operators of a term that move its numbers; None where others than factors are among them."""
    moves = [operator for operator in term.operators if isinstance(operator, (Flatten, Pick))]
    scales = [operator for operator in term.operators if isinstance(operator, Scale)]
    return moves if len(moves) + len(scales) == len(term.operators) else None


def _vanish_together(x: Value, other: Value) -> bool:
    """Whether two values are 0 at the same numbers, as far as the structure tells."""
    if multiple(x, other) is not None:
        return True
    return any(
        inner is not None and _vanish_together(inner, second)
        for inner, second in ((_within_root(x), other), (_within_root(other), x))
    )


def _within_root(x: Value) -> Value | None:
    """What a value is a root or a square of."""
    moves = _moves(x.terms[0]) if len(x.terms) == 1 and x.bias is None else None
    neuron = x.terms[0].source.neuron if moves is not None else None
    if moves is None or not isinstance(neuron, Function) or neuron.function not in _ZERO_WITH:
        return None
    return x.terms[0].source.given[0].then(*moves, layout=x.layout)


def _is_same(point: Point, other: Point) -> bool:
    return multiple(point.value, other.value) is not None
