"""Choices at one number: quotients that are 0 where they have no value, however people and frameworks write them."""

import numpy as np
import pytest
from test_frontend_onnx import _quiet, save

import snnc
from snnc import ir

TINY = np.float32([0, -0.0, 1e-37, -1e-30, 1e-12, 1e-6])
X = np.concatenate([[0 * TINY, TINY, 1e15 * TINY, TINY[::-1]], 2 * np.random.default_rng(0).normal(size=(5, 6))])
X = X.astype(np.float32)
X[-1, 3:] = 0  # whole vectors of nothing
ZERO, ONE = np.float32(0), np.float32(1)
AS_EQUAL = [("Equal", "b zero", "at")]
QUOTIENTS = {
    "divide_no_nan": [("Div", "a b", "q"), *AS_EQUAL, ("Where", "at zero q", "y")],
    "not equal": [("Div", "a b", "q"), *AS_EQUAL, ("Not", "at", "else"), ("Where", "else q zero", "y")],
    "zero first": [("Div", "a b", "q"), ("Equal", "zero b", "at"), ("Where", "at zero q", "y")],
    "of a constant": [("Div", "three b", "q"), *AS_EQUAL, ("Where", "at zero q", "y")],
    "safe below": [
        *AS_EQUAL,
        ("Where", "at one b", "safe"),
        ("Div", "a safe", "q"),
        ("Where", "at zero q", "y"),
    ],
    "compared twice": [
        *AS_EQUAL,
        ("Equal", "zero b", "again"),
        ("Where", "at one b", "safe"),
        ("Div", "a safe", "q"),
        ("Where", "again zero q", "y"),
    ],
    "scaled": [("Mul", "b three", "c"), ("Div", "a c", "q"), *AS_EQUAL, ("Where", "at zero q", "y")],
    "length": [
        ("ReduceL2", "b axes", "n", {"keepdims": 1}),
        ("Div", "b n", "q"),
        ("Greater", "n zero", "above"),
        ("Where", "above q zero", "y"),
    ],
    "length, computed twice": [
        ("ReduceL2", "b axes", "n", {"keepdims": 1}),
        ("ReduceL2", "b axes", "n2", {"keepdims": 1}),
        ("Div", "b n", "q"),
        ("LessOrEqual", "n2 zero", "below"),
        ("Where", "below zero q", "y"),
    ],
    "square": [
        ("ReduceSumSquare", "b axes", "n", {"keepdims": 1}),
        ("Div", "a n", "q"),
        ("Greater", "n zero", "above"),
        ("Where", "above q zero", "y"),
    ],
    "root, where its square is 0": [
        ("ReduceSumSquare", "b axes", "n", {"keepdims": 1}),
        ("Sqrt", "n", "r"),
        ("Div", "b r", "q"),
        ("Equal", "n zero", "at"),
        ("Where", "at zero q", "y"),
    ],
    "degree": [
        ("Abs", "b", "c"),
        ("Pow", "c minus_half", "q"),
        ("IsInf", "q", "at"),
        ("Where", "at zero q", "y"),
    ],
    "degree, compared": [
        ("Abs", "b", "c"),
        ("Pow", "c minus_half", "q"),
        ("Equal", "q infinity", "at"),
        ("Where", "at zero q", "y"),
    ],
    "xlogy": [
        ("Abs", "a", "c"),
        ("Log", "c", "l"),
        ("Mul", "a l", "q"),
        ("Equal", "a zero", "at"),
        ("Where", "at a q", "y"),
    ],
    "entropy": [
        ("Abs", "a", "c"),
        ("Log", "c", "l"),
        ("Mul", "c l", "q"),
        ("Equal", "c zero", "at"),
        ("Where", "at zero minus_infinity", "else"),
        ("Greater", "c zero", "above"),
        ("Where", "above q else", "y"),
    ],
    "rectified": [("Relu", "a", "q"), ("Equal", "a zero", "at"), ("Where", "at zero q", "y")],
    "sign": [("Abs", "a", "c"), ("Div", "a c", "q"), ("Equal", "a zero", "at"), ("Where", "at zero q", "y")],
    "nan": [("Div", "a b", "q"), ("IsNaN", "q", "at"), ("Where", "at zero q", "y")],
}


