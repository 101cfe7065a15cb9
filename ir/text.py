"""The text form of a network: one line per population and connection, for reading, diffs and golden tests.

Lines are in topological order, ties by name, so that the same network always prints the same text; a
network that breaks the rules prints too. Arrays appear as type, shape and a hash of their bytes, and names
as they are, or quoted as in JSON if they hold more than letters, digits and `_./#@+-`, of any script. A connection to
another port than 0 says which, `source -> target port=1`. A line ends in the layers that its part comes from, the
passes that made it, and the function that it is in place of: `from act by lower-functions within 0.0037 of silu`.
`parse` reads it all back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import numpy as np

from .errors import NetworkTextError, VerificationError
from .network import Connection, Network, Origin, Population
from .neurons import NEURONS, Neuron
from .operators import OPERATORS, Operator
from .record import Record, is_default

_PLAIN = re.compile(r"[\w./#@+-]+")
_TOKEN = re.compile(
    rf"""\s*(?:(?P<array>\w+\[[\d,]*\]\#[0-9a-f]{{8}}) | (?P<arrow>->) | (?P<word>{_PLAIN.pattern})
    | (?P<quoted>"(?:[^"\\]|\\.)*") | (?P<mark>[()\[\],:=]) | (?P<end>$) | (?P<other>.))""",
    re.VERBOSE,
)


def to_text(network: Network) -> str:
    """The text form, ending in a newline."""
    header = "network" if network.timesteps is None else f"network timesteps={network.timesteps}"
    header += f" lag={network.lag}" if network.lag != 1 else ""
    lines = [f"{header} inputs=({_names(network.inputs)}) outputs=({_names(network.outputs)})"]
    rank = {name: position for position, name in enumerate(_order(network))}
    lines += [population_line(network.populations[name]) for name in rank if name in network.populations]
    edges = [(rank[c.source], rank[c.target], connection_line(c)) for c in network.connections]
    lines += [line for *_, line in sorted(edges)]
    return "\n".join(lines) + "\n"


def summary(network: Network) -> str:
    """One line: the kind of network and how large it is."""
    kind = "spiking" if network.is_spiking else "analog"
    neurons = sum(population.size for population in network.populations.values())
    steps = f", {network.timesteps} timesteps" if network.timesteps else ""
    steps += f", latency {network.latency}" if network.timesteps else ""
    counts = f"{len(network.populations)} populations, {neurons} neurons, {len(network.connections)} connections"
    return f"{kind} network: {counts}{steps}"


def population_line(population: Population) -> str:
    """The line of one population."""
    shape = ",".join(map(str, population.shape))
    arrays = {"bias": population.bias, "second-bias": population.second_bias, "table": population.table}
    given = "".join(f" {name}={value_text(array)}" for name, array in arrays.items() if array is not None)
    return f"  {name_text(population.name)} [{shape}] {value_text(population.neuron)}{given}{_from(population.origin)}"


def connection_line(connection: Connection) -> str:
    """The line of one connection."""
    port = f" port={connection.port}" if connection.port else ""
    ends = f"{name_text(connection.source)} -> {name_text(connection.target)}{port}"
    operators = ", ".join(map(value_text, connection.operators)) or "one-to-one"
    delay = f" delay={connection.delay}" if connection.delay else ""
    return f"  {ends}: {operators}{delay}{_from(connection.origin)}"


def origin_text(origin: Origin) -> str:
    """`from` the layers `by` the passes `within` an error `of` a function, each left out if there is none."""
    layers, passes = _names(origin.layers), _names(origin.passes)
    within = f"within {origin.error} of {name_text(origin.function)}" if origin.function else ""
    return " ".join(filter(None, [layers and f"from {layers}", passes and f"by {passes}", within]))


def name_text(name: str) -> str:
    """A name as the text form prints it: quoted unless it is of the usual kind."""
    return name if _PLAIN.fullmatch(name) else _quoted(name)


