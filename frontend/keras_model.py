"""From a Keras model to an ONNX graph: traced by TensorFlow, translated by tf2onnx, weights bound afterwards.

Every variable is an input of the trace, so no weight is copied into the graph. Every call of a layer runs
in a name scope of its own, and what it returns passes through an Identity: the scope says which layer
each ONNX node comes from, and the Identity keeps tf2onnx from merging operators of different layers.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir import ModelFileError, Shape, UnsupportedModelError
from . import reading
from .affine import CHANNELS_LAST, FLAT
from .graph import Graph, GraphInput
from .reading import Arrays, Reading
from .support import Layer, first_line, kind, refusal

_OPSET = 18
_ROOM = "networks take images (H, W, C) and vectors (N,)"


def packages() -> tuple[Any, Any, Any]:
    """The packages keras, tensorflow and tf2onnx.tfonnx; raises ModelFileError where one is missing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _no_greetings():
            import keras
            import tensorflow
            from tf2onnx import tfonnx
    except ImportError as error:
        missing = error.name or str(error)
        raise ModelFileError(f"reading Keras models needs {missing}: pip install 'snnc[keras]'") from None
    if keras.backend.backend() != "tensorflow":
        used = keras.backend.backend()
        raise ModelFileError(f"reading Keras models needs KERAS_BACKEND=tensorflow, but Keras runs on {used!r}")
    return keras, tensorflow, tfonnx


def read(model: Any, title: str | None = None) -> Reading:
    """The analog network of a Keras model, which is left as it was; `title` is what errors call it.

    Raises UnsupportedModelError with every layer that has no spiking counterpart.
    """
    packages()
    title = title or f"model {model.name!r}"
    inputs = _inputs(model, title)
    trace = _trace(model, inputs, title)
    run = functools.partial(_computed, model, trace.outputs, list(trace.calls.ends))
    whole = {given.name for given, dtype in zip(inputs, _dtypes(model), strict=True) if "int" in dtype}
    return reading.read(_translated(trace), run, trace.calls.ends, frozenset(whole))


@dataclass(frozen=True)
class _Trace:
    """A TensorFlow graph of a model: its tensors, the arrays of its weights, and its calls by position."""

    title: str
    graph: Any
    inputs: dict[str, GraphInput]
    outputs: list[str]
    weights: dict[str, np.ndarray]
    calls: _Calls


class _Untraceable(Exception):
    """A layer fails when called, and its output shape is not known either."""


