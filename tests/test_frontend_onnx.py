"""ONNX files from elsewhere: channels first, older opsets, shapes computed in the graph; onnxruntime is the oracle."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from reference import analog

from snnc import frontend, ir

RNG = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    fan_in = np.prod(shape[1:]) if len(shape) > 1 else 4
    return (RNG.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


def save(tmp_path, nodes, shape, opset=18, outputs=("y",), **constants):
    """Write a model with an input `x`, a dynamic batch and weights; nodes are (operator, inputs, output, …)."""
    made = [
        helper.make_node(op, inputs.split(), output.split(), name=f"n/{output.split()[0]}", **attributes[0])
        for op, inputs, output, *attributes in [(*node, {})[:4] for node in nodes]
    ]
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ("batch", *shape))],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def channels_last(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def assert_equal(path, shape, first=True) -> ir.Network:
    """Compare with onnxruntime; images are given to the network as (H, W, C)."""
    network = frontend.load(path)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, _quiet(), providers=["CPUExecutionProvider"])
    values = analog(network, {"x": channels_last(x) if first else x})
    for name, y in zip(network.outputs, session.run(None, {"x": x}), strict=True):
        y = channels_last(y) if first else y
        assert values[name].shape == y.shape
        np.testing.assert_allclose(values[name], y, rtol=0, atol=1e-4 * np.abs(y).max())
    return network


def test_a_classifier_as_pytorch_exports_it(tmp_path):
    nodes = [
        ("Conv", "x w1 b1", "c1", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("BatchNormalization", "c1 scale offset mean variance", "bn"),
        ("Relu", "bn", "r1"),
        ("Conv", "r1 w2", "c2", {"group": 2, "dilations": [2, 2], "pads": [2, 1, 2, 3]}),
        ("Add", "c2 r1", "sum"),
        ("Clip", "sum zero six", "r2"),
        ("MaxPool", "r2", "mp", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Flatten", "mp", "flat"),
        ("Gemm", "flat w3 b3", "g", {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ("Softmax", "g", "y"),
    ]
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 3, 3, 3), "w3": (4, 54), "b3": (4,)}
    constants = {name: weight(*shape) for name, shape in shapes.items()}
    constants |= {name: weight(6) for name in ("scale", "offset", "mean")}
    constants |= {"variance": 1 + weight(6) ** 2, "zero": np.float32(0), "six": np.float32(0.7)}
    network = assert_equal(save(tmp_path, nodes, (3, 12, 14), **constants), (3, 12, 14))
    assert list(network.populations) == ["x", "n/r1", "n/r2", "n/mp", "n/y"]
    assert network.populations["n/r1"].shape == (6, 7, 6)
    assert network.populations["n/r2"].origin.layers == ("n/c2", "n/sum", "n/r2")


FLATTENED = [
    [("Flatten", "{0}", "{1}")],
    [("Reshape", "{0} flat", "{1}")],
    [
        ("Shape", "{0}", "shape"),
        ("Gather", "shape zero", "batch"),
        ("Unsqueeze", "batch front", "batch1"),
        ("Concat", "batch1 rest", "wanted", {"axis": 0}),
        ("Reshape", "{0} wanted", "{1}"),
    ],
]


@pytest.mark.parametrize("how", FLATTENED)
@pytest.mark.parametrize("between", [[], [("Relu", "{0}", "{1}")], [("Add", "{0} position", "{1}")]])
def test_flattening_channels_first_images(tmp_path, how, between):
    nodes, tensor = [("Conv", "x w b", "c")], "c"
    for position, (op, inputs, output, *attributes) in enumerate([*between, *how]):
        made = output.format(0, f"t{position}")
        nodes.append((op, inputs.format(tensor), made, *attributes))
        tensor = made if "{1}" in output else tensor
    nodes += [("Mul", f"{tensor} each", "scaled"), ("MatMul", "scaled m", "y")]
    shapes = {"w": (5, 2, 2, 3), "b": (5,), "position": (1, 5, 4, 4), "m": (80, 3), "each": (80,)}
    constants = {name: weight(*shape) for name, shape in shapes.items()}
    constants |= {"flat": np.array([0, -1]), "rest": np.array([-1]), "zero": np.array(0), "front": np.array([0])}
    assert_equal(save(tmp_path, nodes, (2, 5, 6), **constants), (2, 5, 6))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(tmp_path, auto_pad):
    nodes = [
        ("Conv", "x w", "c", {"auto_pad": auto_pad, "strides": [2, 3]}),
        ("AveragePool", "c", "a", {"auto_pad": auto_pad, "kernel_shape": [2, 2]}),
        ("MaxPool", "a", "y", {"auto_pad": auto_pad, "kernel_shape": [2, 2], "strides": [2, 1]}),
    ]
    assert_equal(save(tmp_path, nodes, (2, 13, 14), w=weight(3, 2, 4, 2)), (2, 13, 14))


def test_pooling_that_counts_its_padding(tmp_path):
    attributes = {"kernel_shape": [3, 2], "pads": [1, 1, 2, 0], "strides": [2, 2], "count_include_pad": 1}
    nodes = [("Add", "x b", "s"), ("AveragePool", "s", "y", attributes)]
    assert_equal(save(tmp_path, nodes, (2, 7, 8), b=weight(2, 1, 1)), (2, 7, 8))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pooling(tmp_path, op):
    nodes = [(op, "x", "p"), ("Conv", "p w", "c"), ("Squeeze", "c axes", "s"), ("Gemm", "s m b", "y")]
    constants = {"w": weight(4, 3, 1, 1), "axes": np.array([2, 3]), "m": weight(4, 2), "b": weight(2)}
    assert_equal(save(tmp_path, nodes, (3, 4, 5), **constants), (3, 4, 5))


def test_padding_with_a_number_and_sums_of_many(tmp_path):
    nodes = [
        ("Pad", "x pads seven", "p"),
        ("Sum", "p p p", "s"),
        ("Mean", "s p", "m"),
        ("Sub", "one m", "d"),
        ("Neg", "d", "n"),
        ("Div", "n each", "y"),
    ]
    constants = {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "seven": np.float32(7), "one": np.float32(1)}
    assert_equal(save(tmp_path, nodes, (2, 3, 4), each=1 + weight(2, 1, 1) ** 2, **constants), (2, 3, 4))


@pytest.mark.parametrize(
    "nodes",
    [
        [("Max", "x zero", "y")],
        [("Max", "x zero", "m"), ("Min", "m cap", "y")],
        [("Min", "x cap", "m"), ("Max", "m zero", "y")],
        [("Relu", "x", "r"), ("Clip", "r zero cap", "y")],
        [("Clip", "x zero", "r"), ("Relu", "r", "y")],
        [("Clip", "x zero cap", "c"), ("Clip", "c zero less", "y")],
    ],
)
def test_forms_of_relu(tmp_path, nodes):
    constants = {"zero": np.float32(0), "cap": np.float32(0.8), "less": np.float32(0.3)}
    network = assert_equal(save(tmp_path, nodes, (6,), **constants), (6,))
    assert len(network.populations) == 2


BOUNDS = {"low": -0.6, "zero": 0, "high": 0.75, "far": np.finfo(np.float32).max, "each": [[0.5] * 6]}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("Max"), st.sampled_from(["low", "zero", "each"])),
            st.tuples(st.just("Min"), st.sampled_from(["far", "zero", "each"])),
            st.tuples(
                st.just("Clip"), st.sampled_from(["low", "zero", "high"]), st.sampled_from(["zero", "high", "far"])
            ),
            st.sampled_from([("Relu",), ("Neg",), ("LeakyRelu",), ("HardSigmoid",)]),
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_chains_of_bounds(tmp_path_factory, chain):
    """Whatever the bounds leave, if they leave anything: the input is part of the output, so that it depends on it."""
    nodes = [(op, " ".join([f"v{i}" if i else "x", *bounds]), f"v{i + 1}") for i, (op, *bounds) in enumerate(chain)]
    nodes.append(("Sub", f"v{len(chain)} x", "y"))
    path = save(tmp_path_factory.mktemp("model"), nodes, (6,), **{name: np.float32(b) for name, b in BOUNDS.items()})
    assert_equal(path, (6,))


@pytest.mark.parametrize("slope", [(), (1,), (3, 1, 1), (4, 5), (3, 4, 5), (1, 3, 1, 5)])
def test_parametric_leaky_relu(tmp_path, slope):
    nodes = [("PRelu", "x slope", "p"), ("Conv", "p w", "c", {"pads": [1, 1, 1, 1]}), ("HardSigmoid", "c", "y")]
    constants = {"slope": np.float32(RNG.normal(size=slope)), "w": weight(2, 3, 3, 3)}
    network = assert_equal(save(tmp_path, nodes, (3, 4, 5), **constants), (3, 4, 5))
    shape = np.shape(network.populations["n/p"].neuron.slope)
    assert shape == ((4, 5, 3) if slope[-1:] == (5,) else (3,) if slope[:1] == (3,) else ())


def test_older_opsets_with_attributes_instead_of_inputs(tmp_path):
    nodes = [
        ("Pad", "x", "p", {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}),
        ("Clip", "p", "c", {"min": 0.0, "max": 0.5}),
        ("ReduceMean", "c", "m", {"axes": [2, 3], "keepdims": 1}),
        ("Squeeze", "m", "s", {"axes": [2, 3]}),
        ("Unsqueeze", "s", "u", {"axes": [2]}),
        ("Flatten", "u", "f"),
        ("Softmax", "f", "y"),
    ]
    assert_equal(save(tmp_path, nodes, (3, 4, 5), opset=9), (3, 4, 5))


def test_a_model_that_takes_channels_last_images(tmp_path):
    nodes = [
        ("Mul", "x scale", "m"),
        ("Transpose", "m", "t", {"perm": [0, 3, 1, 2]}),
        ("Conv", "t w", "c"),
        ("Transpose", "c", "back", {"perm": [0, 2, 3, 1]}),
        ("Relu", "back", "y"),
    ]
    network = assert_equal(save(tmp_path, nodes, (6, 7, 3), w=weight(4, 3, 2, 2), scale=weight(3)), (6, 7, 3), False)
    assert network.populations["x"].shape == (6, 7, 3)


def test_concatenation_and_constants_in_nodes(tmp_path):
    nodes = [
        ("Constant", "", "two", {"value_float": 2.0}),
        ("Mul", "x two", "m"),
        ("Relu", "x", "r"),
        ("Concat", "m x r", "c", {"axis": 1}),
        ("Conv", "c w", "k"),
        ("Concat", "k k", "y", {"axis": -1}),
    ]
    assert_equal(save(tmp_path, nodes, (2, 3, 4), w=weight(3, 6, 2, 2)), (2, 3, 4))


def test_weights_beside_the_model_but_not_elsewhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = save(inside, [("MatMul", "x m", "y")], (400,), m=weight(400, 8))
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (inside / "weights.bin").exists()
    assert_equal(path, (400,))
    (inside / "weights.bin").rename(tmp_path / "weights.bin")
    with pytest.raises(ir.ModelFileError, match=r"not a file in the model's own folder"):
        frontend.load(path)
    for location in ("../weights.bin", str(tmp_path / "weights.bin")):
        moved = onnx.load(path, load_external_data=False)
        moved.graph.initializer[0].external_data[0].value = location
        path.write_bytes(moved.SerializeToString())
        with pytest.raises(ir.ModelFileError, match=r"not a file in the model's own folder"):
            frontend.load(path)


def problems(path) -> list[str]:
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(path)
    assert str(path) in str(error.value)
    return list(error.value.problems)


def test_all_problems_are_reported_at_once(tmp_path):
    nodes = [
        ("Sigmoid", "x", "s"),
        ("Tanh", "s", "hidden"),
        ("ConvTranspose", "x w", "t"),
        ("GlobalLpPool", "x", "r"),
        ("Relu", "x", "fine"),
        ("LRN", "fine", "l", {"size": 3}),
    ]
    path = save(tmp_path, nodes, (2, 4, 4), outputs=("hidden", "t", "r", "l"), w=weight(2, 2, 2, 2))
    found = problems(path)
    assert [line.split(":")[0] for line in found] == [
        *("n/s (Sigmoid)", "n/hidden (Tanh)", "n/t (ConvTranspose)", "n/r (GlobalLpPool)", "n/l (LRN)")
    ]


def test_unused_nodes_do_no_harm(tmp_path):
    assert_equal(save(tmp_path, [("Sigmoid", "x", "s"), ("Relu", "x", "y")], (4,)), (4,))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("ConstantOfShape", "huge", "h"), ("ReduceSum", "h", "t"), ("Mul", "x t", "y")], "n/h (ConstantOfShape)"),
        ([("Mul", "x x", "y")], "multiplies activations with each other"),
        ([("Clip", "x cap cap", "y")], "does not depend on the input; outputs"),
        ([("Max", "x uneven", "y")], "at one number only"),
        ([("Max", "x x", "y")], "between activations and one number only"),
        ([("PRelu", "cap x", "y")], "with a constant as operand 1"),
        ([("PRelu", "x x", "y")], "takes its operand 2 from the network's activations"),
        ([("ThresholdedRelu", "x", "y")], "jumps at a threshold"),
        ([("Div", "cap x", "y")], "with a constant as operand 1"),
        ([("Cast", "x", "i", {"to": 7}), ("Cast", "i", "y", {"to": 1})], "into integers"),
        ([("Identity", "cap", "y")], "does not depend on the input"),
    ],
)
def test_messages(tmp_path, nodes, expected):
    constants = {"huge": np.array([2**20, 2**20]), "cap": np.float32(0.5), "uneven": np.float32([1, 2, 3, 4])}
    (line,) = problems(save(tmp_path, nodes, (4,), **constants))
    assert expected in line


def test_input_shapes(tmp_path):
    found = problems(save(tmp_path, [("Relu", "x", "y")], (3, "height", "width")))
    assert found[0].startswith("x (input): shape")
    assert problems(save(tmp_path, [("Relu", "x", "y")], (3, 4)))[0].startswith("x (input): shape")


def test_invalid_models(tmp_path):
    path = save(tmp_path, [("Relu", "nowhere", "y")], (4,))
    with pytest.raises(ir.ModelFileError, match="not a valid ONNX model"):
        frontend.load(path)
    path = save(tmp_path, [("NoSuchOperator", "x", "y")], (4,))
    with pytest.raises(ir.ModelFileError, match="not a valid ONNX model"):
        frontend.load(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ir.ModelFileError, match=r"model\.onnx"):
        frontend.load(path)
