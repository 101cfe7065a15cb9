"""ONNX's LSTM, GRU and RNN, unrolled: a population for each gate of each step, which all share the weights.

An initial state is a constant, or activations. Both directions are read, all steps, and the states after the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..ir import Clip, Conv2D, Dense, Function, LeakyRelu, Operator, Pad, Pick, Relu, Shape
from .affine import SERIES_LAST, Term, Value
from .call import Argument, Call, Regrouped, Tensor, places, whole
from .support import JUMP, Unsupported, too_long

_GATES = {"LSTM": "input output forget memory", "GRU": "update reset new", "RNN": "state"}
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_PARAMETERS: dict[str, tuple[float | None, float | None]] = {  # alpha and beta where they are left out
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "scaledtanh": (1.0, 1.0),
    "thresholdedrelu": (1.0, None),
}

Curve = Callable[[Value, str], Value]  # a nonlinearity of a value, in a population of this name


@dataclass(frozen=True)
class _Gate:
    """What a gate adds up: linear maps of a step's input and of the state before, and their biases.

    The operators are made once, so that all steps hold the same weights.
    """

    of_input: Operator
    of_state: Operator
    input_bias: np.ndarray
    state_bias: np.ndarray

    def summed(self, x: Value, state: Value, layers: tuple[str, ...]) -> Value:
        return self.from_input(x, layers).plus(self.from_state(state, layers), layers)

    def from_input(self, x: Value, layers: tuple[str, ...]) -> Value:
        return x.then(self.of_input, layers=layers).shifted(self.input_bias, layers)

    def from_state(self, state: Value, layers: tuple[str, ...]) -> Value:
        return state.then(self.of_state, layers=layers).shifted(self.state_bias, layers)


@dataclass(frozen=True)
class _Cell:
    """The steps of one direction: its gates by name, its nonlinearities in ONNX's order, and peepholes by gate."""

    call: Call
    is_reverse: bool
    gates: dict[str, _Gate]
    curves: Sequence[Curve]
    peepholes: dict[str, np.ndarray]

    def named(self, step: int, part: str) -> str:
        return f"{'reverse/' if self.is_reverse else ''}{step}/{part}"

    def run(self, steps: Sequence[Value], states: tuple[Value, ...]) -> tuple[list[Value], tuple[Value, ...]]:
        """The state after each step, in the order of the series, and all states after the last that is taken."""
        step = {"LSTM": self.lstm, "GRU": self.gru, "RNN": self.rnn}[self.call.node.op_type]
        places = range(len(steps))
        hidden: dict[int, Value] = {}
        for place in reversed(places) if self.is_reverse else places:
            states = step(place, steps[place], states)
            hidden[place] = states[0]
        return [hidden[place] for place in places], states

    def gate(self, name: str, step: int, x: Value, state: Value, curve: Curve, seen: Value | None = None) -> Value:
        """A gate of a step; `seen` is the memory that it sees through a peephole, if it has one."""
        summed = self.gates[name].summed(x, state, self.call.layers)
        if seen is not None and name in self.peepholes:
            summed = summed.plus(seen.scaled(self.peepholes[name], self.call.layers), self.call.layers)
        return curve(summed, self.named(step, name))

    def product(self, x: Value, y: Value, step: int, part: str) -> Value:
        return self.call.product(x, y, self.named(step, part))

    def lstm(self, step: int, x: Value, states: tuple[Value, ...]) -> tuple[Value, ...]:
        hidden, memory = states
        layers = self.call.layers
        f, g, h = self.curves
        taken = self.gate("input", step, x, hidden, f, memory)
        new = self.gate("memory", step, x, hidden, g)
        coupled = self.call.attributes.get("input_forget", 0)
        kept = _complement(taken, layers) if coupled else self.gate("forget", step, x, hidden, f, memory)
        old = self.product(kept, memory, step, "kept")
        memory = old.plus(self.product(taken, new, step, "taken"), layers)
        shown = self.gate("output", step, x, hidden, f, memory)
        return self.product(shown, h(memory, self.named(step, "shown")), step, "state"), memory

    def gru(self, step: int, x: Value, states: tuple[Value, ...]) -> tuple[Value, ...]:
        (hidden,) = states
        layers = self.call.layers
        f, g = self.curves
        update = self.gate("update", step, x, hidden, f)
        reset = self.gate("reset", step, x, hidden, f)
        gate = self.gates["new"]
        if self.call.attributes.get("linear_before_reset", 0):
            within = self.product(reset, gate.from_state(hidden, layers), step, "within")
        else:
            within = gate.from_state(self.product(reset, hidden, step, "within"), layers)
        new = g(gate.from_input(x, layers).plus(within, layers), self.named(step, "new"))
        taken = self.product(_complement(update, layers), new, step, "taken")
        total = taken.plus(self.product(update, hidden, step, "kept"), layers)
        return (self.call.population(Function("identity"), total, self.named(step, "state")),)  # several gates read it

    def rnn(self, step: int, x: Value, states: tuple[Value, ...]) -> tuple[Value, ...]:
        return (self.gate("state", step, x, states[0], self.curves[0]),)


