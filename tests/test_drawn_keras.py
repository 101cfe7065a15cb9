"""Models that hypothesis draws from Keras's layers and operations: read exactly, whatever stands beside what."""

import math

import keras
import numpy as np
import pytest
from frontend_models import randomise
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from keras import layers as kl
from keras import ops
from reference import analog

import snnc
from snnc import frontend, ir
from snnc.frontend.affine import CHANNELS_FIRST, SERIES_FIRST

ACTIVATIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "sigmoid"),
    *("hard_sigmoid", "hard_silu", "tanh", "log_sigmoid", "soft_shrink", "hard_shrink", "tanh_shrink", "squareplus"),
    *("hard_tanh", "sparse_sigmoid"),
)
LARGEST = 400  # numbers in a tensor


def divisors(number):
    return [each for each in range(1, number + 1) if number % each == 0]


def all_axes(x):
    return range(1, len(x.shape))


# What each makes of a tensor, far from its defaults; `pick` draws one of several things.

POINTWISE = {
    "named": lambda pick, x: kl.Activation(pick(*ACTIVATIONS))(x),
    "ELU": lambda pick, x: kl.ELU(pick(0.45, 1.6))(x),
    "LeakyReLU": lambda pick, x: kl.LeakyReLU(0.37)(x),
    "ReLU": lambda pick, x: kl.ReLU(pick(None, 1.3), pick(0.0, 0.2))(x),
    "PReLU": lambda pick, x: kl.PReLU(shared_axes=pick(None, *([each] for each in [*all_axes(x)][:-1])))(x),
    "celu": lambda pick, x: ops.celu(x, 0.6),
    "gelu": lambda pick, x: ops.gelu(x, approximate=pick(True, False)),
    "shrink": lambda pick, x: pick(ops.hard_shrink, ops.soft_shrink)(x, 0.35),
    "squareplus": lambda pick, x: ops.squareplus(x, 2.5),
    "clip": lambda pick, x: ops.clip(x, -0.4, 0.7),
    "choice": lambda pick, x: ops.where(x > 0.5, 0.5, ops.where(x < -0.3, 0.2 * x - 0.24, x)),
    "wave": lambda pick, x: pick(ops.sin, ops.cos, ops.erf)(x),
    "power": lambda pick, x: (ops.softplus(x) + 0.1) ** pick(1.7, 3, -0.6),
    "root": lambda pick, x: pick(ops.sqrt, ops.rsqrt, ops.log, ops.reciprocal)(ops.square(x) + 0.5),
    "exponential": lambda pick, x: pick(ops.exp, ops.expm1)(ops.tanh(x)),
    "log1p": lambda pick, x: ops.log1p(ops.abs(x)),
    "quick GELU": lambda pick, x: x * ops.sigmoid(1.702 * x),
}
ALONG_AXES = {
    "softmax": lambda pick, x: kl.Softmax(pick(*all_axes(x)))(x),
    "log-softmax": lambda pick, x: ops.log_softmax(x, pick(*all_axes(x))),
    "layer norm": lambda pick, x: kl.LayerNormalization(pick(*all_axes(x), (*all_axes(x),)), 0.01)(x),
    "RMS norm": lambda pick, x: kl.RMSNormalization(epsilon=0.01)(x),
    "batch norm": lambda pick, x: kl.BatchNormalization(pick(*all_axes(x)), epsilon=0.01)(x),
    "unit norm": lambda pick, x: kl.UnitNormalization(pick(*all_axes(x)))(x),
    "largest": lambda pick, x: x - ops.max(x, pick(*all_axes(x)), keepdims=True),
    "sum": lambda pick, x: x + ops.sum(x, pick(*all_axes(x)), keepdims=True),
    "dense": lambda pick, x: kl.Dense(pick(1, 3, 6), pick(None, *ACTIVATIONS))(x),
    "flatten": lambda pick, x: kl.Flatten()(x),
}
ON_IMAGES = {
    "conv": lambda pick, x: kl.Conv2D(
        2 * pick(*divisors(x.shape[3])),
        pick(1, 2, 3),
        pick(1, 2),
        "same",
        groups=pick(*divisors(math.gcd(x.shape[3], 2))),
        activation=pick(None, *ACTIVATIONS),
    )(x),
    "depthwise": lambda pick, x: kl.DepthwiseConv2D(3, padding="same", activation=pick(*ACTIVATIONS))(x),
    "pooling": lambda pick, x: pick(kl.MaxPooling2D, kl.AveragePooling2D)(2, pick(1, 2), "same")(x),
    "mean": lambda pick, x: pick(kl.GlobalAveragePooling2D, kl.GlobalMaxPooling2D)(keepdims=pick(True, False))(x),
    "excitation": lambda pick, x: excited(x, pick(*ACTIVATIONS), pick("sigmoid", "hard_sigmoid", "softsign")),
    "group norm": lambda pick, x: kl.GroupNormalization(pick(-1, *divisors(x.shape[3])), epsilon=0.01)(x),
    "turned": lambda pick, x: kl.Permute(pick((3, 1, 2), (2, 1, 3), (2, 3, 1)))(x),
    "tokens": lambda pick, x: kl.Reshape((x.shape[1] * x.shape[2], x.shape[3]))(x),
    "padding": lambda pick, x: kl.ZeroPadding2D(((1, 0), (0, 2)))(x),
}
ON_SERIES = {
    "conv": lambda pick, x: kl.Conv1D(4, 3, pick(1, 2), pick("same", "causal"), activation=pick(*ACTIVATIONS))(x),
    "attention": lambda pick, x: kl.MultiHeadAttention(pick(1, 2), pick(2, 3), value_dim=pick(None, 3))(
        x, x, use_causal_mask=pick(True, False)
    ),
    "additive attention": lambda pick, x: kl.AdditiveAttention()([kl.Dense(x.shape[2])(x), x]),
    "similarity": lambda pick, x: kl.Dot((2, 2), normalize=pick(True, False))([x, kl.Dense(x.shape[2])(x)]),
    "group norm": lambda pick, x: kl.GroupNormalization(pick(*divisors(x.shape[2])), epsilon=0.01)(x),
    "pooling": lambda pick, x: pick(kl.MaxPooling1D, kl.AveragePooling1D)(2, pick(1, 2), "same")(x),
    "turned": lambda pick, x: kl.Permute((2, 1))(x),
    "stack": lambda pick, x: ops.stack([x, ops.tanh(x)], pick(1, 2, 3)),
    "mean": lambda pick, x: pick(kl.GlobalAveragePooling1D, kl.GlobalMaxPooling1D)()(x),
}
ON_VECTORS = {
    "repeat": lambda pick, x: kl.RepeatVector(3)(x),
    "fold": lambda pick, x: kl.Reshape((pick(*divisors(x.shape[1])), -1))(x),
    "outer product": lambda pick, x: ops.expand_dims(x, 2) * ops.expand_dims(kl.Dense(3)(x), 1),
}
OF_TWO = {
    "residual": lambda pick, x, y: kl.Add()([x, kl.Dense(x.shape[-1], pick(*ACTIVATIONS))(y)]),
    "arithmetic": lambda pick, x, y: pick(kl.Add, kl.Subtract, kl.Multiply, kl.Average, kl.Maximum, kl.Minimum)()(
        [x, y]
    ),
    "gate": lambda pick, x, y: x * ops.sigmoid(kl.Dense(x.shape[-1], pick(*ACTIVATIONS))(y)),
    "choice": lambda pick, x, y: x * kl.Softmax(pick(*all_axes(x)))(y),
    "quotient": lambda pick, x, y: x / (ops.softplus(y) + 0.3),
    "concatenation": lambda pick, x, y: kl.Concatenate(pick(*all_axes(x)))([x, y]),
}


