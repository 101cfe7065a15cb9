"""Rectifiers that are not a plain ReLU: leaky ones and clips, from Keras to spikes."""

import keras
import numpy as np
import pytest
from frontend_models import assert_equal, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl
from networks import weights
from reference import analog

import snnc
from snnc import frontend, ir
from snnc.ir import Clip, Connection, LeakyRelu, Network, Origin, Population, Relu
from snnc.passes import Canonicalise, Context, LowerClip, LowerLeakyRelu, LowerMaxPool, run

IMAGE = (6, 5, 4)
LAYERS = {
    "leaky_relu": lambda: kl.LeakyReLU(),
    "leaky_relu_steep": lambda: kl.LeakyReLU(negative_slope=1.5),
    "prelu": lambda: kl.PReLU(),
    "prelu_per_channel": lambda: kl.PReLU(shared_axes=[1, 2]),
    "prelu_per_row_and_channel": lambda: kl.PReLU(shared_axes=[2]),
    "relu_negative_slope": lambda: kl.ReLU(negative_slope=0.3),
    "relu_negative_slope_and_max": lambda: kl.ReLU(max_value=0.5, negative_slope=0.3),
    "relu_max": lambda: kl.ReLU(max_value=0.5),
    "relu6": lambda: kl.Activation("relu6"),
    "hard_sigmoid": lambda: kl.Activation("hard_sigmoid"),
    "hard_tanh": lambda: kl.Activation("hard_tanh"),
    "leaky": lambda: kl.Activation("leaky_relu"),
    "dense_hard_tanh": lambda: kl.Dense(4, activation="hard_tanh"),
    "clip": lambda: kl.Activation(lambda x: keras.ops.clip(x, -0.2, 0.7)),
    "floor": lambda: kl.Activation(lambda x: keras.ops.maximum(x, -0.2)),
    "ceiling": lambda: kl.Activation(lambda x: keras.ops.minimum(x, 0.2)),
}


def kinds(network: Network) -> list[type]:
    """The neurons between the inputs and the readouts."""
    ends = (ir.Input, ir.Identity, ir.Softmax)
    return [type(p.neuron) for p in network.populations.values() if not isinstance(p.neuron, ends)]


# From Keras.


@pytest.mark.parametrize("name", LAYERS)
def test_alone_and_as_an_output_that_is_read_on(name):
    x = keras.Input(IMAGE, name="x")
    y = LAYERS[name]()(x)
    assert_equal(randomise(keras.Model(x, y)))
    assert_equal(randomise(keras.Model(x, [y, kl.Dense(3, name="head")(kl.Flatten()(y))])))


@pytest.mark.parametrize("name", LAYERS)
def test_before_padding_pooling_and_addition(name):
    """What a layer adds to its output meets the zeros of a padded convolution, and every window of a pooling layer."""
    x = keras.Input(IMAGE, name="x")
    y = skip = LAYERS[name]()(kl.Conv2D(4, 3, padding="same")(x))
    y = LAYERS[name]()(kl.BatchNormalization()(kl.Conv2D(4, 3, padding="same")(y)))
    y = LAYERS[name]()(kl.Add()([y, skip]))
    pooled = [kl.MaxPooling2D(3, 2, padding="same")(y), kl.AveragePooling2D(3, 2, padding="same")(y)]
    y = kl.ZeroPadding2D(1)(kl.Concatenate()(pooled))
    assert_equal(randomise(keras.Model(x, kl.Dense(3)(kl.Flatten()(y)))))


@pytest.mark.parametrize("name", [name for name in LAYERS if "_per_" not in name])
def test_vectors_and_one_after_another(name):
    layers = [
        kl.Dense(6),
        LAYERS[name](),
        LAYERS["hard_tanh"](),
        LAYERS[name](),
        kl.ReLU(),
        LAYERS[name](),
        kl.Dense(3),
    ]
    assert_equal(randomise(keras.Sequential([keras.Input((7,)), *layers])))


@pytest.mark.parametrize(
    ("name", "neurons"),
    [
        ("leaky_relu", [LeakyRelu(0.3)]),
        ("relu_negative_slope", [LeakyRelu(0.3)]),
        ("leaky", [LeakyRelu(0.2)]),
        ("relu6", [Clip(6.0)]),
        ("hard_sigmoid", [Clip(6.0)]),
        ("hard_tanh", [Clip(2.0)]),
        ("clip", [Clip(0.9)]),
        ("floor", [Relu()]),
        ("ceiling", [Relu()]),
        ("prelu", [Relu(), Relu()]),
        ("relu_negative_slope_and_max", [Clip(0.5), Relu()]),
    ],
)
def test_populations(name, neurons):
    network = frontend.load(keras.Sequential([keras.Input(IMAGE), kl.Conv2D(4, 3), LAYERS[name](), kl.Conv2D(1, 2)]))
    found = [p.neuron for p in network.populations.values() if type(p.neuron) in kinds(network)]
    assert [type(neuron) for neuron in found] == [type(neuron) for neuron in neurons]
    for neuron, expected in zip(found, neurons, strict=True):
        assert vars(neuron) == pytest.approx(vars(expected))


