"""TensorFlow functions: any `tf.function` or concrete function, as written by hand or found in a SavedModel.

The function is traced for a batch of one, its calls are inlined and its variables frozen; the large constants then
become inputs of the graph, as tf2onnx is slow with them. Layers are TensorFlow's name scopes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..ir import UnsupportedModelError
from . import reading, tf_graph
from .affine import as_tensor
from .given import in_order, is_shape, shapes_of
from .keras_calls import Calls
from .reading import Arrays, Computed, Reading
from .support import Layer, first_line
from .tf_graph import Trace, coarsest, graph_inputs, translated

_SMALL = 16  # numbers in a constant; up to this size it may be a shape, which tf2onnx wants to see
_INLINED = ("StatefulPartitionedCall", "PartitionedCall")  # what inlining a function puts before its names
_PASSING = re.compile(r"Func/|(\w*PartitionedCall\w*/)*Identity[^/]*$")  # nodes that inlining leaves between functions


def read(function: Any, inputs: Any = None, title: str | None = None) -> Reading:
    """The analog network of a TensorFlow function.

    `inputs` says what the function takes, where it has no input signature or leaves sizes open in it (`given.py`).
    Raises UnsupportedModelError with every layer in the way.
    """
    title = title or f"function {getattr(function, '__name__', getattr(function, 'name', ''))!r}"
    return read_frozen(frozen(concrete(function, inputs, title)), title)


def frozen(concrete: Any) -> Any:
    """A concrete function with its calls inlined and its variables as constants."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(concrete, lower_control_flow=False, aggressive_inlining=True)


def read_frozen(function: Any, title: str) -> Reading:
    """The analog network of a frozen function."""
    definition = function.graph.as_graph_def()
    marks = _mark_scopes(definition, function.graph)
    scopes = _Scopes()
    trace = trace_of(function, definition, title, scopes)
    graph = translated(trace)
    layers = {tensor: scopes(tensor) for node in graph.nodes for tensor in node.output if tensor in marks}
    ends = {tensor: layer for tensor, layer in layers.items() if layer}
    run = functools.partial(_computed, function, replace(trace, inputs=graph.inputs))
    return reading.read(graph, run, ends)


def trace_of(function: Any, definition: Any, title: str, layers: Callable[[str], Layer | None] | Calls) -> Trace:
    """The graph of a frozen function whose nodes are those of `definition`, with its large constants as inputs.

    `layers` says which layer a node comes from; Calls say which of them are refused, too.
    """
    tf, _ = tf_graph.packages()
    given = [tensor.name for tensor in function.inputs]
    shapes = {tensor.op.name: tuple(tensor.shape) for tensor in function.inputs}
    kinds = [tensor.dtype for tensor in function.inputs]
    inputs = dict(zip(given, graph_inputs(shapes, kinds, None, title), strict=True))
    outputs = [tensor.name for tensor in function.outputs]
    weights = _weights_cut(definition)
    _empties_cut(definition)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    if not isinstance(layers, Calls):
        return Trace(title, graph, inputs, outputs, weights, layers)
    kept = {f"{node.name}:0" for node in definition.node}  # freezing drops what no output depends on
    opaque = {tensor: shape for tensor, shape in layers.opaque.items() if tensor in kept}
    probes = [tensor for tensor in layers.probes if tensor in kept]
    return Trace(title, graph, inputs, outputs, weights, layers.layer, layers.refused, opaque, probes)


