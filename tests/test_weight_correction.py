"""Weights refitted to what spikes say: the regression against one written out, and what it brings on other images."""

from dataclasses import replace

import numpy as np
import pytest
from networks import residual, weights

import snnc
from snnc import ir
from snnc.backend.onnxruntime import sweep
from snnc.ir import Connection, Conv2D, Dense, Flatten, Pad, Population
from snnc.passes import weight_correction
from snnc.passes.weight_correction import SET_ASIDE, Weighted, in_step

IMAGES = weights(100, 320, 8, 8, 2)
OTHERS = weights(700, 200, 8, 8, 2)
EDGES = {
    "strided, uneven padding": ((7, 6, 2), Conv2D(weights(1, 3, 2, 2, 5), (2, 1), ((1, 0), (0, 2)))),
    "dilated": ((8, 7, 3), Conv2D(weights(2, 2, 3, 3, 4), (1, 1), ((1, 1), (2, 2)), (2, 1))),
    "groups": ((5, 5, 4), Conv2D(weights(3, 3, 3, 2, 6), (1, 1), ((1, 1), (1, 1)), groups=2)),
    "depthwise": ((6, 4, 3), Conv2D(weights(4, 3, 3, 1, 6), (2, 2), ((0, 1), (1, 1)), groups=3)),
    "dense": ((7,), Dense(weights(5, 7, 4))),
    "dense of an image": ((2, 3, 4), Dense(weights(6, 24, 5))),
}


def convert(network, correction, images=IMAGES, conversion="data-norm{threshold=mse,per-channel=true}", timesteps=4):
    pipeline = ",".join(filter(None, (conversion, correction)))
    canonical = snnc.run_pipeline(network, "canonicalise")
    return snnc.run_pipeline(canonical, pipeline, calibration=images, timesteps=timesteps, progress=False)


def distance(network, snn, images=OTHERS):
    """The mean squared difference of the logits, as a share of their variance."""
    logits = network.replace(populations=[as_logits(each) for each in network.populations.values()])
    wanted = snnc.compile(logits).predict(images, progress=False)
    found = snnc.compile(snn).predict(images, progress=False)
    return float(((found - wanted) ** 2).mean() / wanted.var())


def as_logits(population):
    readout = isinstance(population.neuron, ir.ProbabilityReadout)
    return replace(population, neuron=ir.Identity()) if readout else population


