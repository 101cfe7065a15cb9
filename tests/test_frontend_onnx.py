"""ONNX files from elsewhere: channels first, older opsets, shapes computed in the graph; onnxruntime is the oracle."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from reference import analog

import snnc
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
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def assert_equal(path, shape, first=True) -> ir.Network:
    """Compare with onnxruntime; images are given to the network as (H, W, C), series as (L, C)."""
    network = frontend.load(path)
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, _quiet(), providers=["CPUExecutionProvider"])
    fed = ir.as_inputs(network, channels_last(x) if first else x)
    values = analog(network, fed)
    for name, y in zip(network.outputs, session.run(None, {"x": x}), strict=True):
        y = channels_last(y) if first else y
        y = y[:, :, None] if values[name].ndim == 4 and y.ndim == 3 else y
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


def test_opsets_whose_operators_broadcast_in_their_own_way(tmp_path):
    """Before opset 7 an axis said which dimension a bias goes along. onnx's own converter gets it wrong (1.23)."""
    path = save(tmp_path, [("Add", "x b", "y", {"broadcast": 1, "axis": 1})], (4, 4, 4), opset=6, b=weight(4))
    with pytest.raises(ir.ModelFileError, match="in opset 6, which is too old"):
        frontend.load(path)


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


@pytest.mark.parametrize("opset", range(11, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_from_11(tmp_path, opset):
    """One network as opset 11 writes it, brought to newer ones by onnx's own converter."""
    nodes = [
        ("Pad", "x pads", "p"),
        ("Conv", "p w", "c", {"strides": [2, 1], "dilations": [1, 2]}),
        ("BatchNormalization", "c scale offset mean variance", "bn"),
        ("Clip", "bn zero six", "r"),
        ("Split", "r", "s1 s2", {"axis": 1, "split": [2, 4]}),
        ("Slice", "s2 one three axis", "cut"),
        ("Concat", "cut s1", "cat", {"axis": 1}),
        ("AveragePool", "cat", "a", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 0, 1]}),
        ("Unsqueeze", "a", "u", {"axes": [1]}),
        ("Squeeze", "u", "q", {"axes": [1]}),
        ("ReduceSum", "q", "sum", {"axes": [2], "keepdims": 0}),
        ("ReduceMean", "sum", "average", {"axes": [-1], "keepdims": 0}),
        ("Dropout", "average", "d"),
        ("Gemm", "d m b", "g"),
        ("LogSoftmax", "g", "y"),
    ]
    constants = {"w": weight(6, 2, 3, 2), "m": weight(4, 5), "b": weight(5), "pads": np.array([0, 0, 1, 0, 0, 0, 2, 1])}
    constants |= {name: weight(6) for name in ("scale", "offset", "mean")}
    constants |= {"variance": 1 + weight(6) ** 2, "zero": np.float32(0), "six": np.float32(0.7)}
    constants |= {"one": np.array([1]), "three": np.array([3]), "axis": np.array([1])}
    path = save(tmp_path, nodes, (2, 9, 8), opset=11, **constants)
    converted = onnx.version_converter.convert_version(onnx.load(path), opset)
    converted.ir_version = 8
    onnx.save(converted, path)
    assert_equal(path, (2, 9, 8))


@pytest.mark.parametrize("counts", [0, 1])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 1, 1), (0, 1, 2, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (3, 2)])
def test_incomplete_windows(tmp_path, strides, pads, counts):
    """What ceil_mode means, spelled out: a window counts if it starts within the image or the padding before it."""
    attributes = {"kernel_shape": [3, 3], "strides": strides, "pads": pads, "ceil_mode": 1}
    averaging = {**attributes, "count_include_pad": counts}
    nodes = [("AveragePool", "x", "y", averaging), ("MaxPool", "x", "z", attributes)]
    network = frontend.load(save(tmp_path, nodes, (2, 8, 9), outputs=("y", "z")))
    x = np.random.default_rng(1).normal(size=(2, 2, 8, 9))
    values = analog(network, {"x": channels_last(x)})
    rows, columns = (_spans(n, s, pads[a], pads[a + 2]) for a, (n, s) in enumerate(zip((8, 9), strides, strict=True)))
    for name, is_mean in zip(network.outputs, (True, False), strict=True):
        for i, (row, height) in enumerate(rows):
            for j, (column, width) in enumerate(columns):
                part = x[:, :, row, column]
                mean = part.sum((2, 3)) / height / width if counts else part.mean((2, 3))
                np.testing.assert_allclose(values[name][:, i, j], mean if is_mean else part.max((2, 3)), rtol=1e-6)
        assert values[name].shape[1:3] == (len(rows), len(columns))


