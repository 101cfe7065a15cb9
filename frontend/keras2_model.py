"""Keras 2 models, from the package tf_keras: traced as a TensorFlow function, with every call of a layer marked."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..ir import UnsupportedModelError
from . import reading, tf_function, tf_graph
from .keras_calls import Calls, computed, report_untraceable
from .reading import Reading
from .tf_graph import ROOM, coarsest, graph_inputs, translated


def read(model: Any, inputs: Any = None) -> Reading:
    """The analog network of a Keras 2 model, which is left as it was.

    `inputs` says the sizes that the model leaves open (`given.py`). Raises UnsupportedModelError with every layer that
    has no spiking counterpart.
    """
    tf, _ = tf_graph.packages()
    title = f"model {model.name!r}"
    if not getattr(model, "inputs", None):
        problem = f"give it an Input; {ROOM}"
        raise UnsupportedModelError(f"{title} has not been built, so its input shape is not known", [problem])
    shapes = dict(zip(model.input_names, (tuple(tensor.shape) for tensor in model.inputs), strict=True))
    dtypes = [tensor.dtype for tensor in model.inputs]
    sized = zip(graph_inputs(shapes, dtypes, inputs, title), dtypes, strict=True)
    specs = [tf.TensorSpec(given.dims, dtype, given.name) for given, dtype in sized]
    calls = Calls(list(model._flatten_layers(include_self=False)), tf_function.empty)
    called = functools.partial(_called, model)
    try:
        with calls.recorded(), _unrolled():
            concrete = tf.function(lambda *tensors: called(tensors), autograph=False).get_concrete_function(*specs)
        function = tf_function.frozen(concrete)
    except Exception as error:  # whatever the layers' own code raises
        report_untraceable(title, calls, error)
    trace = tf_function.trace_of(function, function.graph.as_graph_def(), title, calls)
    graph = translated(trace)
    run = functools.partial(computed, called, calls, graph.inputs, graph.outputs, dtypes, coarsest(trace.graph))
    return reading.read(graph, run, calls.ends)


@contextmanager
def _unrolled() -> Iterator[None]:
    """Within this context, steps are written out also by the layers that have no such setting, as ConvLSTM2D."""
    backend: Any = sys.modules["tf_keras.src.backend"]
    rnn = backend.rnn
    backend.rnn = functools.partial(rnn, unroll=True)
    try:
        yield
    finally:
        backend.rnn = rnn


def _called(model: Any, tensors: Sequence[Any]) -> list[Any]:
    """What the model gives for its inputs, both as flat lists."""
    tf, _ = tf_graph.packages()
    arguments = tf.nest.pack_sequence_as(model.input, list(tensors))
    return tf.nest.flatten(model(arguments, training=False))