def test_a_clip_of_a_clip_is_one_population():
    clips = [kl.Activation(lambda x, a=a, b=b: keras.ops.clip(x, a, b)) for a, b in ((-1, 1), (-0.5, 2), (-2, 0.75))]
    network = assert_equal(randomise(keras.Sequential([keras.Input(IMAGE), kl.Conv2D(4, 3), *clips, kl.Conv2D(2, 2)])))
    (population,) = [p for p in network.populations.values() if isinstance(p.neuron, Clip)]
    assert population.neuron == Clip(1.25)
    assert len(population.origin.layers) == 4  # the convolution's and all three clips'


def test_a_part_that_is_constant_is_a_bias():
    """Of a ReLU's output, the negative part is zero and what stays below a negative ceiling is the ceiling itself."""
    x = keras.Input(IMAGE, name="x")
    y = kl.ReLU()(kl.Conv2D(4, 3)(x))
    constant = kl.Activation(lambda t: keras.ops.minimum(t, -0.5))(y)
    network = assert_equal(randomise(keras.Model(x, kl.Dense(3)(kl.Flatten()(kl.Add()([kl.PReLU()(y), constant]))))))
    assert kinds(network) == [Relu]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (kl.ReLU(threshold=0.5, name="late"), "late (ReLU): its output jumps at a threshold"),
        (kl.ReLU(threshold=0.5, negative_slope=0.1, name="late"), "use ReLU with threshold=0"),
        (
            kl.Activation("sparse_plus", name="plus"),
            "plus (Activation 'sparse_plus'): sparse_plus is not an activation",
        ),
    ],
)
def test_what_is_no_sum_of_rectifiers_is_refused(layer, expected):
    with pytest.raises(ir.UnsupportedModelError) as error:
        frontend.load(keras.Sequential([keras.Input(IMAGE), layer]))
    (problem,) = error.value.problems
    assert expected in problem


def test_slopes_are_verified():
    for slope, fault in (
        (np.ones(3), r"slope has shape \(3,\); expected a number, or \(2,\) or \(4, 4, 2\)"),
        (np.nan, "not finite"),
    ):
        with pytest.raises(ir.VerificationError, match=fault):
            ir.verify(rectified(LeakyRelu(slope), (4, 4, 2)))


@pytest.mark.parametrize("slope", [0.25, weights(0, 2), weights(0, 4, 3, 2)])
def test_slopes_in_files_and_text(tmp_path, slope):
    network = rectified(LeakyRelu(slope), (4, 3, 2))
    ir.save(network, tmp_path / "net.snn")
    assert ir.load(tmp_path / "net.snn") == ir.parse(str(network), ir.arrays_of(network)) == network


# Lowering.


def rectified(
    neuron: ir.AnalogNeuron, shape: ir.Shape, output: bool = False, bias: np.ndarray | None = None
) -> Network:
    """A population with `neuron`, read by a convolution or a matrix and by a skipping edge, and maybe an output."""
    if len(shape) == 3:
        linear = ir.Conv2D(weights(0, 3, 3, shape[2], shape[2]), padding=((1, 1), (1, 1)))
    else:
        linear = ir.Dense(weights(0, *shape, *shape))
    return Network(
        [
            Population("x", shape, ir.Input()),
            Population("act", shape, neuron, bias, Origin(("act",))),
            Population("next", shape, Relu(), weights(1, shape[-1]), Origin(("next",))),
            Population("y", (3,), ir.Identity(), None, Origin(("y",))),
        ],
        [
            Connection("x", "act", (ir.Scale(weights(2, shape[-1])),), origin=Origin(("scale",))),
            Connection("act", "next", (linear,), origin=Origin(("linear",))),
            Connection("act", "y", (ir.Dense(weights(3, int(np.prod(shape)), 3)),), origin=Origin(("y",))),
            Connection("next", "y", (ir.Dense(weights(4, int(np.prod(shape)), 3)),), origin=Origin(("y",))),
        ],
        ["x"],
        ["y", "act"] if output else ["y"],
    )


def lowered(network: Network) -> Network:
    return run([Canonicalise(), LowerLeakyRelu(), LowerClip()], network, Context())


@st.composite
def rectified_networks(draw: st.DrawFn) -> Network:
    shape = draw(st.sampled_from([(5,), (4, 3, 2)]))
    per = st.sampled_from([shape[-1:], shape])
    array = st.builds(lambda seed, of: weights(seed, *of), st.integers(0, 99), per)
    slope = st.floats(-2, 2, width=32) | array
    neuron = draw(st.builds(LeakyRelu, slope) | st.builds(Clip, st.floats(0.125, 2, width=32)))
    return rectified(neuron, shape, draw(st.booleans()), draw(st.none() | array))


