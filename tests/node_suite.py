"""The node tests of the ONNX backend test suite as networks: one model of one node, with the outputs that it must give.

What a test calls an input is the network's input where it is an activation, and a weight otherwise. The first axis is
the batch; where that will not do, the test is tried as one image, with a batch axis squeezed away before the node and
added behind it. Networks are channels-last, so results are compared as they are and with the channels moved.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from reference import analog

from snnc import frontend, ir
from snnc.frontend import operators
from snnc.frontend.precision import EPS

_NUMBER_FORMATS = {"Cast", "CastLike"}  # their tests are about rounding, which networks leave out
_OF_TENSORFLOW = {"Erfc", "Expm1", "Log1p"}
OPERATORS = sorted(set(operators._HANDLERS) - _NUMBER_FORMATS - _OF_TENSORFLOW)
_OF_SEVERAL = {"Add", "Concat", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum"}


@dataclass(frozen=True)
class Outcome:
    """What became of a test: it `agrees` as a network, or `message` says why it is refused."""

    agrees: bool
    message: str = ""


def cases() -> dict[str, list[TestCase]]:
    """The tests of each operator, those of one node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the suite's own casts
        every = load_model_tests(kind="node")
    found: dict[str, list[TestCase]] = {name: [] for name in OPERATORS}
    for case in every:
        nodes = [] if case.model is None else case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in found and nodes[0].domain == "":
            found[nodes[0].op_type].append(case)
    return found


def outcome(case: TestCase) -> Outcome:
    """Run a test as a network, or say why it cannot be; raises AssertionError where it disagrees."""
    results = [_attempt(case, *way) for way in _ways(case)]
    return next((result for result in results if result.agrees), results[0])


def _ways(case: TestCase) -> Iterator[tuple[int, bool]]:
    """How many inputs are activations, the first or all where the operator takes several; if they lack a batch."""
    operator, count = case.model.graph.node[0].op_type, len(case.model.graph.input)
    for activations in {1, count} if operator in _OF_SEVERAL else {1}:
        yield activations, False
        yield activations, True


def _attempt(case: TestCase, activations: int, alone: bool) -> Outcome:
    given, expected = case.data_sets[0]
    try:
        network = frontend.load(_model(case, given, activations, alone))
    except ir.SnncError as error:
        return Outcome(False, str(error).splitlines()[-1].strip())
    fed = [_array(array, alone) for array in given[: len(network.inputs)]]
    images = {name: _arranged(x, network.populations[name].shape) for name, x in zip(network.inputs, fed, strict=True)}
    values = analog(network, images)
    for name, written in zip(network.outputs, expected, strict=False):
        found, y = values[name], _array(written, alone)
        if case.model.graph.node[0].op_type == "ArgMax":  # the network gives the scores: those of y are the largest
            places = y.astype(np.int64).reshape(*found.shape[:-1], 1)
            found, y = np.take_along_axis(found, places, -1), found.max(-1, keepdims=True)
        assert _is_close(found, y, case), f"{case.name}: {found.shape} is not {y.shape}"
    return Outcome(True)


def _model(case: TestCase, given: list[np.ndarray], activations: int, alone: bool) -> onnx.ModelProto:
    """The test's model with the values of its weights; if it is to be `alone`, with a batch of one around it."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for entry, array in [*zip(model.graph.input, given, strict=True)][activations:]:
        tensor = array if isinstance(array, onnx.TensorProto) else numpy_helper.from_array(np.asarray(array))
        model.graph.initializer.add().CopyFrom(tensor)
        model.graph.initializer[-1].name = entry.name
    if alone:
        _add_batch(model, activations)
    return model


def _add_batch(model: onnx.ModelProto, activations: int) -> None:
    """Put the model's node between a Squeeze of each activation and an Unsqueeze of each output."""
    (node,) = model.graph.node
    names = [entry.name for entry in model.graph.input][:activations]
    before = [_view(model, "Squeeze", name, f"one {name}") for name in names]
    after = [_view(model, "Unsqueeze", f"one {name}", name) for name in node.output if name]
    inputs = [f"one {name}" if name in names else name for name in node.input]
    outputs = [name and f"one {name}" for name in node.output]
    for entry in model.graph.input[:activations]:
        kind = entry.type.tensor_type
        sizes = [1, *(dim.dim_value for dim in kind.shape.dim)]
        entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind.elem_type, sizes))
    node.input[:], node.output[:] = inputs, outputs
    nodes = [*before, onnx.NodeProto.FromString(node.SerializeToString()), *after]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _view(model: onnx.ModelProto, operator: str, before: str, after: str) -> onnx.NodeProto:
    """A node that takes the first axis away, or adds it."""
    if model.opset_import[0].version < 13:
        return helper.make_node(operator, [before], [after], axes=[0])
    if not any(tensor.name == "front" for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "front"))
    return helper.make_node(operator, [before, "front"], [after])


def _array(given: np.ndarray | onnx.TensorProto, alone: bool) -> np.ndarray:
    """In double precision; numbers of types that numpy lacks come as ONNX tensors."""
    array = np.asarray(numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else given, np.float64)
    return array[None] if alone else array


def _arranged(x: np.ndarray, shape: ir.Shape) -> np.ndarray:
    """Images for a population of `shape`, channels-last where that is what the shape says."""
    ways = [x, np.moveaxis(x, 1, -1)]
    fits = [way for way in ways if [n for n in way.shape[1:] if n != 1] == [n for n in shape if n != 1]]
    return fits[-1 if x.ndim == 4 else 0].reshape(len(x), *shape)


def _is_close(found: np.ndarray, y: np.ndarray, case: TestCase) -> bool:
    ways = [y, np.moveaxis(y, 1, -1)] if y.ndim > 2 else [y]
    kind = np.asarray(case.data_sets[0][1][0]).dtype.name
    rtol = max(case.rtol, 2 * EPS.get(kind, 0))  # networks compute in single precision
    return any(
        way.size == found.size and np.allclose(found, way.reshape(found.shape), rtol=rtol, atol=case.atol)
        for way in ways
    )
