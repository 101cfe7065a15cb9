"""A view for people: one self-contained page with the graph, searchable, each node opening to what it is.

The page is `view.html` with the network's description in it as JSON: structure, layout and statistics, no weights.
The page builds everything from that description as text, never as markup, and its content security policy allows it
no network access, so that the names in a model that somebody else made can do no harm.
"""

from __future__ import annotations

import inspect
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .functions import Computation, computations
from .ir import (
    AveragePool2D,
    Clip,
    Connection,
    Conv2D,
    ConvTranspose2D,
    DataError,
    FewSpikeFunction,
    Function,
    IntegrateFire,
    Network,
    Neuron,
    Operator,
    Origin,
    Pair,
    Population,
    QuantizedRelu,
    Resample,
    Tracking,
    as_path,
    summary,
    verify,
)
from .ir.record import Record
from .ir.text import value_text
from .layout import HEIGHT, WIDTH, layout

BINS = 32
_PLACE = '"@network@"'


def write_html(network: Network, path: Path, title: str) -> None:
    """Write the page about `network` to `path`: beside it first, then renamed.

    The same network gives the same bytes. Raises VerificationError for a network that breaks the rules of its stage,
    which cannot be laid out, and DataError where the page cannot be written.
    """
    path = as_path(path, "a page", DataError)
    page = to_html(network, title)
    try:
        with tempfile.TemporaryDirectory(prefix=".snnc-", dir=path.parent) as folder:
            beside = Path(folder, "page.html")
            beside.write_text(page, encoding="utf-8")
            os.replace(beside, path)
    except OSError as error:
        raise DataError(f"cannot write the page {path}: {error.strerror or error}") from None


def to_html(network: Network, title: str) -> str:
    """The page about `network`."""
    verify(network)
    template = Path(__file__).with_name("view.html").read_text(encoding="utf-8")
    text = json.dumps(describe(network, title), separators=(",", ":"), allow_nan=False)
    for sign in "<>&":  # what could end the script that holds the JSON
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return template.replace(_PLACE, text)


def describe(network: Network, title: str) -> dict[str, Any]:
    """What the page knows of a network, ready for JSON."""
    texts = [label(connection) for connection in network.connections]
    plan = layout(network, texts)
    computed = {each.population: each for each in computations(network)}
    index = {name: number for number, name in enumerate(network.order)}
    kinds = {type(population.neuron) for population in network.populations.values()}
    operators = {type(operator) for connection in network.connections for operator in connection.operators}
    return {
        "title": title,
        "summary": summary(network),
        "timesteps": network.timesteps,
        "box": [WIDTH, HEIGHT],
        "bounds": [plan.left - WIDTH / 4, -HEIGHT, plan.right + WIDTH / 4, plan.bottom + HEIGHT],
        "docs": {kind.__name__: inspect.getdoc(kind) for kind in sorted(kinds | operators, key=lambda k: k.__name__)},
        "populations": [
            {
                **_population(network.populations[name], computed.get(name)),
                "depth": network.depth[name],
                "x": round(plan.boxes[name][0], 1),
                "y": plan.boxes[name][1],
                "role": "input" if name in network.inputs else "output" if name in network.outputs else "",
            }
            for name in network.order
        ],
        "connections": [
            {
                "source": index[connection.source],
                "target": index[connection.target],
                "path": path,
                "text": text,
                "label": [round(place.x, 1), round(place.y, 1), place.free],
                "port": connection.port,
                "delay": connection.delay,
                "parameters": sum(_parameters(operator) for operator in connection.operators),
                "operators": [_operator(operator) for operator in connection.operators],
                **_origin(connection.origin),
            }
            for connection, path, text, place in zip(network.connections, plan.paths, texts, plan.labels, strict=True)
        ],
    }


def label(connection: Connection) -> str:
    """The short text on an edge: `Conv2D 3×3 s2`, `AvgPool 2×2 → Dense`, `1:1 · port 1 · delay 3`."""
    text = " → ".join(map(_operator_label, connection.operators)) or "1:1"
    port = f" · port {connection.port}" if connection.port else ""
    delay = f" · delay {connection.delay}" if connection.delay else ""
    return f"{text}{port}{delay}"