@given(rectified_networks())
@settings(max_examples=50, deadline=None)
def test_lowering_keeps_the_function(network):
    rectifiers = lowered(network)
    assert set(kinds(rectifiers)) == {Relu}
    x = {"x": weights(8, 5, *network.populations["x"].shape, scale=3)}
    expected, found, compiled = analog(network, x), analog(rectifiers, x), snnc.compile(network).predict(x)
    for name in network.outputs:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
        by_onnxruntime = compiled[name] if len(network.outputs) > 1 else compiled
        np.testing.assert_allclose(by_onnxruntime, expected[name], atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_lowering_what_keras_gives(name):
    x = keras.Input(IMAGE, name="x")
    y = LAYERS[name]()(kl.Conv2D(4, 3)(x))
    y = kl.Add()([LAYERS[name]()(kl.Conv2D(4, 3, padding="same")(y)), y])
    model = randomise(keras.Model(x, LAYERS[name]()(kl.Conv2D(4, 1)(kl.MaxPooling2D(2)(y)))))
    network = frontend.load(model)
    rectifiers = run([Canonicalise(), LowerMaxPool(), LowerLeakyRelu(), LowerClip()], network, Context())
    assert set(kinds(rectifiers)) == {Relu}
    images = weights(1, 3, *IMAGE, scale=3)
    found = analog(rectifiers, {"x": images})[network.outputs[0]]
    np.testing.assert_allclose(found, np.asarray(model(images)), atol=1e-4)


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize(("name", "neuron"), [("lower-leaky-relu", LeakyRelu(0.25)), ("clip", Clip(1.5))])
def test_text(assert_golden, name, neuron, output):
    network = lowered(rectified(neuron, (4, 3, 2), output, weights(5, 2)))
    assert_golden(network, f"{name}-at-an-output" if output else name)


def test_a_network_without_them_is_handed_on():
    network = run([Canonicalise()], rectified(Relu(), (3,)), Context())
    assert lowered(network) is not network  # Canonicalise makes a new one
    assert run([LowerLeakyRelu(), LowerClip()], network, Context()) is network


@pytest.mark.parametrize(("neuron", "keeps_zero"), [(LeakyRelu(0.1), False), (Clip(1.0), True)])
@pytest.mark.parametrize("pool_first", [True, False])
def test_padded_max_pooling_knows_which_give_no_negative(neuron, keeps_zero, pool_first):
    pool = ir.MaxPool2D((4, 4, 2), (3, 3), (2, 2), ((1, 1), (1, 1)))
    network = Network(
        [
            Population("x", (4, 4, 2), ir.Input()),
            Population("act", (4, 4, 2), neuron),
            Population("pool", (2, 2, 2), pool),
        ],
        [Connection("x", "act"), Connection("act", "pool")],
        ["x"],
        ["pool"],
    )
    passes = [LowerMaxPool(), LowerClip(), LowerLeakyRelu()]
    changed = run([Canonicalise(), *(passes if pool_first else passes[::-1])], network, Context())
    x = {"x": weights(0, 3, 4, 4, 2, scale=2)}
    np.testing.assert_allclose(analog(changed, x)["pool"], analog(network, x)["pool"], atol=1e-6)
    factors = [o.factor for c in changed.connections for o in c.operators if isinstance(o, ir.Scale)]
    assert all(factor.ndim == 1 for factor in factors) == (keeps_zero and pool_first)


# To spikes.


@pytest.mark.parametrize("name", ["leaky_relu", "prelu", "relu_negative_slope_and_max", "hard_sigmoid", "hard_tanh"])
def test_spikes_approximate_the_ann(name):
    x = keras.Input(IMAGE, name="x")
    y = LAYERS[name]()(kl.Conv2D(8, 3, padding="same")(x))
    y = LAYERS[name]()(kl.Conv2D(8, 3, padding="same")(y))
    model = randomise(keras.Model(x, kl.Dense(5, name="y")(kl.Flatten()(y))))
    images = np.random.default_rng(0).normal(size=(32, *IMAGE)).astype(np.float32)
    snn = snnc.convert(snnc.load(model), "lower-leaky-relu,data-norm", calibration=images, timesteps=512)
    decoded = snnc.compile(snn).simulate(images).decoded["y"][-1]
    expected = np.asarray(model(images))
    assert np.abs(decoded - expected).max() < 0.02 * np.abs(expected).max()


def test_a_leaky_rectifier_is_not_converted_as_it_is():
    network = snnc.load(keras.Sequential([keras.Input(IMAGE), kl.LeakyReLU(name="leak"), kl.Flatten(), kl.Dense(2)]))
    with pytest.raises(ir.UnsupportedModelError, match=r"leak \(LeakyRelu, from leak\).*run lower-leaky-relu before"):
        snnc.convert(network, "data-norm", calibration=np.ones((2, *IMAGE)), timesteps=4)