def unrolled(call: Call) -> tuple[Tensor, ...]:
    """All states of the last layer of gates, (L, D, N, H), and the last one of each kind, (D, N, H)."""
    steps = _steps(call)
    batch, directions = steps[0].dims[0], _directions(call)
    cells = list(_cells(call, directions, steps[0]))
    count = 2 if call.node.op_type == "LSTM" else 1
    size = call.weight(2).shape[2]
    initial = [_initial(call, 5 + kind, (len(directions), batch, size)) for kind in range(count)]
    runs = [cell.run(steps, tuple(kind[number] for kind in initial)) for number, cell in enumerate(cells)]
    rows = list(zip(*(hidden for hidden, _ in runs), strict=True))
    all_states = _tensor(rows, (len(steps), len(directions), batch, size), call)
    kinds = zip(*(states for _, states in runs), strict=True)
    ends = [_tensor([kind], (len(directions), batch, size), call) for kind in kinds]
    if not call.attributes.get("layout", 0):
        return all_states, *ends
    return _ordered(all_states, (2, 0, 1, 3)), *(_ordered(end, (1, 0, 2)) for end in ends)


def _steps(call: Call) -> list[Value]:
    """The input of each step, (N, C); raises Unsupported for more steps than fit."""
    x = call.inputs[0]
    if not isinstance(x, (Value, Regrouped)):
        raise Unsupported(f"{call.node.op_type} of a constant is not supported")
    if call.attributes.get("clip"):
        raise Unsupported("it clips what its gates are given; export the model without a clip")
    positions = places(x)
    if positions.ndim != 3 or call.weight(2).ndim != 3:
        shapes = f"{positions.shape} and weights of shape {call.weight(2).shape}"
        raise Unsupported(f"it is given a tensor of shape {shapes}, which are no series of vectors, and no matrices")
    if call.attributes.get("layout", 0):
        positions = positions.transpose(1, 0, 2)
    elif isinstance(x, Value) and x.source is not None and x.source.neuron.is_input and x.layout == SERIES_LAST:
        raise Unsupported("its steps lie along axis 0, which is that of the batch; put that first (batch_first=True)")
    lengths = call.constant(4) if len(call.inputs) > 4 else None
    if lengths is not None and (lengths != len(positions)).any():
        raise Unsupported(f"its sequences end before the last of {len(positions)} steps; leave their lengths out")
    reason = too_long(len(positions), call.weight(1).size + call.weight(2).size)
    if reason:
        raise Unsupported(reason)
    return [whole(x).placed(step) for step in positions]


def _directions(call: Call) -> tuple[str, ...]:
    direction = call.text("direction", "forward")
    return ("forward", "reverse") if direction == "bidirectional" else (direction,)


def _cells(call: Call, directions: Sequence[str], x: Value) -> Iterator[_Cell]:
    """The cell of each direction; raises Unsupported for weights whose sizes do not fit."""
    operator, size = call.node.op_type, call.weight(2).shape[2]
    names = _GATES[operator].split()
    count = len(directions), len(names) * size
    wanted = {1: (*count, x.dims[1]), 2: (*count, size), 3: (count[0], 2 * count[1]), 7: (count[0], 3 * size)}
    weights = {index: call.constant(index) for index in wanted}
    for index, array in weights.items():
        if (array is None and index < 3) or (array is not None and array.shape != wanted[index]):
            shape = None if array is None else array.shape
            raise Unsupported(f"its weights of shape {shape} should have the shape {wanted[index]}")
    curves = list(_curves(call, len(directions)))
    for number, direction in enumerate(directions):
        w, r = (weights[index][number] for index in (1, 2))  # type: ignore[index]
        b = np.zeros(2 * len(r)) if weights[3] is None else weights[3][number]
        peepholes = {} if weights[7] is None else dict(zip(names, weights[7][number].reshape(3, size), strict=False))
        rows = {name: slice(place * size, (place + 1) * size) for place, name in enumerate(names)}
        gates = {
            name: _Gate(_map(w[part], x), _map(r[part], x), b[: len(r)][part], b[len(r) :][part])
            for name, part in rows.items()
        }
        each = len(curves) // len(directions)
        yield _Cell(call, direction == "reverse", gates, curves[number * each :][:each], peepholes)


def _map(weight: np.ndarray, x: Value) -> Operator:
    """A matrix (outputs, inputs) for each of the sequences that x has."""
    return Dense(weight.T) if len(x.shape) == 1 else Conv2D(weight.T[None, None])


