"""Models of half precision in single precision, so that what they compute can be compared closely."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}  # how far apart the numbers next to 1 are

HALVES = {onnx.TensorProto.FLOAT16: EPS["float16"], onnx.TensorProto.BFLOAT16: EPS["bfloat16"]}
_TYPES = ("to", "dtype", "output_dtype")  # attributes that name one


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an ONNX model that computes in float32 what the model computes in float16 or bfloat16."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]  # the types of tensors within, which follow from the rest
    for entry in (*graph.input, *graph.output):
        if entry.type.tensor_type.elem_type in HALVES:
            entry.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for tensor in _tensors(graph):
        if tensor.data_type in HALVES:
            single = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(single, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i in HALVES:
                attribute.i = onnx.TensorProto.FLOAT
    return copy


def coarsest(model: onnx.ModelProto) -> float:
    """How far apart the numbers next to 1 are in the coarsest type that a model casts activations to by itself."""
    kinds = [attribute.i for node in model.graph.node if node.op_type == "Cast" for attribute in node.attribute]
    return max(HALVES.get(kind, EPS["float32"]) for kind in (0, *kinds))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