def of_halves(tmp_path, nodes):
    """A model of a vector's first half, a, and its second one, b."""
    whole = [("Split", "x", "a b", {"axis": 1, "num_outputs": 2}), *nodes]
    known = {"zero": ZERO, "one": ONE, "three": np.float32(3), "axes": np.array([1]), "minus_half": np.float32(-0.5)}
    return save(tmp_path, whole, (6,), infinity=np.float32(np.inf), minus_infinity=np.float32(-np.inf), **known)


@pytest.mark.parametrize("name", QUOTIENTS)
def test_they_are_0_where_onnxruntime_has_them_0(tmp_path, name):
    import onnxruntime

    path = of_halves(tmp_path, QUOTIENTS[name])
    network = snnc.load(path, verify=True)
    session = onnxruntime.InferenceSession(path, _quiet(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": X})[0]
    found = snnc.compile(network).predict(X)
    there = np.isfinite(expected)  # else a · 1/b overflows, or a is divided by 0
    assert there[0].all()
    assert there.mean() > 0.8
    np.testing.assert_allclose(found[there], expected[there], rtol=1e-5, atol=1e-35)
    assert not np.isnan(found).any()


def test_what_is_read_is_one_function(tmp_path):
    network = snnc.load(of_halves(tmp_path, QUOTIENTS["divide_no_nan"]))
    assert [p.neuron for p in network.populations.values()][1:] == [ir.Product("reciprocal_no_nan")]
    network = snnc.load(of_halves(tmp_path, QUOTIENTS["of a constant"]))
    assert ir.Function("reciprocal_no_nan") in [p.neuron for p in network.populations.values()]
    assert ir.Function("sign") in [
        p.neuron for p in snnc.load(of_halves(tmp_path, QUOTIENTS["sign"])).populations.values()
    ]


@pytest.mark.parametrize(
    ("nodes", "layer"),
    [
        ([("Equal", "a zero", "at"), ("Where", "at one a", "y")], "n/at"),
        ([("Equal", "a zero", "at"), ("Where", "at one a", "c"), ("Relu", "c", "y")], "n/at"),
        ([("Equal", "a zero", "at"), ("Where", "at one a", "c"), ("MatMul", "c w", "y")], "n/at"),
        ([("Div", "a b", "q"), ("Equal", "b one", "at"), ("Where", "at zero q", "y")], "n/at"),
        ([("Div", "a b", "q"), ("Equal", "b zero", "at"), ("Where", "at one q", "y")], "n/at"),
        ([("Div", "a b", "q"), ("Greater", "b zero", "above"), ("Where", "above q zero", "y")], "n/above"),
        ([("Equal", "a b", "at"), ("Where", "at zero a", "y")], "n/at"),
        ([("Equal", "a zero", "y")], "n/y"),
    ],
)
def test_what_jumps_at_a_number_is_refused(tmp_path, nodes, layer):
    whole = [("Split", "x", "a b", {"axis": 1, "num_outputs": 2}), *nodes]
    with pytest.raises(ir.UnsupportedModelError) as raised:
        snnc.load(save(tmp_path, whole, (6,), zero=ZERO, one=ONE, w=np.eye(3, dtype=np.float32)))
    problem = raised.value.problems[0]
    assert problem.layer == layer
    assert "jumps" in str(problem)


def test_spikes_say_them(tmp_path):
    """Few spikes and tracking: what is divided by 0 is 0, and the rest is as exact as the code."""
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(-1, 1, (200, 3)), rng.uniform(0.5, 2, (200, 3))], 1).astype(np.float32)
    x[::3, 4] = 0
    network = snnc.load(of_halves(tmp_path, QUOTIENTS["divide_no_nan"]))
    for pipeline, steps in (("few-spike{k=10}", None), ("tracking{levels=4,rate=4}", 64)):
        snn = snnc.convert(network, pipeline, calibration=x, **({"timesteps": steps} if steps else {}), progress=False)
        found = snnc.compile(snn).predict(x)
        assert np.abs(found[::3, 1]).max() < 1e-6
        np.testing.assert_allclose(found, snnc.compile(network).predict(x), atol=0.02)


def _torch_forms():
    torch = pytest.importorskip("torch")
    return {
        "masked_fill": lambda a, b: (a / b).masked_fill(b == 0, 0.0),
        "nan_to_num": lambda a, b: torch.nan_to_num(a / b, 0.0, 0.0, 0.0),
        "where": lambda a, b: torch.where(b != 0, a / torch.where(b != 0, b, 1.0), 0.0),
        "norm": lambda a, b: torch.where(a.norm(dim=1, keepdim=True) > 0, a / a.norm(dim=1, keepdim=True), 0.0),
        "xlogy": lambda a, b: torch.xlogy(a, b.abs()),
        "xlog1py": lambda a, b: torch.special.xlog1py(a, b.abs()),
        "entr": lambda a, b: torch.special.entr(torch.relu(a)),
    }