def excited(x, activation, gate):
    y = kl.GlobalAveragePooling2D(keepdims=True)(x)
    y = kl.Conv2D(x.shape[3], 1, activation=gate)(kl.Conv2D(2, 1, activation=activation)(y))
    return kl.Multiply()([x, y])


@st.composite
def models(draw):
    """A model of up to six blocks, each on a tensor that there is, or on two; one, two or three of these come out."""

    def pick(*choices):
        return draw(st.sampled_from(choices))

    tensors = [keras.Input(pick((5, 6, 3), (4, 4, 2), (6, 4), (5, 3), (8,)))]
    for _ in range(pick(2, 3, 4, 5, 6)):
        x = tensors[-pick(1, 1, min(2, len(tensors)))]
        own = {2: ON_VECTORS, 3: ON_SERIES, 4: ON_IMAGES}[len(x.shape)]
        table = pick(POINTWISE, ALONG_AXES, own, own, OF_TWO)
        block = table[pick(*table)]
        alike = [tensor for tensor in tensors if tensor.shape == x.shape]
        y = block(pick, x, pick(*alike)) if table is OF_TWO else block(pick, x)
        if len(y.shape) <= 4 and math.prod(y.shape[1:]) <= LARGEST:
            tensors.append(y)
    outputs = {len(tensors) - 1, *draw(st.sets(st.integers(1, max(len(tensors) - 1, 1)), max_size=2))}
    return keras.Model(tensors[0], [tensors[position] for position in sorted(outputs) if position < len(tensors)])