def value_text(value: Any) -> str:
    """A field's value as the text form prints it; a record prints the fields that are not at their default."""
    if isinstance(value, Record):
        shown = (f for f in fields(value) if not is_default(getattr(value, f.name), f.default))
        return f"{type(value).__name__}({', '.join(f'{f.name}={value_text(getattr(value, f.name))}' for f in shown)})"
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()[:8]
        return f"{value.dtype}[{','.join(map(str, value.shape))}]#{digest}"
    if isinstance(value, float):
        return str(np.float32(value))
    if isinstance(value, tuple):
        return f"({','.join(map(value_text, value))})"
    if isinstance(value, str):  # quoted where it could be taken for a number or None
        return value if _PLAIN.fullmatch(value) and _constant(value) == value else _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    """A string as in JSON; what cannot be seen, ends a line or turns it round is escaped."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(text, ensure_ascii=False))


def _from(origin: Origin) -> str:
    return f" {text}" if (text := origin_text(origin)) else ""


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(map(name_text, names))


def _order(network: Network) -> tuple[str, ...]:
    try:
        return network.order
    except VerificationError:
        return tuple(sorted(network.graph))


def arrays_of(network: Network) -> dict[str, np.ndarray]:
    """Every array of `network` by the token that stands for it in the text form: what `parse` needs beside the text.

    Raises NetworkTextError if two different arrays share a token, as one in 2³² pairs of one shape does.
    """
    operators = [operator for connection in network.connections for operator in connection.operators]
    arrays: dict[str, np.ndarray] = {}
    for array in _arrays((*network.populations.values(), *operators)):
        token = value_text(array)
        if arrays.setdefault(token, array).tobytes() != array.tobytes():
            raise NetworkTextError(f"two different arrays of the network both print as {token}")
    return arrays


def _arrays(records: Iterable[Any]) -> Iterator[np.ndarray]:
    """The arrays in records, and in what these hold."""
    for record in records:
        if isinstance(record, Record):
            yield from _arrays(getattr(record, field.name) for field in fields(record))
        elif isinstance(record, np.ndarray):
            yield record


def parse(text: str, arrays: Mapping[str, np.ndarray]) -> Network:
    """The network whose text form is `text`; `arrays` has the array of each token, as `arrays_of` collects them.

    Populations and connections come in the order of the text. The network is not verified: one that breaks the
    rules prints, and so it parses. Raises NetworkTextError with the line and what was expected there.
    """
    lines = [_Line(number, line, arrays) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    timesteps, lag, inputs, outputs = (lines or [_Line(1, "", arrays)])[0].header()
    try:
        parts = [line.part() for line in lines[1:]]
    except RecursionError:
        raise NetworkTextError("the network's text has brackets within brackets without end") from None
    return Network(
        [part for part in parts if isinstance(part, Population)],
        [part for part in parts if isinstance(part, Connection)],
        inputs,
        outputs,
        timesteps,
        lag,
    )


class _Line:
    """A line of text, read from left to right: one method for each thing that may stand in it."""

    def __init__(self, number: int, text: str, arrays: Mapping[str, np.ndarray]):
        self._number = number
        self._arrays = arrays
        self._tokens = [(str(match.lastgroup), match[match.lastgroup or 0]) for match in _TOKEN.finditer(text)]

    def header(self) -> tuple[int | None, int, tuple[str, ...], tuple[str, ...]]:
        self._expect("network")
        timesteps, lag = self._option("timesteps", int, None), self._option("lag", int, 1)
        self._expect("inputs", "=")
        inputs = self._group("(", self._name, ")")
        self._expect("outputs", "=")
        outputs = self._group("(", self._name, ")")
        self._expect("")
        return timesteps, lag, inputs, outputs

    def part(self) -> Population | Connection:
        name = self._name()
        part = self._connection(name) if self._accept("->") else self._population(name)
        self._expect("")
        return part

    def _population(self, name: str) -> Population:
        shape = self._group("[", lambda: self._typed(int, "a size"), "]")
        neuron = self._typed(Neuron | None, "a neuron")
        bias, second, table = (self._option(name, np.ndarray, None) for name in ("bias", "second-bias", "table"))
        return Population(name, shape, neuron, bias, self._origin(), second, table)

    def _connection(self, source: str) -> Connection:
        target, port = self._name(), self._option("port", int, 0)
        self._expect(":")
        operators = () if self._accept("one-to-one") else self._list(lambda: self._typed(Operator, "an operator"))
        return Connection(source, target, operators, self._option("delay", int, 0), self._origin(), port)

    def _origin(self) -> Origin:
        layers = self._list(self._name) if self._accept("from") else ()
        passes = self._list(self._name) if self._accept("by") else ()
        if not self._accept("within"):
            return Origin(layers, passes)
        error = self._typed(float, "an error")
        self._expect("of")
        return Origin(layers, passes, self._name(), error)

    def _record(self, name: str) -> Record:
        if name not in _CLASSES:
            self._fail(f"there is no neuron or operator {name!r}")
        cls = _CLASSES[name]
        known = {field.name: field for field in fields(cls)}
        kinds = get_type_hints(cls)

        def field() -> tuple[str, Any]:
            key = self._name()
            if key not in known:
                self._fail(f"{name} has no field {key!r}")
            self._expect("=")
            return key, self._typed(kinds[key], f"{name}.{key} as {known[key].type}")

        given = dict(self._group("(", field, ")"))
        for missing in (key for key in known if key not in given and known[key].default is MISSING):
            self._fail(f"{name} needs {missing}=…")
        return cls(**given)

    def _option(self, name: str, kind: Any, default: Any) -> Any:
        """The value of `name=value`, or `default` where something else follows."""
        if not self._accept(name):
            return default
        self._expect("=")
        return self._typed(kind, f"{name} as {kind.__name__}")

    def _typed(self, kind: Any, what: str) -> Any:
        found = self._tokens[0][1]
        value = self._value()
        return value if _fits(value, kind) else self._fail(f"expected {what}, not {found!r}")

    def _value(self) -> Any:
        kind, text = self._tokens[0]
        if text == "(":
            return self._group("(", self._value, ")")
        if kind == "array":
            self._tokens.pop(0)
            return self._arrays[text] if text in self._arrays else self._fail(f"the array {text} is not given")
        word = self._name("a value")
        if kind == "quoted":
            return word
        return self._record(word) if self._tokens[0][1] == "(" else _constant(word)

    def _name(self, what: str = "a name") -> str:
        kind, text = self._tokens[0]
        if kind not in ("word", "quoted"):
            self._fail_at(what)
        self._tokens.pop(0)
        if kind == "word":
            return text
        try:
            return str(json.loads(text))
        except ValueError:
            return self._fail(f"{text} is not a string as JSON has them")

    def _list(self, item: Callable[[], Any]) -> tuple[Any, ...]:
        items = [item()]
        while self._accept(","):
            items.append(item())
        return tuple(items)

    def _group(self, opening: str, item: Callable[[], Any], closing: str) -> tuple[Any, ...]:
        self._expect(opening)
        if self._accept(closing):
            return ()
        items = self._list(item)
        self._expect(closing)
        return items

    def _accept(self, text: str) -> bool:
        if self._tokens[0][1] != text:
            return False
        self._tokens.pop(0)
        return True

    def _expect(self, *texts: str) -> None:
        for text in texts:
            if not self._accept(text):
                self._fail_at(repr(text) if text else "the end of the line")

    def _fail_at(self, what: str) -> NoReturn:
        self._fail(f"expected {what}, not {self._tokens[0][1] or 'the end of the line'!r}")

    def _fail(self, message: str) -> NoReturn:
        raise NetworkTextError(f"line {self._number} of the network's text: {message}")


_CLASSES: dict[str, type[Record]] = {**NEURONS, **OPERATORS}


def _constant(word: str) -> Any:
    """What a bare word stands for: None, a truth value, a number, or else itself."""
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


_CONSTANTS = {"None": None, "True": True, "False": False}


def _fits(value: Any, kind: Any) -> bool:
    """Whether `value` is what a field annotated with `kind` holds."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str)  # which strings there are is for verify to say
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple and isinstance(value, tuple):
        expected = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(expected) and all(map(_fits, value, expected))
    if origin is None:
        return isinstance(value, (float, int) if kind is float else kind)
    return False
