"""Functions as broken lines, with a certificate: how far the line is from the function at most.

The line is the one of fewest corners within a tube around the function, a shortest path [Imai & Iri 1988]: every
stretch starts on the one before, wherever it gets farthest from, and ends where it must leave the tube. Halving the
tube finds the least error for a number of pieces. Where a function tends to a line of its own, it is that very line
to infinity. The certificate comes from intervals (`passes/enclosure.py`), not from samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..ir import FUNCTIONS, FunctionDefinition
from ..ir.functions import at_most
from .enclosure import enclosure

LARGEST_PIECES = 256
_SAMPLES = 1200  # of the function, placed so that it bows as much between any two
_STARTS = 40  # points of a stretch from which the next is tried
_HALVINGS = 15  # of the tube, in its logarithm: to one in a thousand
_DISTANCES = 2.0 ** np.arange(-16, 21)  # at the last, a function that tends to a line has come near to it
_AT_LEAST = 16  # which of them is looked at in any case
_NARROW, _RISE = 1e-9, 1e-3  # what rises by such a share of all it does within so little, as a share of x, jumps
_CELLS = 2**18  # intervals to look at in one round, before a function is given up
_ROUNDING = 1e-14  # of double precision, with all that an expression may do to it

Line = tuple[float, float]
Curve = Callable[[np.ndarray], np.ndarray]


class ExpansionError(ValueError):
    """A function that no broken line comes near to, or none of so few pieces."""


@dataclass(frozen=True)
class Expansion:
    """A broken line in place of `function`, through `values` at `knots`, beyond them with slopes `left` and `right`.

    For every x from `low` to `high`, which may be infinite, it differs from the function by at most `bound`, apart
    from the rounding of whoever evaluates it.
    """

    function: str
    parameter: float
    knots: tuple[float, ...]
    values: tuple[float, ...]
    left: float
    right: float
    low: float
    high: float
    bound: float = math.inf

    @property
    def pieces(self) -> int:
        """How many rectifiers it takes: one for each stretch between knots, and for each end that is not level."""
        return len(self.knots) - 1 + (self.left != 0) + (self.right != 0)

    def __str__(self) -> str:
        inputs = f"inputs from {self.low:.4g} to {self.high:.4g}".replace("from -inf to inf", "of any size")
        return f"{self.pieces} pieces, off by at most {at_most(self.bound)} for {inputs}"

    def apply(self, x: np.ndarray) -> np.ndarray:
        """The broken line at x."""
        first, last = self.knots[0], self.knots[-1]
        beyond = self.left * np.minimum(x - first, 0) + self.right * np.maximum(x - last, 0)
        return np.asarray(np.interp(x, self.knots, self.values) + beyond)


def expansion(
    function: str,
    parameter: float = 1.0,
    pieces: int = 16,
    low: float = -math.inf,
    high: float = math.inf,
    tolerance: float = 0.0,
) -> Expansion:
    """The broken line of at most `pieces` pieces that is nearest to a function from `low` to `high`.

    With a `tolerance`, the one of fewest pieces whose certified error is no larger. A side that is infinite is one on
    which the function tends to a line. Raises ExpansionError where it does not, where the function jumps, and
    where so few pieces cannot do.
    """
    return _expansion(FUNCTIONS[function], parameter, pieces, low, high, tolerance)


def tends_to_lines(function: str, parameter: float) -> tuple[bool, bool]:
    """Whether a function tends to a line on the left, and on the right."""
    definition = FUNCTIONS[function]
    left, right = definition.lines(parameter)
    return (
        math.isfinite(_end(definition, parameter, left, -1, 0.0, 0.0)),
        math.isfinite(_end(definition, parameter, right, 1, 0.0, 0.0)),
    )


@lru_cache(maxsize=256)
def _expansion(
    definition: FunctionDefinition, parameter: float, pieces: int, low: float, high: float, tolerance: float
) -> Expansion:
    share = 1 / (32 * pieces * pieces)  # of its distance from its lines: far below the error that there will be
    tube = _Tube.around(definition, parameter, low, high, share, tolerance / 4)
    if tolerance:
        for share in (0.999, 0.99, 0.9, 0.5):
            found = tube.path(tolerance * share, LARGEST_PIECES)
            if found and (certified := _certified(definition, found, tube.x)).bound <= tolerance:
                return certified
        raise ExpansionError(f"{LARGEST_PIECES} pieces do not come within {tolerance:g}")
    return _certified(definition, _nearest(tube, pieces), tube.x)


def _nearest(tube: _Tube, pieces: int) -> Expansion:
    """The broken line of at most so many pieces in the narrowest tube that one fits."""
    scale = float(np.ptp(tube.y)) or 1.0
    narrow, wide = math.log(1e-10 * scale), math.log(scale)
    best = tube.path(scale, pieces)
    if best is None:
        raise ExpansionError(f"{pieces} pieces are too few")
    for _ in range(_HALVINGS):
        middle = (narrow + wide) / 2
        found = tube.path(math.exp(middle), pieces)
        if found:
            best, wide = found, middle
        else:
            narrow = middle
    return best


@dataclass(frozen=True, eq=False)
class _Tube:
    """Samples of a function, around which a tube is laid, and the lines that it begins and ends with, if any."""

    empty: Expansion  # all but the knots
    x: np.ndarray
    y: np.ndarray
    left: Line | None
    right: Line | None

    @classmethod
    def around(
        cls, definition: FunctionDefinition, parameter: float, low: float, high: float, share: float, near: float
    ) -> _Tube:
        """Samples as far out as the function is not yet near its lines, see `_end`; raises ExpansionError."""
        lines = definition.lines(parameter)
        left = lines[0] if low == -math.inf else None
        right = lines[1] if high == math.inf else None
        first = _end(definition, parameter, left, -1, high, share, near) if low == -math.inf else low
        last = _end(definition, parameter, right, 1, low, share, near) if high == math.inf else high
        if not (math.isfinite(first) and math.isfinite(last)):
            raise ExpansionError("it tends to no line there, and needs a range")
        x = _sampled(lambda x: definition.apply(x, parameter), first, last)
        y = definition.apply(x, parameter)
        if not np.isfinite(y).all():
            raise ExpansionError(f"it is not finite near {x[~np.isfinite(y)][0]:.3g}")
        beside = np.searchsorted(x, x + _NARROW * np.maximum(np.abs(x), 1), "right") - 1
        if (jumps := np.abs(y[beside] - y) > _RISE * np.ptp(y)).any():
            raise ExpansionError(f"it jumps, or as good as, near {x[jumps][0]:.3g}")
        slopes = [line[0] if line else 0.0 for line in (left, right)]
        empty = Expansion(definition.name, parameter, (), (), slopes[0], slopes[1], low, high)
        return cls(empty, x, y, left, right)

    def path(self, error: float, pieces: int) -> Expansion | None:
        """The broken line of fewest pieces that is nowhere farther than `error` from a sample, if so few will do."""
        walls = self.y - error, self.y + error
        entered = self._entered(error)
        ends = (self.empty.left != 0) + (self.empty.right != 0)
        if (corner := self._crossing(error)) and ends <= pieces:
            return self._through([corner])
        knots: list[tuple[float, float]] = []
        x, y = self._starts(error)
        while len(knots) + ends < pieces:
            step = self._step(x, y, walls, entered)
            knots.append(step.start)
            if step.end:
                return self._through([*knots, step.end])
            x = np.linspace(step.start[0], step.exit, _STARTS)[1:]
            y = step.start[1] + step.slope * (x - step.start[0])
        return None

    def _through(self, corners: Sequence[tuple[float, float]]) -> Expansion:
        knots, values = zip(*corners, strict=True)
        return replace(self.empty, knots=knots, values=values)

    def _starts(self, error: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the first stretch may start: on the line on the left, as long as that is within, or at the first x."""
        if self.left is None:
            return np.full(_STARTS, self.x[0]), self.y[0] + np.linspace(-error, error, _STARTS)
        apart = np.abs(_at(self.left, self.x) - self.y)
        outside = np.flatnonzero(apart > error)
        last = int(outside[0]) if len(outside) else len(self.x) - 1
        places = np.unique(np.linspace(0, max(last - 1, 0), _STARTS).astype(int))
        x = self.x[places]
        if len(outside) and last:
            share = (error - apart[last - 1]) / (apart[last] - apart[last - 1])
            x = np.append(x, self.x[last - 1] + share * (self.x[last] - self.x[last - 1]))
        return x, _at(self.left, x)

    def _entered(self, error: float) -> int:
        """The sample from which on the line on the right is within the tube; without one, the last."""
        if self.right is None:
            return len(self.x) - 1
        outside = np.flatnonzero(np.abs(_at(self.right, self.x) - self.y) > error)
        return int(outside[-1]) + 1 if len(outside) else 0

    def _crossing(self, error: float) -> tuple[float, float] | None:
        """Where both lines meet, if they are within the tube up to there and from there on; one line is bent at 0."""
        if self.left is None or self.right is None or (self.left != self.right and self.left[0] == self.right[0]):
            return None
        x = 0.0 if self.left == self.right else (self.right[1] - self.left[1]) / (self.left[0] - self.right[0])
        line = np.where(self.x < x, _at(self.left, self.x), _at(self.right, self.x))
        return (x, self.left[0] * x + self.left[1]) if (np.abs(line - self.y) <= error).all() else None

    def _step(self, x: np.ndarray, y: np.ndarray, walls: tuple[np.ndarray, np.ndarray], entered: int) -> _Step:
        """The stretch that starts at one of the points and gets farthest, or to the end."""
        first = int(np.searchsorted(self.x, x.min(), "right"))
        along = self.x[first:] - x[:, None]
        behind = along <= 0
        along = np.where(behind, 1, along)
        low, high = ((wall[first:] - y[:, None]) / along for wall in walls)
        low = np.maximum.accumulate(np.where(behind, -np.inf, low), 1)
        high = np.minimum.accumulate(np.where(behind, np.inf, high), 1)
        free = low <= high
        if end := self._end(x, y, first, entered, behind | ~free, low, high):
            return end
        reach = np.where(free.all(1), free.shape[1] - 1, free.argmin(1))  # of the first sample that is out of reach
        best = int(reach.argmax())
        out = int(reach[best])
        if behind[best, out - 1]:  # not even the next sample
            return _Step((float(x[best]), float(y[best])), 0.0, float(self.x[first + out]), None)
        before = low[best, out - 1], high[best, out - 1]
        rises = low[best, out] > before[1]
        slope = float(before[1] if rises else before[0])
        wall = walls[0 if rises else 1][first + out - 1 : first + out + 1]
        line = y[best] + slope * (self.x[first + out - 1 : first + out + 1] - x[best])
        gap = np.abs(line - wall)
        exit_ = self.x[first + out - 1] + np.diff(self.x[first + out - 1 : first + out + 1])[0] * gap[0] / gap.sum()
        return _Step((float(x[best]), float(y[best])), slope, float(exit_), None)

    def _end(
        self,
        x: np.ndarray,
        y: np.ndarray,
        first: int,
        entered: int,
        closed: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> _Step | None:
        """The stretch to the line on the right, or to the last sample, from the point that it is easiest from."""
        start = max(entered - first, 0)
        ahead = self.x[first + start :]
        along = np.where(closed[:, start:], 1, ahead - x[:, None])
        aims = (
            (low[:, start:] + high[:, start:]) / 2
            if self.right is None
            else (_at(self.right, ahead) - y[:, None]) / along
        )
        spare = np.minimum(aims - low[:, start:], high[:, start:] - aims) * along
        spare = np.where(closed[:, start:] | np.isnan(spare), -np.inf, spare)
        if not spare.size or spare.max() < 0:
            return None
        from_, to = np.unravel_index(spare.argmax(), spare.shape)
        end = float(ahead[to]), float(y[from_] + aims[from_, to] * along[from_, to])
        return _Step((float(x[from_]), float(y[from_])), 0.0, end[0], end)


@dataclass(frozen=True)
class _Step:
    """A stretch: its first point, its slope, where it leaves the tube; or its last point, at the end."""

    start: tuple[float, float]
    slope: float
    exit: float
    end: tuple[float, float] | None


def _at(line: Line, x: np.ndarray) -> np.ndarray:
    return np.asarray(line[0] * x + line[1])


def _end(
    definition: FunctionDefinition,
    parameter: float,
    line: Line | None,
    sign: int,
    start: float,
    share: float,
    near: float = 0.0,
) -> float:
    """How far out a function is within `near` of its line, or within a share of how far from it it ever is.

    Infinite if there is no line, or it comes no nearer to it, as far as doubling tells.
    """
    if line is None:
        return sign * math.inf
    x = (start if math.isfinite(start) else 0.0) + sign * _DISTANCES
    apart = np.abs(definition.apply(x, parameter) - _at(line, x))
    apart = np.maximum(apart - _ROUNDING * (1 + np.abs(x)), 0)
    largest = float(apart.max())
    if not math.isfinite(largest):
        return sign * math.inf
    far = np.flatnonzero(apart > (near or share * largest))
    outermost = min(max(int(far[-1]) + 1 if len(far) else 0, _AT_LEAST), len(x) - 1)
    comes_near = apart[-1] <= apart[outermost] and apart[-1] <= 0.01 * largest
    return float(x[outermost]) if comes_near else sign * math.inf


def _sampled(curve: Curve, first: float, last: float) -> np.ndarray:
    """Places at which to sample a curve so that between any two it bows about as much."""
    x = np.unique(np.concatenate([np.linspace(first, last, 129), np.clip(_spread(), first, last)]))
    y = curve(x)
    while len(x) < _SAMPLES:
        middles = (x[1:] + x[:-1]) / 2
        between = curve(middles)
        bows = np.nan_to_num(np.abs(between - (y[1:] + y[:-1]) / 2), nan=np.inf)
        chosen = (bows > bows.max() / 8) & (middles > x[:-1]) & (middles < x[1:])
        if not chosen.any() or not bows.max():
            break
        places = np.flatnonzero(chosen) + 1
        x, y = np.insert(x, places, middles[chosen]), np.insert(y, places, between[chosen])
    return x


def _spread() -> np.ndarray:
    """Places around 0, where functions do what they do, however far the samples reach."""
    sizes = np.geomspace(2.0**-6, 2.0**24, 31)
    return np.concatenate([-sizes[::-1], [0.0], sizes])


def _certified(definition: FunctionDefinition, line: Expansion, samples: np.ndarray) -> Expansion:
    """The broken line with its bound.

    Between two knots e, the error, is no larger than at the middle of an interval plus half its width times the
    largest slope of e in it, nor than what the values themselves allow. Intervals are halved until that is within a
    fiftieth of the largest error met. Beyond the samples the function only comes nearer to its lines.
    """
    edges = np.union1d(samples, np.clip(line.knots, samples[0], samples[-1]))
    low, high = edges[:-1], edges[1:]
    far = np.concatenate([edges[0] - _DISTANCES, edges[-1:], edges[-1] + _DISTANCES])
    far = far[(far >= line.low) & (far <= line.high)]
    bound = met = float(np.abs(definition.apply(far, line.parameter) - line.apply(far)).max())
    while len(low):
        found, rounding, errors = _cell_bounds(definition, line, low, high)
        met = max(met, float(np.nanmax(errors)))
        done = found <= 1.02 * met + rounding
        bound = max(bound, float((found + rounding)[done].max(initial=0.0)))
        low, high = low[~done], high[~done]
        if len(low) > _CELLS:
            raise ExpansionError(f"nothing certain can be said of it near {low[0]:.3g}")
        low, high = _halved(low, high)
    return replace(line, bound=bound)


def _cell_bounds(
    definition: FunctionDefinition, line: Expansion, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each interval without a knot inside: a bound of the error, what rounding may add, the error in the middle."""
    middles, half = (low + high) / 2, (high - low) / 2
    y, slope = enclosure(definition, line.parameter, low, high)
    ends = line.apply(low), line.apply(high)
    own = (ends[1] - ends[0]) / (high - low)
    errors = np.abs(definition.apply(middles, line.parameter) - line.apply(middles))
    with np.errstate(invalid="ignore"):
        by_slope = errors + half * np.maximum(slope.high - own, own - slope.low)
        by_value = np.maximum(y.high - np.minimum(*ends), np.maximum(*ends) - y.low)
    rounding = _ROUNDING * (1 + np.abs(middles) * (1 + np.abs(own)) + np.abs(ends[0]))
    return np.fmin(by_slope, by_value), rounding, errors


def _halved(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middles = (low + high) / 2
    return np.concatenate([low, middles]), np.concatenate([middles, high])
