"""Inputs of whole numbers: bytes that are cast to real numbers, tokens that are looked up in a table."""

from dataclasses import replace

import keras
import keras.layers as kl
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from frontend_models import randomise
from onnx import helper, numpy_helper
from reference import analog

import snnc
from snnc import frontend, ir, proof

RNG = np.random.default_rng(0)
WORDS, SIZE, LENGTH = 11, 4, 6
TABLE = RNG.normal(size=(WORDS, SIZE)).astype(np.float32)
INT64, INT32, UINT8, FLOAT = (getattr(onnx.TensorProto, name) for name in ("INT64", "INT32", "UINT8", "FLOAT"))


def model(nodes, shape=(LENGTH,), kind=INT64, inputs=("ids",), outputs=("y",), **constants) -> onnx.ModelProto:
    constants = {"table": TABLE, "w": RNG.normal(size=(LENGTH * SIZE, 3)).astype(np.float32), **constants}
    steps = [
        helper.make_node(op, taken.split(), given.split(), name=given.split()[0], **attributes[0])
        for op, taken, given, *attributes in [(*node, {})[:4] for node in nodes]
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        steps,
        "whole",
        [value(name, kind, ("batch", *shape)) for name in inputs],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def assert_agrees(source: onnx.ModelProto, x: np.ndarray, given: np.ndarray | None = None) -> ir.Network:
    network = snnc.load(source, verify=True)
    session = onnxruntime.InferenceSession(source.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    found = analog(network, ir.as_inputs(network, x if given is None else given))[network.outputs[0]]
    np.testing.assert_allclose(found.reshape(y.shape), y, rtol=0, atol=1e-5)
    return network


CONSTANTS = {
    "grid": np.array([-1, 2, 3]),
    "places": RNG.normal(size=(1, LENGTH, SIZE)).astype(np.float32),
    "values": np.float32([0, 1]),
    **{name: np.int64(n) for name, n in {"zero": 0, "one": 1, "two": 2, "many": WORDS, "depth": WORDS}.items()},
}
END = [("Flatten", "e", "f"), ("MatMul", "f w", "y")]
SUM = ("Add", "t u", "e")
TURNED = [
    ("Transpose", "ids", "i", {"perm": [1, 0]}),
    ("Gather", "table i", "t"),
    ("Transpose", "t", "e", {"perm": [1, 0, 2]}),
]


@pytest.mark.parametrize(
    "nodes",
    [
        [("Gather", "table ids", "e")],
        [("Cast", "ids", "i", {"to": INT32}), ("Gather", "table i", "e")],
        [("Reshape", "ids grid", "i"), ("Gather", "table i", "e")],
        TURNED,
        [("Less", "ids zero", "l"), ("Add", "ids many", "a"), ("Where", "l a ids", "i"), ("Gather", "table i", "e")],
        [("Add", "ids two", "i"), ("Sub", "i one", "j"), ("Gather", "table j", "e")],
        [("OneHot", "ids depth values", "o"), ("MatMul", "o table", "e")],
        [("Gather", "table ids", "t"), ("Add", "t places", "e")],
    ],
)
def test_tokens_are_looked_up(nodes):
    source = model([*nodes, *END], **CONSTANTS)
    network = assert_agrees(source, RNG.integers(0, WORDS - 1, (1, LENGTH)))
    assert network.populations["ids"].shape in {(LENGTH, 1, SIZE), (LENGTH, 1, WORDS)}
    assert len(network.populations) == 2


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ([("Mul", "ids two", "i"), ("Gather", "table i", "e")], "i (Mul): it computes in integers with an input"),
        ([("Gather", "table ids", "e", {"axis": 1})], "looks up columns of a table"),
        ([("Sub", "ids one", "i"), ("Gather", "table i", "e")], "numbers that are less than those that are given"),
        (
            [("Gather", "table ids", "a"), ("Gather", "places_ ids", "b"), ("Add", "a b", "e")],
            "ids (Input): its numbers are looked up in several tables, or used otherwise too",
        ),
        (
            [("Gather", "table ids", "t"), ("Cast", "ids", "r", {"to": FLOAT}), ("Unsqueeze", "r last", "u"), SUM],
            "ids (Input): its numbers are looked up in several tables, or used otherwise too",
        ),
    ],
)
def test_what_is_refused(nodes, match):
    source = model([*nodes, *END], **CONSTANTS, places_=TABLE[::-1].copy(), last=np.array([2]))
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(source)
    assert match in str(error.value)


def test_bytes_that_move_before_they_are_cast():
    nodes = [
        ("Slice", "x one_ far rows", "s"),
        ("Transpose", "s", "t", {"perm": [0, 3, 1, 2]}),
        ("Cast", "t", "r", {"to": FLOAT}),
        ("Div", "r scale", "d"),
        ("Conv", "d k", "y"),
    ]
    constants = {"one_": np.array([1]), "far": np.array([99]), "rows": np.array([1]), "scale": np.float32(255)}
    kernel = RNG.normal(size=(4, 3, 2, 2)).astype(np.float32)
    network = snnc.load(model(nodes, (5, 4, 3), UINT8, ("x",), k=kernel, **constants), verify=True)
    assert network.populations["x"].shape == (5, 4, 3)


def test_keras_moves_bytes_by_way_of_real_numbers():
    x = keras.Input((6, 6, 3), dtype="uint8", name="bytes")
    y = kl.Rescaling(1 / 255)(kl.ZeroPadding2D(1)(kl.Cropping2D(1)(x)))
    assert proof.prove(frontend.read(randomise(keras.Model(x, kl.Conv2D(4, 3, activation="relu")(y))))) < 1e-6


# Given as the model takes them.


