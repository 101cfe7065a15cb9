"""What a function's expression and its slope lie between on an interval, by interval arithmetic over its tree.

Every operation takes intervals of a value and of its derivative and gives intervals that hold all there can be of
both [Moore 1966]. Kinks are no trouble: the slope there is anything between those on either side. Where a condition
is not decided, the slope is anything at all. Ends are computed in double precision without directed rounding: who
uses them adds what that may be off by.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..ir.functions import CALLS, FunctionDefinition


class Interval(NamedTuple):
    """All numbers from `low` to `high`, elementwise; infinite where nothing is known, or a number overflowed."""

    low: np.ndarray
    high: np.ndarray

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def plus(self, other: Interval) -> Interval:
        """Sums."""
        return _known(self.low + other.low, self.high + other.high)

    def times(self, other: Interval) -> Interval:
        """Products; 0 · ∞ is 0, as an infinite end stands for numbers that are finite."""
        ends = np.stack([a * b for a in self for b in other])
        ends = np.where(np.isnan(ends), 0, ends)
        return Interval(ends.min(0), ends.max(0))

    def inverse(self) -> Interval:
        """1 / numbers; anything if 0 lies within, and as large as can be if it is an end."""
        within = (self.low < 0) & (self.high > 0)
        low = np.where(within | (self.high == 0), -np.inf, 1 / self.high)
        high = np.where(within | (self.low == 0), np.inf, 1 / self.low)
        return _known(low, high)

    def hull(self, other: Interval) -> Interval:
        """Whatever lies in one of both or between them."""
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def where(self, condition: np.ndarray, other: Interval) -> Interval:
        """This where the condition holds, else the other."""
        return Interval(np.where(condition, self.low, other.low), np.where(condition, self.high, other.high))

    def magnitude(self) -> Interval:
        """|numbers|."""
        ends = np.abs(self.low), np.abs(self.high)
        within = (self.low <= 0) & (self.high >= 0)
        return Interval(np.where(within, 0, np.minimum(*ends)), np.maximum(*ends))


class Enclosure(NamedTuple):
    """Intervals of a value and of its derivative by x."""

    value: Interval
    slope: Interval

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.value, -self.slope)

    def plus(self, other: Enclosure) -> Enclosure:
        """The sum."""
        return Enclosure(self.value.plus(other.value), self.slope.plus(other.slope))

    def times(self, other: Enclosure) -> Enclosure:
        """The product."""
        slope = self.slope.times(other.value).plus(self.value.times(other.slope))
        return Enclosure(self.value.times(other.value), slope)

    def over(self, other: Enclosure) -> Enclosure:
        """The quotient y, whose slope is (u' − y · v') / v."""
        inverse = other.value.inverse()
        value = self.value.times(inverse)
        return Enclosure(value, self.slope.plus(-value.times(other.slope)).times(inverse))

    def through(self, value: Interval, slope: Interval) -> Enclosure:
        """A function of it, which has this value and, by its argument, this slope."""
        return Enclosure(value, slope.times(self.slope))


def enclosure(definition: FunctionDefinition, parameter: float, low: np.ndarray, high: np.ndarray) -> Enclosure:
    """What y and its slope lie between on each interval from `low` to `high`, which are arrays of doubles."""
    x = Enclosure(Interval(low, high), _constant(1.0, low))
    p = Enclosure(_constant(parameter, low), _constant(0.0, low))
    with np.errstate(all="ignore"):
        return _of(definition.tree, x, p)


def _of(node: ast.expr, x: Enclosure, p: Enclosure) -> Enclosure:
    match node:
        case ast.Name(id="x"):
            return x
        case ast.Name():
            return p
        case ast.Constant(value=float() | int() as number):
            return Enclosure(_constant(number, x.value.low), _constant(0.0, x.value.low))
        case ast.UnaryOp(operand=operand):
            return -_of(operand, x, p)
        case ast.Compare(left=left, comparators=[right]):
            return _exceeds(_of(left, x, p), _of(right, x, p))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _CALLS[name](*(_of(argument, x, p) for argument in arguments))
        case ast.BinOp(left=left, op=operator, right=right):
            return _ARITHMETIC[type(operator)](_of(left, x, p), _of(right, x, p))
    raise ValueError(f"{ast.unparse(node)!r} is not for expressions here")


def _constant(number: float, like: np.ndarray) -> Interval:
    filled = np.full_like(like, number)
    return Interval(filled, filled)


def _known(low: np.ndarray, high: np.ndarray) -> Interval:
    """The interval, without an end where that is no number."""
    return Interval(np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high))


def _exceeds(left: Enclosure, right: Enclosure) -> Enclosure:
    """1 where a comparison holds, 0 where it does not, both where it is not decided."""
    holds, may_hold = left.value.low > right.value.high, left.value.high > right.value.low
    undecided = holds != may_hold
    slope = np.where(undecided, np.inf, 0.0)
    return Enclosure(Interval(holds.astype(float), may_hold.astype(float)), Interval(-slope, slope))


def _where(condition: Enclosure, a: Enclosure, b: Enclosure) -> Enclosure:
    holds, fails = condition.value.low > 0, condition.value.high <= 0
    anything = Interval(np.full_like(a.slope.low, -np.inf), np.full_like(a.slope.low, np.inf))
    value = a.value.where(holds, b.value.where(fails, a.value.hull(b.value)))
    return Enclosure(value, a.slope.where(holds, b.slope.where(fails, anything)))


def _larger(a: Enclosure, b: Enclosure) -> Enclosure:
    value = Interval(np.maximum(a.value.low, b.value.low), np.maximum(a.value.high, b.value.high))
    above, below = a.value.low >= b.value.high, a.value.high <= b.value.low
    return Enclosure(value, a.slope.where(above, b.slope.where(below, a.slope.hull(b.slope))))


def _smaller(a: Enclosure, b: Enclosure) -> Enclosure:
    return -_larger(-a, -b)


def _absolute(a: Enclosure) -> Enclosure:
    sign = Interval(np.where(a.value.low >= 0, 1.0, -1.0), np.where(a.value.high <= 0, -1.0, 1.0))
    return a.through(a.value.magnitude(), sign)


def _raised(base: Enclosure, exponent: Enclosure) -> Enclosure:
    """A power. With a whole exponent the base may have any sign; else a base below zero may give anything."""
    power = exponent.value.low
    if (power == exponent.value.high).all() and (power == power.flat[0]).all():
        number = float(power.flat[0])
        slope = _constant(number, power).times(_power(base.value, number - 1)) if number else _constant(0.0, power)
        return base.through(_power(base.value, number), slope)
    return _exponential(exponent.times(_CALLS["log"](base)))


def _power(base: Interval, exponent: float) -> Interval:
    if exponent < 0:
        return _power(base, -exponent).inverse()
    if exponent != int(exponent):
        ends = _known(base.low**exponent, base.high**exponent)
        return Interval(np.where(base.low < 0, -np.inf, ends.low), np.where(base.low < 0, np.inf, ends.high))
    base = base.magnitude() if exponent % 2 == 0 else base
    return Interval(base.low**exponent, base.high**exponent)


def _rising(function: str, slope: Callable[[Interval], Interval]) -> Callable[[Enclosure], Enclosure]:
    """A function that rises everywhere, with the range of its slope."""

    def apply(a: Enclosure) -> Enclosure:
        value = _known(*(np.asarray(CALLS[function](end), float) for end in a.value))
        return a.through(value, slope(a.value))

    return apply


def _cosine(value: Interval) -> Interval:
    """Its extremes are reached where a whole number of half turns lies within."""
    ends = np.cos(value.low), np.cos(value.high)
    turns = value.low / (2 * np.pi), value.high / (2 * np.pi)
    crest = np.floor(turns[1]) >= np.ceil(turns[0])
    trough = np.floor(turns[1] - 0.5) >= np.ceil(turns[0] - 0.5)
    return _known(np.where(trough, -1.0, np.minimum(*ends)), np.where(crest, 1.0, np.maximum(*ends)))


def _sine(value: Interval) -> Interval:
    return _cosine(Interval(value.low - np.pi / 2, value.high - np.pi / 2))


def _bell(value: Interval, bell: Callable[[np.ndarray], np.ndarray]) -> Interval:
    """A function that falls with |x|."""
    size = value.magnitude()
    return Interval(bell(size.high), bell(size.low))


_exponential = _rising("exp", lambda x: Interval(np.exp(x.low), np.exp(x.high)))

_CALLS: dict[str, Callable[..., Enclosure]] = {
    "abs": _absolute,
    "atan": _rising("atan", lambda x: _bell(x, lambda size: 1 / (1 + size * size))),
    "cos": lambda a: a.through(_cosine(a.value), -_sine(a.value)),
    "erf": _rising("erf", lambda x: _bell(x, lambda size: 2 / np.sqrt(np.pi) * np.exp(-size * size))),
    "exp": _exponential,
    "log": _rising("log", lambda x: Interval(np.maximum(x.low, 0), x.high).inverse()),
    "max": _larger,
    "min": _smaller,
    "sin": lambda a: a.through(_sine(a.value), _cosine(a.value)),
    "sqrt": _rising("sqrt", lambda x: Interval(*(2 * np.sqrt(np.maximum(end, 0)) for end in x)).inverse()),
    "tanh": _rising("tanh", lambda x: _bell(x, lambda size: 1 - np.tanh(size) ** 2)),
    "where": _where,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Enclosure, Enclosure], Enclosure]] = {
    ast.Add: Enclosure.plus,
    ast.Sub: lambda a, b: a.plus(-b),
    ast.Mult: Enclosure.times,
    ast.Div: Enclosure.over,
    ast.Pow: _raised,
}
