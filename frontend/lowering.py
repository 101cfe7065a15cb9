"""ONNX to the IR: linear operators extend affine expressions, nonlinearities become populations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..ir import (
    AnalogNeuron,
    AveragePool2D,
    Clip,
    Connection,
    Conv2D,
    Dense,
    Identity,
    Input,
    MaxPool2D,
    Network,
    Origin,
    Pad,
    Padding,
    Pair,
    Population,
    Relu,
    Shape,
    Softmax,
    UnsupportedModelError,
    fold,
)
from .affine import CHANNELS_FIRST, FLAT, IMAGE, Affine, NotAffine, Term, aligned, concatenated
from .constants import fold_constants

SWAP = "swap the activation for ReLU and fine-tune"
REFUSAL = "these layers have no spiking counterpart in snnc:"


@dataclass(frozen=True)
class Layer:
    """A layer of the source model, as the user knows it: its path, and its kind for messages."""

    path: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.kind})" if self.kind else self.path


@dataclass(frozen=True)
class Source:
    """A model, ready to be lowered.

    `inputs` maps the ONNX graph's data inputs to the user's names; every other graph input is bound to an array of
    `weights`. `layer_of` names the layer that a node belongs to.
    """

    model: onnx.ModelProto
    inputs: Mapping[str, str]
    weights: Mapping[str, np.ndarray]
    layer_of: Callable[[onnx.NodeProto], Layer]


@dataclass
class _Node:
    """A population to be: a neuron and its summed input."""

    neuron: AnalogNeuron
    shape: Shape
    layer: Layer
    summed: Affine | None = None


@dataclass(frozen=True)
class _Probabilities:
    """A softmax over the channels: the end of the line."""

    logits: Affine


# An operand is an expression, softmax's result, a constant, or None for what lies behind an unsupported layer.
_Operand = Affine | _Probabilities | np.ndarray | None


def lower(source: Source, known_problems: Mapping[str, str]) -> Network:
    """The analog network of a model.

    `known_problems` are layers found unsupported already, path to message. Raises UnsupportedModelError with
    these and every other layer that cannot be lowered.
    """
    lowering = _Lowering(source, dict(known_problems))
    return lowering.network()


@dataclass
class _Lowering:
    source: Source
    problems: dict[str, str]
    nodes: list[_Node] = field(default_factory=list)
    values: dict[str, _Operand] = field(default_factory=dict)

    def network(self) -> Network:
        graph = self.source.model.graph
        dynamic, constants = fold_constants(graph, self.source.weights, list(self.source.model.opset_import))
        self.values |= constants
        inputs = [self._input(value) for value in graph.input if value.name in self.source.inputs]
        for node in dynamic:
            self._lower(node)
        producers = {name: node for node in dynamic for name in node.output}
        outputs = [self._output(value.name, producers) for value in graph.output]
        if self.problems:
            raise UnsupportedModelError(REFUSAL, list(self.problems.values()))
        return self._assemble(inputs, [number for number in outputs if number is not None])

    def _input(self, value: onnx.ValueInfoProto) -> int:
        layer = Layer(self.source.inputs[value.name], "Input")
        sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim][1:]
        if len(sizes) not in (1, 3) or min(sizes) < 1:
            shown = tuple(size or None for size in sizes)
            self.problems[layer.path] = f"{layer}: inputs of shape {shown}; fix the input's shape to (H, W, C) or (N,)"
            self.values[value.name] = None
            return 0
        shape = tuple(sizes)
        self.nodes.append(_Node(Input(), shape, layer))
        number = len(self.nodes) - 1
        self.values[value.name] = Affine(shape, IMAGE if len(shape) == 3 else FLAT, (Term(number),))
        return number

    def _lower(self, node: onnx.NodeProto) -> None:
        layer = self.source.layer_of(node)
        self.values.update(dict.fromkeys(node.output))
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            advice = _ADVICE.get(node.op_type, "there is no spiking counterpart")
            self.problems.setdefault(layer.path, f"{layer}: {node.op_type}: {advice}")
            return
        operands = [self.values.get(name) if name else None for name in node.input]
        if any(operand is None and name for operand, name in zip(operands, node.input, strict=True)):
            return  # behind an unsupported layer, which is reported already
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        try:
            self.values[node.output[0]] = rule(self, _Call(layer, operands, attributes))
        except NotAffine as error:
            self.problems.setdefault(layer.path, f"{layer}: {node.op_type}: {error}")

    def populate(self, neuron: AnalogNeuron, summed: Affine, layer: Layer) -> Affine:
        """A population of `neuron`, as an expression."""
        shape = neuron.output_shape(summed.shape)
        self.nodes.append(_Node(neuron, shape, layer, summed))
        return Affine(shape, summed.dims, (Term(len(self.nodes) - 1),))

    def _output(self, name: str, producers: Mapping[str, onnx.NodeProto]) -> int | None:
        value = self.values.get(name)
        if value is None or isinstance(value, np.ndarray):
            if isinstance(value, np.ndarray):
                self.problems.setdefault(name, f"{name}: this output does not depend on the inputs")
            return None
        neuron: AnalogNeuron = Softmax() if isinstance(value, _Probabilities) else Identity()
        expression = value.logits if isinstance(value, _Probabilities) else value
        layer = self._layer_behind(name, producers)
        origin = Origin((layer.path,))
        try:
            settled = expression.settled(origin)
            if settled.dims not in (FLAT, IMAGE, CHANNELS_FIRST):
                raise NotAffine(f"this output has shape {settled.onnx_shape}; an output is (H, W, C) or (N,)")
        except NotAffine as error:
            self.problems.setdefault(layer.path, f"{layer}: {error}")
            return None
        population = settled.population
        if isinstance(neuron, Identity) and population is not None and self.nodes[population].summed is not None:
            return population
        self.populate(neuron, settled, layer)
        return len(self.nodes) - 1

    def _layer_behind(self, name: str, producers: Mapping[str, onnx.NodeProto]) -> Layer:
        """The layer that computes a tensor; nodes that only copy it are looked through."""
        while name in producers and producers[name].op_type in ("Identity", "Cast"):
            name = producers[name].input[0]
        return self.source.layer_of(producers[name]) if name in producers else Layer(name)

    def _assemble(self, inputs: list[int], outputs: list[int]) -> Network:
        used = self._reachable(inputs, outputs)
        names = _unique([self.nodes[number].layer.path for number in used])
        name_of = dict(zip(used, names, strict=True))
        populations: list[Population] = []
        connections: list[Connection] = []
        for number in used:
            node = self.nodes[number]
            own = Origin((node.layer.path,))
            origins = []
            for term in node.summed.terms if node.summed else ():
                operators = fold(term.operators, self.nodes[term.source].shape)
                origins.append(term.origin)
                # an edge that no layer of its own made (one to one) belongs to the population's layer
                origin = term.origin if term.origin.layers else own
                connections.append(Connection(name_of[term.source], name_of[number], operators, 0, origin))
            bias = node.summed.bias if node.summed else None
            before = Origin().merge(*origins, node.summed.origin if node.summed else Origin())
            earlier = tuple(layer for layer in before.layers if layer != node.layer.path)
            origin = Origin((*earlier, node.layer.path))
            populations.append(Population(name_of[number], node.shape, node.neuron, _or_none(bias), origin))
        return Network(populations, connections, [name_of[n] for n in inputs], [name_of[n] for n in outputs])

    def _reachable(self, inputs: list[int], outputs: list[int]) -> list[int]:
        """The populations that the outputs need, and all inputs, in order."""
        needed = set(inputs)
        pending = list(outputs)
        while pending:
            number = pending.pop()
            if number not in needed:
                needed.add(number)
                summed = self.nodes[number].summed
                pending += [term.source for term in summed.terms] if summed else []
        return sorted(needed)


@dataclass(frozen=True)
class _Call:
    """One ONNX node at work: its layer, its operands, and its attributes."""

    layer: Layer
    operands: list[_Operand]
    attributes: dict[str, Any]

    @property
    def origin(self) -> Origin:
        return Origin((self.layer.path,))

    def value(self, position: int = 0) -> Affine:
        operand = self.operands[position]
        if isinstance(operand, _Probabilities):
            raise NotAffine("it follows a softmax, which can only stand at an output")
        if not isinstance(operand, Affine):
            raise NotAffine("it expects a constant elsewhere")
        return operand

    def constant(self, position: int) -> np.ndarray:
        operand = self.operands[position]
        if not isinstance(operand, np.ndarray):
            raise NotAffine("a weight depends on the network's input")
        return operand

    def optional(self, position: int) -> np.ndarray | None:
        absent = position >= len(self.operands) or self.operands[position] is None
        return None if absent else self.constant(position)

    def axes(self, position: int) -> tuple[int, ...] | None:
        """Axes, which are an attribute in old opsets and an input in new ones."""
        given = self.attributes.get("axes")
        array = self.optional(position)
        if given is None and array is None:
            return None
        return tuple(int(axis) for axis in (given if given is not None else array.reshape(-1)))  # type: ignore[union-attr]


# Linear operators


def _conv(lowering: _Lowering, call: _Call) -> Affine:
    value, weight, bias = _image(call.value()), call.constant(1), call.optional(2)
    if weight.ndim != 4:
        raise NotAffine("only two-dimensional convolutions are known")
    kernel = (weight.shape[2], weight.shape[3])
    strides, dilation = _pair(call, "strides"), _pair(call, "dilations")
    padding = _padding(call, value.shape, kernel, strides, dilation)
    operator = Conv2D(weight.transpose(2, 3, 1, 0), strides, padding, dilation, call.attributes.get("group", 1))
    result = value.then(operator, call.origin)
    return result if bias is None else result.plus(bias.reshape(-1, 1, 1), call.origin)


def _matmul(lowering: _Lowering, call: _Call) -> Affine:
    return _dense(call, call.constant(1))


def _gemm(lowering: _Lowering, call: _Call) -> Affine:
    if call.attributes.get("transA"):
        raise NotAffine("it transposes its input")
    weight, bias = call.constant(1), call.optional(2)
    result = _dense(call, weight.T if call.attributes.get("transB") else weight)
    if call.attributes.get("alpha", 1.0) != 1.0:
        result = result.times(np.array(call.attributes["alpha"]), call.origin)
    return result if bias is None else result.plus(bias * call.attributes.get("beta", 1.0), call.origin)


def _dense(call: _Call, weight: np.ndarray) -> Affine:
    value = call.value()
    if weight.ndim != 2:
        raise NotAffine("it multiplies by a batch of matrices")
    *others, last = value.dims
    if not any(others) and value.shape[:-1] != (1, 1):
        order = [value.shape[axis] for axis in last]
        if math.prod(order) != weight.shape[0]:
            raise NotAffine(f"it multiplies {math.prod(order)} numbers by a matrix of shape {weight.shape}")
        rows = weight.reshape(*order, -1).transpose(*np.argsort(last), len(order))
        return value.then(Dense(rows.reshape(weight.shape)), call.origin, (*others, (0,)))
    if value.shape[-1] != weight.shape[0] or last[-1:] != (2,):
        raise NotAffine("it mixes positions but not all of them")
    return value.then(Conv2D(weight[None, None]), call.origin)


def _add(lowering: _Lowering, call: _Call) -> Affine:
    constants = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    positions = [i for i, operand in enumerate(call.operands) if not isinstance(operand, np.ndarray)]
    total, *others = aligned([call.value(position) for position in positions], call.origin)
    for other in others:
        total = total.add(other, call.origin)
    for constant in constants:
        total = total.plus(constant, call.origin)
    return total


def _sub(lowering: _Lowering, call: _Call) -> Affine:
    first, second = call.operands
    if isinstance(second, np.ndarray):
        return call.value(0).plus(-second, call.origin)
    negative = call.value(1).times(np.array(-1.0), call.origin)
    if isinstance(first, np.ndarray):
        return negative.plus(first, call.origin)
    minuend, subtrahend = aligned([call.value(0), negative], call.origin)
    return minuend.add(subtrahend, call.origin)


def _neg(lowering: _Lowering, call: _Call) -> Affine:
    return call.value().times(np.array(-1.0), call.origin)


def _mul(lowering: _Lowering, call: _Call) -> Affine:
    constants = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    if not constants:
        raise NotAffine("it multiplies activations with each other; " + SWAP)
    position = 0 if call.operands[1] is constants[0] else 1
    return call.value(position).times(constants[0], call.origin)


def _div(lowering: _Lowering, call: _Call) -> Affine:
    if not isinstance(call.operands[1], np.ndarray):
        raise NotAffine("it divides by activations")
    return call.value().times(1 / call.operands[1].astype(np.float64), call.origin)


def _batch_norm(lowering: _Lowering, call: _Call) -> Affine:
    value = call.value()
    gamma, beta, mean, variance = (call.constant(i).astype(np.float64) for i in range(1, 5))
    factor = gamma / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    along_channels = (-1, *[1] * (len(value.dims) - 2))
    scaled = value.times(factor.reshape(along_channels), call.origin)
    return scaled.plus((beta - mean * factor).reshape(along_channels), call.origin)


def _average_pool(lowering: _Lowering, call: _Call) -> Affine:
    value = _image(call.value())
    size, strides, padding = _pool(call, value.shape)
    if call.attributes.get("count_include_pad") and any(map(any, padding)):
        value, padding = value.then(Pad((*padding, (0, 0))), call.origin), ((0, 0), (0, 0))
    return value.then(AveragePool2D(size, strides, padding), call.origin)


def _global_average(lowering: _Lowering, call: _Call) -> Affine:
    return _pooled_whole(_image(call.value()), call.origin)


def _pooled_whole(value: Affine, origin: Origin) -> Affine:
    height, width, _ = value.shape
    return value.then(AveragePool2D((height, width), (height, width)), origin)


def _reduce_mean(lowering: _Lowering, call: _Call) -> Affine:
    value = call.value()
    axes = call.axes(1)
    rank = len(value.dims)
    reduced = sorted(axis for a in axes or () for axis in value.dims[a % rank])
    if axes is None or reduced != [0, 1] or len(value.shape) != 3:
        raise NotAffine("only a mean over the whole height and width is known")
    pooled = _pooled_whole(value, call.origin)
    if call.attributes.get("keepdims", 1):
        return pooled
    kept = tuple(group for a, group in enumerate(value.dims) if a not in {axis % rank for axis in axes})
    return replace(pooled, dims=kept).flattened(call.origin)


def _pad(lowering: _Lowering, call: _Call) -> Affine:
    value, pads = call.value(), call.optional(1)
    amounts = pads.reshape(-1) if pads is not None else np.asarray(call.attributes["pads"])
    fill = call.optional(2)
    if call.attributes.get("mode", b"constant") != b"constant" or (fill is not None and fill.any()):
        raise NotAffine("only padding with zeros is known")
    if call.optional(3) is not None or (amounts < 0).any():
        raise NotAffine("padding along chosen axes, or cropping, is not known")
    pairs = [(0, 0)] * len(value.shape)
    for axis, pair in enumerate(amounts.reshape(2, -1).T.tolist()):
        if any(pair):
            pairs[value.axis(axis)] = tuple(pair)
    return value.then(Pad(tuple(pairs)), call.origin)


def _concat(lowering: _Lowering, call: _Call) -> Affine:
    values = [operand for operand in call.operands if isinstance(operand, Affine)]
    if len(values) < len(call.operands):
        raise NotAffine("it concatenates with a constant")
    return concatenated(values, call.attributes["axis"] % len(values[0].dims), call.origin)


# Operators that only rename positions


def _same(lowering: _Lowering, call: _Call) -> _Operand:
    return call.operands[0]


def _transpose(lowering: _Lowering, call: _Call) -> Affine:
    value = call.value()
    return value.transposed(tuple(call.attributes.get("perm", reversed(range(len(value.dims))))))


def _reshape(lowering: _Lowering, call: _Call) -> _Operand:
    if isinstance(call.operands[0], _Probabilities):
        return call.operands[0]
    value = call.value()
    sizes = [int(size) for size in call.constant(1).reshape(-1)]
    before = value.onnx_shape
    if not call.attributes.get("allowzero"):
        sizes = [before[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    unknown = math.prod(before) // max(1, math.prod(size for size in sizes if size != -1))
    return value.reshaped(tuple(unknown if size == -1 else size for size in sizes))


def _flatten(lowering: _Lowering, call: _Call) -> Affine:
    value = call.value()
    axis = call.attributes.get("axis", 1) % (len(value.dims) + 1)
    return value.reshaped((math.prod(value.onnx_shape[:axis]), math.prod(value.onnx_shape[axis:])))


def _squeeze(lowering: _Lowering, call: _Call) -> Affine:
    value = call.value()
    rank = len(value.dims)
    axes = call.axes(1)
    gone = {a for a in range(1, rank) if value.onnx_shape[a] == 1} if axes is None else {a % rank for a in axes}
    return value.reshaped(tuple(size for axis, size in enumerate(value.onnx_shape) if axis not in gone))


def _unsqueeze(lowering: _Lowering, call: _Call) -> Affine:
    value = call.value()
    axes = call.axes(1) or ()
    rank = len(value.dims) + len(axes)
    added = {axis % rank for axis in axes}
    old = iter(value.dims)
    return replace(value, dims=tuple(() if axis in added else next(old) for axis in range(rank)))


# Nonlinearities


def _relu(lowering: _Lowering, call: _Call) -> Affine:
    return _rectified(lowering, call, Relu())


def _clip(lowering: _Lowering, call: _Call) -> Affine:
    low, high = (call.attributes.get(name, call.optional(position)) for position, name in ((1, "min"), (2, "max")))
    return _clipped(lowering, call, low, high)


def _max(lowering: _Lowering, call: _Call) -> Affine:
    return _clipped(lowering, call, _bound(call), None)


def _min(lowering: _Lowering, call: _Call) -> Affine:
    return _clipped(lowering, call, None, _bound(call))


def _bound(call: _Call) -> np.ndarray:
    constants = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    if len(call.operands) != 2 or not constants:
        raise NotAffine("it compares activations with each other")
    call.operands.sort(key=lambda operand: isinstance(operand, np.ndarray))
    return constants[0]


def _clipped(lowering: _Lowering, call: _Call, low: Any, high: Any) -> Affine:
    """max(min(x, high), low). A missing lower bound is fine on what is rectified already."""
    lows, highs = (None if bound is None else np.unique(bound) for bound in (low, high))
    value = call.value()
    behind = None if value.population is None else lowering.nodes[value.population].neuron
    rectified = isinstance(behind, (Relu, Clip))
    if lows is None and not rectified:
        raise NotAffine("it bounds activations above but not at zero below")
    if any(bound is not None and bound.size != 1 for bound in (lows, highs)) or (lows is not None and lows[0] != 0):
        raise NotAffine("only clipping from zero to one bound is known, as in ReLU6")
    if highs is None or np.isinf(highs[0]) or highs[0] >= np.finfo(np.float32).max:
        return _rectified(lowering, call, Relu())
    if highs[0] <= 0:
        raise NotAffine(f"its upper bound is {highs[0]}")
    return _rectified(lowering, call, Clip(float(highs[0])))


def _rectified(lowering: _Lowering, call: _Call, neuron: Relu | Clip) -> Affine:
    value = call.value()
    behind = None if value.population is None else lowering.nodes[value.population]
    if behind is None or not isinstance(behind.neuron, (Relu, Clip)):
        return lowering.populate(neuron, value.settled(call.origin), call.layer)
    # What is rectified already needs no second population: one neuron does both.
    if isinstance(neuron, Relu) or (isinstance(behind.neuron, Clip) and behind.neuron.max <= neuron.max):
        return value
    assert behind.summed is not None
    return replace(lowering.populate(neuron, behind.summed, call.layer), dims=value.dims)


def _max_pool(lowering: _Lowering, call: _Call) -> Affine:
    value = _image(call.value())
    if _pair(call, "dilations") != (1, 1):
        raise NotAffine("dilated pooling is not known")
    size, strides, padding = _pool(call, value.shape)
    return lowering.populate(MaxPool2D(value.shape, size, strides, padding), value, call.layer)


def _softmax(lowering: _Lowering, call: _Call) -> _Probabilities:
    value = call.value().settled(call.origin)
    axis = call.attributes.get("axis", -1) % len(value.dims)
    if value.dims[axis] != (len(value.shape) - 1,):
        raise NotAffine("only a softmax over the channels is known")
    return _Probabilities(value)


_ADVICE = {
    **dict.fromkeys(
        ("Sigmoid", "Tanh", "Erf", "Exp", "Elu", "Selu", "Gelu", "Softplus", "Softsign", "HardSwish"), SWAP
    ),
    **dict.fromkeys(
        ("LeakyRelu", "PRelu", "HardSigmoid"), "not supported yet; swap the activation for ReLU and fine-tune"
    ),
    **dict.fromkeys(("Loop", "Scan", "LSTM", "GRU", "RNN", "If"), "recurrence has no spiking counterpart here"),
    "Gather": "lookups, as in embeddings, have no spiking counterpart",
    "ConvTranspose": "transposed convolutions are not supported",
    "Resize": "upsampling is not supported; pool less or stride less before it",
    "Upsample": "upsampling is not supported; pool less or stride less before it",
}

_RULES: dict[str, Callable[[_Lowering, _Call], _Operand]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _same,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Identity": _same,
    "MatMul": _matmul,
    "Max": _max,
    "MaxPool": _max_pool,
    "Min": _min,
    "Mul": _mul,
    "Neg": _neg,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Sum": _add,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}


def _image(value: Affine) -> Affine:
    if value.dims != CHANNELS_FIRST:
        raise NotAffine(f"it expects an image but is given a tensor of shape {value.onnx_shape}")
    return value


def _pair(call: _Call, name: str) -> Pair:
    first, second = call.attributes.get(name, (1, 1))
    return (first, second)


def _pool(call: _Call, shape: Shape) -> tuple[Pair, Pair, Padding]:
    size, strides = _pair(call, "kernel_shape"), _pair(call, "strides")
    padding = _padding(call, shape, size, strides, (1, 1))
    if call.attributes.get("ceil_mode"):
        rest = [(n + sum(pad) - k) % s for n, k, s, pad in zip(shape[:2], size, strides, padding, strict=True)]
        if any(rest):
            raise NotAffine("windows that reach over the edge (ceil_mode) are not supported")
    return size, strides, padding


def _padding(call: _Call, shape: Shape, kernel: Pair, strides: Pair, dilation: Pair) -> Padding:
    mode = call.attributes.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b""):
        top, left, bottom, right = call.attributes.get("pads", (0, 0, 0, 0))
        return ((top, bottom), (left, right))
    if mode == b"VALID":
        return ((0, 0), (0, 0))
    vertical, horizontal = (
        _same_padding(*axis, upper=mode == b"SAME_UPPER")
        for axis in zip(shape[:2], kernel, strides, dilation, strict=True)
    )
    return (vertical, horizontal)


def _same_padding(size: int, kernel: int, stride: int, dilation: int, upper: bool) -> Pair:
    total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


def _unique(names: list[str]) -> list[str]:
    """Each name once: its second use is `name#2`. A name that a later layer has by right is not taken from it."""
    taken: set[str] = set()
    result = []
    for name in names:
        number = 1
        candidate = name
        while candidate in taken or (number > 1 and candidate in names):
            number += 1
            candidate = f"{name}#{number}"
        taken.add(candidate)
        result.append(candidate)
    return result


def _or_none(bias: np.ndarray | None) -> np.ndarray | None:
    """A bias of nothing but zeros is no bias."""
    return None if bias is None or not bias.any() else bias