class _Calls:
    """Wraps every operation of a model, so that each call leaves its mark on the graph, or is refused."""

    def __init__(self, operations: list[Any]):
        self.operations = operations
        self.layers: list[Layer] = []
        self.ends: dict[str, Layer] = {}  # the tensors that calls return, in the order in which they end
        self.refused: dict[Layer, str] = {}
        self.opaque: dict[str, Shape] = {}  # tensors that stand for the outputs of refused layers
        self.probes: list[str] = []  # tensors that refused layers read
        self._stack: list[str] = []
        self._off = False
        self._prefix = "snnc"
        while any(self._prefix in operation.name for operation in operations):
            self._prefix += "_"

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Within this context, calls are recorded; afterwards, the operations are as they were."""
        with _calling(self.operations, self._wrapped):
            yield

    def layer(self, node: str) -> Layer | None:
        """The layer of a node, by the node's name."""
        marks = re.findall(rf"(?:^|/){self._prefix}(\d+)z/", node)
        return self.layers[int(marks[-1])] if marks else None

    def never_reached(self) -> Iterator[tuple[Layer, str]]:
        """Layers that are refused by their class but were not called, as tracing broke off before."""
        called = {layer.path.rpartition("/")[2] for layer in self.layers}
        inner = {id(part) for operation in self.operations if _refusal(operation) for part in _parts(operation)}
        for operation in self.operations:
            reason = _refusal(operation)
            if reason and operation.name not in called and id(operation) not in inner:
                yield Layer(operation.name, _kind(operation), len(self.layers)), reason

    def _wrapped(self, operation: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        keras, tf, _ = packages()

        @functools.wraps(call)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if self._off:
                return call(*args, **kwargs)
            self._stack.append(operation.name)
            mark = f"{self._prefix}{len(self.layers)}z"
            layer = Layer("/".join(self._stack), _kind(operation), len(self.layers))
            self.layers.append(layer)
            try:
                with tf.name_scope(mark):
                    outputs = self._outputs(operation, layer, call, args, kwargs)
                    outputs = keras.tree.map_structure(lambda t: tf.identity(t) if tf.is_tensor(t) else t, outputs)
                self.ends.update((tensor.name, layer) for tensor in keras.tree.flatten(outputs) if tf.is_tensor(tensor))
                return outputs
            finally:
                self._stack.pop()

        return recorded

    def _outputs(self, operation: Any, layer: Layer, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        reason = _refusal(operation)
        if reason is None:
            try:
                return call(*args, **kwargs)
            except _Untraceable:
                raise
            except Exception as error:  # whatever the layer's own code raises
                reason = f"cannot be traced by TensorFlow: {first_line(error)}"
        self.refused[layer] = reason
        return self._stand_in(operation, args, kwargs)

    def _stand_in(self, operation: Any, args: Any, kwargs: Any) -> Any:
        """New tensors in place of a refused layer's output, so that the rest of the model can be traced."""
        keras, tf, _ = packages()

        def symbolic(tensor: Any) -> Any:
            return keras.KerasTensor(tensor.shape, tensor.dtype.name) if tf.is_tensor(tensor) else tensor

        def placeholder(spec: Any) -> Any:
            tensor = tf.compat.v1.placeholder(spec.dtype, spec.shape)
            self.opaque[tensor.name] = tuple(spec.shape)
            return tensor

        kwargs = {name: value for name, value in kwargs.items() if name not in ("mask", "training")}
        self.probes += [
            tf.identity(tensor).name for tensor in keras.tree.flatten((args, kwargs)) if tf.is_tensor(tensor)
        ]
        args, kwargs = keras.tree.map_structure(symbolic, (args, kwargs))
        self._off = True  # the output shape may be found by calling the layer
        try:
            return keras.tree.map_structure(placeholder, operation.compute_output_spec(*args, **kwargs))
        except Exception:  # no shape to go on with: break off, and report what is known
            raise _Untraceable from None
        finally:
            self._off = False


def _trace(model: Any, inputs: list[GraphInput], title: str) -> _Trace:
    """Run the model once on symbolic tensors, with a batch of one."""
    keras, tf, _ = packages()
    calls = _Calls(_operations(model))
    eager = tf.config.functions_run_eagerly()
    graph = tf.__internal__.FuncGraph("snnc")
    tf.config.run_functions_eagerly(True)  # inlines the functions that Keras compiles, as for grouped convolutions
    try:
        with graph.as_default(), calls.recorded():
            sized = zip(_dtypes(model), inputs, strict=True)
            tensors = [tf.compat.v1.placeholder(dtype, (1, *given.shape)) for dtype, given in sized]
            variables = [*model.trainable_variables, *model.non_trainable_variables]
            weights = [tf.compat.v1.placeholder(variable.dtype, variable.shape) for variable in variables]
            with keras.StatelessScope(state_mapping=[*zip(variables, weights, strict=True)]):
                outputs = model(_arguments(model, tensors), training=False)
            outputs = [tf.identity(tensor).name for tensor in keras.tree.flatten(outputs)]
    except Exception as error:
        _report_untraceable(title, calls, error)
    finally:
        tf.config.run_functions_eagerly(eager)
    bound = [*zip(variables, weights, strict=True), *graph.captures]
    arrays = {tensor.name: keras.ops.convert_to_tensor(array).numpy() for array, tensor in bound}
    given = {tensor.name: entry for tensor, entry in zip(tensors, inputs, strict=True)}
    return _Trace(title, graph, given, outputs, arrays, calls)


def _report_untraceable(title: str, calls: _Calls, error: Exception) -> None:
    refused = {**calls.refused, **dict(calls.never_reached())}
    problems = [layer.problem(reason) for layer, reason in refused.items()]
    if not isinstance(error, _Untraceable):
        problems.append(f"the model cannot be traced by TensorFlow: {first_line(error)}")
    layers = list(dict.fromkeys([*(layer.path for layer in calls.layers), *(layer.path for layer in refused)]))
    unread = [operation.name for operation in calls.operations if operation.name not in layers]
    raise UnsupportedModelError(f"{title} cannot be read", problems, layers + unread, unread) from None


def _translated(trace: _Trace) -> Graph:
    """The trace as ONNX, its weights bound to their arrays."""
    import onnx

    _, _, tfonnx = packages()
    with _quiet("tf2onnx"), trace.graph.as_default():
        try:
            proto = tfonnx.process_tf_graph(
                trace.graph,
                continue_on_error=True,  # what it does not know stays in the graph, and is refused by the lowering
                opset=_OPSET,
                input_names=[*trace.inputs, *trace.weights, *trace.calls.opaque],
                output_names=[*trace.outputs, *trace.calls.probes],
            ).make_model(trace.title)
        except Exception as error:
            _report_untraceable(trace.title, trace.calls, error)
    graph = proto.graph
    layers = {node.name: trace.calls.layer(node.name) for node in graph.node}
    return Graph(
        trace.title,
        graph.node,
        trace.inputs,
        trace.outputs,
        {**trace.weights, **{tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}},
        _OPSET,
        {name: layer for name, layer in layers.items() if layer},
        trace.calls.refused,
        trace.calls.probes,
        {name: _given(name, shape) for name, shape in trace.calls.opaque.items() if _shape_problem(shape) is None},
    )


def _computed(model: Any, outputs: Sequence[str], ends: Sequence[str], inputs: Arrays, wanted: Sequence[str]) -> Arrays:
    """What Keras computes for one image: the tensors that the trace calls `outputs`, and `ends` if wanted."""
    keras, tf, _ = packages()
    returned: list[Any] = []

    def observed(operation: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def noting(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            returned.extend(tensor for tensor in keras.tree.flatten(result) if tf.is_tensor(tensor))
            return result

        return noting

    tensors = [tf.constant(array, dtype) for array, dtype in zip(inputs.values(), _dtypes(model), strict=True)]
    with _calling(_operations(model) if set(wanted) - set(outputs) else [], observed):
        given = keras.tree.flatten(model(_arguments(model, tensors), training=False))
    # The calls end in the order of the trace, so that their tensors come in the order of its names.
    within = dict(zip(ends, returned, strict=True)) if returned else {}
    found = {**within, **dict(zip(outputs, given, strict=True))}
    return {name: found[name].numpy() for name in wanted}


def _operations(model: Any) -> list[Any]:
    """Every layer and every operation inside a model, at any depth, each once."""
    layers = model._flatten_layers(include_self=False)
    models = [model, getattr(model, "_functional", None), *layers]
    plain = [operation for layer in models for operation in getattr(layer, "_operations", ())]
    found = {id(operation): operation for operation in [*layers, *plain] if operation is not model}
    return list(found.values())


def _parts(operation: Any) -> list[Any]:
    """The layers inside a layer."""
    return operation._flatten_layers(include_self=False) if hasattr(operation, "_flatten_layers") else []


def _inputs(model: Any, title: str) -> list[GraphInput]:
    """The names and shapes of the model's inputs; raises UnsupportedModelError for other than images and vectors."""
    if getattr(model, "inputs", None):
        shapes = {tensor._keras_history.operation.name: tuple(tensor.shape) for tensor in model.inputs}
    elif model.built and "input_shape" in (model.get_build_config() or {}):
        shapes = {"input": tuple(model.get_build_config()["input_shape"])}  # a subclassed model
    else:
        problem = f"call it on an array or give it an Input; {_ROOM}"
        raise UnsupportedModelError(f"{title} has not been built, so its input shape is not known", [problem])
    found = {Layer(name, "Input", -1): _shape_problem(shape) for name, shape in shapes.items()}
    problems = [layer.problem(reason) for layer, reason in found.items() if reason]
    if problems:
        raise UnsupportedModelError(f"{title} has inputs of unsupported shape", problems)
    return [_given(name, shape) for name, shape in shapes.items()]


def _given(name: str, shape: Shape) -> GraphInput:
    return GraphInput(name, shape[1:], FLAT if len(shape) == 2 else CHANNELS_LAST)


def _shape_problem(shape: Shape) -> str | None:
    if len(shape) not in (2, 4):
        return f"shape {shape}; {_ROOM}"
    if None in shape[1:]:
        example = ", ".join("32" if size is None else str(size) for size in shape[1:])
        return f"shape {shape} is not fixed; build the model with a fixed input size, as in Input(({example}))"
    return None


def _dtypes(model: Any) -> list[str]:
    """The types of the model's inputs."""
    return [tensor.dtype for tensor in getattr(model, "inputs", None) or ()] or ["float32"]


def _arguments(model: Any, tensors: list[Any]) -> Any:
    """The tensors in the structure that the model takes."""
    keras, _, _ = packages()
    if isinstance(model, keras.Sequential) or not getattr(model, "inputs", None):
        return tensors[0]
    return keras.tree.pack_sequence_as(model.input, tensors)


def _refusal(operation: Any) -> str | None:
    if getattr(operation, "quantization_mode", None):
        return "quantised layers are not supported; give the model in floating point"
    classes = [cls.__name__ for cls in type(operation).__mro__]
    return refusal(classes, _activation(operation), getattr(operation, "data_format", None))


def _kind(operation: Any) -> str:
    return kind(type(operation).__name__, _activation(operation))


def _activation(operation: Any) -> str | None:
    return getattr(getattr(operation, "activation", None), "__name__", None)


@contextmanager
def _calling(operations: list[Any], wrap: Callable[[Any, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within this context, what the operations do when called is what `wrap` makes of it."""
    with ExitStack() as stack:
        for operation in operations:
            method = "quantized_call" if getattr(operation, "quantization_mode", None) else "call"
            stack.callback(_restore, operation, method, operation.__dict__.get(method))
            operation.__dict__[method] = wrap(operation, getattr(operation, method))
        yield


def _restore(operation: Any, method: str, before: Any) -> None:
    if before is None:
        del operation.__dict__[method]
    else:
        operation.__dict__[method] = before


@contextmanager
def _no_greetings() -> Iterator[None]:
    """TensorFlow's libraries write notes to stderr while they load, past Python and every log level."""
    if "tensorflow" in sys.modules:
        yield
        return
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a package's logging within this context."""
    logger = logging.getLogger(name)
    level, logger.level = logger.level, logging.CRITICAL + 1
    try:
        yield
    finally:
        logger.level = level
