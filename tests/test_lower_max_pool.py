"""Max pooling as rectifiers: the same function, and spikes that classify as well."""

import numpy as np
import pytest
from networks import weights
from reference import analog

import snnc
from snnc import ir
from snnc.ir import Connection, Network, Origin, Population
from snnc.passes import Canonicalise, Context, LowerMaxPool, run

IMAGES = weights(3, 6, 7, 6, 2)
RAISING = weights(2, 3)  # a bias, of both signs


def pooled(size=(2, 2), strides=(2, 2), padding=ir.NO_PADDING, rectified=True, bias=None) -> Network:
    """A max pooling over a ReLU, or straight over a convolution, read by a strided convolution and a readout."""
    pool = ir.MaxPool2D((7, 6, 3), size, strides, padding)
    shape = pool.output_shape((7, 6, 3))
    conv = ir.Conv2D(weights(0, 3, 3, 2, 3), padding=((1, 1), (1, 1)))
    top = ir.Conv2D(weights(1, 1, 2, 3, 4), padding=((0, 0), (1, 0)))
    first = [Population("conv", (7, 6, 3), ir.Relu(), weights(2, 3))] if rectified else []
    edges = (
        [Connection("x", "conv", (conv,)), Connection("conv", "pool")]
        if rectified
        else [Connection("x", "pool", (conv,))]
    )
    return Network(
        [
            Population("x", (7, 6, 2), ir.Input()),
            *first,
            Population("pool", shape, pool, bias, Origin(("max_pooling",))),
            Population("top", top.output_shape(shape), ir.Relu(), weights(4, 4), Origin(("top",))),
            Population("y", (3,), ir.Identity(), None, Origin(("y",))),
        ],
        [
            *edges,
            Connection("pool", "top", (top,), origin=Origin(("top",))),
            Connection("top", "y", (ir.Dense(weights(5, int(np.prod(top.output_shape(shape))), 3)),)),
        ],
        ["x"],
        ["y"],
    )


def lowered(network: Network) -> Network:
    return run([Canonicalise(), LowerMaxPool()], network, Context())


def assert_same_function(network: Network) -> Network:
    rectifiers = lowered(network)
    assert not [p for p in rectifiers.populations.values() if isinstance(p.neuron, ir.MaxPool2D)]
    x = {name: weights(8, 5, *network.populations[name].shape) for name in network.inputs}
    before, after = analog(network, x), analog(rectifiers, x)
    for name in network.outputs:
        np.testing.assert_allclose(after[name], before[name], atol=1e-5)
    return rectifiers


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (1, 3), (2, 1), (1, 1)])
@pytest.mark.parametrize("strides", [(2, 2), (1, 1), (1, 3)])
def test_every_window(size, strides):
    network = assert_same_function(pooled(size, strides))
    positions = size[0] * size[1]
    assert len(network.populations) == 4 + positions - 1  # n − 1 rectifiers for the pooling population


def test_text(assert_golden):
    assert_golden(lowered(pooled()), "lower-max-pool")


@pytest.mark.parametrize("bias", [None, weights(6, 3), weights(7, 7, 6, 3)])
def test_negative_inputs_and_biases(bias):
    assert_same_function(pooled((3, 2), (2, 2), rectified=False, bias=bias))


PADDINGS = [((3, 3), (2, 2), ((1, 1), (0, 1))), ((3, 2), (1, 1), ((2, 2), (1, 1))), ((2, 2), (3, 2), ((1, 1), (1, 0)))]


@pytest.mark.parametrize("bias", [None, weights(6, 3), weights(7, 7, 6, 3)])
@pytest.mark.parametrize("window", PADDINGS)
def test_padding_never_wins_whatever_the_sign(window, bias):
    network = assert_same_function(pooled(*window, rectified=False, bias=bias))
    positions = window[0][0] * window[0][1]
    assert len(network.populations) == 3 + positions - 1


@pytest.mark.parametrize("window", PADDINGS)
def test_padding_is_zero_next_to_a_rectifier(window):
    for network in (pooled(*window), pool_then_relu(window[0], window[2], bias=np.float32([-1, 0, -0.5]))):
        rectifiers = assert_same_function(network)
        assert not [
            o for c in rectifiers.connections for o in c.operators if isinstance(o, ir.Scale) and o.factor.ndim > 1
        ]


def test_a_rectifier_that_raises_negative_numbers_above_zero_is_none():
    assert_same_function(pool_then_relu((3, 2), ((1, 1), (0, 1))))


@pytest.mark.parametrize("size", [(3, 3), (2, 2)])
def test_what_stands_in_for_padding_is_one_edge_more_at_most(size):
    network = lowered(pooled(size, (2, 2), ((1, 1), (1, 1)), rectified=False))
    for name in (name for name in network.populations if name.startswith("pool/")):
        edges = [c for c in network.incoming(name) if c.source == "x"]
        assert len(edges) <= (2 if size == (3, 3) else 5)


def test_pooling_of_pooling_and_pooling_as_an_output():
    inner, outer = ir.MaxPool2D((6, 6, 2), (2, 2), (2, 2)), ir.MaxPool2D((3, 3, 2), (3, 3), (1, 1), ((1, 1), (1, 1)))
    network = Network(
        [
            Population("x", (6, 6, 2), ir.Input()),
            Population("relu", (6, 6, 2), ir.Relu()),
            Population("inner", (3, 3, 2), inner),
            Population("outer", (3, 3, 2), outer),
            Population("y", (3, 3, 2), ir.Identity(), weights(1, 2)),
        ],
        [
            Connection("x", "relu"),
            Connection("relu", "inner"),
            Connection("inner", "outer"),
            Connection("outer", "y"),
            Connection("inner", "y", (ir.Scale(weights(2, 2)),)),
        ],
        ["x"],
        ["y", "outer"],
    )
    rectifiers = assert_same_function(network)
    assert isinstance(rectifiers.populations["outer"].neuron, ir.Identity)


