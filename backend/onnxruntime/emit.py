"""Linear operators and analog neurons as ONNX nodes.

Inside the graphs images are channels-first, `(batch, C, H, W)`, which is what onnxruntime's convolutions
want, and flat populations keep the IR's order, `(batch, N)`. Everything that holds one number per position
is permuted here, once. How numbers lie outside of the graphs is for `layout.py` to say.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ...ir import (
    FUNCTIONS,
    AnalogNeuron,
    AveragePool2D,
    BackendError,
    Clip,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    Function,
    Identity,
    LeakyRelu,
    LogSoftmax,
    MatMul,
    MaxPool2D,
    MaxPoolRelu2D,
    Operator,
    Pad,
    Padding,
    Pick,
    Product,
    QuantizedRelu,
    Relu,
    Resample,
    Scale,
    Shape,
    Sigmoid,
    Softmax,
)

OPSET = 17
IR_VERSION = 9
_LARGE = 1024  # numbers; a model with more in itself would be copied several times, and could not pass two gigabytes


class GraphBuilder:
    """An ONNX graph under construction; values are referred to by name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._arrays: list[onnx.TensorProto] = []
        self._large: dict[str, np.ndarray] = {}
        self._count = 0

    def input(self, name: str, shape: Shape) -> str:
        """Declare an input of shape (batch, *shape)."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
        return name

    def output(self, value: str, name: str, shape: Shape) -> None:
        """Declare `value`, of shape (batch, *shape), as the output `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))

    def node(self, operator: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = self._fresh()
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def array(self, values: np.ndarray) -> str:
        """Add a constant."""
        name = self._fresh()
        values = np.ascontiguousarray(values)
        if values.dtype == np.float32 and values.size >= _LARGE:
            self._large[name] = values
            self._arrays.append(_elsewhere(name, values.shape))
        else:
            self._arrays.append(numpy_helper.from_array(values, name))
        return name

    def total(self, values: Sequence[str], shape: Shape) -> str:
        """The sum of values of shape (batch, *shape); zeros for any batch if there are none."""
        if not values:
            return self.array(np.zeros((1, *shape), np.float32))
        return values[0] if len(values) == 1 else self.node("Sum", values)

    def session(self, threads: int = 0) -> onnxruntime.InferenceSession:
        """The graph, loaded into onnxruntime on the CPU; 0 threads are all that there are. Raises BackendError."""
        graph = helper.make_graph(self._nodes, "snnc", self._inputs, self._outputs, self._arrays)
        versions = {"": OPSET} | {node.domain: 1 for node in self._nodes if node.domain}
        opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads must not starve numba
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._large.values()]
        options.add_external_initializers(list(self._large), values)
        try:
            content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
            return onnxruntime.InferenceSession(content, options, providers, disabled_optimizers=_BROKEN)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise BackendError(f"onnxruntime cannot run this network: {error}") from None

    def _fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"


# It makes y / x of y · (1 / x), and loses y where that is an output as well (onnxruntime 1.32).
_BROKEN = ["DivMulFusion"]


def run_into(session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray], result: np.ndarray) -> None:
    """Run a session with one output, which it writes into an array: a new one would be copied."""
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    (output,) = session.get_outputs()
    binding.bind_output(output.name, "cpu", 0, np.float32, result.shape, result.ctypes.data)
    session.run_with_iobinding(binding)


def _elsewhere(name: str, shape: Shape) -> onnx.TensorProto:
    """A constant whose numbers are not in the model: onnxruntime copies them once, from the array itself."""
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=name)
    return tensor


def internal_shape(shape: Shape) -> Shape:
    """The shape of one example of a population inside the graphs."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape


def emit_operators(graph: GraphBuilder, value: str, operators: Sequence[Operator], shape: Shape) -> str:
    """Apply `operators` in order to `value`, whose shape in the IR is `shape`."""
    for operator in operators:
        value = _emit_operator(graph, value, operator, shape)
        shape = operator.output_shape(shape)
    return value


def emit_bias(graph: GraphBuilder, value: str, bias: np.ndarray | None, shape: Shape) -> str:
    """Add a population's bias to its summed input of `shape`."""
    return value if bias is None else graph.node("Add", [value, graph.array(_broadcastable(bias, shape))])


def emit_neuron(graph: GraphBuilder, values: Sequence[str], neuron: AnalogNeuron, shape: Shape) -> str:
    """Apply an analog neuron to its summed inputs, one for each port; that at port 0 has `shape`."""
    value = values[0]
    match neuron:
        case Relu():
            return graph.node("Relu", [value])
        case Clip(maximum):
            limits = [graph.array(np.array(limit, np.float32)) for limit in (0.0, maximum)]
            return graph.node("Clip", [value, *limits])
        case QuantizedRelu():
            return _emit_quantized(graph, value, neuron)
        case Function(name, parameter):
            return emit_function(graph, value, name, parameter)
        case Product(name, parameter):
            return graph.node("Mul", [value, emit_function(graph, values[1], name, parameter)])
        case MatMul():
            matrices = [graph.node("Transpose", [each], perm=(0, 2, 3, 1)) for each in values]
            return graph.node("Transpose", [graph.node("MatMul", matrices)], perm=(0, 3, 1, 2))
        case LeakyRelu(slope):
            slopes = np.atleast_1d(np.asarray(slope, np.float32))
            return graph.node("PRelu", [value, graph.array(_broadcastable(slopes, shape))])
        case MaxPoolRelu2D():
            return graph.node("Relu", [emit_max_pool(graph, value, neuron)])
        case MaxPool2D():
            return emit_max_pool(graph, value, neuron)
        case LogSoftmax():
            return graph.node("LogSoftmax", [value], axis=1)
        case Sigmoid():
            return graph.node("Sigmoid", [value])
        case Softmax():
            return graph.node("Softmax", [value], axis=1)
        case Identity():
            return value
    raise BackendError(f"the onnxruntime backend does not know the neuron {type(neuron).__name__}")


def emit_function(graph: GraphBuilder, value: str, name: str, parameter: float) -> str:
    """Apply a function to a value: the tree of its expression as ONNX operators."""

    def emit(node: ast.expr) -> str:
        match node:
            case ast.Name(id="x"):
                return value
            case ast.Name(id="p"):
                return graph.array(np.array(parameter, np.float32))
            case ast.Constant(value=number):
                return graph.array(np.array(number, np.float32))
            case ast.UnaryOp(operand=operand):
                return graph.node("Neg", [emit(operand)])
            case ast.Compare(left=left, comparators=[right]):
                return graph.node("Greater", [emit(left), emit(right)])
            case ast.Call(func=ast.Name(id=call), args=arguments):
                return graph.node(call.capitalize(), [emit(argument) for argument in arguments])
            case ast.BinOp(left=left, op=operator, right=right):
                return graph.node(_ARITHMETIC[type(operator)], [emit(left), emit(right)])
        raise BackendError(f"the onnxruntime backend does not know {ast.unparse(node)!r}, a part of {name}")

    return emit(FUNCTIONS[name].tree)


_ARITHMETIC = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.Pow: "Pow"}


def _emit_quantized(graph: GraphBuilder, value: str, neuron: QuantizedRelu) -> str:
    quantum, half, one = (graph.array(np.array(number, np.float32)) for number in (neuron.max / neuron.levels, 0.5, 1))
    steps = graph.node("Div", [value, quantum])
    if neuron.ties == "up":
        rounded = graph.node("Floor", [graph.node("Add", [steps, half])])
    elif neuron.ties == "even":
        rounded = graph.node("Round", [steps])
    else:
        rounded = graph.node("Sub", [graph.node("Round", [graph.node("Add", [steps, one])]), one])
    limits = [graph.array(np.array(limit, np.float32)) for limit in (0, neuron.levels)]
    return graph.node("Mul", [graph.node("Clip", [rounded, *limits]), quantum])


def emit_max_pool(graph: GraphBuilder, value: str, pool: MaxPool2D) -> str:
    """The largest of each window, whatever else the neuron does."""
    return emit_windows(graph, "MaxPool", value, pool)


def emit_windows(
    graph: GraphBuilder, operator: str, value: str, pool: MaxPool2D | AveragePool2D, domain: str = ""
) -> str:
    """An operator on the windows of `pool`, of ONNX or of another domain."""
    windows: dict[str, Any] = {"kernel_shape": pool.pool_size, "strides": pool.strides, "pads": pads(pool.padding)}
    return graph.node(operator, [value], domain, **windows)


def _emit_operator(graph: GraphBuilder, value: str, operator: Operator, shape: Shape) -> str:
    match operator:
        case Conv2D(weight, strides, padding, dilation, groups):
            kernel = graph.array(weight.transpose(3, 2, 0, 1))
            attributes: dict[str, Any] = {"strides": strides, "dilations": dilation, "group": groups}
            return graph.node("Conv", [value, kernel], pads=pads(padding), **attributes)
        case ConvTranspose2D(weight, strides, cropping, dilation, groups):
            height, width, depth, filters = weight.shape
            grouped = weight.reshape(height, width, depth, groups, filters // groups).transpose(3, 2, 4, 0, 1)
            inputs = [value, graph.array(grouped.reshape(shape[2], filters // groups, height, width))]
            attributes = {"strides": strides, "dilations": dilation, "group": groups}
            return graph.node("ConvTranspose", inputs, pads=pads(cropping), **attributes)
        case Dense(weight):
            rows = graph.array(weight[_internal_positions(shape)] if len(shape) == 3 else weight)
            return graph.node("MatMul", [graph.node("Flatten", [value]), rows])
        case AveragePool2D():
            return emit_windows(graph, "AveragePool", value, operator)
        case Scale(factor):
            return graph.node("Mul", [value, graph.array(_broadcastable(factor, shape))])
        case Pad(amounts):
            pairs = np.array([(0, 0), *internal_shape(amounts)], np.int64)  # type: ignore[arg-type]
            return graph.node("Pad", [value, graph.array(pairs.T.reshape(-1))])
        case Pick(indices) if _repeats(indices, shape):
            target = graph.array(np.array([1, *internal_shape(indices.shape)], np.int64))
            return graph.node("Expand", [value, target])
        case Pick(indices):
            inside = indices if indices.ndim == 1 else np.moveaxis(indices, -1, 0)
            places = np.argsort(_internal_positions(shape))[inside]
            return graph.node("Gather", [graph.node("Flatten", [value]), graph.array(places)], axis=1)
        case Resample(axis, indices, weight):
            return _emit_resample(graph, value, 2 + axis, indices, weight)
        case Flatten():
            last = graph.node("Transpose", [value], perm=(0, 2, 3, 1)) if len(shape) == 3 else value
            return graph.node("Flatten", [last])
    raise BackendError(f"the onnxruntime backend does not know the operator {type(operator).__name__}")


def _emit_resample(graph: GraphBuilder, value: str, axis: int, indices: np.ndarray, weight: np.ndarray) -> str:
    """All taps side by side on an axis behind that of the positions, weighted and summed."""
    if len(indices) == 1 and (weight == 1).all():
        return graph.node("Gather", [value, graph.array(indices[0])], axis=axis)
    taken = graph.node("Gather", [value, graph.array(indices.T)], axis=axis)
    weighted = graph.node("Mul", [taken, graph.array(weight.T.reshape(*weight.T.shape, *(1,) * (3 - axis)))])
    return graph.node("ReduceSum", [weighted, graph.array(np.array([axis + 1]))], keepdims=0)


def _repeats(indices: np.ndarray, shape: Shape) -> bool:
    """Whether numbers are picked as numpy broadcasts them from `shape`, which takes no table of places."""
    if indices.ndim != len(shape) or any(
        size not in (1, wide) for size, wide in zip(shape, indices.shape, strict=True)
    ):
        return False
    own = np.arange(math.prod(shape)).reshape(shape)
    return bool((indices == np.broadcast_to(own, indices.shape)).all())


def _internal_positions(shape: Shape) -> np.ndarray:
    """For each neuron in internal order, its index in the IR's order."""
    return np.moveaxis(np.arange(math.prod(shape)).reshape(shape), -1, 0).reshape(-1)


def _broadcastable(values: np.ndarray, shape: Shape) -> np.ndarray:
    if len(shape) == 1:
        return values
    return values.reshape(-1, 1, 1) if values.ndim == 1 else np.moveaxis(values, -1, 0)


def pads(padding: Padding) -> list[int]:
    """Padding as ONNX has it."""
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]
