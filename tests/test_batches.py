"""Inputs and outputs whose batch is not first, inputs of one number, and If whose branch follows from what is known."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from reference import analog

import snnc
from snnc import ir

RNG = np.random.default_rng(0)
STEPS, UNITS = 6, 3
FLOAT = TensorProto.FLOAT


def entry(name, *sizes, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, sizes)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), name=f"n/{outputs.split()[0]}", **attributes)


def branch(nodes, *outputs, **constants):
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    return helper.make_graph(nodes, "branch", [], [helper.make_empty_tensor_value_info(o) for o in outputs], held)


def model(nodes, inputs, outputs, opset=18, **constants):
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_empty_tensor_value_info(o) for o in outputs], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made)


def remembering(state, x=("batch", STEPS), more=(), inputs=()) -> onnx.ModelProto:
    """A series, and the two states of an LSTM in one tensor, which come back so."""
    nodes = [
        node("Unsqueeze", "x ends", "s0"),
        node("Transpose", "s0", "s", perm=[1, 0, 2]),
        node("Gather", "state first", "h", axis=0),
        node("Gather", "state second", "c", axis=0),
        node("Unsqueeze", "h front", "h0"),
        node("Unsqueeze", "c front", "c0"),
        helper.make_node(
            "LSTM", ["s", "w", "r", "b", "", "h0", "c0"], ["y", "h1", "c1"], hidden_size=UNITS, name="cell"
        ),
        node("Concat", "h1 c1", "state_out", axis=0),
        node("Squeeze", "h1 front", "last"),
        node("MatMul", "last m", "scores"),
        *more,
    ]
    drawn = {"w": (1, 4 * UNITS, 1), "r": (1, 4 * UNITS, UNITS), "b": (1, 8 * UNITS), "m": (UNITS, 2)}
    known = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in drawn.items()}
    known |= {"ends": np.array([2]), "front": np.array([0]), "first": np.array(0), "second": np.array(1)}
    return model(nodes, [entry("x", *x), entry("state", *state), *inputs], ["scores", "state_out"], **known)


def run(made, fed):
    return onnxruntime.InferenceSession(made.SerializeToString()).run(None, fed)


@pytest.mark.parametrize(
    ("state", "x", "inputs"),
    [
        ((2, "batch", UNITS), ("batch", STEPS), None),
        ((2, 1, UNITS), (1, STEPS), None),
        ((2, None, UNITS), ("batch", STEPS), None),
        ((2, None, UNITS), (None, None), {"x": (1, STEPS)}),
        ((2, "batch", UNITS), ("batch", "time"), {"x": np.zeros((4, STEPS))}),
        ((2, "n", UNITS), ("n", STEPS), {"state": (2, 5, UNITS)}),
        ((None, None, None), (1, STEPS), {"state": (2, 1, UNITS)}),
    ],
)
def test_states_whose_batch_is_their_second_axis(state, x, inputs):
    made = remembering(state, x)
    network = snnc.load(made, inputs=inputs, verify=True)
    assert {name: network.populations[name].shape for name in network.inputs} == {
        "x": (STEPS, 1, 1),
        "state": (2, 1, UNITS),
    }
    series, states = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, STEPS), (3, 2, UNITS)))
    for one, own in zip(series, states, strict=True):
        scores, after = run(made, {"x": one[None], "state": own[:, None]})
        found = snnc.compile(network).predict({"x": one[None], "state": own[None]})
        first, second = found.values()
        np.testing.assert_allclose(first, scores, atol=1e-5)
        assert second.size == after.size
        np.testing.assert_allclose(second.reshape(2, UNITS), after[:, 0], atol=1e-5)  # as it is given


def test_spikes_of_states():
    network = snnc.load(remembering((2, "batch", UNITS)))
    data = {"x": RNG.normal(size=(40, STEPS)), "state": RNG.normal(size=(40, 2, UNITS))}
    data = {name: array.astype(np.float32) for name, array in data.items()}
    snn = snnc.convert(network, "few-spike{k=10}", calibration=data, progress=False)
    for found, expected in zip(
        snnc.compile(snn).predict(data).values(), snnc.compile(network).predict(data).values(), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_a_batch_that_cannot_be_told_is_asked_for():
    nodes = [node("Flatten", "z", "f"), node("MatMul", "f m", "g"), node("Add", "g x", "y")]
    with pytest.raises(ir.UnsupportedModelError, match="of which the batch cannot be told") as error:
        snnc.load(model(nodes, [entry("x", 1, 5), entry("z", 4, 6)], ["y"], m=np.zeros((6, 5), np.float32)))
    (problem,) = error.value.problems
    assert problem == (
        "z (input): its shape is (4, 6), and other inputs have a batch of 1 first: which of its axes is the batch's is "
        "not told; give that axis the size 1, as in inputs={'z': (4, 1)}, or make it a constant of the model if it is "
        "the same for all examples"
    )
    with pytest.raises(ir.UnsupportedModelError, match=r"as in inputs=\{'state': \(2, 1, 1\)\}"):
        snnc.load(remembering((2, None, None)))
    network = snnc.load(remembering((2, None, None)), inputs={"state": (2, 1, UNITS)}, verify=True)
    assert network.populations["state"].shape == (2, 1, UNITS)


@pytest.mark.parametrize("batch", [1, 4])
def test_axes_before_and_behind_the_batch(batch):
    """Two axes around the batch's, and three; outputs come with the batch first, and the rest in order."""
    nodes = [
        node("Transpose", "z", "t", perm=[1, 0, 2]),
        node("Reshape", "t sizes", "f"),
        node("MatMul", "f m", "g"),
        node("Add", "g x", "h"),
        node("Relu", "h", "y"),
        node("Mul", "z z", "squares"),
    ]
    m = RNG.normal(size=(6, 5)).astype(np.float32)
    inputs = [entry("x", batch, 5), entry("z", 3, batch, 2)]
    made = model(nodes, inputs, ["y", "squares"], m=m, sizes=np.array([batch, 6]))
    network = snnc.load(made, verify=True)
    assert [network.populations[name].shape for name in network.inputs] == [(5,), (3, 1, 2)]
    x, z = (RNG.normal(size=shape).astype(np.float32) for shape in ((batch, 5), (3, batch, 2)))
    y, squares = run(made, {"x": x, "z": z})
    found = analog(network, {"x": x, "z": z.transpose(1, 0, 2)[:, :, None]})
    first, second = (found[name] for name in network.outputs)
    np.testing.assert_allclose(first, y, atol=1e-5)
    np.testing.assert_allclose(second.reshape(batch, 3, 2), squares.transpose(1, 0, 2), atol=1e-5)