def _spans(size: int, stride: int, before: int, after: int) -> list[tuple[slice, int]]:
    """For each window of three the part of the image that it sees, and its length with padding."""
    count = -(-(size + before + after - 3) // stride) + 1
    starts = [start for start in (k * stride - before for k in range(count)) if start < size]
    return [(slice(max(s, 0), min(s + 3, size)), min(s + 3, size + after) - s) for s in starts]


def test_one_dimensional_networks(tmp_path):
    nodes = [
        ("Conv", "x w1 b1", "c1", {"strides": [2], "pads": [1, 2], "dilations": [2]}),
        ("BatchNormalization", "c1 scale offset mean variance", "bn"),
        ("Relu", "bn", "r"),
        ("MaxPool", "r", "mp", {"kernel_shape": [3], "strides": [2], "auto_pad": "SAME_UPPER"}),
        ("Conv", "mp w2", "c2", {"group": 3}),
        ("PRelu", "c2 slope", "p"),
        ("AveragePool", "p", "ap", {"kernel_shape": [2], "strides": [2], "ceil_mode": 1, "count_include_pad": 1}),
        ("GlobalAveragePool", "ap", "g"),
        ("Flatten", "g", "flat"),
        ("Flatten", "ap", "f"),
        ("Gemm", "f m", "y"),
    ]
    constants = {"w1": weight(6, 4, 3), "b1": weight(6), "w2": weight(9, 2, 2), "slope": weight(9, 1)}
    constants |= {name: weight(6) for name in ("scale", "offset", "mean")}
    constants |= {"variance": 1 + weight(6) ** 2, "m": weight(36, 5)}
    outputs = ("flat", "y", "ap")
    network = assert_equal(save(tmp_path, nodes, (4, 31), outputs=outputs, **constants), (4, 31))
    assert network.populations["x"].shape == (31, 1, 4)


@pytest.mark.parametrize(("left", "right"), [(0, 1), (1, 0)])
def test_a_product_of_two_activations_as_gemm(tmp_path, left, right):
    nodes = [
        ("Reshape", "x folded", "a"),
        ("Tanh", "a", "b"),
        ("Gemm", "a b c", "g", {"transA": left, "transB": right, "alpha": 0.7, "beta": 1.3}),
        ("Reshape", "g flat", "y"),
    ]
    size = 4 if left else 3
    constants = {"folded": np.array([3, 4]), "flat": np.array([1, -1]), "c": weight(size, size)}
    path = save(tmp_path, nodes, (12,), **constants)
    network = frontend.load(path)
    x = np.random.default_rng(1).normal(size=(1, 12)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(path, _quiet()).run(None, {"x": x})
    found = analog(network, {"x": x})[network.outputs[0]]
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize(("alpha", "gamma"), [(0.7, 1.4), (1.6732632, 1.050701)])
def test_selu_with_factors_of_its_own(tmp_path, alpha, gamma):
    assert_equal(save(tmp_path, [("Selu", "x", "y", {"alpha": alpha, "gamma": gamma})], (7,)), (7,), False)


def test_series_that_are_made_images_of_height_one(tmp_path):
    """As tf2onnx writes Keras's Conv1D: an axis at the front, channels moved to the front, and both undone."""
    nodes = [
        ("Unsqueeze", "x one", "u"),
        ("Transpose", "u", "t", {"perm": [0, 3, 1, 2]}),
        ("Conv", "t w", "c", {"strides": [1, 2], "pads": [0, 1, 0, 0]}),
        ("Transpose", "c", "back", {"perm": [0, 2, 3, 1]}),
        ("Squeeze", "back one", "s"),
        ("Relu", "s", "y"),
    ]
    network = assert_equal(save(tmp_path, nodes, (20, 3), w=weight(4, 3, 1, 3), one=np.array([1])), (20, 3), False)
    assert network.populations["x"].shape == (20, 1, 3)
    assert network.populations["n/y"].shape == (10, 1, 4)


@pytest.mark.parametrize(
    ("nodes", "shape", "expected"),
    [
        ([("Unsqueeze", "x one", "u"), ("Conv", "u w", "y")], (6, 7), (6, 7, 1)),
        ([("Unsqueeze", "x one", "u"), ("Conv", "u v", "y")], (9,), (9, 1, 1)),
        ([("Flatten", "x", "f"), ("Relu", "f", "y")], (6, 7), (6, 7, 1)),
    ],
)
def test_inputs_without_channels(tmp_path, nodes, shape, expected):
    path = save(tmp_path, nodes, shape, one=np.array([1]), w=weight(3, 1, 2, 3), v=weight(3, 1, 4))
    network = frontend.load(path)
    assert network.populations["x"].shape == expected
    x = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession(path, _quiet()).run(None, {"x": x})
    found = analog(network, ir.as_inputs(network, x))[network.outputs[0]]
    y = channels_last(y)
    np.testing.assert_allclose(found.reshape(y.shape), y, rtol=0, atol=1e-4 * np.abs(y).max())


TURNED = {"perm": [0, 1, 3, 2]}


@pytest.mark.parametrize(
    "nodes",
    [
        [("Slice", "x one three one", "y")],  # channels
        [("Slice", "x one far two", "s"), ("Conv", "s w", "y")],  # rows, from the second on
        [("Slice", "x one minus two two", "y")],  # every other row
        [("Slice", "x ones fives rows", "y")],
        [("Pad", "x crop", "p"), ("Conv", "p w", "y")],
        [("Split", "x", "a b", {"axis": 1, "num_outputs": 2}), ("Conv", "b v", "c"), ("Add", "c a", "y")],
        [("Split", "x sizes", "a b c", {"axis": 2}), ("Concat", "c a", "y", {"axis": 2})],
        [("Gather", "x shuffled", "y", {"axis": 1})],
        [("Gather", "x scalar", "g", {"axis": 2}), ("Flatten", "g", "y")],
        [("Flatten", "x", "f"), ("Slice", "f two far one", "y")],
        [("ReduceSum", "x spatial", "y", {"keepdims": 0})],
        [("Max", "x other", "y")],
        [
            ("ReduceMean", "x rows_", "m", {"keepdims": 0}),
            ("Unsqueeze", "m last", "u"),  # a new axis
            ("Neg", "u", "n"),
            ("Concat", "u n", "s", {"axis": 3}),
            ("Conv", "s v4", "y"),
        ],
        [("Neg", "x", "n"), ("Max", "x n", "a"), ("Min", "a half", "m"), ("Min", "m x", "y")],
        [("AveragePool", "x", "y", {"kernel_shape": [2, 2], "dilations": [2, 3], "pads": [1, 0, 1, 1]})],
        [
            ("Transpose", "x", "t", TURNED),
            ("Conv", "t w", "c"),
            ("Transpose", "c", "y", TURNED),
        ],
    ],
)
def test_selections_and_views(tmp_path, nodes):
    constants = {"one": [1], "three": [3], "two": [2], "far": [2**40], "minus": [-1], "ones": [1, 1], "fives": [4, 5]}
    constants |= {"rows": [1, 2], "crop": [0, 0, -1, 2, 0, 0, 1, -3], "sizes": [1, 3, 4], "shuffled": [3, 0, 2, 2]}
    constants |= {"spatial": [2, 3], "scalar": 2, "rows_": [2], "last": [3]}
    arrays = {name: np.array(value, np.int64) for name, value in constants.items()}
    arrays |= {
        "w": weight(3, 4, 2, 3),
        "v": weight(2, 2, 1, 1),
        "v4": weight(2, 4, 3, 2),
        "half": np.float32(0.5),
        "other": np.float32(0.1),
    }
    assert_equal(save(tmp_path, nodes, (4, 8, 9), opset=19, **arrays), (4, 8, 9))


@pytest.mark.parametrize(
    ("nodes", "outputs", "neuron"),
    [
        ([("Flatten", "s", "y")], "y", ir.Softmax),
        ([("Reshape", "s rows", "r"), ("Transpose", "r", "y", {"perm": [0, 2, 1]})], "y", ir.Softmax),
        ([("Flatten", "s", "y")], "y s", ir.Softmax),
        ([("Slice", "s one three one", "y")], "y", None),
        ([("Tile", "s twice", "y")], "y", None),
    ],
)
def test_scores_that_are_moved_can_be_converted(tmp_path, nodes, outputs, neuron):
    made = [("Conv", "x w", "c"), ("Softmax", "c", "s", {"axis": 1}), *nodes]
    constants = {"one": [1], "three": [3], "rows": [0, 3, 10], "twice": [1, 2, 1, 1]}
    arrays = {name: np.array(value, np.int64) for name, value in constants.items()}
    path = save(tmp_path, made, (2, 4, 7), outputs=outputs.split(), w=weight(3, 2, 3, 3), **arrays)
    network = frontend.load(path)
    x = RNG.normal(size=(3, 2, 4, 7)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(path, _quiet()).run(None, {"x": x})
    found = analog(network, {"x": channels_last(x)})
    for name, y in zip(network.outputs, wanted, strict=True):
        scores = channels_last(y.reshape(3, -1, 2, 5)) if y.ndim != 3 else y.reshape(3, 2, 5, 3)
        np.testing.assert_allclose(found[name], scores, atol=1e-6)
        assert neuron is None or isinstance(network.populations[name].neuron, neuron)
    snn = snnc.convert(network, "few-spike{k=8}", calibration=channels_last(x), progress=False)
    assert snn.outputs == network.outputs


REDUCED = [(op, [3], 1) for op in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")]


@pytest.mark.parametrize(("kind", "axes", "stay"), [*REDUCED, ("L2", [1, 4], 0), ("Max", [5], 0), ("Mean", [2, 3], 1)])
def test_reductions_where_axes_are_taken_apart(tmp_path, kind, axes, stay):
    nodes = [
        ("Reshape", "x parts", "r"),
        ("Transpose", "r", "t", {"perm": [0, 2, 4, 3, 1, 5]}),
        (f"Reduce{kind}", "t axes", "reduced", {"keepdims": stay}),
        ("Flatten", "reduced", "y"),
    ]
    arrays = {"parts": np.array([0, 3, 2, 4, 2, 3]), "axes": np.array(axes)}
    assert_equal(save(tmp_path, nodes, (6, 8, 3), **arrays), (6, 8, 3))


def test_slices_of_all_axes_where_axes_are_taken_apart(tmp_path):
    """As TensorFlow's strided slices come: along the batch, everything."""
    nodes = [("Reshape", "x parts", "r"), ("Slice", "r starts ends", "s"), ("Flatten", "s", "y")]
    arrays = {"parts": [0, 3, 2, 4, 2, 3], "starts": [0, 1, 0, 1, 0, 0], "ends": [2**31 - 1, 3, 1, 4, 2, 2]}
    arrays = {name: np.array(numbers) for name, numbers in arrays.items()}
    assert_equal(save(tmp_path, nodes, (6, 8, 3), **arrays), (6, 8, 3))


def test_argmax_gives_the_scores(tmp_path):
    nodes = [("MatMul", "x m", "scores"), ("ArgMax", "scores", "label", {"axis": 1, "keepdims": 0})]
    path = save(tmp_path, nodes, (6,), outputs=("label",), m=weight(6, 4))
    network = frontend.load(path)
    x = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    (labels,) = onnxruntime.InferenceSession(path, _quiet()).run(None, {"x": x})
    np.testing.assert_array_equal(analog(network, {"x": x})[network.outputs[0]].argmax(-1), labels)
    both = frontend.load(save(tmp_path, nodes, (6,), outputs=("label", "scores"), m=weight(6, 4)))
    assert len(both.outputs) == 1
    (line,) = problems(save(tmp_path, [*nodes, ("Add", "label two", "y")], (6,), m=weight(6, 4), two=np.array(2)))
    assert "what ArgMax found" in line


def test_quantised_weights_and_activations_are_exact(tmp_path):
    nodes = [
        ("DequantizeLinear", "q ws wz", "w", {"axis": 1}),
        ("MatMul", "x w", "h"),
        ("QuantizeLinear", "h s z", "hq"),
        ("DequantizeLinear", "hq s z", "hd"),
        ("Relu", "hd", "y"),
    ]
    q = RNG.integers(-128, 128, (6, 5)).astype(np.int8)
    constants = {"ws": np.float32([0.01, 0.02, 0.03, 0.01, 0.02]), "wz": np.zeros(5, np.int8), "q": q}
    path = save(tmp_path, nodes, (6,), s=np.float32(0.02), z=np.uint8(10), **constants)
    network = frontend.load(path)
    neurons = [p.neuron for p in network.populations.values()]
    assert neurons == [ir.Input(), ir.QuantizedRelu((255 - 10) * np.float32(0.02), 255 - 10, "even")]
    x = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)
    found = analog(network, {"x": x})[network.outputs[0]]
    (expected,) = onnxruntime.InferenceSession(path, _quiet()).run(None, {"x": x})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_quantised_inputs(tmp_path):
    nodes = [("DequantizeLinear", "x s z", "d"), ("MatMul", "d m", "y")]
    path = save(tmp_path, nodes, (6,), s=np.float32(0.1), z=np.uint8(3), m=weight(6, 4))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.save(model, path)
    x = RNG.integers(0, 256, (5, 6)).astype(np.uint8)
    (y,) = onnxruntime.InferenceSession(path, _quiet()).run(None, {"x": x})
    network = frontend.load(path)
    np.testing.assert_allclose(analog(network, ir.as_inputs(network, x))[network.outputs[0]], y, rtol=1e-5)
    model.graph.node[0].CopyFrom(helper.make_node("Add", ["x", "z"], ["d"], name="d"))
    onnx.save(model, path)
    assert "computes in integers with an input" in problems(path)[0]


def test_functions_are_inlined(tmp_path):
    path = save(tmp_path, [("Relu", "x", "r"), ("MatMul", "r m", "y")], (6,), m=weight(6, 4))
    model = onnx.load(path)
    body = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    opset = helper.make_opsetid("", 18)
    model.functions.append(helper.make_function("mine", "Flip", ["a"], ["c"], body, [opset]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[0].CopyFrom(helper.make_node("Flip", ["x"], ["r"], domain="mine", name="flip"))
    onnx.save(model, path)
    assert_equal(path, (6,))


def test_nodes_without_names_or_with_the_same(tmp_path):
    nodes = [("Relu", "x", "a"), ("Neg", "a", "b"), ("MatMul", "b m", "c"), ("Relu", "c", "y")]
    path = save(tmp_path, nodes, (6,), m=weight(6, 6))
    before = assert_equal(path, (6,))
    model = onnx.load(path)
    for node, name in zip(model.graph.node, ("same", "", "same", "Neg_1"), strict=True):
        node.name = name
    network = frontend.load(model)
    layers = [population.origin.layers for population in network.populations.values()]
    assert layers == [("x",), ("same",), ("Neg_1", "same_2", "Neg_1_3")]
    x = RNG.normal(size=(3, 6))
    np.testing.assert_array_equal(*(analog(net, {"x": x})[net.outputs[0]] for net in (before, network)))


def test_constants_in_files_elsewhere(tmp_path, monkeypatch):
    """Constants inside nodes may point at files too."""
    (tmp_path / "secret").write_bytes(bytes(24))
    inside = tmp_path / "inside"
    inside.mkdir()
    ones = numpy_helper.from_array(np.ones(6, np.float32))
    path = save(inside, [("Constant", "", "c", {"value": ones}), ("Add", "x c", "y")], (6,))
    model = onnx.load(path)
    tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    monkeypatch.chdir(inside)
    with pytest.raises(ir.ModelFileError, match="not a file in the model's own folder"):
        frontend.load(path)
    with pytest.raises(ir.ModelFileError, match="give the path of the model"):
        frontend.load(model)
    tensor.external_data[0].value = "kept"
    (inside / "kept").write_bytes(np.float32([1, 2, 3, 4, 5, 6]).tobytes())
    path.write_bytes(model.SerializeToString())
    assert_equal(path, (6,))
    tensor.dims[0] = 7
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ir.ModelFileError, match="does not fit"):
        frontend.load(path)


def test_values_of_attributes_are_not_read_from_files(tmp_path, monkeypatch):
    filled = numpy_helper.from_array(np.float32([2]))
    nodes = [("ConstantOfShape", "six", "c", {"value": filled}), ("Add", "x c", "y")]
    path = save(tmp_path, nodes, (6,), six=np.array([6]))
    assert_equal(path, (6,))
    model = onnx.load(path)
    tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="kept")
    (tmp_path / "kept").write_bytes(np.float32([2]).tobytes())
    path.write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ir.ModelFileError, match="attributes in files"):
        frontend.load(path)


def problems(path) -> list[str]:
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(path)
    assert str(path) in str(error.value)
    return list(error.value.problems)


def test_all_problems_are_reported_at_once(tmp_path):
    nodes = [
        ("Hardmax", "x", "s"),
        ("Det", "s", "hidden"),
        ("GridSample", "x w", "t"),
        ("BitwiseNot", "x", "r"),
        ("Relu", "x", "fine"),
        ("Hardmax", "fine", "l"),
    ]
    path = save(tmp_path, nodes, (2, 4, 4), outputs=("hidden", "t", "r", "l"), w=weight(1, 4, 4, 2))
    found = problems(path)
    assert [line.split(":")[0] for line in found] == [
        *("n/s (Hardmax)", "n/hidden (Det)", "n/t (GridSample)", "n/r (BitwiseNot)", "n/l (Hardmax)")
    ]


def test_unused_nodes_do_no_harm(tmp_path):
    assert_equal(save(tmp_path, [("Sign", "x", "s"), ("Relu", "x", "y")], (4,)), (4,))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("ConstantOfShape", "huge", "h"), ("ReduceSum", "h", "t"), ("Mul", "x t", "y")], "n/h (ConstantOfShape)"),
        ([("Clip", "x cap cap", "y")], "it gives 0.5 whatever it is given"),
        ([("Max", "x uneven", "y")], "at one number only"),
        ([("PRelu", "cap x", "y")], "with a constant as operand 1"),
        ([("PRelu", "x x", "y")], "takes its operand 2 from the network's activations"),
        ([("ThresholdedRelu", "x", "y")], "jumps at a threshold"),
        ([("Cast", "x", "i", {"to": 7}), ("Cast", "i", "y", {"to": 1})], "into integers"),
        ([("Identity", "cap", "y")], "does not depend on the input"),
        ([("Reshape", "x nothing", "y")], "it reshapes (4,) to ()"),
        ([("Slice", "x zero0 one front", "y")], "some images of a batch"),
        ([("Gather", "x zero0", "y")], "some images of a batch"),
        ([("ReduceMean", "x front", "y")], "across the images of a batch"),
        ([("ReduceMax", "x front", "y")], "across the images of a batch"),
        ([("ReduceL2", "x", "y")], "works along all axes, those of a batch included; name the others"),
        ([("Expand", "x two", "y")], "it repeats the images of a batch"),
        ([("Tile", "x two", "y")], "it repeats the images of a batch"),
        ([("Add", "x rows", "y")], "each image of a batch with another part of a constant"),
        ([("Einsum", "x x", "y", {"equation": "bi,bj->ij"})], "outputs must be vectors"),
        ([("Einsum", "x", "y", {"equation": "bi->i"})], "across the images of a batch"),
        ([("Einsum", "x x x", "y", {"equation": "bi,bi,bi->b"})], "products of two tensors are supported"),
        ([("Where", "hide x low", "s"), ("Softmax", "s", "p"), ("Relu", "p", "y")], "its mask hides all activations"),
        ([("Pow", "x uneven", "y")], "one exponent, the same for all"),
        ([("Concat", "x x", "y", {"axis": 0})], "outputs must be vectors"),
        ([("Gather", "x far", "y", {"axis": 1})], "takes positions of an axis of 4 that do not exist"),
        ([("Softmax", "x", "y", {"axis": 0})], "across the images of a batch"),
        ([("Slice", "x far one axis", "y")], "it has no numbers"),
        ([("Dropout", "x half yes", "y")], "drops activations at random"),
        ([("QuantizeLinear", "x cap", "y")], "is quantised"),
        ([("DequantizeLinear", "q cap", "y"), ("QuantizeLinear", "x half", "q")][::-1], "does not undo"),
        ([("QuantizeLinear", "x cap", "q"), ("Cast", "q", "y", {"to": 1})], "computes with integers"),
        ([("QuantizeLinear", "x uneven", "y")], "at one number only"),
    ],
)
def test_messages(tmp_path, nodes, expected):
    constants = {"huge": np.array([2**20, 2**20]), "cap": np.float32(0.5), "uneven": np.float32([1, 2, 3, 4])}
    constants |= {"zero0": np.array([0]), "one": np.array([1]), "front": np.array([0]), "far": np.array([9])}
    constants |= {
        "nothing": np.array([], np.int64),
        "half": np.float32(0.25),
        "yes": np.array(True),
        "two": np.array([2, 1]),
        "rows": weight(2, 4),
        "hide": np.zeros(4, bool),
        "low": np.float32(-np.inf),
        "axis": np.array([1]),
    }
    (line,) = problems(save(tmp_path, nodes, (4,), **constants))
    assert expected in line


def test_states_of_several_layers_are_not_taken_for_images(tmp_path):
    path = save(tmp_path, [("Gather", "x second", "y", {"axis": 0})], (1, 5), second=np.array(1))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, path)
    (line,) = problems(path)
    assert "it takes some images of a batch and not others" in line


def test_input_shapes(tmp_path):
    found = problems(save(tmp_path, [("Relu", "x", "y")], (3, "height", "width")))
    assert found[0].startswith("x (input): its shape (batch, 3, height, width) is open")
    assert problems(save(tmp_path, [("Relu", "x", "y")], (3, 4, 5, 6)))[0].startswith("x (input): shape")


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
