"""The weights of an ONNX model as arrays: in the model itself, or in files in its own folder and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

from ..ir import ModelFileError
from .support import first_line


def constants_of(graph: onnx.GraphProto, title: str, folder: Path | None) -> dict[str, np.ndarray]:
    """What is known by name: the initialisers, and the constants that are nodes."""
    if graph.sparse_initializer:
        raise ModelFileError(f"{title} holds sparse weights, which are not supported; export it with dense ones")
    try:
        found = {tensor.name: _array(tensor, folder) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and [attribute.name for attribute in node.attribute] == ["value"]:
                found[node.output[0]] = _array(node.attribute[0].t, folder)
        return found
    except (KeyError, ValueError, TypeError, OSError) as error:  # types that there are not, sizes that do not fit
        raise ModelFileError(f"{title} holds weights that cannot be read: {first_line(error)}") from None


def _array(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """A tensor's numbers. Those in a file are read by numpy, as onnx's own reader would hold large ones three times."""
    if folder is None or not uses_external_data(tensor):
        return onnx.numpy_helper.to_array(tensor)
    kind, info = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type), ExternalDataInfo(tensor)
    if kind.kind not in "fiub":  # types that numpy lacks, which may be packed
        _file(tensor, folder)
        loaded = onnx.TensorProto()
        loaded.CopyFrom(tensor)
        load_external_data_for_tensor(loaded, str(folder))
        return onnx.numpy_helper.to_array(loaded)
    file, start, count = _file(tensor, folder), info.offset or 0, math.prod(tensor.dims)
    if start + count * kind.itemsize > file.stat().st_size or info.length not in (None, count * kind.itemsize):
        raise ValueError(f"{tensor.name} does not fit {info.location}, from {start} on")
    return np.fromfile(file, kind, count, offset=start).reshape(tensor.dims)


def check_locations(model: onnx.ModelProto, path: Path) -> None:
    """Raise ModelFileError for a model with weights in files elsewhere than in its own folder."""
    for tensor in tensors(model):
        if uses_external_data(tensor):
            _file(tensor, path.parent)


def _file(tensor: onnx.TensorProto, folder: Path) -> Path:
    location = ExternalDataInfo(tensor).location
    file, folder = (folder / location).resolve(), folder.resolve()
    if not file.is_relative_to(folder) or not file.is_file():
        raise ModelFileError(f"weights in {location!r}, which is not a file in the model's own folder, {folder}")
    return file


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a model holds, at any depth."""
    yield from model.graph.initializer
    yield from in_nodes(model.graph.node)
    for function in model.functions:
        yield from in_nodes(function.node)


def in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Every tensor in the attributes of nodes, at any depth."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
        yield from (attribute.t, *attribute.tensors, *(part for s in sparse for part in (s.values, s.indices)))
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
            yield from graph.initializer
            yield from in_nodes(graph.node)
