"""Evaluation of the nodes that depend on weights alone: kernel transposes, batch-norm arithmetic, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnx.reference import ReferenceEvaluator

from ..ir import Shape
from ..ir.functions import CALLS
from .affine import LARGEST
from .precision import HALVES
from .support import Unsupported, operator_refusal

SMALL = 1000  # constants up to this size are shown to shape inference, as they may be shapes
_LOOPS = {"Loop", "Scan"}
_CODE = {"SequenceMap"}  # which holds a graph
_FURTHER: Mapping[str, Callable[..., Any]] = {  # operators of TensorFlow's that ONNX does not have
    "Erfc": lambda x: 1 - CALLS["erf"](x),
    "Expm1": np.expm1,
    "Log1p": np.log1p,
    "MulNoNan": lambda x, y: np.where(y == 0, 0, x * y),
    "Xdivy": lambda x, y: np.where(x == 0, 0, x / np.where(x == 0, 1, y)),
    "Xlog1py": lambda x, y: np.where(x == 0, 0, x * np.log1p(np.where(x == 0, 1, y))),
    "Xlogy": lambda x, y: np.where(x == 0, 0, x * np.log(np.where(x == 0, 1, y))),
}
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def evaluate(node: onnx.NodeProto, inputs: Sequence[np.ndarray | None], opset: int) -> list[np.ndarray]:
    """The outputs of a node whose inputs are all known; raises Unsupported where that is not possible.

    Bounded: no control flow, and sizes are inferred before anything is computed.
    """
    if node.op_type in {*_LOOPS, "If"}:
        raise Unsupported(operator_refusal(node.op_type))
    if node.op_type in _FURTHER:
        return [np.asarray(_FURTHER[node.op_type](*map(np.asarray, inputs)), np.asarray(inputs[0]).dtype)]
    if node.domain not in ("", "ai.onnx") or node.op_type in _CODE | _RANDOM:
        raise Unsupported(f"{node.op_type} on constants cannot be evaluated")
    if node.op_type == "Cast" and node.attribute[0].i in HALVES:  # networks keep the precision that weights came in
        return [np.asarray(inputs[0], np.float32)]
    arrays = {name: array for name, array in zip(node.input, inputs, strict=True) if array is not None}
    model = _model(node, arrays, opset)
    _check_sizes(node, model, arrays)
    if node.op_type == "ConstantOfShape":
        return [_filled(node, np.asarray(inputs[0]))]
    try:
        return [np.asarray(output) for output in _run(model, arrays)]
    except Exception as error:  # whatever numpy says about operands that do not fit
        raise Unsupported(f"{node.op_type} on constants cannot be evaluated: {error}") from None


def _filled(node: onnx.NodeProto, shape: np.ndarray) -> np.ndarray:
    """One number everywhere, in no memory."""
    value = next(
        (onnx.numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), np.zeros(1, np.float32)
    )
    return np.broadcast_to(value.reshape(-1)[:1], shape.reshape(-1).tolist())


def inferred(node: onnx.NodeProto, known: Mapping[str, tuple[int, ...] | np.ndarray], opset: int) -> list[Shape | None]:
    """The shapes that ONNX itself says a node's outputs have, given constants and the shapes of activations."""
    make = onnx.helper.make_tensor_value_info
    arrays = {name: given for name, given in known.items() if isinstance(given, np.ndarray)}
    inputs = [make(name, onnx.TensorProto.FLOAT, given) for name, given in known.items() if isinstance(given, tuple)]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    held = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if array.size <= SMALL]
    inputs += [make(name, _type(array), array.shape) for name, array in arrays.items() if array.size > SMALL]
    graph = onnx.helper.make_graph([node], "refused", inputs, outputs, held)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        found = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output
    except Exception:  # of operators that no schema is known of, or operands that do not fit
        return [None] * len(outputs)
    return [_dims(output) for output in found]


def _dims(tensor: onnx.ValueInfoProto) -> Shape | None:
    """The shape of a tensor, where it is known."""
    if not tensor.type.tensor_type.HasField("shape"):
        return None
    dims = tuple(dim.dim_value for dim in tensor.type.tensor_type.shape.dim)
    return dims if all(dims) else None


def _type(array: np.ndarray) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype)


def _run(model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> Any:
    """By onnx's own evaluator; where it lacks an old version of an operator, by the newest that says the same."""
    try:
        return ReferenceEvaluator(model).run(None, arrays)
    except RuntimeError:  # no implementation of this version
        newest = onnx.version_converter.convert_version(model, onnx.defs.onnx_opset_version())
        return ReferenceEvaluator(newest).run(None, arrays)


def _model(node: onnx.NodeProto, arrays: dict[str, np.ndarray], opset: int) -> onnx.ModelProto:
    make = onnx.helper.make_tensor_value_info
    inputs = [make(name, _type(array), array.shape) for name, array in arrays.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "constant", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


def _check_sizes(node: onnx.NodeProto, model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> None:
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    shown = [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items() if a.size <= SMALL]
    seen.graph.initializer.extend(shown)
    try:
        inferred = onnx.shape_inference.infer_shapes(seen, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise Unsupported(f"{node.op_type} on constants is not valid: {error}") from None
    held = (math.prod(n for n, step in zip(a.shape, a.strides, strict=True) if step) for a in arrays.values())
    largest = max([LARGEST, *held])  # weights may be larger than activations
    largest = 2 * LARGEST if node.op_type == "ConstantOfShape" else largest
    for output in inferred.graph.output:
        if math.prod(dim.dim_value for dim in output.type.tensor_type.shape.dim) > largest:
            raise Unsupported(f"{node.op_type} on constants would give more than {largest} numbers")