@pytest.mark.parametrize("name", ["masked_fill", "nan_to_num", "where", "norm", "xlogy", "xlog1py", "entr"])
def test_as_pytorch_writes_them(name):
    torch = pytest.importorskip("torch")
    form = _torch_forms()[name]

    class Module(torch.nn.Module):
        def forward(self, x):
            return form(x[:, :3], x[:, 3:])

    network = snnc.load(Module().eval(), inputs=torch.zeros(1, 6), verify=True)
    expected = form(torch.from_numpy(X[:, :3]), torch.from_numpy(X[:, 3:])).numpy()
    there = np.isfinite(expected)
    found = snnc.compile(network).predict(X)
    assert there[0].all()
    np.testing.assert_allclose(found[there], expected[there], rtol=1e-4, atol=_of_logarithms(name))


def _of_logarithms(name):
    """What 1e9 times the logarithm of less than 1e-30 is off by, which is taken for the logarithm of that."""
    return 2e-5 if name == "xlogy" else 1e-9


def _tensorflow_forms():
    tf = pytest.importorskip("tensorflow")
    return {
        "divide_no_nan": tf.math.divide_no_nan,
        "reciprocal_no_nan": lambda a, b: tf.math.reciprocal_no_nan(b),
        "multiply_no_nan": lambda a, b: tf.math.multiply_no_nan(a + 1.0, b),
        "xlogy": lambda a, b: tf.math.xlogy(a, tf.abs(b)),
        "xlog1py": lambda a, b: tf.math.xlog1py(a, tf.abs(b)),
        "xdivy": lambda a, b: tf.math.xdivy(a, b + 1.0),
        "where": lambda a, b: tf.where(tf.equal(b, 0), 0.0, a / b),
        "safe below": lambda a, b: tf.where(b == 0, tf.zeros_like(a), a / tf.where(b == 0, tf.ones_like(b), b)),
        "cosine": lambda a, b: tf.math.divide_no_nan(
            tf.reduce_sum(a * b, -1, keepdims=True),
            tf.norm(a, axis=-1, keepdims=True) * tf.norm(b, axis=-1, keepdims=True),
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("divide_no_nan", "reciprocal_no_nan", "multiply_no_nan", "xlogy", "xlog1py", "xdivy"),
        *("where", "safe below", "cosine"),
    ],
)
def test_as_tensorflow_writes_them(name):
    tf = pytest.importorskip("tensorflow")
    form = _tensorflow_forms()[name]
    function = tf.function(
        lambda x: form(x[:, :3], x[:, 3:]), input_signature=[tf.TensorSpec((None, 6), tf.float32, name="x")]
    )
    x = X[[0, *range(4, len(X))]] if name == "cosine" else X  # TensorFlow has no squares below 1e-38
    expected = function(tf.constant(x)).numpy()
    there = np.isfinite(expected)
    found = snnc.compile(snnc.load(function, verify=True)).predict(x)
    assert there[0].all()
    np.testing.assert_allclose(found[there], expected[there], rtol=1e-4, atol=_of_logarithms(name))


def test_a_mask_of_which_one_side_is_known(tmp_path):
    """And and Or with what is constant, and the logic that is left."""
    yes, no = np.array([True]), np.array([False])
    for nodes in (
        [("Greater", "x zero", "above"), ("And", "above yes", "m"), ("Where", "m x zero", "y")],
        [("Greater", "x zero", "above"), ("Or", "no above", "m"), ("Where", "m x zero", "y")],
        [("Greater", "x zero", "above"), ("And", "no above", "m"), ("Where", "m zero x", "c"), ("Relu", "c", "y")],
    ):
        path = save(tmp_path, nodes, (6,), zero=ZERO, yes=yes, no=no)
        np.testing.assert_array_equal(snnc.compile(snnc.load(path)).predict(X), np.maximum(X, 0))
    nodes = [("Greater", "x zero", "a"), ("Less", "x one", "b"), ("And", "a b", "m"), ("Where", "m x zero", "y")]
    with pytest.raises(ir.UnsupportedModelError, match="jumps"):
        snnc.load(save(tmp_path, nodes, (6,), zero=ZERO, one=ONE))
