"""SavedModel folders: read as graphs, of which nothing runs before it is known to be harmless.

A SavedModel holds graphs, and objects whose restoring may call them. Only objects that TensorFlow restores without
running anything of the file are let in, and only operators that compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..ir import ModelFileError, SnncError, UnsupportedModelError
from . import tf_function, tf_graph
from .reading import Reading
from .support import Layer, first_line, operator_refusal

_SIGNATURE = "serving_default"
_KINDS = {"user_object", "variable", "constant", "function", "bare_concrete_function", "captured_tensor"}
_LOOPS = {"StatelessWhile", "While"}
_OF_LOOPS = {  # lists of what their steps give
    *("TensorListElementShape", "TensorListFromTensor", "TensorListGetItem", "TensorListLength", "TensorListPopBack"),
    *("TensorListPushBack", "TensorListReserve", "TensorListSetItem", "TensorListStack"),
}
_UNSAFE = "it could run code or touch files, so that it is not let in; load the model in Python and give its function"

# What TensorFlow itself puts into every SavedModel to write and read the variables. The functions that hold these are
# never called, as the objects that would call them are not let in.
_STORAGE = {
    *("AssignVariableOp", "DisableCopyOnRead", "MergeV2Checkpoints", "NoOp", "RestoreV2", "SaveV2", "ShardedFilename"),
    *("StaticRegexFullMatch", "StringJoin", "VarHandleOp", "VarIsInitializedOp"),
}
_COMPUTING = {
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Erfc", "IsFinite", "IsInf", "IsNan", "Sinh", "Tan"),
    *("Xdivy", "Xlog1py", "Xlogy"),
    *("Abs", "Add", "AddN", "AddV2", "All", "Any", "ArgMax", "ArgMin", "Assert", "AvgPool", "BatchMatMul"),
    *(
        "BatchMatMulV2",
        "BatchToSpaceND",
        "BiasAdd",
        "BroadcastTo",
        "Cast",
        "Ceil",
        "ClipByValue",
        "Concat",
        "ConcatV2",
        "Const",
    ),
    *("Conv2D", "Conv2DBackpropInput", "Conv3D", "Cos", "Cumsum", "DepthToSpace", "DepthwiseConv2dNative", "Div"),
    *("DivNoNan", "Einsum", "Elu", "Equal", "Erf", "Exp", "ExpandDims", "Expm1", "Fill", "Floor", "FloorDiv"),
    *("FloorMod", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "Gather", "GatherNd", "GatherV2"),
    *("Greater", "GreaterEqual", "Identity", "IdentityN", "If", "LRN", "LeakyRelu", "Less", "LessEqual", "Log"),
    *("Log1p", "LogSoftmax", "LogicalAnd", "LogicalNot", "LogicalOr", "MatMul", "Max", "MaxPool", "MaxPoolV2"),
    *("Maximum", "Mean", "Min", "Minimum", "MirrorPad", "Mul", "MulNoNan", "Neg", "NoOp", "NotEqual", "OneHot"),
    *("OnesLike", "Pack", "Pad", "PadV2", "PartitionedCall", "Placeholder", "PlaceholderWithDefault", "Pow"),
    *("PreventGradient", "Prod", "Range", "Rank", "ReadVariableOp", "RealDiv", "Reciprocal", "Relu", "Relu6"),
    *("Reshape", "ResizeBilinear", "ResizeNearestNeighbor", "ResourceGather", "ReverseV2", "Round", "Rsqrt", "Select"),
    *("SelectV2", "Selu", "Shape", "ShapeN", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus"),
    *("Softsign", "SpaceToBatchND", "SpaceToDepth", "Split", "SplitV", "Sqrt", "Square", "SquaredDifference"),
    *("Squeeze", "StatefulPartitionedCall", "StatelessIf", "StopGradient", "StridedSlice", "Sub"),
    *("Sum", "Tanh", "Tile", "TopKV2", "Transpose", "Unpack", "ZerosLike"),
}


def read(path: Path, inputs: Any = None) -> Reading:
    """The analog network of the signature `serving_default`; `inputs` says the sizes that it leaves open (`given.py`).

    Raises ModelFileError for a folder that is damaged or no SavedModel, and UnsupportedModelError with everything in
    it that could do more than compute, or with every layer that has no spiking counterpart.
    """
    tf, _ = tf_graph.packages()
    meta_graph = _meta_graph(path)
    problems = [*dict.fromkeys([*_object_problems(meta_graph), *_operator_problems(meta_graph.graph_def)])]
    if problems:
        raise UnsupportedModelError(f"{path} cannot be read", problems)
    try:
        loaded = tf.saved_model.load(str(path))  # the model's variables live as long as this
        function = loaded.signatures[_SIGNATURE]
        frozen = tf_function.frozen(tf_function.concrete(function, inputs, str(path)))
    except SnncError:
        raise
    except Exception as error:  # whatever TensorFlow raises about damage
        raise ModelFileError(f"{path} is damaged or from another version of TensorFlow: {first_line(error)}") from None
    return tf_function.read_frozen(frozen, str(path))


def _meta_graph(path: Path) -> Any:
    """The one graph in a SavedModel, of which no part lies elsewhere."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    away = next((part for part in path.rglob("*") if not part.resolve().is_relative_to(path.resolve())), None)
    if away is not None:
        raise ModelFileError(f"{path}: {away.relative_to(path)} is a link out of the folder, which is not followed")
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((path / "saved_model.pb").read_bytes())
    except (OSError, DecodeError) as error:
        raise ModelFileError(f"{path} is not a SavedModel, or only a part of one: {first_line(error)}") from None
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].object_graph_def.nodes:
        raise ModelFileError(f"{path} was not saved by TensorFlow 2; save it anew with model.export(folder)")
    if _SIGNATURE not in saved.meta_graphs[0].signature_def:
        raise ModelFileError(f"{path} has no signature {_SIGNATURE!r}; save it with model.export(folder)")
    return saved.meta_graphs[0]


def _object_problems(meta_graph: Any) -> Iterator[str]:
    """Objects that TensorFlow would restore by running functions of the file."""
    for node in meta_graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind") or "object"
        if kind not in _KINDS or node.saveable_objects or node.registered_saver:
            yield Layer(kind, "object", 0).problem(_UNSAFE)


def _operator_problems(definition: Any) -> Iterator[str]:
    bodies = [(function.signature.name, function.node_def) for function in definition.library.function]
    graphs = [("graph", definition.node), *bodies]
    loops = any(node.op in _LOOPS for _, nodes in graphs for node in nodes)  # which are refused, with all their lists
    known = _COMPUTING | _STORAGE | (_OF_LOOPS if loops else set())
    for name, nodes in graphs:
        for node in nodes:
            if node.op in _LOOPS:
                scope = node.name.rpartition("/")[0]
                yield Layer(scope or f"{name}/{node.name}", node.op, 0).problem(operator_refusal("Loop"))
            elif node.op not in known:
                yield Layer(f"{name}/{node.name}", node.op, 0).problem(_UNSAFE)
