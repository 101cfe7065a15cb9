"""Where a network's populations and connections are drawn: rows by depth, long edges in lanes beside them.

The rows are ordered and placed by barycentre sweeps. All edges of a population that skip rows share one straight
vertical lane, outside the boxes that it passes, so that no edge is drawn across a box and a population that feeds
fifty others is one line with fifty branches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .ir import Network

WIDTH, HEIGHT = 216.0, 48.0  # of a box
BETWEEN = 84.0  # rows
PITCH = WIDTH + 44.0  # from box to box in a row
LANE = 15.0  # from lane to lane
SWEEPS = 12

Point = tuple[float, float]


@dataclass(frozen=True)
class Label:
    """The centre of an edge's label, and whether there is room to show it always."""

    x: float
    y: float
    free: bool


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes by population; SVG paths and labels in the order of the network's connections."""

    boxes: Mapping[str, Point]
    paths: Sequence[str]
    labels: Sequence[Label]
    left: float
    right: float
    bottom: float


def layout(network: Network, texts: Sequence[str]) -> Layout:
    """The layout of `network`, whose connections are labelled with `texts`; the same for the same network."""
    rows = _rows(network)
    x = _place(network, rows)
    boxes = {name: (x[name], depth * (HEIGHT + BETWEEN)) for depth, row in enumerate(rows) for name in row}
    lanes = _lanes(network, rows, x)
    ends = _ends(network, boxes, lanes)
    return Layout(
        boxes,
        [_path(corners) for corners in ends],
        _labels(network, ends, texts),
        min([*(at - WIDTH / 2 for at in x.values()), *lanes.values()]),
        max([*(at + WIDTH / 2 for at in x.values()), *lanes.values()]),
        (len(rows) - 1) * (HEIGHT + BETWEEN),
    )


def _rows(network: Network) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in range(max(network.depth.values()) + 1)]
    for name in network.order:
        rows[network.depth[name]].append(name)
    return rows


def _place(network: Network, rows: Sequence[Sequence[str]]) -> dict[str, float]:
    """x by population: each row in turn moves to the mean of the neighbours above it, then of those below it."""
    above = {name: list(network.graph.predecessors(name)) for name in network.populations}
    below = {name: list(network.graph.successors(name)) for name in network.populations}
    x = {name: PITCH * (i - (len(row) - 1) / 2) for row in rows for i, name in enumerate(row)}
    for sweep in range(SWEEPS):
        neighbours, order = (below, rows[::-1]) if sweep % 2 else (above, rows)
        for row in order:
            wanted = {name: _mean([x[other] for other in neighbours[name]], x[name]) for name in row}
            ordered = sorted(row, key=lambda name: (wanted[name], x[name], name))
            x.update(zip(ordered, _apart([wanted[name] for name in ordered]), strict=True))
    return x


def _mean(numbers: Sequence[float], otherwise: float) -> float:
    return sum(numbers) / len(numbers) if numbers else otherwise


def _apart(wanted: Iterable[float]) -> list[float]:
    """The positions nearest to the ascending `wanted` that are PITCH apart: isotonic regression, pooling violators."""
    pools: list[tuple[float, int]] = []  # sum and count of what is left once the pitch is taken out
    for i, position in enumerate(wanted):
        total, count = position - i * PITCH, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before, counted = pools.pop()
            total, count = total + before, count + counted
        pools.append((total, count))
    means = [total / count for total, count in pools for _ in range(count)]
    return [mean + i * PITCH for i, mean in enumerate(means)]


def _lanes(network: Network, rows: Sequence[Sequence[str]], x: Mapping[str, float]) -> dict[str, float]:
    """x of the lane of each population that skips rows; short ones are nearest to the boxes."""
    left = [min(x[name] for name in row) - WIDTH / 2 for row in rows]
    right = [max(x[name] for name in row) + WIDTH / 2 for row in rows]
    spans = {}
    for name in network.order:
        first, last = network.depth[name] + 1, max(map(network.depth.__getitem__, network.graph[name]), default=0)
        if last > first:
            spans[name] = range(first, last)
    lanes: dict[str, float] = {}
    for name, span in sorted(spans.items(), key=lambda item: (len(item[1]), item[1].start, item[0])):
        west, east = min(left[row] for row in span) - LANE, max(right[row] for row in span) + LANE
        lanes[name] = west if x[name] - west < east - x[name] else east
        for row in span:
            left[row], right[row] = min(left[row], lanes[name]), max(right[row], lanes[name])
    return lanes


