"""Which of the user's layers an ONNX node comes from.

PyTorch's exporters write it down: the newer one as metadata of each node, exactly; the older one (TorchScript) in
the node's name, as the scopes of the modules that were being called. For files from elsewhere a node is a layer.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence

import onnx

from .support import Layer

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_RULES = "pkg.onnxscript.rewriter.rule_name"
_STANDARD = "torch.nn.modules."


def layers(nodes: Sequence[onnx.NodeProto], weights: Collection[str], producer: str) -> dict[str, Layer]:
    """The layer of each node, by node name; `weights` are the names of the initialisers."""
    scoped = producer == "pytorch"
    return {node.name: _layer(node, position, weights, scoped) for position, node in enumerate(nodes)}


def absorbed(nodes: Sequence[onnx.NodeProto]) -> dict[str, str]:
    """The convolutions that PyTorch's exporter merged into the normalisation behind them, by node name."""
    merged = [
        node for node in nodes if any(e.key == _RULES and "FuseBatchNorm" in e.value for e in node.metadata_props)
    ]
    return {node.name: node.input[1].rpartition(".")[0] for node in merged if len(node.input) > 1}


def _layer(node: onnx.NodeProto, position: int, weights: Collection[str], scoped: bool) -> Layer:
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes, classes = _texts(notes.get(_SCOPES)), _texts(notes.get(_CLASSES))
    if len(scopes) > 1:  # the model itself, modules by their full paths, the operation
        owner = classes[-2] if len(classes) > 1 else ""
        kind = owner.rpartition(".")[2] if owner.startswith(_STANDARD) else node.op_type
        return Layer(scopes[-2] or scopes[-1], kind, position)
    if scoped and node.name.startswith("/"):
        return Layer(_by_name(node, weights), node.op_type, position)
    return Layer(node.name, node.op_type, position)


def _texts(written: str | None) -> list[str]:
    """A list of texts as Python writes it; empty if it is anything else."""
    try:
        found = ast.literal_eval(written or "[]")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else []


def _by_name(node: onnx.NodeProto, weights: Collection[str]) -> str:
    """The module path that `/scope/scope/Operator` stands for.

    The parameters of a module are named by its full path, which is certain. Without them the scopes have to do: the
    exporter adds `_1` where two are called the same, and leaves out containers that are not called themselves.
    """
    *scopes, operation = node.name[1:].split("/")
    for owner in (name.rpartition(".")[0] for name in node.input if name in weights):
        if owner and re.search(rf"(^|/){re.escape(_unqualified(owner))}(_\d+)?$", "/".join(scopes)):
            return owner
    path: list[str] = []
    for scope in scopes:
        atoms = scope.split(".")
        name = next((position for position in reversed(range(len(path))) if not path[position].isdigit()), 0)
        if path and ((atoms[0] == path[name] and len(atoms) > 1) or atoms[0].isdigit()):
            path = path[:name]  # a module in a list is scoped "list.0", within the scope of the list if that is called
        path += atoms
    return ".".join(path) or operation


def _unqualified(path: str) -> str:
    """The last name of a module path, with the numbers behind it: as scopes are called."""
    named = re.search(r"[^.]*[^.\d][^.]*(\.\d+)*$", path)
    return named[0] if named else path
