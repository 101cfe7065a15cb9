"""Operators that make images larger and smaller, or move and mirror them, from ONNX; onnxruntime is the oracle."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import weights
from onnx import TensorProto, helper, numpy_helper
from reference import analog

import snnc
from snnc import frontend, ir

SIZES = st.integers(1, 6)


def model(operator: str, attributes: dict, shape: tuple[int, ...], opset: int, *operands) -> onnx.ModelProto:
    """A convolution of one tap, that the input knows its channels, a rectifier and the operator; None is left out."""
    names = [f"c{i}" if operand is not None else "" for i, operand in enumerate(operands)]
    kept = zip(names, operands, strict=True)
    constants = [numpy_helper.from_array(np.asarray(operand), name) for name, operand in kept if name]
    constants.append(numpy_helper.from_array(weights(3, shape[0], shape[0], *(1,) * (len(shape) - 1)), "w"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["bent"]),
        helper.make_node(operator, ["bent", *names], ["y"], name="node", **attributes),
    ]
    return finished(nodes, shape, opset, constants)


def finished(nodes: list[onnx.NodeProto], shape: tuple[int, ...], opset: int, constants: list) -> onnx.ModelProto:
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", *shape))
    graph = helper.make_graph(nodes, "graph", [entry], [onnx.ValueInfoProto(name="y")], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    made = onnx.shape_inference.infer_shapes(made)
    if not made.graph.output[0].type.tensor_type.HasField("shape"):  # which a model must have
        made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (len(shape) + 1)))
    return made


def assert_equal(proto: onnx.ModelProto, shape: tuple[int, ...]) -> ir.Network:
    """The network gives what onnxruntime does; what that cannot run is no example."""
    x = weights(7, 1, *shape)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {"x": x})
    except Exception:  # onnxruntime's exceptions share no base class
        assume(False)
    assume(expected.size)
    network = frontend.load(proto)
    found = analog(network, ir.as_inputs(network, np.moveaxis(x, 1, -1)))[network.outputs[0]]
    y = np.moveaxis(expected, 1, -1)
    np.testing.assert_allclose(found.reshape(y.shape), y, rtol=0, atol=1e-5 * max(1, np.abs(y).max()))
    return network


@st.composite
def transposed(draw: st.DrawFn) -> tuple[dict, tuple[int, ...], list[np.ndarray]]:
    rank = draw(st.integers(1, 2))
    each = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    groups, size, kernel, strides, dilation = draw(st.integers(1, 3)), draw(each), draw(each), draw(each), draw(each)
    attributes = {"group": groups, "strides": strides, "dilations": dilation}
    attributes["output_padding"] = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilation, strict=True)]
    match draw(st.sampled_from(["pads", "auto", "shape"])):
        case "pads":
            extents = [(n - 1) * s + d * (k - 1) for n, s, d, k in zip(size, strides, dilation, kernel, strict=True)]
            attributes["pads"] = [draw(st.integers(0, extent // 2)) for extent in (*extents, *extents)]
        case "auto":
            attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
            assume(all(s <= d * (k - 1) + 1 for s, d, k in zip(strides, dilation, kernel, strict=True)))
            del attributes["output_padding"]
        case "shape":
            spare = [p + d * (k - 1) for p, d, k in zip(attributes["output_padding"], dilation, kernel, strict=True)]
            cut = [draw(st.integers(0, total)) for total in spare]
            natural = [(n - 1) * s + 1 + total for n, s, total in zip(size, strides, spare, strict=True)]
            attributes["output_shape"] = [n - c for n, c in zip(natural, cut, strict=True)]
            attributes["auto_pad"] = draw(st.sampled_from(["NOTSET", "SAME_UPPER"]))
    channels, filters = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    operands = [weights(1, channels, filters, *kernel)]
    if draw(st.booleans()):
        operands.append(weights(2, groups * filters))
    return attributes, (channels, *size), operands


@settings(max_examples=150, derandomize=True, deadline=None)
@given(transposed())
def test_transposed_convolutions(drawn):
    attributes, shape, operands = drawn
    assert_equal(model("ConvTranspose", attributes, shape, 18, *operands), shape)


COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]


@st.composite
def resized(draw: st.DrawFn) -> tuple[dict, tuple[int, ...], list[np.ndarray | None]]:
    """Resize to given sizes, or by given scales: of which those are drawn that make whole sizes where it matters."""
    channels, size = draw(st.integers(1, 3)), draw(st.tuples(SIZES, SIZES))
    mode, coordinates = draw(st.sampled_from(["nearest", "linear", "cubic"])), draw(st.sampled_from(COORDINATES))
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = draw(st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    if mode == "cubic":
        attributes["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
        attributes["exclude_outside"] = draw(st.integers(0, 1))
    new = draw(st.tuples(SIZES, SIZES))
    if draw(st.booleans()):
        return attributes, (channels, *size), [None, None, np.array([1, channels, *new])]
    scales = [to / of for of, to in zip(size, new, strict=True)]
    return attributes, (channels, *size), [None, np.float32([1, 1, *scales])]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(resized())
def test_resizing(drawn):
    attributes, shape, operands = drawn
    assert_equal(model("Resize", attributes, shape, 18, *operands), shape)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("scales", [(0.6, 0.3), (0.5, 1.7)])
def test_resizing_that_smooths(mode, scales):
    attributes = {"mode": mode, "antialias": 1, "exclude_outside": int(mode == "cubic")}
    assert_equal(model("Resize", attributes, (2, 11, 9), 18, None, np.float32([1, 1, *scales])), (2, 11, 9))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resizing_a_part(mode):
    roi, sizes = np.float32([0, 0, 0.2, -0.3, 1, 1, 0.7, 1.4]), np.array([1, 2, 4, 6])
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.3, "mode": mode}
    assert_equal(model("Resize", attributes, (2, 5, 7), 18, roi, None, sizes), (2, 5, 7))


@pytest.mark.parametrize(("operator", "opset"), [("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resizing_as_before_opset_11(operator, opset, mode):
    assert_equal(model(operator, {"mode": mode}, (3, 4, 5), opset, np.float32([1, 1, 2, 1.6])), (3, 4, 5))


def test_resizing_a_series_and_along_channels():
    assert_equal(model("Resize", {"mode": "linear"}, (3, 7), 18, None, np.float32([1, 1, 1.5])), (3, 7))
    assert_equal(model("Resize", {}, (3, 4, 4), 18, None, None, np.array([1, 7, 4, 4])), (3, 4, 4))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.data())
def test_padding_with_what_there_is(data):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 5)))
    mode = data.draw(st.sampled_from(["reflect", "edge", "wrap"]))
    ends = [data.draw(st.integers(-1, n - 1)) if n > 1 else 0 for n in (1, *shape) * 2]
    assert_equal(model("Pad", {"mode": mode}, shape, 19, np.array(ends)), shape)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.data())
def test_windows_with_gaps_and_norms(data):
    shape = (2, data.draw(st.integers(3, 7)), data.draw(st.integers(3, 7)))
    pair = st.lists(st.integers(1, 3), min_size=2, max_size=2)
    kernel, strides, dilation = data.draw(pair), data.draw(pair), data.draw(pair)
    attributes = {"kernel_shape": kernel, "strides": strides, "ceil_mode": data.draw(st.integers(0, 1))}
    attributes |= {"dilations": dilation, "pads": [data.draw(st.integers(0, k - 1)) for k in kernel * 2]}
    assume(all(d * (k - 1) < n for d, k, n in zip(dilation, kernel, shape[1:], strict=True)))
    operator = data.draw(st.sampled_from(["MaxPool", "LpPool"]))
    if operator == "LpPool":
        attributes["p"] = data.draw(st.integers(1, 3))
    assert_equal(model(operator, attributes, shape, 18), shape)


@pytest.mark.parametrize(
    ("operator", "attributes", "operands"),
    [
        ("Gather", {"axis": 2}, [np.array([3, 0, 0, -2])]),
        ("Gather", {"axis": 1}, [np.array([2, 2, 0])]),
        ("GatherElements", {"axis": 3}, [np.broadcast_to(np.arange(5)[::-1] % 4, (1, 3, 4, 5))]),
        ("Slice", {}, [np.array([-1, 4]), np.array([-9, 0]), np.array([2, 3]), np.array([-1, -2])]),
        ("Compress", {"axis": 2}, [np.array([True, False, False, True])]),
        ("CumSum", {"reverse": 1}, [np.array(2)]),
        ("CumSum", {"exclusive": 1}, [np.array(1)]),
        ("Trilu", {"upper": 0}, [np.array(1)]),
        ("Trilu", {}, [np.array(-1)]),
        ("Tile", {}, [np.array([1, 2, 1, 3])]),
        ("Expand", {}, [np.array([1, 3, 4, 5])]),
        ("ReduceProd", {"axes": [1, 3], "keepdims": 0}, []),
        ("GlobalLpPool", {"p": 3}, []),
        (
            "ScatterElements",
            {"axis": 2},
            [np.tile([2, 0, 1, 3, 3], (1, 3, 1, 1)), weights(6, 1, 3, 1, 5)],
        ),
        ("DepthToSpace", {"blocksize": 1}, []),
    ],
    ids=str,
)
def test_what_moves_and_sums(operator, attributes, operands):
    assert_equal(model(operator, attributes, (3, 4, 5), 17, *operands), (3, 4, 5))


def test_what_onnx_defines_by_other_operators():
    """It has the names of the model's own nodes, and what is small is not lost in it."""
    network = assert_equal(model("MeanVarianceNormalization", {"axes": [1, 2, 3]}, (3, 4, 5), 18), (3, 4, 5))
    assert {name.partition("#")[0] for name in network.populations} == {"x", "Relu_1", "node"}
    cosines, sines = np.cos(weights(1, 1, 4, 2)), np.sin(weights(1, 1, 4, 2))
    assert_equal(model("RotaryEmbedding", {}, (3, 4, 4), 23, cosines, sines), (3, 4, 4))


