"""What each ONNX operator does to values: one small function per operator, and the table that finds it.

Windows and bends have modules of their own; here are arithmetic, matrices, and the views that move nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import onnx

from ..ir import Conv2D, Dense, Function, Pad, Product, Scale
from . import (
    activations,
    functions,
    images,
    masks,
    matrices,
    normalisation,
    points,
    recurrent,
    reductions,
    resampling,
    rounding,
    whole,
)
from .affine import Source, Term, Value, concatenated, per_channel
from .bounds import multiple
from .call import Call, Mask, Masked, Patched, Point, Quantized, Ranking, Regrouped, Result, Whole
from .regrouping import (
    MOVING,
    TO_THE_END,
    along,
    beside,
    gathered,
    in_a_row,
    is_too_deep,
    reduced,
    regrouped,
    scattered,
)
from .support import JUMP, AcrossImages, Unsupported, operator_refusal

_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
_TO_INTEGERS = "it turns activations into integers, or into numbers of fewer than 16 bits"


def apply(call: Call) -> Result:
    """What a node gives; raises Unsupported, or a ShapeError where operators do not fit together."""
    for argument in call.inputs:
        if isinstance(argument, Ranking):
            return _renamed(argument, call)
        if isinstance(argument, Quantized) and call.node.op_type != "DequantizeLinear":
            raise Unsupported("it computes with integers; keep each QuantizeLinear right before a DequantizeLinear")
        if isinstance(argument, (Mask, Point)) and call.node.op_type not in _CHOOSING:
            raise Unsupported(JUMP, argument.layer)
        if isinstance(argument, Masked):
            return masks.joined(argument, call)
        if isinstance(argument, Patched) and not any(isinstance(each, (Mask, Point)) for each in call.inputs):
            if call.node.op_type not in _ELEMENTWISE | _CASTS | {"Identity"}:
                raise Unsupported(JUMP, argument.point.layer)
            return points.within(call, apply)
    if any(isinstance(argument, Whole) for argument in call.inputs):
        return whole.computed(call, apply)
    if any(isinstance(argument, Regrouped) for argument in call.inputs):
        if call.node.op_type in MOVING:
            return regrouped(call)
        if call.node.op_type in _SCATTERING:
            return scattered(call)
        if is_too_deep(call):
            if call.node.op_type in _ELEMENTWISE:
                return beside(call, apply)
            if call.node.op_type in _ALONG_AN_AXIS:
                return along(call, apply)
            if call.node.op_type == "Concat":
                return in_a_row(call, call.attributes["axis"])
        if call.node.op_type in _REDUCING:
            return reduced(call, apply)
        takes_tables = {*_CASTS, *_RECURRENT, *(_OF_MATRICES if is_too_deep(call) else ())}
        if call.node.op_type not in takes_tables:
            call = gathered(call)
    known = {"": _HANDLERS, "ai.onnx": _HANDLERS, "ai.onnx.ml": _LEARNED}.get(call.node.domain, {})
    if call.node.op_type not in known:
        raise Unsupported(operator_refusal(call.node.op_type))
    try:
        return known[call.node.op_type](call)
    except AcrossImages:
        raise
    except Unsupported as error:
        if call.node.op_type in MOVING and isinstance(call.inputs[0], Value):
            try:
                return regrouped(call)
            except AcrossImages:
                raise
            except Unsupported:
                raise error from None
        raise


def _renamed(ranking: Ranking, call: Call) -> Ranking:
    if call.node.op_type not in RENAMING:
        raise Unsupported("it computes with what ArgMax found; end the model there")
    return ranking


# Elementwise arithmetic.


def _add(call: Call) -> Result:
    total = _sum(call)
    return functions.total(total, call) or total


def _sum(call: Call) -> Value:
    values = [call.value(i) for i, argument in enumerate(call.inputs) if isinstance(argument, Value)]
    total = values[0]
    for value in values[1:]:
        total = _factored(total, value, call) or total.plus(value, call.layers)
    for index, argument in enumerate(call.inputs):
        if not isinstance(argument, Value):
            total = total.shifted(call.weight(index), call.layers)
    return total


def _factored(x: Value, y: Value, call: Call) -> Value | None:
    """`a · c + b · c` as `(a + b) · c`, which few bits say better where a and b nearly cancel, as in normalisation."""
    match x.terms, y.terms:
        case (
            [Term(Source(Product() as neuron, summed=Value() as a, second=Value() as c))],
            [Term(Source(Product() as other, summed=Value() as b, second=Value() as d))],
        ) if neuron == other and (x.shape, x.layout) == (y.shape, y.layout) and multiple(c, d) == 1:
            first, second = (_factor(value.terms[0]) for value in (x, y))
            share = None if first is None or second is None else _share(first, second)
            if first is None or share is None:
                return None
            total = a.plus(b.scaled(np.array(share), ()), call.layers)
            product = call.sent(Source(neuron, x.shape, total, call.layer, c), x.layout)
            biases = [value.bias for value in (x, y) if value.bias is not None]
            scaled = product.then(Scale(per_channel(first)), layers=call.layers)
            return replace(scaled, bias=sum(biases[1:], biases[0])) if biases else scaled
    return None


def _factor(term: Term) -> np.ndarray | None:
    """What a term multiplies each number of its source by, (*shape), if that is all that it does."""
    return term.gain if all(isinstance(operator, Scale) for operator in term.operators) else None


def _share(first: np.ndarray, second: np.ndarray) -> float | None:
    """The number that one array is of another, if it is one."""
    place = np.abs(first).argmax()
    share = float(second.flat[place] / first.flat[place]) if first.flat[place] else np.nan
    return share if np.allclose(second, share * first, rtol=1e-6) else None


def _subtract(call: Call) -> Result:
    first, second = call.inputs
    if isinstance(second, Value):
        return _add(replace(call, inputs=(first, second.scaled(np.array(-1.0), call.layers))))
    return call.value().shifted(np.negative(call.weight(1)), call.layers)


def _negate(call: Call) -> Value:
    return call.value().scaled(np.array(-1.0), call.layers)


def _mean(call: Call) -> Value:
    return _sum(call).scaled(np.array(1 / len(call.inputs)), call.layers)


def _multiply(call: Call) -> Result:
    first, second = call.inputs
    match call.inputs:
        case (Value() | np.ndarray() as x, Mask() as mask) | (Mask() as mask, Value() | np.ndarray() as x):
            return masks.times(x, mask, call)
        case (x, Point() as point) | (Point() as point, x):
            return points.where(point, x, np.zeros(1, np.float32), call)
        case (Mask(layer=layer) | Point(layer=layer), _) | (_, Mask(layer=layer) | Point(layer=layer)):
            raise Unsupported(JUMP, layer)
    if isinstance(first, Value) and isinstance(second, Value):
        return functions.product(first, second, call) or call.product(first, second)
    if isinstance(first, Value):
        return first.scaled(call.weight(1), call.layers)
    return call.value(1).scaled(call.weight(0), call.layers)


def _divide(call: Call) -> Result:
    first, second = call.inputs
    if isinstance(second, Value):
        return functions.quotient(first if isinstance(first, Value) else call.weight(0), second, call)
    return call.value().scaled(1 / call.weight(1).astype(np.float64), call.layers)


def _batch_normalization(call: Call) -> Value:
    x = call.value()
    if call.attributes.get("training_mode", 0) or any(call.node.output[1:]):  # as older opsets say it
        raise Unsupported("it normalises by statistics of each batch; export the model in inference mode")
    scale, offset, mean, variance = (call.weight(i).astype(np.float64) for i in (1, 2, 3, 4))
    factor = scale / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    along = (-1, *(1,) * (len(x.layout) - 2))  # the ONNX channel axis is the second
    scaled = x.scaled(factor.reshape(along), call.layers)
    return scaled.shifted((offset - mean * factor).reshape(along), call.layers)


def _scaler(call: Call) -> Value:
    offset, scale = (np.array(call.attributes[name]) for name in ("offset", "scale"))
    return call.value().shifted(-offset, call.layers).scaled(scale, call.layers)


def _reduce_log_sum(call: Call) -> Value:
    return call.population(Function("log"), reductions.reduce_sum(call), "log")


# Matrices.


def _matmul(call: Call) -> Result:
    match call.inputs:
        case (Value() | Regrouped() as x, Value() | Regrouped() as y):
            return matrices.matmul(x, y, call)
        case (np.ndarray() as weight, Value() | Regrouped() as x):
            return matrices.stacked(x, weight, call, weight_first=True)
        case (Regrouped() as x, np.ndarray() as weight):
            return matrices.stacked(x, weight, call)
    return _times(call.value(), call.weight(1), call)


def _times(x: Value, weight: np.ndarray, call: Call) -> Value | Regrouped:
    """`x @ weight`: a dense layer, a convolution for each pixel, or whatever says it."""
    layers = call.layers
    if weight.ndim > 2 and weight.size == np.prod(weight.shape[-2:]) and weight.ndim <= len(x.dims):
        weight = weight.reshape(weight.shape[-2:])
    if weight.ndim != 2 or len(x.dims) < 2:
        return matrices.stacked(x, weight, call)
    if x.dims[-1] != len(weight):
        raise Unsupported(f"it multiplies a tensor of shape {x.dims} by a constant of shape {weight.shape}")
    if x.is_vector or (not x.is_image and np.prod(x.dims[:-1]) == 1):
        return x.flat().then(Dense(weight), layers=layers)
    if x.is_image and x.dims[-1] == x.shape[2] and 2 in x.layout[-1]:  # a matrix for each pixel
        return x.then(Conv2D(weight[None, None]), layers=layers)
    with suppress(Unsupported):
        placed = x.replaced()
        taps = np.count_nonzero(weight, axis=0).max()
        if x.is_image and 2 * taps <= len(weight) and x.axis(len(x.dims) - 1) < 2:  # most positions do not count
            indices = np.argsort(weight == 0, axis=0, kind="stable")[: max(taps, 1)]
            return x.resampled(len(x.dims) - 1, indices, np.take_along_axis(weight, indices, 0), layers)
        if placed.is_image and 2 in placed.layout[-1]:
            return placed.then(Conv2D(weight[None, None]), layers=layers)
    return matrices.stacked(x, weight, call)


def _gemm(call: Call) -> Value:
    first, second = (_turned(call, index, name) for index, name in enumerate(("transA", "transB")))
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):  # which add to activations
        alpha, beta = (np.array(call.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
        return call.value(2).scaled(beta, call.layers).shifted(alpha * (first @ second), call.layers)
    product = _matmul(replace(call, inputs=(first, second)))
    if isinstance(product, Regrouped):
        product = product.value.placed(product.positions, call.layers)
    assert isinstance(product, Value)
    alpha, beta = (np.array(call.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    if alpha != 1:
        product = product.scaled(alpha, call.layers)
    match call.inputs[2:]:
        case (Value() as other,):
            return product.plus(other.scaled(beta, call.layers), call.layers)
        case (np.ndarray() as offset,):
            return product.shifted(offset * beta, call.layers)
    return product


def _turned(call: Call, index: int, name: str) -> Value | np.ndarray:
    """An operand, transposed if an attribute says so."""
    matrix = call.inputs[index]
    assert isinstance(matrix, (Value, np.ndarray))
    if not call.attributes.get(name, 0):
        return matrix
    return matrix.transposed((1, 0)) if isinstance(matrix, Value) else matrix.T


def _pad(call: Call) -> Value:
    x = call.value()
    mode = call.text("mode", "constant")
    axes = call.axes(3, len(x.layout)) or tuple(range(len(x.layout)))
    amounts = np.asarray(call.option(1, "pads")).reshape(2, len(axes))
    fill = call.option(2, "value")
    for position, (before, after) in zip(axes, np.minimum(amounts, 0).T.tolist(), strict=True):  # negative ones crop
        if not before and not after:
            continue
        x = x.selected(position, np.arange(x.dims[position])[-before : x.dims[position] + after], call.layers)
    if mode != "constant":
        for position, (before, after) in zip(axes, np.maximum(amounts, 0).T.tolist(), strict=True):
            if before or after:
                x = resampling.beyond_ends(x, position, before, after, mode, call.layers)
        return x
    x = x.settled()
    around = [(0, 0)] * len(x.shape)
    for position, (before, after) in zip(axes, np.maximum(amounts, 0).T.tolist(), strict=True):
        if before or after:
            around[x.axis(position)] = (before, after)
    padded = x.then(Pad(tuple(around)), layers=call.layers)
    number = float(np.asarray(0 if fill is None else fill).reshape(-1)[0])
    if not np.isfinite(number):
        raise Unsupported(f"padding with {number} is not supported; pad with a number that activations can reach")
    if not number:
        return padded
    border = np.pad(np.zeros(x.shape), around, constant_values=number)
    return replace(padded, bias=border if padded.bias is None else padded.bias + border)


def _triangle(call: Call) -> Value:
    """What lies below or above a diagonal of each matrix, the last two axes; the rest is 0."""
    x, offset = call.value(), call.constant(1)
    if len(x.dims) < 2:
        raise Unsupported(f"a tensor of shape {x.dims} has no matrices")
    upper = call.attributes.get("upper", 1)
    kept: np.ndarray = np.tri(x.dims[-2], x.dims[-1], int(0 if offset is None else offset) - upper)
    return x.scaled(1 - kept if upper else kept, call.layers)


def _concat(call: Call) -> Value | Regrouped:
    """Constants among the operands are parts of the bias; empty ones are none."""
    kept = tuple(each for each in call.inputs if not isinstance(each, np.ndarray) or each.size)
    call = replace(call, inputs=kept)
    tensors = [argument for argument in call.inputs if isinstance(argument, Value)]
    axis = call.attributes["axis"] % len(tensors[0].dims)
    alike = len({(tensor.shape, tensor.layout) for tensor in tensors}) == 1 and tensors[0].layout[axis]
    if axis and not alike and all(tensor.dims[axis] == 1 for tensor in tensors):  # a stack: the axis is its own
        return in_a_row(call, axis)
    like = tensors[0]
    if sum(like.shape[each] > 1 for each in like.layout[axis]) > 1:  # as height and width are tokens
        inputs = tuple(each.replaced() if isinstance(each, Value) else each for each in call.inputs)
        return _concat(replace(call, inputs=inputs))
    values = [
        call.value(index) if isinstance(argument, Value) else like.constant(call.weight(index), axis)
        for index, argument in enumerate(call.inputs)
    ]
    return concatenated(values, axis, call.layers)


def _slice(call: Call) -> Value:
    x = call.value()
    starts, ends = (call.weight(index) for index in (1, 2)) if call.opset >= 10 else _attributes(call, "starts", "ends")
    axes = call.axes(3, len(x.dims)) or tuple(range(len(starts)))
    steps = call.constant(4)
    steps = np.ones_like(starts) if steps is None else steps
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps.tolist(), strict=True):
        if (start, step) == (0, 1) and end >= TO_THE_END:
            continue
        x = x.selected(axis, np.arange(x.dims[axis])[start:end:step], call.layers)
    return x


def _attributes(call: Call, *names: str) -> list[np.ndarray]:
    return [np.asarray(call.attributes[name]) for name in names]


def _split(call: Call) -> tuple[Value, ...]:
    x = call.value()
    axis = call.attributes.get("axis", 0) % len(x.dims)
    sizes, parts = call.option(1, "split"), len(call.node.output)
    if sizes is None:
        each = -(-x.dims[axis] // parts)  # the last part may be smaller
        sizes = np.diff([*range(0, x.dims[axis], each), x.dims[axis]])
    ends = np.cumsum(sizes).tolist()
    indices = np.arange(x.dims[axis])
    return tuple(
        x.selected(axis, indices[end - size : end], call.layers) for end, size in zip(ends, sizes.tolist(), strict=True)
    )


def _gather(call: Call) -> Value:
    x, indices = call.value(), call.weight(1)
    axis = call.attributes.get("axis", 0) % len(x.dims)
    if indices.ndim > 1:
        raise Unsupported(f"it gathers by a table of shape {indices.shape}; only lists of positions are supported")
    size = x.dims[axis]
    if not ((-size <= indices) & (indices < size)).all():
        if axis == 0 and not x.layout[0]:  # a batch of several
            raise AcrossImages("it takes some images of a batch and not others")
        raise Unsupported(f"it takes positions of an axis of {size} that do not exist")
    taken = x.selected(axis, indices.reshape(-1) % size, call.layers)
    return taken if indices.ndim else taken.viewed(taken.dims[:axis] + taken.dims[axis + 1 :], ())


# Views: nothing moves.


def _same(call: Call) -> Result:
    return call.inputs[0] if isinstance(call.inputs[0], (Mask, Point)) else call.value()


def _dropout(call: Call) -> Value:
    training = call.constant(2) if len(call.inputs) > 2 else None
    if training is not None and training.any():
        raise Unsupported("it drops activations at random; export the model in inference mode")
    return call.value()


def _expand(call: Call) -> Value:
    x = call.value()
    if np.broadcast_shapes(x.dims, tuple(call.weight(1).tolist())) != x.dims:
        raise Unsupported(f"it repeats a tensor of shape {x.dims}")  # which is for `regrouped`
    return x


def _cast(call: Call) -> Result:
    if isinstance(call.inputs[0], (Mask, Point)):
        return call.inputs[0]
    if call.attributes["to"] not in _FLOATS:
        numbers = whole.cut(call.inputs[0]) if isinstance(call.inputs[0], Value) else None
        if numbers is None:
            raise Unsupported(_TO_INTEGERS)
        return numbers
    return call.inputs[0] if isinstance(call.inputs[0], Regrouped) else call.value()


def _cast_like(call: Call) -> Result:
    constant, like = call.inputs
    if isinstance(like, np.ndarray) and onnx.helper.np_dtype_to_tensor_dtype(like.dtype) not in _FLOATS:
        raise Unsupported(_TO_INTEGERS)
    if isinstance(constant, (Mask, Point, Regrouped)):
        return constant
    return np.asarray(constant, np.float32) if isinstance(constant, np.ndarray) else call.value()


def _transpose(call: Call) -> Value:
    x = call.value()
    order = call.numbers("perm", tuple(reversed(range(len(x.layout)))))
    if sorted(order) != list(range(len(x.layout))):
        raise Unsupported(f"it orders the axes of {x.dims} as {order}")
    return x.transposed(order)


def _reshape(call: Call) -> Value:
    x = call.value()
    wanted = [int(dim) for dim in np.asarray(call.option(1, "shape")).reshape(-1)]
    if not call.attributes.get("allowzero", 0):
        wanted = [dim or x.dims[position] for position, dim in enumerate(wanted)]  # 0 keeps a dimension
    if wanted.count(-1) == 1:
        known = int(np.prod([dim for dim in wanted if dim != -1]))
        wanted[wanted.index(-1)] = int(np.prod(x.dims)) // max(known, 1)
    return x.viewed(tuple(wanted), call.layers)


def _flatten(call: Call) -> Value:
    x = call.value()
    axis = call.attributes.get("axis", 1)
    axis += len(x.dims) if axis < 0 else 0
    if not axis and not x.layout[0]:
        raise AcrossImages("it makes one vector of all images of a batch")
    return x.viewed((int(np.prod(x.dims[:axis])), int(np.prod(x.dims[axis:]))), call.layers)


def _squeeze(call: Call) -> Value:
    x = call.value()
    axes = call.axes(1, len(x.dims)) or tuple(axis for axis, dim in enumerate(x.dims) if dim == 1)
    return x.viewed(tuple(dim for axis, dim in enumerate(x.dims) if axis not in axes), ())


def _unsqueeze(call: Call) -> Value:
    x = call.value()
    added = np.asarray(call.option(1, "axes")).reshape(-1)
    rank = len(x.dims) + len(added)
    axes = {int(axis) % rank for axis in added}
    rest = iter(x.dims)
    return x.viewed(tuple(1 if axis in axes else next(rest) for axis in range(rank)), ())


# What takes a series step by step.
_RECURRENT = {"GRU", "LSTM", "RNN"}

_HANDLERS: dict[str, Callable[[Call], Result]] = {
    **dict.fromkeys(functions.OPERATORS, functions.named),
    **dict.fromkeys(_RECURRENT, recurrent.unrolled),
    "Abs": activations.absolute,
    "Add": _add,
    "And": masks.both,
    "ArgMax": activations.arg_max,
    "ArgMin": activations.arg_min,
    "AveragePool": images.average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Celu": functions.celu,
    "CastLike": _cast_like,
    "Ceil": rounding.ceil,
    "Clip": activations.clip,
    "Concat": _concat,
    "Compress": regrouped,
    "Conv": images.conv,
    "ConvTranspose": images.conv_transpose,
    "Col2Im": images.col_to_im,
    "CumSum": matrices.cumulated,
    "DequantizeLinear": rounding.dequantize,
    "Div": _divide,
    "DepthToSpace": regrouped,
    "Dropout": _dropout,
    "Einsum": matrices.einsum,
    "Elu": functions.elu,
    "Equal": points.compare,
    "Erfc": functions.erfc,
    "Expand": _expand,
    "Expm1": functions.expm1,
    "Log1p": functions.log1p,
    "Flatten": _flatten,
    "Floor": rounding.floor,
    "Gather": _gather,
    "GatherElements": regrouped,
    "GatherND": regrouped,
    "Gelu": functions.gelu,
    "Gemm": _gemm,
    "GroupNormalization": normalisation.group,
    "GlobalAveragePool": images.global_average_pool,
    "GlobalLpPool": images.global_lp_pool,
    "GlobalMaxPool": images.global_max_pool,
    "Greater": masks.compare,
    "GreaterOrEqual": masks.compare,
    "HardSigmoid": activations.hard_sigmoid,
    "Identity": _same,
    "IsInf": points.infinite,
    "IsNaN": points.undefined,
    "InstanceNormalization": normalisation.instance,
    "LRN": normalisation.local_response,
    "LayerNormalization": normalisation.layer,
    "LeakyRelu": activations.leaky_relu,
    "Less": masks.compare,
    "LessOrEqual": masks.compare,
    "LogSoftmax": activations.log_softmax,
    "LpNormalization": normalisation.lp,
    "LpPool": images.lp_pool,
    "MatMul": _matmul,
    "MulNoNan": _multiply,
    "Max": activations.maximum,
    "MaxPool": images.max_pool,
    "Mean": _mean,
    "Min": activations.minimum,
    "Mul": _multiply,
    "Neg": _negate,
    "Not": masks.negate,
    "Or": masks.either,
    "PRelu": activations.prelu,
    "Pad": _pad,
    "Pow": functions.power,
    "QuantizeLinear": rounding.quantize,
    "RMSNormalization": normalisation.root_mean_square,
    "ReduceL1": normalisation.sum_of_magnitudes,
    "ReduceL2": normalisation.length,
    "ReduceLogSum": _reduce_log_sum,
    "ReduceLogSumExp": normalisation.log_sum_exp,
    "ReduceMax": reductions.reduce_max,
    "ReduceMin": reductions.reduce_min,
    "ReduceProd": reductions.reduce_prod,
    "ReduceMean": reductions.reduce_mean,
    "ReduceSum": reductions.reduce_sum,
    "ReduceSumSquare": normalisation.sum_of_squares,
    "Relu": activations.relu,
    "Reshape": _reshape,
    "Resize": resampling.resize,
    "ReverseSequence": regrouped,
    "Round": rounding.round_half_even,
    "Scatter": scattered,
    "ScatterElements": scattered,
    "ScatterND": scattered,
    "Selu": functions.selu,
    "Shrink": functions.shrink,
    "Slice": _slice,
    "Softmax": activations.softmax,
    "SpaceToDepth": regrouped,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _subtract,
    "Sum": _add,
    "Tile": regrouped,
    "Swish": functions.swish,
    "ThresholdedRelu": activations.thresholded_relu,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
    "Upsample": resampling.resize,
    "Where": masks.where,
    "Xdivy": points.xdivy,
    "Xlog1py": functions.xlog1py,
    "Xlogy": functions.xlogy,
}

OPERATORS = frozenset(_HANDLERS)

# Operators of classical machine learning, as scikit-learn's converter writes them around a network.
_LEARNED: dict[str, Callable[[Call], Result]] = {"Scaler": _scaler, "ZipMap": _same}

# What computes number by number, whatever the axes.
_ELEMENTWISE = {
    "Abs",
    "Add",
    "Celu",
    "Clip",
    "Div",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Max",
    "Mean",
}
_ELEMENTWISE |= {"Min", "Mul", "Neg", "Pow", "Relu", "Selu", "Shrink", "Sign", "Sub", "Sum", "Swish", "Where"}
_ELEMENTWISE |= {*functions.OPERATORS}

# What computes along one axis, or the last ones, each of the others by itself.
_ALONG_AN_AXIS = {"LayerNormalization", "LogSoftmax", "LpNormalization", "RMSNormalization", "Softmax"}

# What computes one number of those along some axes.
_REDUCING = {*("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin")}
_REDUCING |= {*("ReduceProd", "ReduceSum", "ReduceSumSquare")}

_CASTS = {"Cast", "CastLike"}

# What multiplies matrices, wherever their numbers are.
_OF_MATRICES = {"Einsum", "MatMul"}

_SCATTERING = {"Scatter", "ScatterElements", "ScatterND"}

# What may follow a comparison.
_CHOOSING = {"And", "Cast", "CastLike", "Identity", "If", "Mul", "Not", "Or", "Where"}

# What may follow ArgMax: the class is looked up or cast, and stays the class of the largest score.
RENAMING = {"ArrayFeatureExtractor", "Cast", "Flatten", "Gather", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