class _Scopes:
    """Layers by the name scope of their nodes, ranked by when they are first asked for."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}

    def __call__(self, node: str) -> Layer | None:
        if _PASSING.match(node):
            return None
        path = _scope(node) or node
        return self._layers.setdefault(path, Layer(path, "name scope", len(self._layers)))


def _scope(node: str) -> str:
    parts = [part for part in node.split("/")[:-1] if not part.startswith(_INLINED)]
    return "/".join(parts)


def _mark_scopes(definition: Any, graph: Any) -> set[str]:
    """Put an Identity wherever a name scope hands a tensor to another, and return the tensors that these give.

    They have the same numbers in TensorFlow and in ONNX, where a convolution's own output is transposed.
    """
    marks: dict[str, Any] = {}
    fixed = {node.name for node in definition.node if node.op in ("Const", "Placeholder")}
    names = {node.name for node in definition.node}
    for node in definition.node:
        for position, given in enumerate(node.input):
            source, _, index = given.partition(":")
            if source.startswith("^") or source in fixed or _scope(source) == _scope(node.name):
                continue
            name = f"{source}_end{index}"
            while name in names:
                name += "_"
            marks.setdefault(given, (name, graph.get_tensor_by_name(f"{source}:{index or 0}").dtype))
            node.input[position] = marks[given][0]
    for given, (name, dtype) in marks.items():
        mark = definition.node.add(name=name, op="Identity", input=[given])
        mark.attr["T"].type = dtype.as_datatype_enum
    return {f"{name}:0" for name, _ in marks.values()}


def _weights_cut(definition: Any) -> dict[str, np.ndarray]:
    """Turn large constants into placeholders; their arrays, by tensor."""
    tf, _ = tf_graph.packages()
    weights = {}
    for node in definition.node:
        if node.op != "Const" or _size(node.attr["value"].tensor) <= _SMALL:
            continue
        array = tf.make_ndarray(node.attr["value"].tensor)
        weights[f"{node.name}:0"] = array
        shape = node.attr["value"].tensor.tensor_shape
        node.op = "Placeholder"
        node.attr["shape"].shape.CopyFrom(shape)
        del node.attr["value"]
    return weights


def empty(dtype: Any, shape: Any) -> Any:
    """A tensor that is a placeholder once the function is frozen; before, functions can hold none."""
    tf, _ = tf_graph.packages()
    tensor = tf.raw_ops.Empty(shape=shape, dtype=dtype)
    tensor.set_shape(shape)
    return tensor


def _empties_cut(definition: Any) -> None:
    tf, _ = tf_graph.packages()
    constants = {node.name: node for node in definition.node if node.op == "Const"}
    for node in definition.node:
        if node.op == "Empty":
            sizes = constants.get(node.input[0].partition(":")[0])
            shape = None if sizes is None else tf.make_ndarray(sizes.attr["value"].tensor).tolist()
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
            node.op = "Placeholder"
            del node.input[:]
            del node.attr["init"]


def _size(tensor: Any) -> int:
    return int(np.prod([dim.size for dim in tensor.tensor_shape.dim]))


def _computed(function: Any, trace: Trace, inputs: Arrays, wanted: Sequence[str]) -> Computed:
    """What TensorFlow computes for one image: outputs by the function itself, others by the marked graph."""
    tf, _ = tf_graph.packages()
    tensors = {name: as_tensor(inputs[entry.name], entry.layout) for name, entry in trace.inputs.items()}
    if set(wanted) <= set(trace.outputs):
        given = [tf.constant(tensors[tensor.name], tensor.dtype) for tensor in function.inputs]
        found = dict(zip(trace.outputs, tf.nest.flatten(function(*given)), strict=True))
        arrays = {name: found[name].numpy() for name in wanted}
    else:
        with tf.compat.v1.Session(graph=trace.graph) as session:
            arrays = dict(zip(wanted, session.run(list(wanted), {**tensors, **trace.weights}), strict=True))
    return Computed(arrays, "TensorFlow", coarsest(trace.graph))


def concrete(function: Any, inputs: Any, title: str) -> Any:
    """The function for a batch of one."""
    tf, _ = tf_graph.packages()
    args, kwargs = _signature(function, inputs, title)
    specs = [spec for spec in tf.nest.flatten((args, kwargs)) if isinstance(spec, tf.TensorSpec)]
    names = [spec.name or f"input {position}" for position, spec in enumerate(specs, 1)]
    sizes = [None if spec.shape.rank is None else tuple(spec.shape) for spec in specs]
    given = graph_inputs(dict(zip(names, sizes, strict=True)), [spec.dtype for spec in specs], inputs, title)
    single = iter(tf.TensorSpec(entry.dims, spec.dtype, spec.name) for entry, spec in zip(given, specs, strict=True))
    args, kwargs = tf.nest.map_structure(
        lambda spec: next(single) if isinstance(spec, tf.TensorSpec) else spec, (args, kwargs)
    )
    called = tf.function(lambda *args, **kwargs: function(*args, **kwargs), autograph=False)
    try:
        return called.get_concrete_function(*args, **kwargs)
    except Exception as error:  # whatever the function's own code raises
        raise UnsupportedModelError(f"{title} cannot be traced by TensorFlow", [first_line(error)]) from None


def _signature(function: Any, inputs: Any, title: str) -> tuple[Any, Any]:
    """What the function takes, as TensorSpecs: positional and named arguments."""
    if hasattr(function, "structured_input_signature"):
        return function.structured_input_signature
    if getattr(function, "input_signature", None):
        return tuple(function.input_signature), {}
    if isinstance(inputs, Mapping):
        return (), {name: _spec(example, name) for name, example in inputs.items()}
    if inputs is not None:
        return tuple(map(_spec, in_order(inputs))), {}
    advice = "give an example of what it takes, as in load(function, inputs=images[:1])"
    raise UnsupportedModelError(f"{title} has no input signature", [advice])


def _spec(given: Any, name: str | None = None) -> Any:
    """An example of an argument, or its shape, as a TensorSpec."""
    tf, _ = tf_graph.packages()
    (shape,) = shapes_of((given,))
    dtype = tf.float32 if is_shape(given) else tf.convert_to_tensor(given).dtype
    return tf.TensorSpec(shape, dtype, name)