def test_columns_become_images():
    attributes = {"pads": [0, 1, 1, 2], "strides": [2, 1], "dilations": [1, 2]}
    operands = [np.array([5, 6]), np.array([2, 3])]  # 3 × 5 windows
    assert_equal(model("Col2Im", attributes, (12, 15), 18, *operands), (12, 15))


@pytest.mark.parametrize(
    ("operator", "attributes", "operands", "reason"),
    [
        ("Resize", {}, [None, np.float32([2, 1, 1, 1])], "resizes the batch"),
        ("Resize", {}, [None, np.float32([1, 1, 0.1, 1])], "leaves nothing"),
        ("Resize", {}, [None, np.float32([1, 1, 1e6, 1e6])], "more than"),
        (
            "Resize",
            {"coordinate_transformation_mode": "align_corners"},
            [None, np.float32([1, 1, 0.7, 1])],
            "differently",
        ),
        ("Pad", {"mode": "reflect"}, [np.array([0, 0, 10**9, 0, 0, 0, 0, 0])], "more than"),
        ("MaxPool", {"kernel_shape": [1, 2], "dilations": [1, 7], "pads": [0, 2, 0, 1]}, [], "the padding alone"),
        ("ScatterND", {"reduction": "add"}, [np.array([[0, 1]]), weights(5, 1, 4, 5)], "adds to a tensor"),
        ("ConvTranspose", {}, [weights(1, 2, 2, 2, 2)], "does not fit"),
        ("ConvTranspose", {"auto_pad": "SAME_UPPER", "strides": [3, 3]}, [weights(1, 3, 2, 2, 2)], "differently"),
    ],
    ids=str,
)
def test_what_is_refused(operator, attributes, operands, reason):
    with pytest.raises(ir.UnsupportedModelError, match=rf"node \({operator}\): .*{reason}"):
        frontend.load(model(operator, attributes, (3, 4, 5), 18, *operands))