def test_a_network_without_pooling_is_handed_on():
    network = lowered(pooled((1, 1), (1, 1)))
    assert run([LowerMaxPool()], network, Context()) is network


def test_parallel_edges_add_up():
    network = lowered(pooled())
    pairs = [(c.source, c.target) for c in network.connections]
    assert pairs.count(("conv", "pool/max1")) == 1
    weight = next(c for c in network.connections if c.target == "pool/max1").operators[0].weight
    np.testing.assert_array_equal(weight[..., 0, 0], [[-1, 1], [0, 0]])


def test_origins_name_the_pooling_layer():
    network = lowered(pooled())
    assert network.populations["pool/max2"].origin == Origin(("max_pooling",), ("lower-max-pool",))


def test_converted_digits_are_within_a_point():
    """A CNN with max pooling, trained with Keras on the digits."""
    keras = pytest.importorskip("keras")
    from snnc import demo

    x_train, y_train, x, y = demo.digits()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, batch_size=32, epochs=15, verbose=0)
    ann = (model.predict(x, verbose=0).argmax(-1) == y).mean()
    snn = snnc.convert(snnc.load(model), calibration=x_train[:512], timesteps=32)
    assert ann > 0.95
    assert snnc.compile(snn).evaluate(x, y).accuracy[-1] >= ann - 0.01


BEFORE = LowerMaxPool(before_neuron=True)


@pytest.mark.parametrize("padding", [ir.NO_PADDING, ((1, 1), (0, 1))])
@pytest.mark.parametrize("rectified", [True, False], ids=["relu-pool", "pool-relu"])
def test_pooling_and_the_rectifier_next_to_it_become_one_population(rectified, padding):
    network = pooled((3, 2), (2, 2), padding) if rectified else pool_then_relu((3, 2), padding)
    joined = run([Canonicalise(), BEFORE], network, Context())
    assert [p.name for p in joined.populations.values() if isinstance(p.neuron, ir.MaxPoolRelu2D)] == ["pool"]
    assert len(joined.populations) == len(network.populations) - 1
    np.testing.assert_allclose(analog(joined, {"x": IMAGES})["y"], analog(network, {"x": IMAGES})["y"], atol=1e-5)


def test_the_joined_population_can_still_be_lowered():
    joined = run([Canonicalise(), BEFORE], pooled(), Context())
    rectifiers = lowered(joined)
    assert all(type(p.neuron) in (ir.Input, ir.Relu, ir.Identity) for p in rectifiers.populations.values())
    np.testing.assert_allclose(analog(rectifiers, {"x": IMAGES})["y"], analog(joined, {"x": IMAGES})["y"], atol=1e-5)


def test_pooling_that_no_plain_rectifier_stands_next_to_is_lowered():
    network = run([Canonicalise(), BEFORE], pooled(rectified=False), Context())
    assert not [p for p in network.populations.values() if isinstance(p.neuron, ir.MaxPool2D)]


def test_pooling_before_few_spike_neurons_is_exact_and_before_integrate_and_fire_too_large():
    network = pooled()
    expected = analog(network, {"x": IMAGES})["y"]
    pipeline = "lower-max-pool{before-neuron=true},"
    few = snnc.convert(network, pipeline + "few-spike{k=12,alpha=max}", calibration=IMAGES)
    np.testing.assert_allclose(snnc.compile(few).predict(IMAGES), expected, atol=np.abs(expected).max() / 500)
    rate = snnc.convert(network, pipeline + "data-norm", calibration=IMAGES, timesteps=256)
    recorded = snnc.compile(rate).simulate(IMAGES)
    decoded = rate.populations["pool"].neuron.v_thresh * recorded.spike_counts["pool"] / 256
    pooled_activations = next(iter(snnc.compile(network).activations(IMAGES, progress=False)))["pool"]
    assert (decoded > pooled_activations - 0.02).all()


def test_genn_refuses_to_pool_before_the_neuron_and_says_what_to_do():
    pytest.importorskip("pygenn")
    pytest.importorskip("ml_genn")
    snn = snnc.convert(pooled(), "lower-max-pool{before-neuron=true},data-norm", calibration=IMAGES, timesteps=4)
    with pytest.raises(ir.BackendError, match=r"'pool'.*lower-max-pool without before-neuron"):
        snnc.compile(snn, "mlgenn")


def pool_then_relu(size, padding, bias=RAISING) -> Network:
    """A linear convolution, max pooling, a rectifier with a bias, and a readout."""
    pool = ir.MaxPool2D((7, 6, 3), size, (2, 2), padding)
    shape = pool.output_shape((7, 6, 3))
    conv = ir.Conv2D(weights(0, 3, 3, 2, 3), padding=((1, 1), (1, 1)))
    return Network(
        [
            Population("x", (7, 6, 2), ir.Input()),
            Population("max", shape, pool, weights(1, 3)),
            Population("pool", shape, ir.Relu(), bias),
            Population("y", (3,), ir.Identity()),
        ],
        [
            Connection("x", "max", (conv,)),
            Connection("max", "pool"),
            Connection("pool", "y", (ir.Dense(weights(5, int(np.prod(shape)), 3)),)),
        ],
        ["x"],
        ["y"],
    )
