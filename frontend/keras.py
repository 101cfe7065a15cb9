"""Keras models to ONNX, with every variable as a graph input.

No weight is copied into the graph, and each layer is traced under a name of our own, so that a node of the
ONNX graph tells exactly which layer it comes from, whatever the layers are called and however often one
is used.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import onnx

from ..ir import Network, SnncError, UnsupportedModelError
from ..ir.errors import first_line
from .lowering import REFUSAL, SWAP, Layer, Source, lower

OPSET = 17

_TOKEN = re.compile(r"snnc\.layer\.(\d+)\.")
_RECURRENT = "recurrent layers have no spiking counterpart here; use convolutions or dense layers over the whole input"
_ATTENTION = "attention multiplies activations with each other, which spikes cannot; use convolutions or dense layers"


def load_keras(model: Any) -> Network:
    """The analog network of a Keras 3 model on the TensorFlow backend; the model itself is left as it was.

    Raises UnsupportedModelError with every layer that has no spiking counterpart.
    """
    require_keras()
    paths = _layer_paths(model)
    problems = {path: message for layer, path in paths if (message := objection(layer, path)) is not None}
    try:
        source = _trace(model, paths)
    except SnncError:
        raise
    except Exception as error:  # Keras, TensorFlow and tf2onnx raise whatever a layer happens to run into
        problems = problems or {"": f"TensorFlow cannot trace the model: {first_line(error)}"}
        raise UnsupportedModelError(REFUSAL, list(problems.values())) from None
    return lower(source, problems)


def require_keras() -> None:
    """Import Keras, TensorFlow and tf2onnx, or say how to install them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _no_greetings():
            import keras
            import tensorflow  # noqa: F401
            import tf2onnx  # noqa: F401
    except ImportError as error:
        raise SnncError(f"reading Keras models needs {error.name}: pip install 'snnc[keras]'") from None
    if keras.backend.backend() != "tensorflow":
        raise SnncError(
            f"Keras runs on {keras.backend.backend()!r} here; save the model to a .keras file and read it in a "
            "process with KERAS_BACKEND=tensorflow"
        )


def _layer_paths(model: Any) -> list[tuple[Any, str]]:
    """Every layer with its path, "outer/inner" for layers of nested models; a shared layer once."""
    import keras

    found: list[tuple[Any, str]] = []

    def walk(layers: list[Any], prefix: str) -> None:
        for layer in layers:
            if any(layer is known for known, _ in found):
                continue
            found.append((layer, prefix + layer.name))
            if isinstance(layer, keras.Model):
                walk(layer.layers, f"{prefix}{layer.name}/")

    walk(model.layers, "")
    return found


def _trace(model: Any, paths: list[tuple[Any, str]]) -> Source:
    import keras
    import tensorflow as tf
    from tf2onnx.tfonnx import process_tf_graph

    if not getattr(model, "inputs", None):
        raise UnsupportedModelError(
            "this model has no inputs yet:",
            [f"{model.name}: build it with keras.Input, or call it once, then try again"],
        )
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
    with _quietly(), _traced_names(paths), tf.__internal__.FuncGraph("keras").as_default() as graph:
        inputs = [
            tf.compat.v1.placeholder(tf.float32, (1, *tensor.shape[1:]), f"input{k}")
            for k, tensor in enumerate(model.inputs)
        ]
        weights = [
            tf.compat.v1.placeholder(array.dtype, array.shape, f"weight{k}")
            if array.dtype.kind == "f"
            else tf.constant(array)  # the state of dropout's random numbers, which inference never reads
            for k, array in enumerate(arrays)
        ]
        trainable = len(model.trainable_variables)
        structure = getattr(model, "_inputs_struct", None)  # a functional model may take a mapping
        fed = inputs[0] if structure is None and len(inputs) == 1 else inputs
        fed = fed if structure is None else keras.tree.pack_sequence_as(structure, inputs)
        result, _ = model.stateless_call(weights[:trainable], weights[trainable:], fed, training=False)
        outputs = [tf.identity(tensor, f"output{k}") for k, tensor in enumerate(keras.tree.flatten(result))]
        bound = {w.name: array for w, array in zip(weights, arrays, strict=True) if w.op.type == "Placeholder"}
        # Arrays that are no variables (Normalization's mean) reach the graph as captured tensors.
        bound |= {placeholder.name: tensor.numpy() for tensor, placeholder in graph.captures}
        converted = process_tf_graph(
            graph,
            opset=OPSET,
            input_names=[*(tensor.name for tensor in inputs), *bound],
            output_names=[tensor.name for tensor in outputs],
        ).make_model("keras")
    layers = [Layer(path, _kind(layer)) for layer, path in paths]

    def layer_of(node: onnx.NodeProto) -> Layer:
        tokens = _TOKEN.findall(node.name) or [token for name in node.input for token in _TOKEN.findall(name)]
        return layers[int(tokens[-1])] if tokens else Layer(model.name, type(model).__name__)

    names = {tensor.name: origin.name for tensor, origin in zip(inputs, model.inputs, strict=True)}
    return Source(converted, names, bound, layer_of)


@contextlib.contextmanager
def _traced_names(paths: list[tuple[Any, str]]) -> Iterator[None]:
    """Number the layers' names, and inline what Keras would compile, for as long as the model is traced."""
    import tensorflow as tf

    names = [layer.name for layer, _ in paths]
    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(
        True
    )  # grouped convolutions sit in a compiled function that tf2onnx leaves in place
    try:
        for number, (layer, _) in enumerate(paths):
            layer.name = f"snnc.layer.{number}."
        yield
    finally:
        tf.config.run_functions_eagerly(eager)
        for (layer, _), name in zip(paths, names, strict=True):
            layer.name = name


@contextlib.contextmanager
def _no_greetings() -> Iterator[None]:
    """TensorFlow's libraries write notes to stderr while they load, past Python and every log level."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep tf2onnx's and TensorFlow's progress notes to themselves; what goes wrong is reported by us."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _kind(layer: Any) -> str:
    """What a layer is, for messages: its class and, if that is what stands in the way, its activation."""
    kind = type(layer).__name__
    activation = _activation(layer)
    return f"{kind} {activation!r}" if activation in _curved_activations() else kind


def objection(layer: Any, path: str) -> str | None:
    """Why a layer cannot be converted, if its class or its activation alone tells; a message that names it."""
    reason = _reason(layer)
    return None if reason is None else f"{Layer(path, _kind(layer))}: {reason}"


def _reason(layer: Any) -> str | None:
    import keras

    layers = keras.layers
    if isinstance(layer, (layers.RNN, layers.Bidirectional, layers.TimeDistributed)):
        return _RECURRENT
    if isinstance(layer, (layers.MultiHeadAttention, layers.GroupQueryAttention, layers.Attention)):
        return _ATTENTION
    if isinstance(layer, layers.Lambda):
        return "a Lambda layer is code that snnc does not run; say it with ordinary layers"
    if _activation(layer) in _curved_activations():
        return SWAP
    return None


def _activation(layer: Any) -> str | None:
    import keras

    recurrent = isinstance(layer, keras.layers.RNN)
    return None if recurrent else getattr(getattr(layer, "activation", None), "__name__", None)


def _curved_activations() -> set[str]:
    """Keras's activations that no population computes."""
    import keras

    return {name for name in dir(keras.activations) if name.islower()} - {"linear", "relu", "relu6", "softmax"}
