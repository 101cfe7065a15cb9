"""LSTM, GRU and simple RNN, unrolled: onnxruntime and Keras are the oracles, random weights in everything."""

import keras
import keras.layers as kl
import numpy as np
import onnx
import onnxruntime
import pytest
from frontend_models import randomise
from onnx import helper, numpy_helper
from reference import analog

import snnc
from snnc import frontend, ir, proof
from snnc.frontend import support

RNG = np.random.default_rng(0)
STEPS, INPUTS, UNITS = 5, 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def of(operator: str, outputs: str = "y h c", **attributes: object) -> onnx.ModelProto:
    """A model of one recurrent layer over a series (batch, STEPS, INPUTS), with every operand that it can have."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[operator] * UNITS
    shapes = {"w": (rows, INPUTS), "r": (rows, UNITS), "b": (2 * rows,), "h0": (1, UNITS)}
    shapes |= {"c0": (1, UNITS), "p": (3 * UNITS,)} if operator == "LSTM" else {}
    weights = {name: RNG.normal(size=(directions, *shape)) / 2 for name, shape in shapes.items()}
    names = "s w r b lengths h0 c0 p" if operator == "LSTM" else "s w r b lengths h0"
    given = [name for name in outputs.split() if operator == "LSTM" or name != "c"]
    nodes = [
        helper.make_node("Transpose", ["x"], ["s"], perm=[1, 0, 2], name="first"),
        helper.make_node(operator, names.split(), given, name="layer", hidden_size=UNITS, **attributes),
    ]
    ends = {"y": [2, 0, 1, 3], "h": [1, 0, 2], "c": [1, 0, 2]}
    nodes += [helper.make_node("Transpose", [n], [f"{n}_"], perm=ends[n], name=f"{n}_last") for n in given]
    nodes += [helper.make_node("Flatten", [f"{n}_"], [f"{n}_flat"], name=f"{n}_flat") for n in given]
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([STEPS], np.int32), "lengths"))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        operator,
        [value("x", onnx.TensorProto.FLOAT, (1, STEPS, INPUTS))],
        [value(f"{n}_flat", onnx.TensorProto.FLOAT, (1, None)) for n in given],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == "layer")


def assert_agrees(model: onnx.ModelProto) -> ir.Network:
    network = frontend.load(model)
    x = RNG.normal(size=(1, STEPS, INPUTS)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    found = analog(network, {"x": x[:, :, None]})
    for name, y in zip(network.outputs, expected, strict=True):
        np.testing.assert_allclose(found[name].reshape(y.shape), y, rtol=0, atol=1e-5)
    return network


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", list(GATES))
def test_directions_states_peepholes(operator, direction):
    network = assert_agrees(of(operator, direction=direction))
    assert {p.origin.layers[-1] for p in network.populations.values()} >= {"x", "layer"}
    assert "layer/reverse/4/state" in network.populations or direction == "forward"


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("GRU", {"linear_before_reset": 1}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"activations": ["HardSigmoid", "Relu", "Softsign"], "activation_alpha": [0.3]}),
        ("GRU", {"activations": ["Sigmoid", "ScaledTanh"], "activation_alpha": [1.5], "activation_beta": [0.7]}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
        ("RNN", {"activations": ["Affine"], "activation_alpha": [0.4], "activation_beta": [0.1]}),
        ("RNN", {"activations": ["Elu"], "activation_alpha": [0.5]}),
        ("RNN", {"activations": ["Softplus", "Tanh"], "direction": "bidirectional"}),
    ],
)  # fmt: skip
def test_attributes(operator, attributes):
    assert_agrees(of(operator, **attributes))


@pytest.mark.parametrize("operator", list(GATES))
def test_operands_left_out_and_outputs_not_wanted(operator):
    model = of(operator, outputs="y")
    del layer(model).input[3:]
    assert_agrees(model)


def test_a_state_that_is_an_activation():
    model = of("GRU", outputs="h")
    node = layer(model)
    node.input[5] = "first_h"
    node.output[:] = ["", "h"]
    before = helper.make_node("GRU", ["s", "w", "r", "b"], ["", "first_h"], name="before", hidden_size=UNITS)
    model.graph.node.insert(1, before)
    assert_agrees(model)


def test_layers_in_a_row_take_each_step_from_one_population():
    model = of("RNN", outputs="h")
    weights = [numpy_helper.from_array(RNG.normal(size=(1, 2, UNITS)).astype(np.float32), name) for name in ("w2",)]
    weights.append(numpy_helper.from_array(RNG.normal(size=(1, 2, 2)).astype(np.float32), "r2"))
    model.graph.initializer.extend(weights)
    node = layer(model)
    node.output[:] = ["every"]
    flat = helper.make_node("Squeeze", ["every", "one"], ["series"], name="flat")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    second = helper.make_node("RNN", ["series", "w2", "r2"], ["", "h"], name="second", hidden_size=2)
    for place, added in enumerate((flat, second)):
        model.graph.node.insert(2 + place, added)
    network = assert_agrees(model)
    assert all(
        [c.source for c in network.incoming(f"second/{step}/state")]
        == [f"layer/{step}/state", *([f"second/{step - 1}/state"] if step else [])]
        for step in range(STEPS)
    )


def test_all_steps_hold_the_same_weights(tmp_path):
    network = assert_agrees(of("LSTM", outputs="y"))
    ir.save(network, tmp_path / "net.snn")
    for read in (network, ir.load(tmp_path / "net.snn")):
        weights = [o.weight for c in read.connections for o in c.operators if isinstance(o, ir.Dense)]
        assert len(weights) == 8 * STEPS - 4  # the state before the first step is constant
        assert len({weight.__array_interface__["data"] for weight in weights}) == 8
    assert read == network


@pytest.mark.parametrize(
    ("operator", "change", "match"),
    [
        ("LSTM", {"clip": 0.5}, "clips what its gates are given"),
        ("RNN", {"activations": ["ThresholdedRelu"]}, "jumps at a threshold"),
        ("RNN", {"activations": ["Swirl"]}, "activation 'swirl' is not known"),
        ("GRU", {"activations": ["Tanh"]}, "names 1 activations in place of 2"),
    ],
)
def test_what_is_refused(operator, change, match):
    with pytest.raises(ir.UnsupportedModelError, match=match) as error:
        frontend.load(of(operator, **change))
    assert str(error.value.problems[0]).startswith(f"layer ({operator}): ")


def test_weights_and_lengths_that_do_not_fit():
    model = of("LSTM")
    model.graph.initializer.append(numpy_helper.from_array(np.array([2], np.int32), "few"))
    layer(model).input[4] = "few"
    with pytest.raises(ir.UnsupportedModelError, match="its sequences end before the last of 5 steps"):
        frontend.load(model)
    layer(model).input[4], layer(model).input[2] = "lengths", "w"
    with pytest.raises(ir.UnsupportedModelError, match=r"its weights of shape .* should have the shape"):
        frontend.load(model)


def test_series_whose_first_axis_is_time():
    model = of("RNN")
    layer(model).input[0] = "x"
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (STEPS, 1, INPUTS)))
    network = frontend.load(model)
    assert network.populations["x"].shape == (STEPS, 1, INPUTS)
    x = RNG.normal(size=(STEPS, 1, INPUTS)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    found = analog(network, {"x": x[None]})
    for name, y in zip(network.outputs, expected, strict=True):
        np.testing.assert_allclose(found[name].reshape(y.shape), y, rtol=0, atol=1e-5)


def test_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(support, "MOST_STEPS", STEPS - 1)
    with pytest.raises(ir.UnsupportedModelError, match="it takes 5 steps, and at most 4 are unrolled"):
        frontend.load(of("GRU"))
    monkeypatch.setattr(support, "MOST_STEPS", STEPS)
    monkeypatch.setattr(support, "MOST_UNROLLED", 100)
    said = r"unrolled, 5 steps of 112 weights are 560 in all, more than the 100 that fit"
    with pytest.raises(ir.UnsupportedModelError, match=said):
        frontend.load(of("LSTM"))


# Keras.


def series(*layers: kl.Layer, shape: tuple[int, ...] = (STEPS, INPUTS)) -> keras.Model:
    return randomise(keras.Sequential([keras.Input(shape, name="x"), *layers, kl.Dense(3, name="head")]))


ALL = {"return_sequences": True}
KERAS = {
    "lstm": lambda: series(kl.LSTM(4, name="memory")),
    "gru": lambda: series(kl.GRU(4, reset_after=False)),
    "rnn": lambda: series(kl.SimpleRNN(4)),
    "every step": lambda: series(kl.LSTM(4, **ALL), kl.GRU(3, go_backwards=True, **ALL)),
    "both ways": lambda: series(kl.Bidirectional(kl.LSTM(4, return_sequences=True)), kl.Bidirectional(kl.GRU(3))),
    "sums": lambda: series(kl.Bidirectional(kl.SimpleRNN(4, return_sequences=True), merge_mode="sum"), kl.Flatten()),
    "activations": lambda: series(kl.LSTM(4, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False)),
    "unrolled": lambda: series(kl.GRU(4, unroll=True)),
    "cells": lambda: series(kl.RNN([kl.LSTMCell(4, name="first"), kl.GRUCell(3, name="second")], name="two")),
    "convolutions": lambda: series(kl.ConvLSTM1D(2, 3, padding="same"), kl.Flatten(), shape=(3, 5, 2)),
    "behind a convolution": lambda: series(kl.Conv1D(4, 2, activation="relu"), kl.MaxPooling1D(), kl.LSTM(4)),
    "rows": lambda: series(kl.Reshape((6, 4)), kl.LSTM(4), shape=(6, 4, 1)),
}  # fmt: skip


def assert_equals_keras(model: keras.Model) -> None:
    network = frontend.load(model)
    x = RNG.normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    (found,) = (analog(network, ir.as_inputs(network, x))[name] for name in network.outputs)
    y = np.asarray(model(x))
    np.testing.assert_allclose(found.reshape(y.shape), y, rtol=0, atol=1e-5 * max(1, np.abs(y).max()))


@pytest.mark.parametrize("name", KERAS)
def test_keras_layers(name):
    assert_equals_keras(KERAS[name]())


def test_a_state_that_is_handed_on():
    x = keras.Input((STEPS, INPUTS), name="x")
    y, *state = kl.LSTM(4, return_sequences=True, return_state=True)(x)
    assert_equals_keras(randomise(keras.Model(x, kl.Dense(3)(kl.LSTM(4)(y, initial_state=state)))))


def test_keras_layers_keep_their_names_weights_and_settings(tmp_path):
    model = series(kl.LSTM(4, name="memory"))
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        reading = frontend.read(source)
        assert proof.prove(reading) < 1e-5
        network = reading.network
        assert {p.origin.layers for p in network.populations.values()} == {("x",), ("memory",), ("head",)}
        weights = [o.weight for c in network.connections for o in c.operators if isinstance(o, ir.Dense)]
        assert len({weight.__array_interface__["data"] for weight in weights}) == 9  # four gates' twice, and the head's
    assert model.layers[0].unroll is False


def test_keras_layers_that_do_not_fit(monkeypatch):
    monkeypatch.setattr(support, "MOST_STEPS", STEPS - 1)
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(series(kl.LSTM(4, name="memory"), kl.Activation("sparse_plus", name="bend")))
    assert [problem.layer for problem in error.value.problems] == ["memory", "bend"]
    assert "it takes 5 steps, and at most 4 are unrolled" in error.value.problems[0]


# Keras 2.


def old_series(*layers: object, shape: tuple[int, ...] = (STEPS, INPUTS)) -> object:
    """A Keras 2 model, every weight of which is random."""
    tf_keras = pytest.importorskip("tf_keras")
    first = tf_keras.layers.Input(shape, name="x")
    model = tf_keras.Sequential([first, *layers, tf_keras.layers.Dense(3, name="head")])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=weight.shape) / 2 for weight in model.get_weights()])
    return model


KERAS2 = {
    "lstm": lambda kl: old_series(kl.LSTM(4, name="memory")),
    "gru": lambda kl: old_series(kl.GRU(4, reset_after=False)),
    "gru, reset after": lambda kl: old_series(kl.GRU(4)),
    "rnn": lambda kl: old_series(kl.SimpleRNN(4)),
    "every step": lambda kl: old_series(kl.LSTM(4, **ALL), kl.GRU(3, go_backwards=True, **ALL)),
    "both ways": lambda kl: old_series(kl.Bidirectional(kl.LSTM(4, **ALL)), kl.Bidirectional(kl.GRU(3))),
    "sums": lambda kl: old_series(kl.Bidirectional(kl.SimpleRNN(4, **ALL), merge_mode="sum"), kl.Flatten()),
    "activations": lambda kl: old_series(kl.LSTM(4, "relu", "hard_sigmoid", use_bias=False)),
    "unrolled": lambda kl: old_series(kl.GRU(4, unroll=True)),
    "cells": lambda kl: old_series(kl.RNN([kl.LSTMCell(4), kl.GRUCell(3)], name="two")),
    "convolutions": lambda kl: old_series(kl.ConvLSTM1D(2, 3, padding="same"), kl.Flatten(), shape=(3, 5, 2)),
    "behind a convolution": lambda kl: old_series(kl.Conv1D(4, 2, activation="relu"), kl.MaxPooling1D(), kl.LSTM(4)),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS2)
def test_keras_2_layers(name):
    assert_equals_keras(KERAS2[name](pytest.importorskip("tf_keras").layers))


def test_keras_2_layers_keep_their_names_and_settings():
    layers = pytest.importorskip("tf_keras").layers
    model = old_series(layers.Bidirectional(layers.LSTM(4, name="memory"), name="both"))
    reading = frontend.read(model)
    assert proof.prove(reading) < 1e-5
    names = {path for p in reading.network.populations.values() for path in p.origin.layers}
    assert names <= {"x", "both", "both/forward_memory", "both/backward_memory", "head"}
    assert model.layers[0].forward_layer.unroll is False


def test_keras_2_layers_that_do_not_fit(monkeypatch):
    monkeypatch.setattr(support, "MOST_STEPS", STEPS - 1)
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(old_series(pytest.importorskip("tf_keras").layers.LSTM(4, name="memory")))
    assert [problem.layer for problem in error.value.problems] == ["memory"]
    assert "it takes 5 steps, and at most 4 are unrolled" in error.value.problems[0]


# PyTorch.


@pytest.mark.parametrize(
    ("kind", "options", "last"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True}, False),
        ("GRU", {"num_layers": 2}, True),
        ("GRU", {"bidirectional": True, "bias": False}, False),
        ("RNN", {"nonlinearity": "relu", "bidirectional": True, "num_layers": 2}, False),
        ("RNN", {}, True),
    ],
)
def test_pytorch_layers(kind, options, last):
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(INPUTS, 4, batch_first=True, **options)
            self.head = torch.nn.Linear(8 if options.get("bidirectional") else 4, 3)

        def forward(self, x):
            y, state = self.rnn(x)
            return self.head(state[-1] if last else y)

    reading = frontend.read(Net(), (1, STEPS, INPUTS))
    assert proof.prove(reading) < 1e-5
    assert {p.origin.layers[-1] for p in reading.network.populations.values()} <= {"x", "rnn", "head"}


def test_pytorch_layers_with_time_first():
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(INPUTS, 4, bidirectional=True).eval()
    network = snnc.load(module, inputs=(STEPS, 1, INPUTS), verify=True)
    x = RNG.normal(size=(3, STEPS, INPUTS)).astype(np.float32)
    y, (h, c) = module(torch.from_numpy(x.transpose(1, 0, 2)))
    found = list(snnc.compile(network).predict(x).values())
    for mine, theirs in zip(found, (y, h, c), strict=True):
        theirs = theirs.detach().numpy().transpose(1, 0, 2)
        np.testing.assert_allclose(mine.reshape(theirs.shape), theirs, rtol=0, atol=1e-5)


def test_pytorch_layers_that_take_and_give_states():
    torch = pytest.importorskip("torch")
    for module, shape in (
        (torch.nn.LSTM(INPUTS, 4, num_layers=2), (STEPS, 2, INPUTS)),
        (torch.nn.LSTM(INPUTS, 4, bidirectional=True, batch_first=True), (2, STEPS, INPUTS)),
    ):

        class Stepping(torch.nn.Module):
            def __init__(self, cell):
                super().__init__()
                self.cell = cell

            def forward(self, x, h, c):
                return self.cell(x, (h, c))

        x, h, c = (torch.randn(sizes) for sizes in (shape, (2, 2, 4), (2, 2, 4)))
        stepping = Stepping(module.eval())
        network = snnc.load(stepping, inputs=(x, h, c), verify=True)
        assert [network.populations[name].shape for name in network.inputs] == [(STEPS, 1, INPUTS), *[(2, 1, 4)] * 2]
        y, (h_, c_) = (t for t in stepping(x, h, c))
        first = (lambda t: t) if module.batch_first else (lambda t: t.transpose(0, 1))
        given = [t.detach().numpy() for t in (first(x), h.transpose(0, 1), c.transpose(0, 1))]
        found = snnc.compile(network).predict(dict(zip(network.inputs, given, strict=True)))
        for mine, theirs in zip(found.values(), (first(y), h_.transpose(0, 1), c_.transpose(0, 1)), strict=True):
            theirs = theirs.detach().numpy()
            assert mine.size == theirs.size
            np.testing.assert_allclose(mine.reshape(theirs.shape), theirs, rtol=0, atol=1e-5)


# In spikes.


@pytest.mark.parametrize(("pipeline", "timesteps", "error"), [("few-spike{k=8}", None, 0.02), ("tracking", 32, 0.1)])
def test_an_lstm_in_spikes(pipeline, timesteps, error):
    network = frontend.load(series(kl.LSTM(8, name="memory"), shape=(8, 3)))
    x = RNG.normal(size=(64, 8, 3)).astype(np.float32)
    expected = snnc.compile(network).predict(x)
    spiking = snnc.convert(network, pipeline, calibration=x, timesteps=timesteps, progress=False)
    found = np.asarray(snnc.compile(spiking).predict(x)).reshape(-1, *expected.shape)[-1]
    assert np.abs(found - expected).max() < error * np.abs(expected).max()
