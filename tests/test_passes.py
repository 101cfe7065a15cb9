"""Pipelines, the pass manager, calibration, and the passes themselves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import residual, weights
from reference import analog

import snnc
import snnc.passes.registry as registry_module
from snnc import ir
from snnc.backend.onnxruntime import CompiledAnalog, CompiledEngine
from snnc.ir import Connection, Network, Population
from snnc.passes import (
    BiasCorrection,
    Canonicalise,
    Context,
    DataNorm,
    FewSpikeConversion,
    Pass,
    Statistics,
    document,
    known_passes,
    parse,
    run,
    to_text,
)
from snnc.passes.instruments import Time

IMAGES = weights(100, 40, 8, 8, 2)


def context(images=IMAGES, timesteps=16) -> Context:
    return Context(lambda network, x: CompiledAnalog(network).activations(x, progress=False), images, timesteps)


def test_text_form(assert_golden):
    assert_golden(residual(), "residual")


def test_canonicalise(assert_golden):
    assert_golden(run([Canonicalise()], residual(), context()), "residual-canonicalise")


def test_canonicalise_keeps_the_function_and_is_idempotent():
    once = run([Canonicalise()], residual(), context())
    before = analog(residual(), {"image": IMAGES})["digit"]
    np.testing.assert_allclose(analog(once, {"image": IMAGES})["digit"], before, atol=1e-5)
    assert run([Canonicalise()], once, context()) == once


def test_data_norm(assert_golden):
    """On dyadic numbers, whose activations, so whose thresholds, are the same to the last bit on every machine."""
    network = Network(
        [
            Population("image", (4, 4, 1), ir.Input()),
            Population("conv", (4, 4, 2), ir.Relu(), np.array([0.5, -0.25]), ir.Origin(("conv",))),
            Population("logits", (3,), ir.Softmax(), None, ir.Origin(("logits",))),
        ],
        [
            Connection(
                "image", "conv", (ir.Conv2D(np.arange(-9, 9).reshape(3, 3, 1, 2) / 8, padding=((1, 1), (1, 1))),)
            ),
            Connection("conv", "logits", (ir.Dense(weights(1, 32, 3)),)),
        ],
        ["image"],
        ["logits"],
    )
    images = np.arange(5 * 16).reshape(5, 4, 4, 1) % 17 / 16
    per_channel = run(parse("canonicalise,data-norm{per-channel=true}"), network, context(images))
    per_layer = run(parse("canonicalise,data-norm{reset=zero,v-init=0.0}"), network, context(images))
    assert_golden(per_channel, "data-norm-per-channel")
    assert_golden(per_layer, "data-norm-per-layer")


def test_data_norm_replaces_neurons_and_touches_nothing_else():
    canonical = run([Canonicalise()], residual(), context())
    spiking = run([DataNorm()], canonical, context())
    kinds = {name: type(population.neuron).__name__ for name, population in spiking.populations.items()}
    fire = "IntegrateFire"
    assert kinds == {"image": "CurrentInput", "stem": fire, "branch": fire, "merged": fire, "digit": "Integrate"}
    assert spiking.connections == canonical.connections
    assert spiking.timesteps == 16
    for name, population in spiking.populations.items():
        assert np.array_equal(population.bias, canonical.populations[name].bias) or population.bias is None
        assert population.origin.passes == ("data-norm",)


def test_data_norm_takes_the_largest_activation():
    canonical = run([Canonicalise()], residual(), context())
    activations = analog(canonical, {"image": IMAGES})
    layer = run([DataNorm()], canonical, context())
    channel = run([DataNorm(per_channel=True, v_init=0.25, reset="zero")], canonical, context())
    for name in ("stem", "branch", "merged"):
        neuron, by_channel = layer.populations[name].neuron, channel.populations[name].neuron
        assert neuron.v_thresh == pytest.approx(activations[name].max(), rel=1e-5)
        assert neuron.v_init == pytest.approx(neuron.v_thresh / 2)
        assert (neuron.reset, by_channel.reset) == ("subtract", "zero")
        largest = activations[name].max((0, 1, 2))
        live = largest > 0
        np.testing.assert_allclose(by_channel.v_thresh[live], largest[live], rtol=1e-5)
        np.testing.assert_allclose(by_channel.v_init, by_channel.v_thresh * 0.25, rtol=1e-6)


def test_clip_bounds_the_threshold():
    network = Network(
        [Population("x", (1,), ir.Input()), Population("y", (1,), ir.Clip(6.0))],
        [Connection("x", "y")],
        ["x"],
        ["y"],
    )
    for largest, expected in ((9.0, 6.0), (5.0, 5.0)):
        spiking = run([Canonicalise(), DataNorm()], network, context(np.array([[largest], [1.0]])))
        assert spiking.populations["y"].neuron.v_thresh == expected


def test_silent_channels_and_layers_get_a_usable_threshold():
    network = Network(
        [Population("x", (3,), ir.Input()), Population("y", (3,), ir.Relu())], [Connection("x", "y")], ["x"], ["y"]
    )
    some = run([Canonicalise(), DataNorm(per_channel=True)], network, context(np.array([[2.0, -1.0, 0.5]])))
    np.testing.assert_array_equal(some.populations["y"].neuron.v_thresh, [2.0, 2.0, 0.5])
    for per_channel in (False, True):
        none = run([Canonicalise(), DataNorm(per_channel=per_channel)], network, context(np.array([[-1.0, -1.0, 0.0]])))
        np.testing.assert_array_equal(none.populations["y"].neuron.v_thresh, [1.0] * 3 if per_channel else 1.0)


def test_data_norm_refuses_max_pooling_by_layer():
    pool = ir.MaxPool2D((4, 4, 1), (2, 2), (2, 2))
    network = Network(
        [
            Population("x", (4, 4, 1), ir.Input()),
            Population("pool_a", (2, 2, 1), pool, None, ir.Origin(("conv_a", "pool_a"))),
            Population("pool_b", (2, 2, 1), pool),
            Population("y", (2, 2, 1), ir.Identity()),
        ],
        [Connection("x", "pool_a"), Connection("x", "pool_b"), Connection("pool_a", "y"), Connection("pool_b", "y")],
        ["x"],
        ["y"],
    )
    with pytest.raises(ir.UnsupportedModelError) as caught:
        run([Canonicalise(), DataNorm()], network, context(np.ones((1, 4, 4, 1))))
    assert "pool_a (MaxPool2D, from conv_a, pool_a)" in str(caught.value)
    assert "pool_b" in str(caught.value)


def test_calibration_is_needed_and_named():
    with pytest.raises(ir.PipelineError, match="calibration"):
        run([Canonicalise(), DataNorm()], residual(), context(images=None))
    with pytest.raises(ir.PipelineError, match="timesteps"):
        run([Canonicalise(), DataNorm()], residual(), context(timesteps=None))


def test_calibration_runs_once_for_several_passes():
    runs = []

    def activations(network, x):
        runs.append(network)
        return CompiledAnalog(network).activations(x, progress=False)

    shared = Context(activations, IMAGES, 8)
    canonical = run([Canonicalise()], residual(), shared)
    for percentile in (99.0, 99.9, 100.0):
        run([DataNorm(percentile=percentile)], canonical, shared)
    assert len(runs) == 1


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.sampled_from([50.0, 90.0, 99.0, 99.9]),
    st.sampled_from([0.01, 1.0, 300.0]),
)
def test_streamed_percentiles_match_numpy(seed, channels, q, growth):
    rng = np.random.default_rng(seed)
    statistics = Statistics(channels)
    batches = [growth**step * rng.standard_normal((30, 4, 4, channels)).astype(np.float32) for step in range(3)]
    for batch in batches:
        statistics.update(batch)
    values = np.maximum(np.concatenate(batches), 0).reshape(-1, channels)
    bins = 2 * values.max(0) / 512  # one bin of the histogram, and one of numpy's interpolation
    numpys = np.percentile(values, q, axis=0, method="higher"), np.percentile(values, q, axis=0, method="lower")
    found = statistics.percentile(q, per_channel=True)
    assert (found <= numpys[0] + bins).all()
    assert (found >= numpys[1] - bins).all()
    whole = statistics.percentile(q, per_channel=False)
    assert whole <= np.percentile(values, q, method="higher") + bins.max()
    assert whole >= np.percentile(values, q, method="lower") - bins.max()
    np.testing.assert_array_equal(statistics.percentile(100, per_channel=True), values.max(0))


@pytest.mark.parametrize("timesteps", [1, 4, 32])
@pytest.mark.parametrize("v_init", [0.0, 0.5])
def test_least_error_is_least(timesteps, v_init):
    """No λ on a fine grid has a noticeably smaller error on the activations themselves."""
    rng = np.random.default_rng(0)
    values = np.maximum(rng.standard_normal((400, 3)) * [1, 5, 0], 0).astype(np.float32) ** 1.5
    statistics = Statistics(3)
    for batch in np.split(values, 4):
        statistics.update(batch)

    def error(threshold, column):
        steps = np.clip(np.floor(column * timesteps / threshold + v_init), 0, timesteps)
        return ((threshold * steps / timesteps - column) ** 2).mean()

    found = statistics.least_error(timesteps, v_init, per_channel=True)
    assert found[2] == 0
    for channel in (0, 1):
        column = values[:, channel]
        best = min(error(threshold, column) for threshold in np.linspace(0.02, 1, 400) * column.max())
        assert error(found[channel], column) <= 1.1 * best
    (whole,) = statistics.least_error(timesteps, v_init, per_channel=False)
    best = min(error(threshold, values) for threshold in np.linspace(0.02, 1, 400) * values.max())
    assert error(whole, values) <= 1.1 * best


def test_thresholds_of_least_error_need_the_fewest_timesteps():
    labels = CompiledAnalog(residual()).predict(IMAGES).argmax(-1)
    accuracy = {}
    for pipeline in ("data-norm{per-channel=true}", "data-norm{threshold=mse,per-channel=true}"):
        snn = run(parse(f"canonicalise,{pipeline}"), residual(), context(timesteps=4))
        accuracy[pipeline] = CompiledEngine(snn).evaluate(IMAGES, labels).accuracy[-1]
    largest, least_error = accuracy.values()
    assert least_error > largest


def test_a_percentile_among_the_zeros_is_zero():
    statistics = Statistics(2)
    values = np.zeros((100, 2), np.float32)
    values[:2, 1] = 5
    statistics.update(values)
    np.testing.assert_array_equal(statistics.percentile(90, per_channel=True), [0, 0])
    assert statistics.percentile(90, per_channel=False) == 0
    assert statistics.percentile(99.5, per_channel=True)[1] == pytest.approx(5, rel=1 / 512)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("canonicalise", [Canonicalise()]),
        ("data-norm", [DataNorm()]),
        ("canonicalise,data-norm{percentile=99.9}", [Canonicalise(), DataNorm(percentile=99.9)]),
        (
            "data-norm{percentile=99.0,per-channel=true,reset=zero,v-init=0.0}",
            [DataNorm(percentile=99.0, per_channel=True, reset="zero", v_init=0.0)],
        ),
    ],
)
def test_pipelines_parse_and_print_back(text, passes):
    assert list(parse(text)) == passes
    assert to_text(passes) == text
    spaced = text.replace(",", " , ").replace("{", " { ").replace("=", " = ")
    assert list(parse(spaced)) == passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read the pipeline"),
        ("data-norm,", "cannot read the pipeline"),
        ("data-norm{", "cannot read the pipeline"),
        ("data-norm{percentile}", "cannot read the option 'percentile'"),
        ("datanorm", "did you mean 'data-norm'.*There are: bias-correction, canonicalise, .*spike-norm"),
        ("data-norm{percentil=9}", "no option 'percentil'; did you mean 'percentile'"),
        ("data-norm{percentile=high}", "percentile takes a float, not 'high'"),
        ("data-norm{percentile=0}", "percentile is 0"),
        ("data-norm{percentile=nan}", "percentile is nan"),
        ("data-norm{per-channel=yes}", "per-channel is one of true, false"),
        ("data-norm{reset=soft}", "reset is one of subtract, zero"),
        ("data-norm{v-init=1}", "v-init is 1"),
        ("data-norm{threshold=mse,percentile=99}", "leave one of them out"),
    ],
)
def test_a_wrong_pipeline_says_what_there_is(text, message):
    with pytest.raises(ir.PipelineError, match=message):
        parse(text)


def test_passes_are_held_to_what_they_declare():
    @dataclass(frozen=True)
    class DropsPopulations(Pass):
        name: ClassVar[str] = "drops-populations"
        requires: ClassVar[ir.Stage] = "analog"
        ensures: ClassVar[ir.Stage] = "analog"

        def run(self, network, context):
            return network.replace(populations=list(network.populations.values())[1:])

    with pytest.raises(ir.PipelineError, match=r"pass 1 \(drops-populations\) broke the network(.|\n)*'image' is not"):
        run([DropsPopulations()], residual(), context())
    with pytest.raises(ir.PipelineError, match=r"pass 1 \(data-norm\) requires a network at stage 'canonical'"):
        run([DataNorm()], residual(), context())


class _Entry:
    """An entry point of some installed package."""

    dist = type("Distribution", (), {"name": "their-package"})
    value = "their_package:Theirs"

    def __init__(self, name, loaded):
        self.name, self._loaded = name, loaded

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


@dataclass(frozen=True)
class Theirs(Pass):
    """Does nothing at all.

    It has one option, and needs it.

    - how-often: how many times
      it does nothing.
    """

    name: ClassVar[str] = "theirs"
    requires: ClassVar[ir.Stage] = "analog"
    ensures: ClassVar[ir.Stage] = "analog"

    how_often: int

    def run(self, network, context):
        return network


@pytest.fixture
def offered(monkeypatch):
    """Sets what other packages offer as entry points."""

    def offer(*entries):
        monkeypatch.setattr(registry_module, "entry_points", lambda group: entries)
        known_passes.cache_clear()

    yield offer
    known_passes.cache_clear()


def test_passes_of_other_packages_are_found_and_documented(offered):
    offered(_Entry("theirs", Theirs))
    assert set(known_passes()) == {cls.name for cls in registry_module.BUILT_IN} | {"theirs"}
    assert parse("theirs{how-often=3}") == (Theirs(3),)
    documentation = document(Theirs)
    assert documentation.summary == "Does nothing at all."
    assert documentation.details == "It has one option, and needs it."
    (option,) = documentation.options
    assert (option.name, option.kind, option.default) == ("how-often", "int", "required")
    assert option.meaning == "how many times it does nothing."
    with pytest.raises(ir.PipelineError, match="needs the option 'how-often'"):
        parse("theirs")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_Entry("canonicalise", Canonicalise), "two passes are called 'canonicalise'.*snnc, one of their-package"),
        (_Entry("other", Theirs), "'other' of their-package is for a pass called 'theirs'"),
        (_Entry("theirs", dict), "is not a Pass"),
        (_Entry("theirs", ImportError("no module")), "'theirs' of their-package does not load: no module"),
    ],
)
def test_faulty_offers_are_refused(offered, entry, message):
    offered(entry)
    with pytest.raises(ir.PipelineError, match=message):
        parse("canonicalise")


@pytest.mark.parametrize("timesteps", [0, -3, True, 1.5, "8", 2**20 + 1, 10**30])
@pytest.mark.parametrize("pipeline", ["data-norm", "spike-norm", "few-spike{k=3}"])
def test_timesteps_that_are_none_are_refused(timesteps, pipeline):
    with pytest.raises(ir.PipelineError, match=f"timesteps is {timesteps!r}; T is a number from 1 to 1,048,576"):
        snnc.convert(residual(), pipeline, calibration=weights(100, 4, 8, 8, 2), timesteps=timesteps)


def test_images_and_labels_that_are_no_arrays_are_refused_as_such():
    images = weights(100, 4, 8, 8, 2)
    network = residual()
    snn = snnc.convert(network, calibration=images, timesteps=4)
    compiled = snnc.compile(snn)
    with pytest.raises(ir.DataError, match="calibration data for input 'image': give an array of numbers"):
        snnc.convert(network, calibration=(images, np.zeros(4)), timesteps=4)
    with pytest.raises(ir.DataError, match="labels for 'digit': give an array of numbers"):
        compiled.evaluate(images, [[0], [1, 2], [3], [4]])
    compiled.predict(images, transient=np.int64(1))
    for transient in (1.5, "1", True, 4):
        with pytest.raises(ir.DataError, match=f"transient is {transient!r}"):
            compiled.predict(images, transient=transient)
    for steps in ("x", 1.5, True):
        with pytest.raises(ir.DataError, match=f"until_stable is a number of steps from 1 on.*not {steps!r}"):
            compiled.evaluate(images, np.zeros(4, int), until_stable=steps)
    with pytest.raises(ir.BackendError, match="folder is a path, not 5"):
        snnc.compile(snn, "mlgenn", folder=5)


def test_a_number_that_single_precision_does_not_hold_is_a_fault():
    neuron = ir.IntegrateFire(10**400)
    populations = [Population("x", (2,), ir.CurrentInput()), Population("y", (2,), neuron)]
    network = Network(populations, [Connection("x", "y")], ["x"], ["y"], 4)
    with pytest.raises(ir.VerificationError, match=r"IntegrateFire\.v_thresh holds numbers that are not finite"):
        ir.verify(network, "spiking")


def test_what_is_no_network_or_path_or_list_is_named():
    network, images = residual(), weights(100, 4, 8, 8, 2)
    for ask in (snnc.convert, snnc.compile, ir.verify, snnc.default_timesteps, lambda x: snnc.save(x, "net.snn")):
        with pytest.raises(ir.VerificationError, match=r"^a dict is not a network: snnc.load makes one of a model$"):
            ask({})
    for path in (None, 5, b"net.snn", "a\0b", "\ud800"):
        with pytest.raises(ir.NetworkFileError, match="a network file is a path, not "):
            snnc.save(network, path)
        with pytest.raises(ir.NetworkFileError, match="a network file is a path, not "):
            ir.load(path)
    with pytest.raises(ir.ModelFileError, match="File name too long"):
        snnc.load("x" * 5000)
    for pipeline in (5, [DataNorm], DataNorm(), [None]):
        with pytest.raises(ir.PipelineError, match="a pipeline is text or a sequence of passes, not "):
            snnc.convert(network, pipeline, calibration=images)
    with pytest.raises(ir.PipelineError, match=r"instruments are Instrument objects in a list, not Time\("):
        snnc.convert(network, calibration=images, instruments=Time())
    compiled = snnc.compile(snnc.convert(network, calibration=images, timesteps=np.int64(4)))
    with pytest.raises(ir.DataError, match="record takes a name or several, not 5"):
        compiled.simulate(images, record=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataNorm(percentile="99"), "data-norm: percentile takes float, not '99'"),
        (lambda: DataNorm(per_channel=1), "data-norm: per-channel takes bool, not 1"),
        (lambda: DataNorm(input="spike"), "data-norm: input takes 'current', .*, not 'spike'"),
        (lambda: FewSpikeConversion(k=3.0), "few-spike: k takes int, not 3.0"),
        (lambda: FewSpikeConversion(layer_k="stem:" + "9" * 5000), "cannot read layer-k 'stem:99"),
        (lambda: BiasCorrection(10**30), "rounds is 1000000000000000000000000000000; it lies from 1 to 1000"),
    ],
)
def test_options_that_are_not_of_their_kind_are_refused(make, message):
    with pytest.raises(ir.PipelineError, match=message):
        make()


def test_a_seed_that_does_not_fit_is_a_fault():
    options = "data-norm{input=poisson,signed=true,seed=1180591620717411303424}"
    with pytest.raises(
        ir.PipelineError, match="population 'image': seed is 1180591620717411303424; it is a whole number"
    ):
        snnc.convert(residual(), f"lower-max-pool,{options}", calibration=weights(100, 4, 8, 8, 2), timesteps=4)


def test_parallel_factors_that_add_up_to_one_are_nothing():
    populations = [Population("x", (3,), ir.Input()), Population("y", (3,), ir.Relu())]
    halves = [Connection("x", "y", (ir.Scale(np.array(factors)),)) for factors in ([0.25, 1.5, -1], [0.75, -0.5, 2])]
    (edge,) = run([Canonicalise()], Network(populations, halves, ["x"], ["y"]), context()).connections
    assert edge.operators == ()
