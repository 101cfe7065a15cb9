"""From a Keras model to an ONNX graph: traced by TensorFlow, translated by tf2onnx, weights bound afterwards.

Every variable is an input of the trace, so no weight is copied into the graph. Every call of a layer runs
in a name scope of its own, and what it returns passes through an Identity: the scope says which layer
each ONNX node comes from, and the Identity keeps tf2onnx from merging operators of different layers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..ir import ModelFileError, UnsupportedModelError
from . import reading, tf_graph
from .given import Sizes
from .graph import GraphInput
from .keras_calls import Calls, Untraceable, computed, in_single_precision, report_untraceable
from .precision import EPS
from .reading import Reading
from .support import Layer
from .tf_graph import ROOM, Trace, graph_inputs, translated

_STATE = "it keeps a variable or table of TensorFlow's that Keras does not know of; make its weights with add_weight"


def packages() -> tuple[Any, Any]:
    """The packages keras and tensorflow; raises ModelFileError where one is missing, or Keras runs on another."""
    tensorflow, _ = tf_graph.packages()
    try:
        import keras
    except ImportError:
        raise ModelFileError("reading Keras models needs keras: pip install 'snnc[keras]'") from None
    if keras.backend.backend() != "tensorflow":
        used = keras.backend.backend()
        raise ModelFileError(f"reading Keras models needs KERAS_BACKEND=tensorflow, but Keras runs on {used!r}")
    return keras, tensorflow


def read(model: Any, title: str | None = None, inputs: Any = None) -> Reading:
    """The analog network of a Keras model, which is left as it was; `title` is what errors call it.

    `inputs` says the sizes that the model leaves open (`given.py`). Raises UnsupportedModelError with every layer that
    has no spiking counterpart.
    """
    _, tf = packages()
    title = title or f"model {model.name!r}"
    calls = Calls(_operations(model), tf.compat.v1.placeholder)
    graph = translated(_traced(model, _inputs(model, inputs, title), title, calls))
    single = functools.partial(_called_in_single_precision, model, calls.operations)
    run = functools.partial(computed, single, calls, graph.inputs, graph.outputs, _dtypes(model), EPS["float32"])
    return reading.read(graph, run, calls.ends)


def _traced(model: Any, inputs: list[GraphInput], title: str, calls: Calls) -> Trace:
    """Run the model once on symbolic tensors, with a batch of one."""
    keras, tf = packages()
    eager = tf.config.functions_run_eagerly()
    graph = tf.__internal__.FuncGraph("snnc")
    graph.name_scope = functools.partial(_scope, graph.name_scope)
    tf.config.run_functions_eagerly(True)  # inlines the functions that Keras compiles, as for grouped convolutions
    try:
        with graph.as_default(), calls.recorded(), in_single_precision([model, *calls.operations]), _biases_added():
            sized = zip(_dtypes(model), inputs, strict=True)
            tensors = [tf.compat.v1.placeholder(dtype, given.dims) for dtype, given in sized]
            variables = [*model.trainable_variables, *model.non_trainable_variables]
            weights = [tf.compat.v1.placeholder(variable.dtype, variable.shape) for variable in variables]
            with keras.StatelessScope(state_mapping=[*zip(variables, weights, strict=True)]):
                outputs = [tf.identity(tensor).name for tensor in called(model, tensors)]
    except Exception as error:
        report_untraceable(title, calls, error)
    finally:
        tf.config.run_functions_eagerly(eager)
    readers = [reader for _, tensor in graph.captures if tensor.dtype == tf.resource for reader in tensor.consumers()]
    if readers:
        whole = Layer(model.name, type(model).__name__, 0)
        calls.refused.update((calls.layer(reader.name) or whole, _STATE) for reader in readers)
        report_untraceable(title, calls, Untraceable())
    bound = [*zip(variables, weights, strict=True), *graph.captures]
    arrays = {tensor.name: tf_graph.view(array) for array, tensor in bound}
    given = {tensor.name: entry for tensor, entry in zip(tensors, inputs, strict=True)}
    return Trace(title, graph, given, outputs, arrays, calls.layer, calls.refused, calls.opaque, calls.probes)


@contextmanager
def _biases_added() -> Iterator[None]:
    """Within this context, what Keras takes for a bias of the second axis is added there.

    With a batch of one it takes activations (1, C, 1) for such a bias, and tf2onnx adds them along the last axis.
    """
    _, tf = packages()
    bias_add = tf.nn.bias_add

    def added(x: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> Any:
        if data_format != "NCHW":
            return bias_add(x, bias, data_format, name)
        return tf.add(x, tf.reshape(bias, [-1, *[1] * (len(x.shape) - 2)]), name)

    tf.nn.bias_add = added
    try:
        yield
    finally:
        tf.nn.bias_add = bias_add


def _scope(name_scope: Callable[[str | None], Any], name: str | None) -> Any:
    """A name scope for a layer of any name: TensorFlow takes few characters. Layers are known by their marks."""
    return name_scope(name and re.sub(r"[^A-Za-z0-9_./]|^(?=[^A-Za-z0-9.])", "x", name))


def _operations(model: Any) -> list[Any]:
    """Every layer and every operation inside a model, at any depth, each once."""
    layers = model._flatten_layers(include_self=False)
    models = [model, getattr(model, "_functional", None), *layers]
    plain = [operation for layer in models for operation in getattr(layer, "_operations", ())]
    found = {id(operation): operation for operation in [*layers, *plain] if operation is not model}
    return list(found.values())


def _inputs(model: Any, inputs: Any, title: str) -> list[GraphInput]:
    """The names and shapes of the model's inputs; raises UnsupportedModelError for other than images and vectors."""
    sizes: dict[str, Sizes]
    if getattr(model, "inputs", None):
        sizes = {tensor._keras_history.operation.name: tuple(tensor.shape) for tensor in model.inputs}
    elif model.built and inputs is not None:
        sizes = {"input": None}  # a subclassed model, which was built on any size
    elif model.built and "input_shape" in (model.get_build_config() or {}):
        sizes = {"input": tuple(model.get_build_config()["input_shape"])}
    else:
        problem = f"call it on an array or give it an Input; {ROOM}"
        raise UnsupportedModelError(f"{title} has not been built, so its input shape is not known", [problem])
    return graph_inputs(sizes, _dtypes(model), inputs, title)


def _dtypes(model: Any) -> list[str]:
    """The types of the model's inputs."""
    return [tensor.dtype for tensor in getattr(model, "inputs", None) or ()] or ["float32"]


def _called_in_single_precision(model: Any, layers: list[Any], tensors: list[Any]) -> list[Any]:
    with in_single_precision([model, *layers]):
        return called(model, tensors)


def called(model: Any, tensors: list[Any]) -> list[Any]:
    """What the model gives for its inputs, both as flat lists."""
    import keras

    if isinstance(model, keras.Sequential) or not getattr(model, "inputs", None):
        arguments = tensors[0]
    else:
        arguments = keras.tree.pack_sequence_as(model.input, tensors)
    return keras.tree.flatten(model(arguments, training=False))