def in_double_precision(model):
    def double(layer):
        config = layer.get_config() | ({"dtype": "float64"} if isinstance(layer, keras.Layer) else {})
        return type(layer).from_config(config)

    (given,) = model.inputs
    copy = keras.models.clone_model(model, keras.Input(given.shape[1:], dtype="float64"), clone_function=double)
    copy.set_weights(model.get_weights())
    return copy


def assert_read_exactly(model, seed):
    """The network is as near to the model in double precision as 1e-5, or as the model's own single precision is."""
    randomise(model, seed)
    x = np.random.default_rng(seed).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    exact, own = (
        [np.asarray(y) for y in keras.tree.flatten(each(given, training=False))]
        for each, given in ((in_double_precision(model), x.astype(np.float64)), (model, x))
    )
    reading = frontend.read(model)
    network, (layout,) = reading.network, [entry.layout for entry in reading.inputs.values()]
    (name,) = network.inputs
    images = np.moveaxis(x, 1, -1) if layout in (CHANNELS_FIRST, SERIES_FIRST) else x  # what begins by turning round
    images = images.reshape(len(x), *network.populations[name].shape)
    found = snnc.compile(network).predict({name: images}, progress=False)
    found = found if isinstance(found, dict) else {network.outputs[0]: found}
    by_numpy = analog(network, {name: images.astype(np.float64)})
    for output, wanted, single in zip(network.outputs, exact, own, strict=True):
        tolerance = max(1e-5 * max(np.abs(wanted).max(), 1e-3), 16 * np.abs(single - wanted).max())
        for y in (found[output], by_numpy[output]):
            assert np.squeeze(y).shape == np.squeeze(wanted).shape
            np.testing.assert_allclose(y.reshape(wanted.shape), wanted, rtol=0, atol=tolerance)


@given(model=models(), seed=st.integers(0, 1000))
@settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_drawn_models_are_read_exactly(model, seed):
    note([(operation.name, operation.output.shape[1:]) for operation in model.operations])
    assert_read_exactly(model, seed)


def on(shape, *blocks):
    """A model of what functions make of its input, one after the other."""
    x = y = keras.Input(shape)
    for block in blocks:
        y = block(y)
    return keras.Model(x, y)


def also_an_output(x):
    """What divides, as a sigmoid does, multiplies an output."""
    y = ops.celu(x, 0.6)
    return [y, y * ops.sigmoid(kl.Dense(8)(x))]