def _ends(network: Network, boxes: Mapping[str, Point], lanes: Mapping[str, float]) -> list[list[Point]]:
    """For each connection the points that it runs through: out of its source, maybe down a lane, into its target."""
    runs: list[list[Point]] = []
    for connection in network.connections:
        (_, top), (_, bottom) = boxes[connection.source], boxes[connection.target]
        runs.append([])
        if bottom - top > HEIGHT + BETWEEN:
            lane = lanes[connection.source]
            runs[-1] = [(lane, top + HEIGHT / 2 + BETWEEN), (lane, bottom - HEIGHT / 2 - BETWEEN)]
    leaving = defaultdict(set)  # connections that share a lane leave at one port
    entering = defaultdict(list)
    for number, (connection, run) in enumerate(zip(network.connections, runs, strict=True)):
        source, target = boxes[connection.source], boxes[connection.target]
        leaving[connection.source].add((run or [target])[0])
        entering[connection.target].append(((run or [source])[-1], number))
    for number, (connection, run) in enumerate(zip(network.connections, runs, strict=True)):
        source, target = boxes[connection.source], boxes[connection.target]
        out = _port(sorted(leaving[connection.source]), (run or [target])[0])
        into = _port(sorted(entering[connection.target]), ((run or [source])[-1], number))
        run.insert(0, (source[0] + out, source[1] + HEIGHT / 2))
        run.append((target[0] + into, target[1] - HEIGHT / 2))
    return runs


def _port(ports: Sequence[Any], port: Any) -> float:
    """How far from the middle of a box's side one of its ports is."""
    step = min(14.0, (WIDTH - 24) / len(ports))
    return step * (ports.index(port) - (len(ports) - 1) / 2)


def _path(run: Sequence[Point]) -> str:
    """Curves across the space between rows, with a straight line between the two where there is a lane."""
    (x, y), *rest = run
    parts = [f"M{x:g} {y:g}", _curve(run[0], rest[0])]
    if len(rest) > 1:
        parts += [f"V{rest[1][1]:g}", _curve(rest[1], rest[2])]
    return "".join(parts)


def _curve(start: Point, end: Point) -> str:
    middle = (start[1] + end[1]) / 2
    return f"C{start[0]:g} {middle:g} {end[0]:g} {middle:g} {end[0]:g} {end[1]:g}"


def _labels(network: Network, ends: Sequence[Sequence[Point]], texts: Sequence[str]) -> list[Label]:
    """Labels on the last curve of each edge, in the first place that no other label takes; short edges choose first."""
    labels = {}
    taken: dict[float, list[tuple[float, float, float]]] = defaultdict(list)  # by row: x, y and width
    for number in sorted(range(len(ends)), key=lambda i: (len(ends[i]), ends[i][-1][1] - ends[i][0][1], i)):
        start, end = ends[number][-2:]
        width, row = 6.4 * len(texts[number]) + 14, taken[end[1]]
        places = [_along(start, end, t) for t in (0.5, 0.36, 0.64, 0.24, 0.76)]
        free = [(x, y) for x, y in places if all(abs(x - a) > (width + w) / 2 or abs(y - b) > 17 for a, b, w in row)]
        x, y = (free or places)[0]
        labels[number] = Label(x, y, bool(free))
        if free:
            row.append((x, y, width))
    return [labels[number] for number in range(len(ends))]


def _along(start: Point, end: Point, t: float) -> Point:
    """The point at `t` of the curve that `_curve` draws."""
    s = 1 - t
    x = start[0] * s * s * (s + 3 * t) + end[0] * t * t * (t + 3 * s)
    y = start[1] * s**3 + (start[1] + end[1]) / 2 * 3 * s * t + end[1] * t**3
    return x, y