def _curves(call: Call, directions: int) -> Iterator[Curve]:
    """The nonlinearities of all directions; those that have parameters take the next ones of the lists."""
    given = [name.decode() for name in call.attributes.get("activations", ())]
    names = given or list(_ACTIVATIONS[call.node.op_type]) * directions
    wanted = directions * len(_ACTIVATIONS[call.node.op_type])
    if call.node.op_type == "RNN":  # whose default names both directions
        names = names[:wanted]
    if len(names) != wanted:
        raise Unsupported(f"it names {len(names)} activations in place of {wanted}")
    alphas, betas = (iter(call.attributes.get(name, ())) for name in ("activation_alpha", "activation_beta"))
    for name in map(str.lower, names):
        alpha, beta = _PARAMETERS.get(name, (None, None))
        alpha = None if alpha is None else next(alphas, alpha)
        beta = None if beta is None else next(betas, beta)
        yield partial(_activated, call, name, alpha or 0.0, beta or 0.0)


def _activated(call: Call, name: str, alpha: float, beta: float, x: Value, part: str) -> Value:
    layers = call.layers
    match name:
        case "sigmoid" | "tanh" | "softsign" | "softplus":
            return call.population(Function(name), x, part)
        case "relu":
            return call.population(Relu(), x, part)
        case "elu":
            return call.population(Function("elu", alpha), x, part)
        case "leakyrelu":
            return call.population(LeakyRelu(alpha), x, part)
        case "hardsigmoid":
            line = x.scaled(np.array(alpha), layers).shifted(np.array(beta), layers)
            return call.population(Clip(1.0), line, part)
        case "scaledtanh":
            return call.population(Function("tanh"), x.scaled(np.array(beta), layers), part).scaled(
                np.array(alpha), layers
            )
        case "affine":
            return x.scaled(np.array(alpha), layers).shifted(np.array(beta), layers)
        case "thresholdedrelu":
            raise Unsupported(JUMP)
    raise Unsupported(f"its activation {name!r} is not known")


def _complement(x: Value, layers: tuple[str, ...]) -> Value:
    """`1 − x`."""
    return x.scaled(np.array(-1.0), layers).shifted(np.array(1.0), layers)


def _initial(call: Call, index: int, dims: Shape) -> list[Value]:
    """The state of each direction before the first step, (N, H): zeros where it is left out."""
    given = call.inputs[index] if index < len(call.inputs) else None
    if call.attributes.get("layout", 0) and given is not None:
        given = given.transpose(1, 0, 2) if isinstance(given, np.ndarray) else _ordered(given, (1, 0, 2))
    match given:
        case None:
            return [_constant(np.zeros(dims[1:]))] * dims[0]
        case np.ndarray() if given.shape == dims:
            return [_constant(state) for state in given]
        case Value() | Regrouped() if places(given).shape == dims:
            return [whole(given).placed(state) for state in places(given)]
    raise Unsupported(f"its initial state should have the shape {dims}")


def _constant(array: np.ndarray) -> Value:
    """A constant as a value, (N, H)."""
    nothing = Value((), np.zeros(1), (1,), ((), (0,)))
    return nothing.placed(np.zeros(array.shape, np.int64)).shifted(array, ())


def _ordered(x: Argument, axes: tuple[int, ...]) -> Tensor:
    """Activations with their axes in another order."""
    if isinstance(x, Regrouped):
        return Regrouped(x.value, x.positions.transpose(axes), x.layer)
    assert isinstance(x, Value)
    return x.transposed(axes)


def _tensor(rows: Sequence[Sequence[Value]], dims: Shape, call: Call) -> Tensor:
    """States (N, H) in rows and columns as one tensor."""
    batch, size = dims[-2:]
    columns = len(rows[0])
    shape = (len(rows), columns * batch, size)
    spread = Pick(np.arange(batch * size).reshape(1, batch, size))
    terms: list[Term] = []
    bias = np.zeros(shape)
    for row, states in enumerate(rows):
        for column, state in enumerate(states):
            before, behind = column * batch, (columns - 1 - column) * batch
            around = Pad(((row, len(rows) - 1 - row), (before, behind), (0, 0)))
            placed = state.then(spread, around, layers=call.layers)
            terms += placed.terms
            bias += 0 if placed.bias is None else placed.bias
    total = Value(tuple(terms), bias if bias.any() else None, shape, ((0,), (1,), (2,)), call.layers)
    if columns > 1 and batch > 1:  # which are one axis of the value
        return Regrouped(total, np.arange(math.prod(dims)).reshape(dims), call.layers[-1])
    first, second = ((1,), ()) if batch == 1 else ((), (1,))
    return replace(total, layout=((0,), first, second, (2,)) if len(dims) == 4 else ((0, *first), second, (2,)))
