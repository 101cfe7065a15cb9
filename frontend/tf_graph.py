"""From a TensorFlow graph whose weights are inputs to an ONNX graph with the weights bound."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..ir import ModelFileError, Shape, UnsupportedModelError
from .affine import CHANNELS_LAST, FLAT, SERIES_LAST
from .constants import LARGEST
from .given import Sizes, fixed
from .graph import Graph, GraphInput
from .inputs import as_taken
from .precision import EPS
from .support import Layer, first_line

_OPSET = 18
_AREAS = "it resizes images by areas, which tf2onnx takes for nearest neighbours; use bilinear, or average pooling"
ROOM = "networks take images (H, W, C), series (L, C) and vectors (N,)"


@dataclass(frozen=True)
class Trace:
    """A TensorFlow graph of a model for a batch of one: its inputs, its outputs, and the arrays of its weights.

    `layer` says which layer a node comes from, by the node's name. `refused`, `opaque` and `probes` are about layers
    that are replaced: why, the tensors that stand for what they give, and the tensors that they read.
    """

    title: str
    graph: Any
    inputs: Mapping[str, GraphInput]
    outputs: list[str]
    weights: dict[str, np.ndarray]
    layer: Callable[[str], Layer | None]
    refused: Mapping[Layer, str] = field(default_factory=dict)
    opaque: Mapping[str, Shape] = field(default_factory=dict)
    probes: Sequence[str] = ()


def packages() -> tuple[Any, Any]:
    """The packages tensorflow and tf2onnx.tfonnx; raises ModelFileError where one is missing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _no_greetings():
            import tensorflow
            from tf2onnx import tfonnx
    except ImportError as error:
        missing = error.name or str(error)
        raise ModelFileError(f"reading Keras models needs {missing}: pip install 'snnc[keras]'") from None
    return tensorflow, tfonnx


def translated(trace: Trace) -> Graph:
    """The trace as ONNX, its weights bound to their arrays."""
    import onnx

    _, tfonnx = packages()
    with _quiet("tf2onnx"), trace.graph.as_default():
        try:
            proto = tfonnx.process_tf_graph(
                trace.graph,
                continue_on_error=True,  # what it does not know stays in the graph, and is refused by the lowering
                opset=_OPSET,
                input_names=[*trace.inputs, *trace.weights, *trace.opaque],
                output_names=[*trace.outputs, *trace.probes],
            ).make_model(trace.title)
        except Exception as error:  # whatever tf2onnx raises
            problems = [layer.problem(reason) for layer, reason in trace.refused.items()]
            problem = f"the model cannot be translated to ONNX: {first_line(error)}"
            raise UnsupportedModelError(f"{trace.title} cannot be read", [*problems, problem]) from None
    graph = proto.graph
    for node in graph.node:
        _mend(node)
    layers = _layers(graph, trace.layer)
    constants = {**trace.weights, **{tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}}
    inputs = as_taken(trace.inputs, graph.node, constants, _OPSET)
    return Graph(
        trace.title,
        graph.node,
        inputs,
        trace.outputs,
        constants,
        _OPSET,
        layers,
        refused={**trace.refused, **_mistranslated(trace)},
        probes=trace.probes,
        stand_ins={
            name: graph_input(name, shape)
            for name, shape in trace.opaque.items()
            if None not in shape and shape_problem(shape) is None
        },
        channels_last=inputs == trace.inputs,
    )


def _mend(node: Any) -> None:
    """Where tf2onnx extends what a transposed convolution gives, at both ends, as TensorFlow does: at the far end."""
    for attribute in node.attribute if node.op_type == "ConvTranspose" else ():
        if attribute.name == "pads":
            pads = np.reshape(attribute.ints, (2, -1))
            missing = pads.sum(0) < 0
            attribute.ints[:] = np.where(missing, [np.zeros_like(missing, int), pads.sum(0)], pads).reshape(-1).tolist()


def _mistranslated(trace: Trace) -> dict[Layer, str]:
    """The layers whose operators tf2onnx takes for others."""
    whole = Layer(trace.title, "model", 0)
    operations = [operation for operation in trace.graph.get_operations() if operation.type == "ResizeArea"]
    return dict.fromkeys((trace.layer(operation.name) or whole for operation in operations), _AREAS)


def view(tensor: Any) -> np.ndarray:
    """What a tensor or variable holds, not copied: TensorFlow writes to no memory that is seen from elsewhere."""
    tensorflow, _ = packages()
    array = np.asarray(tensorflow.convert_to_tensor(tensor))
    array.flags.writeable = False
    return array


def coarsest(graph: Any) -> float:
    """How far apart the numbers next to 1 are in the coarsest type that a graph computes in."""
    kinds = {tensor.dtype.name for operation in graph.get_operations() for tensor in operation.outputs}
    return max(EPS.get(kind, EPS["float32"]) for kind in ("float32", *kinds))


def _layers(graph: Any, layer: Callable[[str], Layer | None]) -> dict[str, Layer]:
    """The layer of each node; of a node that tf2onnx has named itself, the layer that takes what it gives."""
    own = {node.name: layer(node.name) for node in graph.node}
    layers: dict[str, Layer] = {}
    takers: dict[str, Layer] = {}
    for node in reversed(graph.node):
        found = own[node.name] or next((takers[name] for name in node.output if name in takers), None)
        if found:
            layers[node.name] = found
            takers.update((name, found) for name in node.input)
    return layers


def graph_inputs(sizes: Mapping[str, Sizes], kinds: Sequence[Any], inputs: Any, title: str) -> list[GraphInput]:
    """The inputs of a model, by name, of types `kinds`: batch first, and where a size is open, as `inputs` says.

    Raises UnsupportedModelError for other than images, series and vectors.
    """
    tensorflow, _ = packages()
    shapes = fixed(sizes, inputs, title)
    found = {Layer(name, "Input", -1): shape_problem(shape) for name, shape in shapes.items()}
    problems = [layer.problem(reason) for layer, reason in found.items() if reason]
    if problems:
        raise UnsupportedModelError(f"{title} has inputs of unsupported shape", problems)
    whole = [tensorflow.as_dtype(kind).is_integer for kind in kinds]
    return [graph_input(*entry, is_whole) for entry, is_whole in zip(shapes.items(), whole, strict=True)]


def graph_input(name: str, shape: Shape, whole: bool = False) -> GraphInput:
    """An input of a shape that has no problem, channels last."""
    if len(shape) == 3:  # a series is an image of width one
        return GraphInput(name, (shape[1], 1, shape[2]), SERIES_LAST, whole)
    return GraphInput(name, shape[1:], FLAT if len(shape) == 2 else CHANNELS_LAST, whole)


def shape_problem(shape: Shape) -> str | None:
    """What is wrong with the shape of an input, batch included."""
    if len(shape) not in (2, 3, 4):
        return f"shape {shape}; {ROOM}"
    if math.prod(shape[1:]) > LARGEST:
        return f"shape {shape}; images of more than {LARGEST} numbers are not supported"
    return None


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