# What the draws found wrong once, made as small as it gets.
FOUND = {
    "ELU with its own factor": lambda: on((6,), kl.ELU(0.45)),
    "shrinking behind a fold": lambda: on((6,), kl.Reshape((2, 3)), lambda x: ops.hard_shrink(x, 0.3)),
    "soft shrinking": lambda: on((6,), kl.Dense(4, "soft_shrink")),
    "a sigmoid of lines": lambda: on((6,), kl.Dense(4, "sparse_sigmoid")),
    "bounds of a leaky rectifier": lambda: on((6,), lambda x: ops.where(x > 0.5, 0.5, ops.where(x < 0, 0.2 * x, x))),
    "two lines": lambda: on((6,), lambda x: ops.where(x > 0, -x, 0.3 * x)),
    "CELU of what is never negative": lambda: on((6,), kl.ReLU(6.0), kl.Activation("celu")),
    "log(1 + x)": lambda: on((6,), ops.abs, ops.log1p),
    "an output with its axes turned": lambda: on((4, 5, 3), kl.Permute((3, 1, 2)), kl.ReLU()),
    "a series turned": lambda: on((6, 6), kl.GlobalMaxPooling1D(), kl.RepeatVector(6), kl.Permute((2, 1)), kl.ReLU()),
    "a stack behind": lambda: on((6, 4), lambda x: ops.stack([x, ops.tanh(x)], 3)),
    "a stack of repetitions": lambda: on((4,), kl.RepeatVector(3), lambda x: ops.stack([x, ops.tanh(x)], 1), ops.exp),
    "the square of a root's reciprocal": lambda: on(
        (8,), lambda x: ops.rsqrt(ops.square(x) + 0.5), kl.ReLU(), ops.square
    ),
    "a choice behind a flattened image": lambda: on((3, 4, 2), kl.Flatten(), kl.ELU(0.45)),
    "a choice behind a pooled series": lambda: on((6, 4), kl.GlobalMaxPooling1D(), kl.ELU(0.45)),
    "softmax over tokens": lambda: on((3, 4, 2), kl.Reshape((12, 2)), kl.Softmax(1)),
    "log-softmax of one number": lambda: on((8,), kl.Reshape((8, 1)), lambda x: ops.log_softmax(x, 2)),
    "what looks like a bias": lambda: on((8,), kl.Reshape((8, 1)), lambda x: kl.Add()([ops.tanh(x), ops.sin(x)])),
    "a norm over one number": lambda: on((5, 3, 1), kl.UnitNormalization()),
    "an output that a quotient multiplies": lambda: on((8,), also_an_output),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name):
    assert_read_exactly(FOUND[name](), 3)


@pytest.mark.parametrize(
    ("activation", "neuron"),
    [
        (kl.ELU(0.45), ir.Function("elu", 0.45)),
        (kl.Activation("celu"), ir.Function("elu")),
        (lambda x: ops.celu(x, 0.6), ir.Function("celu", 0.6)),
        (lambda x: ops.hard_shrink(x, 0.35), ir.Function("hard_shrink", 0.35)),
        (lambda x: ops.soft_shrink(x, 0.7), ir.Function("soft_shrink", 0.7)),
        (lambda x: ops.squareplus(x, 2.5), ir.Function("squareplus", 2.5)),
        (kl.Activation("tanh_shrink"), ir.Function("tanh_shrink")),
        (lambda x: 1.3 * ops.elu(x, 0.5), ir.Function("elu", 0.5)),
        (lambda x: ops.where(x > 0.5, 2 * x - 1, 0.0), ir.Relu()),
        (kl.ReLU(6.0), ir.Clip(6.0)),
    ],
)
def test_however_it_is_written_it_is_one_neuron(activation, neuron):
    network = snnc.load(on((6,), kl.Dense(5), activation, kl.Dense(3)), verify=True)
    _, hidden, _ = network.populations.values()
    assert hidden.neuron == neuron