def test_an_output_whose_batch_is_second_as_of_a_stack_of_matrices():
    stack = RNG.normal(size=(3, 5, 2)).astype(np.float32)
    made = model([node("MatMul", "x stack", "y")], [entry("x", "batch", 5)], ["y"], stack=stack)
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    (expected,) = run(made, {"x": x})
    found = snnc.compile(snnc.load(made, verify=True)).predict(x)
    np.testing.assert_allclose(found.reshape(4, 3, 2), expected.transpose(1, 0, 2), atol=1e-5)


# Settings, and If.


def chosen_by(condition, inputs, *before, **constants) -> onnx.ModelProto:
    """Two layers of other weights; both branches call their tensors the same, and take x from outside."""
    same = [node("MatMul", "x w", "inner"), node("Relu", "inner", "out")]
    held = [RNG.normal(size=(5, 3)).astype(np.float32) for _ in range(2)]
    nodes = [
        *before,
        helper.make_node(
            "If",
            [condition],
            ["y"],
            name="which",
            then_branch=branch(same, "out", w=held[0]),
            else_branch=branch(same, "out", w=held[1]),
        ),
        node("Identity", "y", "z"),
    ]
    return model(nodes, [entry("x", "batch", 5), *inputs], ["z"], **constants)


RATE = entry("rate", kind=TensorProto.INT64)


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("form", [int, np.int64, np.array, lambda number: np.array([number]), lambda number: (number,)])
def test_an_input_of_one_number_is_a_setting(rate, form):
    made = chosen_by("slow", [RATE], node("Less", "rate limit", "slow"), limit=np.array(10000))
    network = snnc.load(made, inputs={"rate": form(rate)}, verify=True)
    assert network.inputs == ("x",)
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    (expected,) = run(made, {"x": x, "rate": np.array(rate)})
    np.testing.assert_allclose(snnc.compile(network).predict(x), expected, atol=1e-6)
    assert {p.origin.layers[-1] for p in network.populations.values()} == {"x", "n/out"}