@pytest.mark.parametrize(("shape", "operator"), EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("after", [(), (Flatten(),), (Pad(((1, 0), (0, 2), (3, 1))), Flatten())], ids=len)
def test_weights_of_patches_are_the_operator(shape, operator, after):
    after = () if isinstance(operator, Dense) else after
    edge = Connection("x", "y", (operator, *after))
    drive = place(shape, edge)
    fitted = Weighted.of(drive, 0)
    x = weights(7, 9, *shape)
    patches = np.concatenate(list(fitted.patches(x)), 1)
    by_group = operator.weight.reshape(patches.shape[2], len(patches), -1).transpose(1, 0, 2)
    np.testing.assert_allclose(patches @ by_group, fitted.rows(ir.apply(edge.operators, x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("after", [(), (Flatten(),), (Pad(((1, 0), (0, 2), (3, 1))),)], ids=str)
def test_a_shift_is_what_it_says(after):
    """Weights and bias so much larger bring so much more, where they reach the population."""
    shape, operator = EDGES["groups"]
    edge = Connection("x", "y", (operator, *after))
    drive, x = place(shape, edge), weights(8, 5, *shape)
    fitted = Weighted.of(drive, 0)
    weight, bias = weights(9, 2, 18, 3), weights(10, 2, 3)
    shifted = fitted.shifted(drive, weight, bias)
    brought = ir.apply(shifted.incoming[0].operators, x) + shifted.population.bias
    more = np.concatenate(list(fitted.patches(x)), 1) @ weight + bias[:, None]
    wanted = fitted.rows(ir.apply(edge.operators, x) + drive.population.bias) + more
    np.testing.assert_allclose(fitted.rows(brought), wanted, rtol=1e-5, atol=1e-5)


def place(shape, edge):
    """The place behind `edge`, as a sweep has it."""
    target = ir.output_shape(edge.operators, shape)
    network = ir.Network(
        [
            Population("x", shape, ir.CurrentInput()),
            Population("y", target, ir.Integrate(), weights(11, target[-1])),
        ],
        [edge],
        ["x"],
        ["y"],
        timesteps=4,
    )
    seen = []
    sweep(network, weights(12, 3, *shape), lambda drive: seen.append(drive) or drive, progress=False)
    return seen[0]


def test_streams_are_cut_alike():
    a, b = np.arange(10), np.arange(10) * 2
    pairs = list(in_step(iter(np.split(a, [3, 4, 9])), iter(np.split(b, [5]))))
    assert [len(x) for x, _ in pairs] == [3, 1, 1, 4, 1]
    assert all((y == 2 * x).all() for x, y in pairs)


@pytest.mark.parametrize("penalty", [0.05, 2.0])
def test_the_regression_is_the_one_written_out(penalty):
    """One dense layer after another whose spikes are rough: ridge regression of the readout's residual, in float64."""
    images = weights(3, 160, 12)
    network = ir.Network(
        [
            Population("x", (12,), ir.Input()),
            Population("h", (9,), ir.Relu(), weights(4, 9, scale=0.2)),
            Population("y", (3,), ir.Identity(), weights(5, 3)),
        ],
        [
            Connection("x", "h", (Dense(weights(6, 12, 9, scale=0.7)),)),
            Connection("h", "y", (Dense(weights(8, 9, 3)),)),
        ],
        ["x"],
        ["y"],
    )
    before = snnc.run_pipeline(network, "data-norm", calibration=images, timesteps=3)
    after = snnc.run_pipeline(
        network, f"data-norm,weight-correction{{rounds=1,penalty={penalty}}}", calibration=images, timesteps=3
    )
    hidden = snnc.compile(after).simulate(images, progress=False)
    said = hidden.spike_counts["h"] * (after.populations["h"].neuron.v_thresh / 3)
    fit = np.arange(160) % SET_ASIDE != SET_ASIDE - 1
    wanted = snnc.compile(network).predict(images, progress=False)
    edge = before.incoming("y")[0]
    residual = wanted - said @ edge.operators[-1].weight  # without the bias, which centring takes out anyway
    x, e = said[fit].astype(np.float64), residual[fit].astype(np.float64)
    x, e = x - x.mean(0), e - e.mean(0)
    gram = x.T @ x
    shift = np.linalg.solve(gram + penalty * np.diag(gram.diagonal()), x.T @ e)
    found = after.incoming("y")[0].operators[-1].weight - edge.operators[-1].weight
    np.testing.assert_allclose(found, shift, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("conversion", "timesteps", "gain"),
    [
        ("data-norm{threshold=mse,per-channel=true}", 4, 0.97),
        ("data-norm{percentile=99.9,lag=2}", 3, 0.8),
        ("spike-norm", 4, 0.9),
        ("tracking", 3, 0.9),
        ("few-spike{k=2}", None, 0.8),
        ("few-spike{k=2,input=few-spike,signed=true,per-channel=true}", None, 0.8),
    ],
)
def test_logits_come_nearer_than_by_bias_correction(conversion, timesteps, gain):
    network = residual()
    biases, refitted = (
        convert(network, correction, conversion=conversion, timesteps=timesteps)
        for correction in ("bias-correction{rounds=4}", "weight-correction")
    )
    assert distance(network, refitted) < gain * distance(network, biases)


def test_edges_without_weights_and_thresholds_stay():
    before, after = (convert(residual(), correction) for correction in ("", "weight-correction"))
    by_ends, moved = {(c.source, c.target): c for c in after.connections}, []
    assert len(by_ends) == len(before.connections)
    for edge in before.connections:
        same = by_ends[edge.source, edge.target]
        assert (same.delay, same.origin, same.port) == (edge.delay, edge.origin, edge.port)
        if same.operators != edge.operators:
            moved.append(edge)
    assert len(moved) >= 3
    assert all(isinstance(edge.operators[-1], (Conv2D, Dense)) for edge in moved)
    for name, population in after.populations.items():
        assert population.neuron == before.populations[name].neuron
        assert ("weight-correction" in population.origin.passes) == (not population.neuron.is_input)


def test_conjugate_gradients_find_what_the_normal_equations_do(monkeypatch):
    direct = convert(residual(), "weight-correction{penalty=1.0}")
    monkeypatch.setattr(weight_correction, "MOST_INPUTS", 1)
    monkeypatch.setattr(weight_correction, "STEPS", 60)
    descended = convert(residual(), "weight-correction{penalty=1.0}")
    for a, b in zip(direct.connections, descended.connections, strict=True):
        for x, y in zip(a.operators, b.operators, strict=True):
            if isinstance(x, (Conv2D, Dense)):
                np.testing.assert_allclose(x.weight, y.weight, atol=0.01 * np.abs(x.weight).max())


def test_what_is_exact_keeps_its_weights():
    """Quantised activations with as many levels as there are steps, from a network of one layer: nothing is lost."""
    network = ir.Network(
        [
            Population("x", (6,), ir.Input()),
            Population("h", (5,), ir.QuantizedRelu(2.0, 4), weights(1, 5, scale=0.3)),
            Population("y", (3,), ir.Identity()),
        ],
        [Connection("x", "h", (Dense(weights(2, 6, 5)),)), Connection("h", "y", (Dense(weights(3, 5, 3)),))],
        ["x"],
        ["y"],
    )
    images = weights(4, 64, 6)
    before, after = (
        snnc.run_pipeline(network, f"data-norm{correction}", calibration=images, timesteps=4)
        for correction in ("", ",weight-correction")
    )
    wanted = snnc.compile(network).predict(images)
    np.testing.assert_allclose(snnc.compile(before).predict(images), wanted, atol=1e-5)
    for old, new in zip(before.connections, after.connections, strict=True):
        np.testing.assert_allclose(new.operators[-1].weight, old.operators[-1].weight, atol=1e-5)


def test_weights_that_would_do_worse_on_other_images_are_kept():
    """More inputs than images: what is learned by heart helps no image that was set aside."""
    images = weights(9, 24, 8, 8, 2)
    before, after = (convert(residual(), correction, images) for correction in ("", "weight-correction{penalty=1e-6}"))
    kept = {(c.source, c.target): c.operators for c in before.connections}
    assert any(c.operators == kept[c.source, c.target] for c in after.connections if c.target == "digit")
    assert distance(residual(), after) < 1.2 * distance(residual(), convert(residual(), "bias-correction", images))


def test_cutting_into_batches_changes_little(monkeypatch):
    from snnc.backend.onnxruntime import resources

    whole = convert(residual(), "weight-correction{penalty=0.1}")
    monkeypatch.setattr(resources, "LARGEST_BATCH", 3)
    cut = convert(residual(), "weight-correction{penalty=0.1}")
    for a, b in zip(whole.connections, cut.connections, strict=True):
        for x, y in zip(a.operators, b.operators, strict=True):
            if isinstance(x, (Conv2D, Dense)):
                np.testing.assert_allclose(x.weight, y.weight, atol=0.02 * np.abs(x.weight).max())


def test_the_same_images_give_the_same_network():
    assert convert(residual(), "weight-correction") == convert(residual(), "weight-correction")


def test_what_it_cannot_do_without():
    with pytest.raises(ir.DataError, match=r"every eighth image aside: 12 are too few"):
        convert(residual(), "weight-correction", IMAGES[:12])
    with pytest.raises(ir.PipelineError, match="calibration"):
        convert(residual(), "weight-correction", None)
    for options, message in (("rounds=0", "rounds is 0"), ("penalty=-1.0", "penalty is -1.0")):
        with pytest.raises(ir.PipelineError, match=message):
            convert(residual(), f"weight-correction{{{options}}}")
    with pytest.raises(ir.PipelineError, match="same pipeline"):
        snnc.run_pipeline(convert(residual(), ""), "weight-correction", calibration=IMAGES)