@pytest.fixture(scope="module")
def network():
    return frontend.load(model([("Gather", "table ids", "e"), ("Relu", "e", "r"), ("Flatten", "r", "f"), END[1]]))


def test_numbers_are_given_as_the_model_takes_them(network):
    numbers = RNG.integers(0, WORDS, (5, LENGTH))
    vectors = ir.as_inputs(network, numbers)["ids"]
    np.testing.assert_array_equal(vectors[:, :, 0], TABLE[numbers])
    for same in (numbers.astype(np.float32), numbers[:, :, None], numbers.tolist(), vectors):
        np.testing.assert_array_equal(ir.as_inputs(network, same)["ids"], vectors)


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        (np.full((2, LENGTH), WORDS), "other than whole numbers from 0 to 10 in 2 image"),
        (np.eye(2, LENGTH) * -1, "other than whole numbers"),
        (np.full((3, LENGTH), 0.5), "in 3 image.s., first in image 0"),
        (np.full((1, LENGTH), np.nan), "other than whole numbers"),
        (np.zeros((2, LENGTH + 1)), r"expected whole numbers, \(images, 6\)"),
        (np.zeros(LENGTH), r"expected whole numbers, \(images, 6\)"),
    ],
)
def test_numbers_that_are_none(network, numbers, match):
    with pytest.raises(ir.DataError, match=match):
        ir.as_inputs(network, numbers)


def test_files_text_and_rules(network, tmp_path):
    ir.save(network, tmp_path / "net.snn")
    assert ir.load(tmp_path / "net.snn") == network
    assert "ids [6,1,4] Input() table=float32[11,4]#" in str(network)
    assert ir.parse(str(network), ir.arrays_of(network)) == network
    name = network.outputs[0]
    wrong = [replace(p, table=TABLE) if p.name == name else p for p in network.populations.values()]
    with pytest.raises(ir.VerificationError, match="only inputs"):
        ir.verify(network.replace(populations=wrong))


@pytest.mark.parametrize("pipeline", ["data-norm", "few-spike{k=8}"])
def test_in_spikes(network, pipeline, tmp_path, snnc_command):
    numbers = RNG.integers(0, WORDS, (40, LENGTH))
    expected = snnc.compile(network).predict(numbers)
    spiking = snnc.convert(network, pipeline, calibration=numbers, timesteps=256, progress=False)
    found = np.asarray(snnc.compile(spiking).predict(numbers)).reshape(-1, *expected.shape)[-1]
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()
    ir.save(spiking, tmp_path / "net.snn")
    np.savez(tmp_path / "data.npz", x=numbers, y=expected.argmax(-1))
    code, _, err = snnc_command("evaluate", tmp_path / "net.snn", "--data", tmp_path / "data.npz")
    assert not code
    assert "note" not in err


# Keras and PyTorch.


@pytest.mark.parametrize("kind", ["float32", "int32", "int64"])
def test_keras_embeddings(tmp_path, kind):
    x = keras.Input((LENGTH,), dtype=kind, name="ids")
    y = kl.LSTM(3, name="memory")(kl.Embedding(WORDS, SIZE, name="words")(x))
    source = randomise(keras.Model(x, kl.Dense(2, name="head")(y)))
    source.save(tmp_path / "model.keras")
    numbers = RNG.integers(0, WORDS, (3, LENGTH))
    for given in (source, tmp_path / "model.keras"):
        network = snnc.load(given, verify=True)
        np.testing.assert_allclose(snnc.compile(network).predict(numbers), source(numbers.astype(kind)), atol=1e-5)


def test_embeddings_in_functions_and_saved_models(tmp_path):
    x = keras.Input((LENGTH,), dtype="int32", name="ids")
    source = randomise(keras.Model(x, kl.Dense(2, name="head")(kl.Flatten()(kl.Embedding(WORDS, SIZE)(x)))))
    source.export(tmp_path / "model", verbose=False)
    numbers = RNG.integers(0, WORDS, (3, LENGTH)).astype(np.int32)
    for given, inputs in ((tmp_path / "model", None), (tf.function(lambda ids: source(ids)), numbers)):
        network = snnc.load(given, inputs=inputs, verify=True)
        np.testing.assert_allclose(snnc.compile(network).predict(numbers), source(numbers), atol=1e-5)


def test_keras_embeddings_before_attention():
    x = keras.Input((LENGTH,), name="ids")
    y = kl.Embedding(WORDS, SIZE, name="words")(x)
    y = kl.MultiHeadAttention(2, 2, name="attend")(y, y)
    source = randomise(keras.Model(x, kl.Dense(2, name="head")(kl.Flatten()(y))))
    numbers = RNG.integers(0, WORDS, (3, LENGTH))
    network = frontend.load(source)
    np.testing.assert_allclose(snnc.compile(network).predict(numbers), source(numbers), atol=1e-5)


def test_keras_embeddings_that_hide_tokens():
    x = keras.Input((LENGTH,), name="ids")
    source = keras.Model(x, kl.LSTM(3)(kl.Embedding(WORDS, SIZE, mask_zero=True, name="words")(x)))
    with pytest.raises(ir.UnsupportedModelError, match=r"words \(Embedding\): it skips steps"):
        frontend.load(source)


def test_pytorch_embeddings():
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = torch.nn.Embedding(WORDS, SIZE), torch.nn.Embedding(LENGTH, SIZE)
            self.attend = torch.nn.TransformerEncoderLayer(SIZE, 2, 8, batch_first=True)

        def forward(self, ids):
            x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
            return self.attend(x).mean(1)

    reading = frontend.read(Net().eval(), torch.zeros((1, LENGTH), dtype=torch.long))
    assert proof.prove(reading) < 1e-5
    assert reading.network.populations["ids"].shape == (LENGTH, 1, SIZE)
