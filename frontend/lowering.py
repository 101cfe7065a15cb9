"""From an ONNX graph to an analog network: values flow through the nodes, nonlinearities become populations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ..ir import (
    Connection,
    Conv2D,
    Dense,
    Function,
    Identity,
    Input,
    Network,
    Operator,
    Origin,
    Population,
    QuantizedRelu,
    Shape,
    ShapeError,
    UnsupportedModelError,
    apply,
    fold,
    verify,
)
from . import operators
from .affine import (
    CHANNELS_FIRST,
    FLAT,
    LARGEST,
    SERIES_FIRST,
    Layout,
    Source,
    Value,
    as_tensor,
    merge,
    per_channel,
)
from .bounds import affine, magnitude
from .call import Activation, Argument, Call, Mask, Masked, Patched, Point, Quantized, Ranking, Regrouped, Whole
from .constants import evaluate, inferred
from .graph import Graph
from .outputs import has_channels_second
from .rounding import UNBOUNDED, Rounded
from .support import JUMP, Layer, Unsupported, first_line, module_refusal

# What may follow a softmax that is an output: all of its numbers stay, and each once.
_ENDING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "ZipMap"}
_SUMS = {"Add", "Identity", "Sum"}  # Keras's layers end in an Identity
_SEVERAL_TABLES = "its numbers are looked up in several tables, or used otherwise too; give the model an input for each"
_LAST = 2**31  # the rank of readouts: after every layer
_LAYOUTS: dict[int, Layout] = {2: FLAT, 3: SERIES_FIRST, 4: CHANNELS_FIRST}  # by the rank of an ONNX tensor


@dataclass(frozen=True)
class Lowered:
    """The network of a graph, and the graph's tensors in terms of its populations."""

    network: Network
    values: Mapping[str, Argument]
    readouts: Mapping[str, Value]
    names: Mapping[Source, str]

    def tensor(self, name: str, activations: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """A tensor of the graph as it follows from the populations' activations; None if the network has no part in it.

        An output is what the network itself gives, if it does not give scores in place of a class.
        """
        argument = self.values.get(name)
        value = argument if isinstance(argument, Ranking) else self.readouts.get(name, argument)
        if not isinstance(value, Value) or any(term.source not in self.names for term in value.terms):
            return None
        total = np.zeros((1, *value.shape)) if value.bias is None else value.bias[None]
        for term in value.terms:
            total = total + apply(term.operators, activations[self.names[term.source]])
        return as_tensor(total, value.layout)

    def reach(self, name: str, activations: Mapping[str, np.ndarray]) -> float:
        """How large the numbers are that a tensor is computed of, as they count in it; 0 where that is open."""
        value = self.values.get(name)
        if not isinstance(value, Value) or any(term.source not in self.names for term in value.terms):
            return 0.0

        def seen(source: Source) -> float:
            known = activations.get(self.names.get(source, ""))
            return math.inf if known is None else float(np.abs(known).max())

        largest = magnitude(value, seen)
        return largest if math.isfinite(largest) else 0.0

    def rounded(self, tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
        """Those of the graph's tensors that are what a population rounds: its name, and its activation, (1, *shape)."""
        activations: dict[str, tuple[str, np.ndarray]] = {}
        for name, array in tensors.items():
            value = self.values.get(name)
            found = affine(value) if isinstance(value, Value) else None
            if found and found.source in self.names and isinstance(found.source.neuron, QuantizedRelu):
                assert isinstance(value, Value)
                activation = (value.arranged(array)[None] - found.offset) / found.factor
                activations[name] = self.names[found.source], activation.astype(np.float32)
        return activations


def lower(graph: Graph) -> Network:
    """The analog network that computes what `graph` does, verified.

    Raises UnsupportedModelError with every layer in the way, one line for each, in the order in which
    they run.
    """
    return lower_with_tensors(graph).network


def lower_with_tensors(graph: Graph) -> Lowered:
    """The analog network, as `lower` makes it, and what it knows of the graph's tensors."""
    return _Lowering(graph).lowered()


class _Lowering:
    """One walk through a graph. A tensor without an entry in `values` comes from a layer that was refused.

    What a refused layer gives is replaced by an input of the same shape where that is known, from the file or from
    ONNX's own rules: so that one report names the layers behind it too.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.refused: dict[Layer, str] = dict(graph.refused)
        self.values: dict[str, Argument] = dict(graph.constants)
        graph.constants.clear()  # weights are large: each is let go after its last use
        self.readouts: dict[str, Value] = {}
        self.unread: set[Layer] = set()
        self.lost: set[str] = set()
        self.constant: dict[Layer, float] = {}  # layers that say the same whatever they are given
        self.wanted = {*graph.outputs, *graph.probes, *(name for node in graph.nodes for name in node.input)}
        self.inner = _inner(graph)
        self.readers = self._readers()
        self.somatic = False  # whether a population so far is more than a rectifier

    def lowered(self) -> Lowered:
        inputs = {}
        for rank, (tensor, given) in enumerate(self.graph.inputs.items(), -len(self.graph.inputs)):
            layer = Layer(given.name, "Input", rank)
            inputs[tensor] = Source(Input(), given.shape, None, layer, whole=given.whole)
            numbers = inputs[tensor].value(given.layout)
            self.values[tensor] = Whole(numbers) if given.whole else numbers
        for tensor, given in self.graph.stand_ins.items():
            self.values[tensor] = _stand_in(given.shape, given.layout)
        nodes = _needed(self.graph)
        uses = Counter(name for node in nodes for name in node.input)
        for node in nodes:
            self._visit(node)
            self._let_go(node, uses)
        outputs: list[Source] = []
        for position, (tensor, value) in enumerate(self._given()):
            self._read_out(tensor, value, position, outputs)
        self._replace_looked_up(inputs, _reaching(outputs))
        sources = _reaching([*inputs.values(), *outputs])
        self._refuse_unfinished(sources)
        if self.refused:
            self._report()
        names = _names(sources)
        network = _assembled(names, list(inputs.values()), outputs)
        return Lowered(network, self.values, self.readouts, names)

    def _replace_looked_up(self, inputs: dict[str, Source], sources: list[Source]) -> None:
        """In place of inputs of numbers that are looked up, those of the vectors that they stand for."""
        for tensor, plain in inputs.items():
            looked_up = [source for source in sources if source.table is not None and source.layer == plain.layer]
            if looked_up and (len(looked_up) > 1 or plain in sources):
                self.refused[plain.layer] = _SEVERAL_TABLES
            elif looked_up:
                inputs[tensor] = looked_up[0]

    def _visit(self, node: onnx.NodeProto) -> None:
        layer = self._layer(node)
        if any(name and name not in self.values for name in node.input):
            self.unread.add(layer)
            self.values.update(self._stand_ins(node))
            return
        try:
            results = self._results(node, layer)
        except (Unsupported, ShapeError) as error:
            self._refuse(node, str(error), getattr(error, "layer", None))
            self.values.update(self._stand_ins(node))
            return
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # of a file that fits no schema
            self._refuse(node, f"its attributes or operands do not fit together: {first_line(error)}")
            return
        self._note_constant(node, layer, results)
        self.values.update(zip(node.output, results, strict=False))
        for extra in node.output[len(results) :]:
            if extra in self.wanted:
                self._refuse(node, f"only its first output is supported, but {extra} is used too")

    def _note_constant(self, node: onnx.NodeProto, layer: Layer, results: list[Argument]) -> None:
        """Remember a layer that gives one number of activations, as a clip whose bounds meet."""
        if node.op_type == "Shape" or not any(isinstance(self.values.get(name), Value) for name in node.input):
            return
        match results:
            case [np.ndarray() as array, *_] if array.size and array.dtype.kind in "fiu":
                self.constant[layer] = float(array.flat[0])

    def _let_go(self, node: onnx.NodeProto, uses: Counter[str]) -> None:
        uses.subtract(node.input)
        for name in node.input:
            if not uses[name] and isinstance(self.values.get(name), np.ndarray) and name not in self.graph.outputs:
                del self.values[name]

    def _refuse(self, node: onnx.NodeProto, reason: str, path: str | None = None) -> None:
        """Refuse the layer of a node, or the last one before it that has this path."""
        layer = self._layer(node)
        if path is not None:
            earlier = [known for known in self.graph.layers.values() if known.path == path and known.rank <= layer.rank]
            layer = max(earlier, key=lambda known: known.rank, default=layer)
        if layer not in self.refused:
            self.refused[layer] = module_refusal(layer.kind) or reason

    def _layer(self, node: onnx.NodeProto) -> Layer:
        return self.graph.layers.get(node.name) or Layer(node.name, node.op_type, _LAST)

    def _stand_ins(self, node: onnx.NodeProto) -> dict[str, Value]:
        """In place of the outputs of a node that is not read, those whose shapes are known."""
        given = [value for value in map(self._given_by, node.input) if isinstance(value, Value)]
        if all(name in self.lost or isinstance(self.values.get(name), np.ndarray) for name in filter(None, node.input)):
            self.lost.update(node.output)  # constants: nothing stands for them
            return {}
        known = {name: shown for name in node.input if (shown := self._known(name)) is not None}
        dims = dict(zip(filter(None, node.output), inferred(node, known, self.graph.opset), strict=False))
        dims |= {name: self.graph.shapes[name] for name in node.output if name in self.graph.shapes}
        stand_ins = {name: _stand_in_like(found, given) for name, found in dims.items() if found is not None}
        return {name: value for name, value in stand_ins.items() if value is not None}

    def _given_by(self, name: str) -> Argument:
        """What a tensor is, or was before it was masked."""
        value = self.values.get(name)
        return value.kept if isinstance(value, (Masked, Patched)) else value

    def _known(self, name: str) -> np.ndarray | Shape | None:
        """What shape inference is told of a tensor: a constant, or the shape of activations."""
        value = self._given_by(name)
        value = value.value if isinstance(value, (Mask, Point, Whole)) else value
        if isinstance(value, np.ndarray):
            return value
        if isinstance(value, Regrouped):
            return value.positions.shape
        return value.dims if isinstance(value, Value) else self.graph.shapes.get(name)

    def _results(self, node: onnx.NodeProto, layer: Layer) -> list[Argument]:
        inputs = tuple(self.values[name] if name else None for name in node.input)
        constants = [argument for argument in inputs if argument is None or isinstance(argument, np.ndarray)]
        if len(constants) == len(inputs):
            return list(evaluate(node, constants, self.graph.opset))
        absorbed = self.graph.absorbed.get(node.name)
        layers = (*((absorbed,) if absorbed else ()), layer.path)
        is_last = not self.inner.intersection(node.output)
        call = Call(node, inputs, self.graph.opset, layers, layer, is_last)
        if node.op_type == "Shape":
            dims = self._known(node.input[0])
            assert isinstance(dims, tuple)
            return [np.array(dims[call.attributes.get("start", 0) : call.attributes.get("end", len(dims))], np.int64)]
        result = operators.apply(call)
        if isinstance(result, Activation):
            result = result.finish(call.population(result.neuron, result.summed))
        self.somatic = self.somatic or call.is_somatic
        if node.op_type in _SUMS and isinstance(result, Value) and self._is_trunk(node.output[0], result):
            result = call.population(Function("identity"), result)
        self.values |= {node.input[index]: value for index, value in call.settled.items()}
        return [*result] if isinstance(result, tuple) else [result]

    def _readers(self) -> dict[str, set[str]]:
        """For each tensor the layers that read it."""
        readers: dict[str, set[str]] = {}
        for node in self.graph.nodes:
            for name in node.input:
                readers.setdefault(name, set()).add(self._layer(node).path)
        return readers

    def _is_trunk(self, name: str, value: Value) -> bool:
        """Whether a sum, as a residual stream, becomes a population that says it: several layers read it.

        Each would otherwise have an edge from everything that was ever added to it. In networks of rectifiers it has:
        a number of either sign is more than a rectifier says.
        """
        return self.somatic and len(value.terms) > 1 and len(self.readers.get(name, ())) > 1

    def _given(self) -> Iterator[tuple[str, Argument]]:
        """The model's outputs. Where ArgMax gives one, its scores do instead, unless they are an output themselves."""
        given = [(tensor, self.values.get(tensor)) for tensor in self.graph.outputs]
        plain = [value for _, value in given if isinstance(value, Value)]
        for tensor, value in given:
            if not isinstance(value, Ranking):
                yield tensor, value
            elif not any(value.scores is other or value.scores.source is other.source is not None for other in plain):
                yield tensor, value.scores

    def _read_out(self, tensor: str, value: Argument, position: int, outputs: list[Source]) -> None:
        """Add the population that gives an output of the model: the tensor's own if there is one, else a readout."""
        if value is None:
            self._refuse_unless_known(tensor)
            return
        if isinstance(value, (Mask, Masked, Patched, Point)):
            self._refuse(next(node for node in self.graph.nodes if tensor in node.output), JUMP, _compared_by(value))
            return
        if isinstance(value, Whole) and not (value.offset or value.rounded):
            value = value.value
        if isinstance(value, np.ndarray) and self.constant:
            layer, number = next(reversed(self.constant.items()))
            reason = (
                f"it gives {number:g} whatever it is given, as it clips above its upper bound; λ has to be positive"
            )
            self.refused.setdefault(layer, reason)
            return
        if isinstance(value, Regrouped):
            node = next(node for node in self.graph.nodes if tensor in node.output)
            table = value
            try:
                second = self._has_channels_second(tensor, table.positions.shape)
                value = table.value.placed(table.positions, channels_first=second)
            except Unsupported as error:
                self._refuse(node, str(error), table.layer)
                return
        second = isinstance(value, Value) and self._has_channels_second(tensor, value.dims)
        if isinstance(value, Value):
            value = value.with_batch_first()
        if isinstance(value, Value) and not value.is_vector and not value.is_arranged(second):
            with suppress(Unsupported):
                value = value.replaced(channels_first=second)
        if not isinstance(value, Value) or not (value.is_vector or value.is_apart):
            found = f"has shape {value.dims[1:]}" if isinstance(value, Value) else "does not depend on the input"
            found = "has no numbers" if isinstance(value, np.ndarray) and not value.size else found
            found = "is quantised" if isinstance(value, Quantized) else found
            reason = f"it {found}; outputs must be vectors (N,), series (L, C) or images (H, W, C), or channels first"
            path = _last_layer(value) if isinstance(value, Value) else tensor
            self.refused.setdefault(Layer(path, "output", _LAST), reason)
            return
        value = value.settled()
        layer = Layer(_last_layer(value), "output", _LAST + position)
        source = value.source
        if len(value.terms) == 1 and value.terms[0].source.neuron.is_readout:
            term = value.terms[0]
            source = replace(term.source, layer=layer) if term.source in outputs else term.source
            value = replace(value, terms=(replace(term, source=source),))  # whatever views follow
        elif source is None or source in outputs or source.neuron.is_input:
            source = Source(Identity(), value.shape, value, layer)
            value = source.value(value.layout)
        outputs.append(source)
        self.readouts[tensor] = value

    def _has_channels_second(self, tensor: str, dims: Shape) -> bool:
        """Where the batch is not first, as of states, all other axes stay in their order."""
        if self.graph.channels_last or dims[0] != 1:
            return False
        activations = {name for name, value in self.values.items() if isinstance(value, (Value, Regrouped))}
        return has_channels_second(self.graph, tensor, len(dims), activations)

    def _refuse_unless_known(self, tensor: str) -> None:
        if not self.refused:
            self.refused[Layer(tensor, "output", _LAST)] = "nothing in the model gives this output"

    def _refuse_unfinished(self, sources: Iterable[Source]) -> None:
        for source in sources:
            if isinstance(source.neuron, Rounded):
                self.refused.setdefault(source.layer, UNBOUNDED)

    def _report(self) -> None:
        first: dict[str, str] = {}
        for layer, reason in sorted(self.refused.items(), key=lambda item: item[0].rank):
            first.setdefault(layer.path, layer.problem(reason))
        count = "1 layer has" if len(first) == 1 else f"{len(first)} layers have"
        layers = list(dict.fromkeys([*self.graph.layer_paths(), *first]))
        behind = {layer.path for layer in self.unread} - set(first)
        unread = [path for path in layers if path in behind]
        title = f"{self.graph.title}: {count} no spiking counterpart"
        raise UnsupportedModelError(title, list(first.values()), layers, unread)


def _stand_in_like(dims: Shape, given: Sequence[Value]) -> Value | None:
    """A stand-in of ONNX dimensions `dims`, laid out as what the node was given is, or else channels first."""
    if len(dims) not in _LAYOUTS or dims[0] != 1 or math.prod(dims) > LARGEST:
        return None
    layouts = [value.layout for value in given if value.dims == dims]
    plain = [
        value.layout for value in given if len(value.dims) == len(dims) and sorted(map(len, value.layout))[-1] == 1
    ]
    layout = next(iter([*layouts, *plain]), _LAYOUTS[len(dims)])
    shape = next((value.shape for value in given if value.dims == dims), None) or _arranged(dims, layout)
    return _stand_in(shape, layout)


def _arranged(dims: Shape, layout: Layout) -> Shape:
    """The shape of an image that has these ONNX dimensions; an axis that several are merged in takes it all."""
    sizes = {part[0]: dim for part, dim in zip(layout, dims, strict=True) if part}
    axes = 1 + max(axis for part in layout for axis in part)
    return tuple(sizes.get(axis, 1) for axis in range(axes))


def _stand_in(shape: Shape, layout: Layout) -> Value:
    return Source(Input(), shape, None, Layer("", "", _LAST)).value(layout)


def _needed(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes that the outputs, or layers already refused, depend on, in the graph's order."""
    wanted, nodes = {*graph.outputs, *graph.probes}, []
    for node in reversed(graph.nodes):
        if wanted.intersection(filter(None, node.output)):
            wanted.update(filter(None, node.input))
            nodes.append(node)
    return nodes[::-1]


def _inner(graph: Graph) -> set[str]:
    """The tensors that something is computed of, so that they are more than outputs."""
    inner: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op_type not in _ENDING or inner.intersection(node.output):
            inner.update(filter(None, node.input))
    return inner


def _compared_by(choice: Mask | Masked | Patched | Point) -> str:
    """The layer that compares."""
    match choice:
        case Masked(mask=by) | Patched(point=by):
            return by.layer
        case Mask(layer=layer) | Point(layer=layer):
            return layer


def _last_layer(value: Value) -> str:
    return value.layers[-1] if value.layers else value.terms[0].source.layer.path


def _reaching(ends: list[Source]) -> list[Source]:
    """`ends` and every population that they depend on, in the order in which their layers run."""
    found: dict[Source, None] = {}
    seen: set[Source] = set()
    pending = ends[::-1]
    while pending:
        source = pending[-1]
        if source in seen:
            found.setdefault(pending.pop())  # within a layer, sources first
            continue
        seen.add(source)
        given = [term.source for value in source.given for term in value.terms]
        pending += [each for each in reversed(given) if each not in seen]
    return sorted(found, key=lambda source: source.layer.rank)


def _assembled(names: Mapping[Source, str], inputs: list[Source], outputs: list[Source]) -> Network:
    populations, connections = [], []
    known: dict[Any, list[Operator]] = {}
    for source, name in names.items():
        layer = source.layer.path
        history = tuple(path for value in source.given for path in value.layers if path != layer)
        origin = Origin(merge(history, (layer,)))
        biases = _bias(source.summed), origin, _bias(source.second)
        populations.append(Population(name, source.shape, source.neuron, *biases, source.table))
        for port, value in enumerate(source.given):
            for term in value.terms:
                folded = tuple(_once(each, known) for each in fold(term.operators, term.source.shape))
                # An edge that no layer of its own made, one to one, belongs to the population's layer.
                made_by = Origin(term.layers or (layer,))
                connections.append(Connection(names[term.source], name, folded, origin=made_by, port=port))
    network = Network(populations, connections, [names[s] for s in inputs], [names[s] for s in outputs])
    verify(network, "analog")
    return network


def _once(operator: Operator, known: dict[Any, list[Operator]]) -> Operator:
    """An operator, or a known one that is equal: so that the steps of an unrolled layer hold one weight together."""
    if not isinstance(operator, (Conv2D, Dense)):
        return operator
    alike = known.setdefault((operator.weight.shape, operator.weight.reshape(-1)[:16].tobytes()), [])
    same = next((other for other in alike if other == operator), None)
    if same is None:
        alike.append(operator)
    return same or operator


def _names(sources: list[Source]) -> dict[Source, str]:
    """Unique names: the layer's path; `path#2`, `path#3` for later calls of the layer."""
    names: dict[Source, str] = {}
    taken: dict[str, int] = {}
    for source in sources:
        path = name = source.name
        while name in taken:
            taken[path] += 1
            name = f"{path}#{taken[path]}"
        taken[name] = 1
        names[source] = name
    return names


def _bias(summed: Value | None) -> np.ndarray | None:
    if summed is None or summed.bias is None or not summed.bias.any():
        return None
    return per_channel(summed.bias)