def test_outputs_without_a_name_lead_nowhere():
    """As of an operator that gives more than is wanted, before others that leave inputs out: read, and not for ever."""
    nodes = [
        node("Transpose", "x", "s", perm=[2, 0, 1]),
        helper.make_node("GRU", ["s", "w", "r"], ["", "h"], hidden_size=2, name="cell"),
        node("Squeeze", "h front", "last"),
        helper.make_node("Clip", ["last", "", "most"], ["y"], name="clip"),
    ]
    drawn = {"w": RNG.normal(size=(1, 6, 4)), "r": RNG.normal(size=(1, 6, 2))}
    known = {name: array.astype(np.float32) for name, array in drawn.items()}
    known |= {"front": np.array([0]), "most": np.float32(0.1)}
    network = snnc.load(model(nodes, [entry("x", 1, 4, 5)], ["y", "h"], **known), verify=True)
    assert len(network.outputs) == 2


def test_settings_in_order_and_on_the_command_line(tmp_path, snnc_command):
    made = chosen_by("slow", [RATE], node("Less", "rate limit", "slow"), limit=np.array(10000))
    assert snnc.load(made, inputs=((1, 5), 8000)) == snnc.load(made, inputs={"rate": 8000})
    onnx.save(made, tmp_path / "model.onnx")
    result = snnc_command("check", tmp_path / "model.onnx", "--input-shape", "rate=8000")
    assert getattr(result, "exit_code", 0) == 0


def test_a_setting_that_is_not_given_or_is_no_number():
    made = chosen_by("slow", [RATE], node("Less", "rate limit", "slow"), limit=np.array(10000))
    said = r"rate \(input\): it is one number for all examples; say it, as in inputs=\{'rate': 1\}"
    for inputs in (None, {"x": (1, 5)}, (1, 5)):
        with pytest.raises(ir.UnsupportedModelError, match=said):
            snnc.load(made, inputs=inputs)
    for wrong in ("fast", [1, 2], None, np.zeros((2, 2))):
        with pytest.raises(ir.DataError, match="rate takes one number"):
            snnc.load(made, inputs={"rate": wrong})


def test_if_that_a_size_decides():
    before = [node("Shape", "x", "sizes"), node("Gather", "sizes one", "wide"), node("Equal", "wide five", "is")]
    made = chosen_by("is", [], *before, one=np.array(1), five=np.array(5))
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    (expected,) = run(made, {"x": x})
    np.testing.assert_allclose(snnc.compile(snnc.load(made, verify=True)).predict(x), expected, atol=1e-6)


def test_if_within_if_and_twice_the_same_names():
    inner = [node("Relu", "x", "out")]
    other = [node("Mul", "x two", "out")]
    nested = [
        helper.make_node(
            "If", ["no"], ["out"], name="within", then_branch=branch(inner, "out"), else_branch=branch(other, "out")
        )
    ]
    for graph in (nested[0].attribute[0].g, nested[0].attribute[1].g):  # names of their own within
        graph.node[0].output[0] = graph.output[0].name = "deep"
    nodes = [
        helper.make_node(
            "If",
            ["yes"],
            [f"y{place}"],
            name=f"if{place}",
            then_branch=branch(nested, "out"),
            else_branch=branch(inner, "out"),
        )
        for place in range(2)
    ]
    flags = {"yes": np.array([True]), "no": np.array([False]), "two": np.float32(2)}
    made = model([*nodes, node("Add", "y0 y1", "y")], [entry("x", "batch", 5)], ["y"], **flags)
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    (expected,) = run(made, {"x": x})
    np.testing.assert_allclose(snnc.compile(snnc.load(made, verify=True)).predict(x), expected, atol=1e-6)


def test_a_branch_that_hands_on_what_is_outside():
    through = [node("Identity", "x", "out")]
    nodes = [
        helper.make_node(
            "If", ["yes"], ["y"], name="which", then_branch=branch(through, "out"), else_branch=branch(through, "out")
        ),
        node("Relu", "y", "z"),
    ]
    made = model(nodes, [entry("x", "batch", 5)], ["z"], yes=np.array(True))
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(snnc.compile(snnc.load(made)).predict(x), np.maximum(x, 0))


def test_if_that_activations_decide_is_refused():
    before = [node("MatMul", "x w0", "total"), node("Greater", "total nothing", "is")]
    made = chosen_by("is", [], *before, nothing=np.float32(0), w0=np.ones((5, 1), np.float32))
    with pytest.raises(ir.UnsupportedModelError) as error:
        snnc.load(made)
    assert any(
        "which (If): it chooses between two parts of the model" in str(problem) for problem in error.value.problems
    )
