"""Constant folding: whatever depends on weights alone is evaluated once, by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from ..ir import ModelFileError


def fold_constants(
    graph: onnx.GraphProto, weights: Mapping[str, np.ndarray], opsets: list[onnx.OperatorSetIdProto]
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """The nodes that depend on the network's inputs, and the value of every constant that they read.

    `weights` are arrays bound to graph inputs by name; they are handed over, not copied. `graph.node` is in
    topological order, as ONNX requires.
    """
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    known = {*weights, *initialisers, ""}
    constant: list[onnx.NodeProto] = []
    dynamic: list[onnx.NodeProto] = []
    for node in graph.node:
        if known.issuperset(node.input) and not _has_subgraph(node):
            constant.append(node)
            known.update(node.output)
        else:
            dynamic.append(node)
    read = {name for node in dynamic for name in node.input if name in known and name}
    values = {name: np.asarray(weights[name]) for name in read if name in weights}
    values |= {name: numpy_helper.to_array(initialisers[name]) for name in read if name in initialisers}
    wanted = sorted(read - set(values))
    if wanted:
        values |= dict(zip(wanted, _evaluate(constant, wanted, weights, initialisers, opsets), strict=True))
    return dynamic, values


def _evaluate(
    nodes: list[onnx.NodeProto],
    wanted: list[str],
    weights: Mapping[str, np.ndarray],
    initialisers: Mapping[str, onnx.TensorProto],
    opsets: list[onnx.OperatorSetIdProto],
) -> list[np.ndarray]:
    read = {name for node in nodes for name in node.input}
    inputs = {name: weights[name] for name in read if name in weights}
    graph = helper.make_graph(
        nodes,
        "constants",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [tensor for name, tensor in initialisers.items() if name in read],
    )
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(wanted, inputs))
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelFileError(f"the model's constants cannot be evaluated: {error}") from None


def _has_subgraph(node: onnx.NodeProto) -> bool:
    return any(
        attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute
    )
