"""Operators that ONNX itself defines by others, as attention: where there is no rule, what they stand for is read."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import Any

import onnx
import onnx.inliner
import onnx.shape_inference

from .operators import OPERATORS

_LOOPS = {"Range", "SequenceMap"}  # which are of constants, and evaluated as they are
_CONTROL = {"If", "Loop", "Scan"}


class Definitions:
    """What the nodes of a model stand for."""

    def __init__(self, model: onnx.ModelProto):
        self._model = model

    def spelt_out(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node itself, unless there is no rule for it and ONNX defines it by others.

        The names of nodes and of tensors within begin with the node's own.
        """
        if node.op_type in OPERATORS | _LOOPS or not self._is_defined(node):
            return [node]
        named = [name for name in dict.fromkeys(node.input) if name]
        unknown = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
        given = [onnx.helper.make_value_info(name, self._types.get(name, unknown)) for name in named]
        gives = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "alone", given, gives)
        alone = onnx.helper.make_model(graph, opset_imports=self._model.opset_import)
        known = [("", operator) for operator in OPERATORS | _LOOPS]
        try:
            whole = onnx.inliner.inline_selected_functions(alone, known, exclude=True, inline_schema_functions=True)
        except Exception:  # of a dozen kinds, for attributes and operands that do not fit
            return [node]
        if any(part.op_type in _CONTROL for part in whole.graph.node):
            return [node]
        outer = {"", *node.input, *node.output}
        for position, part in enumerate(whole.graph.node):
            part.name = f"{node.name}/{part.op_type}_{position}"
            for names in (part.input, part.output):
                names[:] = [name if name in outer else f"{node.name}/{name}" for name in names]
        return list(whole.graph.node)

    def _is_defined(self, node: onnx.NodeProto) -> bool:
        versions = {entry.domain.removeprefix("ai.onnx"): entry.version for entry in self._model.opset_import}
        with suppress(onnx.defs.SchemaError, KeyError):
            version = versions[node.domain.removeprefix("ai.onnx")]
            schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
            return bool(schema.has_function or schema.has_context_dependent_function)
        return False

    @cached_property
    def _types(self) -> dict[str, onnx.TypeProto]:
        """The types and shapes of tensors, as far as the model says them or they follow."""
        graph = self._model.graph
        with suppress(onnx.shape_inference.InferenceError, ValueError):
            graph = onnx.shape_inference.infer_shapes(self._model).graph
        weights = {
            tensor.name: onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            for tensor in graph.initializer
        }
        return {**{entry.name: entry.type for entry in (*graph.input, *graph.value_info, *graph.output)}, **weights}
