"""The node tests of the ONNX backend test suite as networks, with the outputs that each must give.

What a test calls an input is the network's input where it is an activation, and a weight otherwise: the first one that
holds real numbers, or the first few of them; each way is tried. The first axis is the batch; where that will not do,
the test is tried as one image, with a batch axis squeezed away before the nodes and added behind them. Networks are
channels-last, so results are compared as they are and with the channels moved.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from reference import analog

from snnc import frontend, ir
from snnc.frontend.precision import EPS

_RANKED = {"ArgMax": 1, "ArgMin": -1}  # the network gives the scores, or what falls as they rise
_REAL = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Outcome:
    """What became of a test: it `agrees` as a network, or `message` says why it is refused."""

    agrees: bool
    message: str = ""


def cases() -> dict[str, list[TestCase]]:
    """Every test, by its operator; `X as its function` are those of what ONNX defines X to be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the suite's own casts
        every = load_model_tests(kind="node")
    alone = {case.name: _named(case) for case in every if len(case.model.graph.node) == 1}
    found: dict[str, list[TestCase]] = {}
    for case in every:
        found.setdefault(alone.get(case.name) or _of_function(case, alone), []).append(case)
    return dict(sorted(found.items()))


def _named(case: TestCase) -> str:
    (node,) = case.model.graph.node
    return f"{node.domain}.{node.op_type}".removeprefix("ai.onnx.").lstrip(".")


def _of_function(case: TestCase, alone: dict[str, str]) -> str:
    return f"{alone[re.sub(r'_expanded.*', '', case.name)]} as its function"


def outcome(case: TestCase) -> Outcome:
    """Run a test as a network, or say why it cannot be; raises AssertionError where it disagrees."""
    first = None
    for way in _ways(case):
        found = _attempt(case, *way)
        if found.agrees:
            return found
        first = first or found
    assert first is not None
    return first


def _ways(case: TestCase) -> Iterator[tuple[list[str], bool]]:
    """Which inputs are activations; and whether they lack a batch."""
    entries = case.model.graph.input
    real = [entry.name for entry in entries if entry.type.tensor_type.elem_type in _REAL]
    names = real or [entry.name for entry in entries[:1]]
    for count in dict.fromkeys([1, *range(len(names), 1, -1)]):
        for alone in (False, True):
            yield names[:count], alone


def _attempt(case: TestCase, activations: list[str], alone: bool) -> Outcome:
    given, expected = case.data_sets[0]
    arrays = dict(zip((entry.name for entry in case.model.graph.input), given, strict=True))
    try:
        network = frontend.load(_model(case, arrays, activations, alone))
    except ir.SnncError as error:
        return Outcome(False, str(error).splitlines()[-1].strip())
    fed = {name: _array(arrays[name], alone) for name in network.inputs}
    values = analog(network, {name: _arranged(x, network.populations[name].shape) for name, x in fed.items()})
    for name, written in zip(network.outputs, expected, strict=False):
        found, y = values[name], _array(written, alone)
        sign = _RANKED.get(case.model.graph.node[0].op_type)
        if sign:  # the scores of the classes in y are the largest
            places = y.astype(np.int64).reshape(*found.shape[:-1], 1)
            found, y = np.take_along_axis(found, places, -1), found.max(-1, keepdims=True)
        assert _is_close(found, y, case), f"{case.name}: {found.shape} is not {y.shape}"
    return Outcome(True)


def _model(
    case: TestCase, arrays: dict[str, np.ndarray | onnx.TensorProto], activations: list[str], alone: bool
) -> onnx.ModelProto:
    """The test's model with the values of its weights; if it is to be `alone`, with a batch of one around it."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for entry in model.graph.input:
        if entry.name not in activations and entry.type.HasField("tensor_type"):
            array = arrays[entry.name]
            tensor = array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(np.asarray(array))
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = entry.name
    if alone:
        _add_batch(model, activations)
    return model


def _add_batch(model: onnx.ModelProto, activations: list[str]) -> None:
    """Put the model's nodes between a Squeeze of each activation and an Unsqueeze of each output."""
    within = {name: f"one {name}" for name in (*activations, *(output.name for output in model.graph.output))}
    before = [_view(model, "Squeeze", name, within[name]) for name in activations]
    after = [_view(model, "Unsqueeze", within[output.name], output.name) for output in model.graph.output]
    for entry in (*model.graph.input, *model.graph.output):
        kind = entry.type.tensor_type
        if entry.name in within:
            sizes = [1, *(dim.dim_value for dim in kind.shape.dim)]
            entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind.elem_type, sizes))
    del model.graph.value_info[:]
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [within.get(name, name) for name in names]
    nodes = [*before, *map(_copy, model.graph.node), *after]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    return onnx.NodeProto.FromString(node.SerializeToString())


def _view(model: onnx.ModelProto, operator: str, before: str, after: str) -> onnx.NodeProto:
    """A node that takes the first axis away, or adds it."""
    if model.opset_import[0].version < 13:
        return helper.make_node(operator, [before], [after], axes=[0])
    if not any(tensor.name == "front" for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "front"))
    return helper.make_node(operator, [before, "front"], [after])


def _array(given: np.ndarray | onnx.TensorProto, alone: bool) -> np.ndarray:
    """In double precision; numbers of types that numpy lacks come as ONNX tensors."""
    array = np.asarray(_raw(given), np.float64)
    return array[None] if alone else array


def _raw(given: np.ndarray | onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)


def _arranged(x: np.ndarray, shape: ir.Shape) -> np.ndarray:
    """Images for a population of `shape`, channels-last where that is what the shape says, and the batch first."""
    plain, others = ([w for w in ways if _fits(w, shape)] for ways in ([x, np.moveaxis(x, 1, -1)], _batch_first(x)))
    way = plain[-1 if x.ndim == 4 else 0] if plain else others[0]
    return way.reshape(len(way), *shape)


def _fits(x: np.ndarray, shape: ir.Shape) -> bool:
    return [n for n in x.shape[1:] if n != 1] == [n for n in shape if n != 1]


def _batch_first(x: np.ndarray) -> list[np.ndarray]:
    """A tensor with each other axis in front, which may be that of the batch."""
    return [np.moveaxis(x, axis, 0) for axis in range(1, x.ndim)]


def _is_close(found: np.ndarray, y: np.ndarray, case: TestCase) -> bool:
    ways = [y, np.moveaxis(y, 1, -1)] if y.ndim > 2 else [y]
    ways += [way for way in _batch_first(y) if len(way) == len(found) != len(y)]
    kind = _raw(case.data_sets[0][1][0]).dtype.name
    rtol = max(case.rtol, 2 * EPS.get(kind, 0))  # networks compute in single precision
    return any(
        way.size == found.size
        and np.allclose(found, way.reshape(found.shape), rtol=rtol, atol=case.atol, equal_nan=True)
        for way in ways
    )