def test_a_decoder_in_few_spikes_and_rates():
    """Convolutions, transposed and not, an image resized and mirrored: converted, and near the analog network."""
    rng = np.random.default_rng(0)

    def kernel(name: str, *shape: int) -> onnx.TensorProto:
        drawn = rng.normal(size=shape) / np.sqrt(np.prod(shape) / max(shape[:2]))
        return numpy_helper.from_array(drawn.astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ConvTranspose", ["b", "w2"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Resize", ["d", "", "scales"], ["e"], mode="linear"),
        helper.make_node("Pad", ["e", "ends"], ["f"], mode="reflect"),
        helper.make_node("Conv", ["f", "w3"], ["y"]),
    ]
    constants = [kernel("w1", 6, 2, 3, 3), kernel("w2", 6, 5, 4, 4), kernel("w3", 2, 5, 3, 3)]
    constants.append(numpy_helper.from_array(np.float32([1, 1, 1.5, 0.75]), "scales"))
    constants.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "ends"))
    network = frontend.load(finished(nodes, (2, 8, 8), 18, constants))
    images = rng.uniform(0, 1, (24, 8, 8, 2)).astype(np.float32)
    expected = snnc.compile(network).predict(images)
    for pipeline, steps, near in (("few-spike{k=8}", 8, 0.02), ("data-norm", 256, 0.2)):
        spiking = snnc.convert(network, pipeline, calibration=images, timesteps=steps, progress=False)
        found = snnc.compile(spiking).predict(images, progress=False)
        assert np.abs(found - expected).max() < near * np.abs(expected).max()