def _operator_label(operator: Operator) -> str:
    match operator:
        case Conv2D(weight, strides, dilation=dilation, groups=groups):
            grouped = " depthwise" if groups > 1 == weight.shape[2] else f" g{groups}" if groups > 1 else ""
            return f"Conv2D {_times(weight.shape[:2])}{_pair(' s', strides)}{_pair(' d', dilation)}{grouped}"
        case ConvTranspose2D(weight, strides, dilation=dilation, groups=groups):
            grouped = f" g{groups}" if groups > 1 else ""
            return f"ConvTranspose2D {_times(weight.shape[:2])}{_pair(' s', strides)}{_pair(' d', dilation)}{grouped}"
        case AveragePool2D(pool_size, strides):
            return f"AvgPool {_times(pool_size)}{_pair(' s', strides) if strides != pool_size else ''}"
    return type(operator).__name__


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


def _pair(letter: str, pair: Pair) -> str:
    """Strides or dilation: nothing where they are 1, one number where both are the same."""
    return "" if pair == (1, 1) else f"{letter}{pair[0] if pair[0] == pair[1] else _times(pair)}"


def _population(population: Population, computed: Computation | None) -> dict[str, Any]:
    neuron = population.neuron
    functions = [{"name": "function", "text": computed.how}] if computed else []
    return {
        "name": population.name,
        "shape": population.shape,
        "size": population.size,
        "kind": type(neuron).__name__,
        "note": _note(neuron),
        "fields": [*_fields(neuron), *functions],
        "biases": [None if bias is None else _statistics(bias) for _, bias in population.ports],
        **_origin(population.origin),
    }


def _note(neuron: Neuron) -> str:
    """What the box says of a neuron."""
    match neuron:
        case IntegrateFire(v_thresh) | Tracking(v_thresh):
            return f"λ {v_thresh:.3g}" if isinstance(v_thresh, float) else f"λ ~{np.median(v_thresh):.3g}"
        case Clip(maximum):
            return f"Clip {maximum:g}"
        case QuantizedRelu(maximum, levels):
            return f"Clip {maximum:g}, {levels} levels"
        case Function(function):
            return function
        case FewSpikeFunction(computes=computes):
            return f"{_note(computes)} in few spikes"
    return type(neuron).__name__


def _operator(operator: Operator) -> dict[str, Any]:
    return {"kind": type(operator).__name__, "fields": _fields(operator)}


def _parameters(operator: Operator) -> int:
    """How many numbers an operator has learned; where numbers move to is not learned."""
    if isinstance(operator, Resample):
        return 0
    values = (getattr(operator, field.name) for field in fields(operator))
    return sum(value.size for value in values if isinstance(value, np.ndarray) and value.dtype == np.float32)


def _fields(record: Record) -> list[dict[str, Any]]:
    """Every field: arrays as statistics, anything else as the text form prints it."""
    values = ((field.name, getattr(record, field.name)) for field in fields(record))
    return [
        {"name": name, **(_statistics(value) if isinstance(value, np.ndarray) else {"text": value_text(value)})}
        for name, value in values
    ]


def _statistics(array: np.ndarray) -> dict[str, Any]:
    """An array in a few numbers, and the counts of a histogram between its least and its largest."""
    low, high = float(array.min()), float(array.max())
    counts = [array.size] if low == high else np.histogram(array, BINS, (low, high))[0].tolist()
    return {
        "shape": array.shape,
        "count": array.size,
        "min": _short(low),
        "median": _short(float(np.median(array))),
        "max": _short(high),
        "mean": _short(float(array.mean(dtype=np.float64))),
        "std": _short(float(array.std(dtype=np.float64))),
        "zeros": _short(1 - np.count_nonzero(array) / array.size),
        "histogram": counts,
    }


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def _origin(origin: Origin) -> dict[str, Any]:
    return {"layers": origin.layers, "passes": origin.passes}
