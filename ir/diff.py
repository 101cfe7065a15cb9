"""The structural difference of two networks: by population and connection, field by field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from .arguments import as_network
from .network import Network, Origin
from .record import Record
from .text import connection_line, name_text, origin_text, population_line, value_text

_Parts = Mapping[str, tuple[Record, str]]  # a network's parts and their lines of text, by what they are called


@dataclass(frozen=True)
class Difference:
    """One thing that two networks do not have in common.

    `what` is "network", "population x" or "connection a -> b"; parallel connections are numbered from the second on,
    "connection a -> b (2)". `field` is the path of a changed field, as `neuron.max` or `operators[0].weight`, and
    empty for what is added or removed as a whole. `before` and `after` are texts, as in the text form. For numbers
    and for arrays of one shape, `absolute` is the largest difference of two entries, and `relative` is the same as a
    share of the largest magnitude in both; else they are None.
    """

    kind: Literal["added", "removed", "changed"]
    what: str
    field: str = ""
    before: str = ""
    after: str = ""
    absolute: float | None = None
    relative: float | None = None

    def __str__(self) -> str:
        if self.kind != "changed":
            return f"{'+' if self.kind == 'added' else '-'} {self.what.split()[0]} {self.before or self.after}"
        by = "" if self.absolute is None else f" (by up to {self.absolute:.3g}, relative {self.relative:.3g})"
        return f"~ {self.what}: {self.field} {self.before} => {self.after}{by}"


def diff(a: Network, b: Network) -> tuple[Difference, ...]:
    """What changes from `a` to `b`; nothing for equal networks.

    Populations are matched by name, connections by their ends, and parallel ones in their order. The order of
    populations and of connections is otherwise no difference: it changes nothing that a network computes.
    """
    a, b = as_network(a), as_network(b)
    return (
        *(change for name in ("inputs", "outputs", "timesteps", "lag") for change in _network(a, b, name)),
        *_parts(_populations(a), _populations(b)),
        *_parts(_connections(a), _connections(b)),
    )


def diff_text(differences: Iterable[Difference]) -> str:
    """One line for each difference: `+` added, `-` removed, `~` changed. Empty if there are none."""
    return "".join(f"{difference}\n" for difference in differences)


def _network(a: Network, b: Network, field: str) -> Iterator[Difference]:
    return _changes("network", getattr(a, field), getattr(b, field), field)


def _populations(network: Network) -> _Parts:
    return {
        f"population {name_text(name)}": (population, population_line(population).strip())
        for name, population in network.populations.items()
    }


def _connections(network: Network) -> _Parts:
    parts: dict[str, tuple[Record, str]] = {}
    parallel: Counter[str] = Counter()
    for connection in network.connections:
        port = f":{connection.port}" if connection.port else ""
        ends = f"connection {name_text(connection.source)} -> {name_text(connection.target)}{port}"
        parallel[ends] += 1
        what = ends if parallel[ends] == 1 else f"{ends} ({parallel[ends]})"
        parts[what] = connection, connection_line(connection).strip()
    return parts


def _parts(a: _Parts, b: _Parts) -> Iterator[Difference]:
    for what, (part, line) in a.items():
        if what in b:
            yield from _changes(what, part, b[what][0])
        else:
            yield Difference("removed", what, before=line)
    for what, (_, line) in b.items():
        if what not in a:
            yield Difference("added", what, after=line)


def _changes(what: str, a: Any, b: Any, field: str = "") -> Iterator[Difference]:
    """The changed fields below `field`: as deep as both sides have the same structure."""
    if isinstance(a, Record) and type(a) is type(b):
        for name in (f.name for f in fields(a)):
            yield from _changes(what, getattr(a, name), getattr(b, name), f"{field}.{name}".lstrip("."))
    elif _are_chains(a, b):
        for place, (before, after) in enumerate(zip(a, b, strict=True)):
            yield from _changes(what, before, after, f"{field}[{place}]")
    elif not _equal(a, b):
        yield Difference("changed", what, field, _text(a), _text(b), *_numeric(a, b))


def _are_chains(a: Any, b: Any) -> bool:
    """Whether both are operators of the same types in the same order."""
    if not (isinstance(a, tuple) and isinstance(b, tuple) and all(isinstance(item, Record) for item in a)):
        return False
    return list(map(type, a)) == list(map(type, b))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return type(a) is type(b) and bool(a == b)


def _numeric(a: Any, b: Any) -> tuple[float, float] | tuple[()]:
    """The largest difference of two entries, absolute and as a share of the largest magnitude."""
    if not all(isinstance(value, (float, np.ndarray)) for value in (a, b)) or np.shape(a) != np.shape(b):
        return ()
    before, after = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore"):  # infinities
        absolute = float(np.abs(after - before).max(initial=0))
    largest = float(max(np.abs(before).max(initial=0), np.abs(after).max(initial=0)))
    return absolute, absolute / largest if largest else 0.0


def _text(value: Any) -> str:
    return origin_text(value) or "unknown" if isinstance(value, Origin) else value_text(value)
