"""The converters: ml_genn_tf's API, its own tests, and networks that do what the Keras model and the engine do.

ml_genn_tf's tests are run from where they are: in the folder that SNNC_ML_GENN_TF_TESTS names, or in the source tree of
an ml_genn that is installed in editable form.
"""

import inspect
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if not (find_spec("pygenn") and find_spec("ml_genn")):
    pytest.skip("pygenn is not installed", allow_module_level=True)

import keras
from frontend_models import randomise
from keras import layers
from ml_genn import Connection, Network, Population
from ml_genn import neurons as mlgenn
from ml_genn.compilers import InferenceCompiler
from ml_genn.compilers.compiled_network import CompiledNetwork
from ml_genn.connectivity import AvgPool2D, AvgPoolConv2D, AvgPoolDense2D, Conv2D, Dense, OneToOne
from ml_genn.metrics import Metric

import snnc
from snnc import converters, ir
from snnc.converters import DataNorm, FewSpike, InputType, Simple, neurons, spike_normalise
from snnc.converters import spike_norm as spike_norm_module

ROOT = Path(__file__).parents[1]
SHIM = '''
import importlib, sys, types
import pytest

package = sys.modules["ml_genn_tf"] = types.ModuleType("ml_genn_tf")
package.__path__ = []
for name in ("", ".converter", ".data_norm", ".enum", ".few_spike", ".simple", ".spike_norm"):
    sys.modules["ml_genn_tf.converters" + name] = importlib.import_module("snnc.converters" + name)
package.converters = sys.modules["ml_genn_tf.converters"]


@pytest.fixture(autouse=True)
def one_failure_at_a_time():
    """mlGeNN lets nothing be loaded any more after one network has failed to."""
    yield
    importlib.import_module("ml_genn.compilers.compiled_network").CompiledNetwork._context = None
'''


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """mlGeNN builds in the working directory, and allows no network any more after one has failed to load."""
    monkeypatch.chdir(tmp_path)
    yield
    CompiledNetwork._context = None


def _predict(converter, converted, x):
    """What GeNN gives for the first output: (images, *shape)."""
    network, inputs, outputs, _ = converted
    compiled = converter.create_compiler().compile(network, "converted", inputs=inputs, outputs=outputs)
    fed = dict(zip(inputs, x if isinstance(x, list) else [x], strict=True))
    with compiled:
        if hasattr(compiled, "predict"):
            predicted, _ = compiled.predict(fed, outputs, callbacks=[])
            return predicted[outputs[0]]
        labels = dict.fromkeys(outputs, np.zeros(len(next(iter(fed.values()))), int))
        metrics, _ = compiled.evaluate(fed, labels, metrics=dict.fromkeys(outputs, _Collected()), callbacks=[])
    return metrics[outputs[0]].result


class _Collected(Metric):
    """What was predicted: mlGeNN's few-spike networks only evaluate."""

    def __init__(self):
        self.predicted = []

    def update(self, y_true, y_pred, communicator):
        self.predicted.append(y_pred.copy())

    def reset(self):
        self.predicted.clear()

    @property
    def result(self):
        return np.concatenate(self.predicted)


def _plain(seed=0):
    """Convolution, pooling, dense; no bias."""
    return randomise(
        keras.Sequential(
            [
                layers.Input((10, 10, 2), name="image"),
                layers.Conv2D(4, 3, use_bias=False, activation="relu", name="conv"),
                layers.AveragePooling2D(2, name="pool"),
                layers.Conv2D(6, 3, padding="same", use_bias=False, activation="relu", name="conv2"),
                layers.AveragePooling2D(2, name="pool2"),
                layers.Flatten(name="flat"),
                layers.Dense(5, use_bias=False, activation="relu", name="dense"),
            ]
        ),
        seed,
    )


def _rich(seed=0):
    """All that ml_genn_tf refuses: biases, batch norm, max pooling, a strided convolution, ReLU6, a linear output."""
    image = layers.Input((8, 8, 2), name="image")
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="bn")(x))
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="branch")(x)
    x = layers.ReLU(max_value=6.0, name="merged")(layers.Add(name="add")([x, y]))
    x = layers.MaxPooling2D(2, name="pool")(x)
    return randomise(keras.Model(image, layers.Dense(4, name="digit")(layers.Flatten(name="flat")(x))), seed)


def _images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def _names(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_the_names_and_arguments_are_those_of_ml_genn_tf():
    hooks = {
        "convert": ["tf_model"],
        "create_input_neurons": ["pre_convert_output"],
        "create_neurons": ["tf_layer", "pre_convert_output", "is_output"],
        "pre_convert": ["tf_model"],
        "post_convert": ["mlg_network", "mlg_network_inputs", "mlg_model_outputs"],
        "create_compiler": ["kwargs"],
        "validate_tf_layer": ["tf_layer", "config"],
    }
    assert {name: _names(getattr(converters.Converter, name)) for name in hooks} == hooks
    rate = ["evaluate_timesteps", "signed_input"]
    assert _names(DataNorm)[:4] == [*rate, "norm_data", "input_type"]
    assert _names(Simple)[:3] == [*rate, "input_type"]
    assert _names(Simple.pre_compile) == ["mlg_network"]
    assert _names(FewSpike)[:4] == ["k", "alpha", "signed_input", "norm_data"]
    assert {kind.name: kind.value for kind in InputType} == {"SPIKE": "spike", "POISSON": "poisson", "IF": "if"}
    assert converters.data_norm.PreConvertOutput._fields == ("thresholds",)
    assert converters.few_spike.PreConvertOutput._fields == ("layer_alpha", "input_alpha")
    settings = ["evaluate_timesteps", "dt", "batch_size", "rng_seed", "kernel_profiling", "prefer_in_memory_connect"]
    resets = ["reset_time_between_batches", "reset_vars_between_batches", "reset_in_syn_between_batches"]
    assert _names(spike_norm_module.NormCompiler) == [*settings, *resets, "communicator", "genn_kwargs"]
    data = ["net", "net_inputs", "net_outputs", "norm_data", "evaluate_timesteps", "num_batches"]
    assert _names(spike_normalise) == [*data, *settings[1:], resets[0], "genn_kwargs"]


def _ml_genn_tf_tests():
    given = os.environ.get("SNNC_ML_GENN_TF_TESTS")
    origin = find_spec("ml_genn").origin
    folder = Path(given) if given else Path(origin).parents[2] / "tests" / "ml_genn_tf"
    return folder if (folder / "test_tf_conversion.py").exists() else None


@pytest.mark.skipif(_ml_genn_tf_tests() is None, reason="SNNC_ML_GENN_TF_TESTS does not name ml_genn_tf's tests")
def test_the_tests_of_ml_genn_tf_pass(tmp_path):
    (tmp_path / "conftest.py").write_text(SHIM)
    (tmp_path / "ml_genn_tf_tests").symlink_to(_ml_genn_tf_tests())
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml", "ml_genn_tf_tests"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    cases = ElementTree.parse(tmp_path / "report.xml").getroot().findall(".//testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    # these have no converter in them: mlGeNN's Conv2DTranspose fails in some builds of pygenn
    failed = [name for name in failed if not name.startswith("test_conv_2d_transpose")]
    assert len(cases) > 40, done.stdout + done.stderr
    assert not failed, done.stdout


def test_a_network_has_the_layers_weights_under_mlgenns_names():
    model = _plain()
    network, inputs, outputs, populations = Simple(10).convert(model)
    assert [type(edge.connectivity).__mro__[2] for edge in network.connections] == [
        Conv2D,
        AvgPoolConv2D,
        AvgPoolDense2D,
    ]
    for edge, name in zip(network.connections, ("conv", "conv2", "dense"), strict=True):
        assert np.array_equal(edge.connectivity.weight, model.get_layer(name).get_weights()[0])
    assert {layer.name: population.name for layer, population in populations.items()} == {
        name: name for name in ("image", "conv", "conv2", "dense")
    }
    assert inputs == [populations[model.inputs[0]._keras_history.operation]]
    assert outputs == [populations[model.get_layer("dense")]]
    assert [population.shape for population in network.populations] == [(10, 10, 2), (8, 8, 4), (4, 4, 6), (5,)]
    assert isinstance(inputs[0].neuron, mlgenn.PoissonInput)
    assert all(isinstance(population.neuron, mlgenn.IntegrateFire) for population in network.populations[1:])


def test_edges_that_mlgenn_has_names_for():
    image = layers.Input((6, 6, 2))
    x = layers.ReLU()(layers.AveragePooling2D(2, strides=3)(image))
    x = layers.ReLU()(layers.Add()([x, layers.ReLU()(layers.Conv2D(2, 1, use_bias=False)(x))]))
    model = keras.Model(image, layers.ReLU()(layers.Dense(3, use_bias=False)(layers.Flatten()(x))))
    network, *_ = Simple(10).convert(model)
    kinds = [AvgPool2D, Conv2D, OneToOne, OneToOne, Dense]
    assert all(isinstance(edge.connectivity, kind) for edge, kind in zip(network.connections, kinds, strict=True))
    assert network.connections[0].connectivity.weight == 0.25


def _exact():
    """A residual network in which nothing is rounded."""
    image = layers.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(image)
    y = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="down")(x)
    z = layers.Conv2D(4, 3, padding="same", name="branch")(y)
    y = layers.ReLU(name="merged")(layers.Add(name="add")([z, layers.AveragePooling2D(2, name="skip")(x)]))
    model = keras.Model(image, layers.Dense(3, name="digit")(layers.Flatten(name="flat")(y)))
    rng = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(rng.integers(-16, 17, variable.shape) / 64)
    return model, rng.integers(0, 17, (5, 6, 6, 2)).astype(np.float32) / 16


@pytest.mark.parametrize(
    ("input_type", "signed", "encoding"),
    [
        ("if", False, ir.IntegrateFireInput(1.0, False, 0.5)),
        ("if", True, ir.IntegrateFireInput(1.0, True, 0.5)),
        ("spike", False, ir.SpikeInput()),
        ("spike", True, ir.SpikeInput(1.0, True)),
    ],
)
def test_every_potential_is_that_of_the_engine(input_type, signed, encoding):
    model, x = _exact()
    x = 2 * x - 1 if signed else x
    timesteps = 16
    analog = snnc.run_pipeline(snnc.load(model), "canonicalise")
    neuron = {ir.Input: encoding, ir.Relu: ir.IntegrateFire(1.0, 0.5), ir.Identity: ir.Integrate()}
    spiking = analog.replace(
        populations=[replace(p, neuron=neuron[type(p.neuron)]) for p in analog.populations.values()],
        timesteps=timesteps,
    )
    expected = snnc.compile(spiking).simulate(x, progress=False).potentials["digit"]
    converter = Simple(timesteps, signed, input_type)
    converted = converter.convert(model)
    assert [edge.connectivity.delay for edge in converted[0].connections if edge.source().name == "stem"] == [0, 1]
    np.testing.assert_array_equal(_predict(converter, converted, x), expected)
    np.testing.assert_array_equal(_predict(converter, converted, x[::-1]), expected[::-1])  # no example leaks


@pytest.mark.parametrize("mlgenn_neurons", [False, True])
@pytest.mark.parametrize("input_type", ["poisson", "spike"])
def test_signed_inputs_send_spikes_with_a_sign(input_type, mlgenn_neurons):
    """mlGeNN's own do not build."""
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2, activation="relu", use_bias=False)])
    model.set_weights([np.array([[0.5, 0], [0.5, 0], [0, 0.5], [0, -0.5]])])
    converter = Simple(400, signed_input=True, input_type=input_type, mlgenn_neurons=mlgenn_neurons)
    x = np.float32([[1, -1, -1, -1], [1, 1, 1, 1], [-1, -1, 0.5, 0]])
    share = 1 if input_type == "spike" else 1 - np.exp(-1)
    less = 1 if input_type == "spike" else 1 - np.exp(-0.5)
    expected = 400 * np.array([[0, 0], [share, 0], [0, 0.5 * less]])
    found = _predict(converter, converter.convert(model), x)
    np.testing.assert_allclose(found, expected, atol=40)
    assert isinstance(converter.create_input_neurons(None), mlgenn.PoissonInput | mlgenn.BinarySpikeInput)


@pytest.mark.parametrize("dt", [1.0, 0.25])
def test_signed_poisson_rates_are_those_of_mlgenns_unsigned(dt):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(3, activation="relu", use_bias=False)])
    model.set_weights([np.eye(3)])
    x = np.float32([[0.25, 1.0, 2.0]])
    found = []
    for signed in (False, True):
        converter = Simple(4000, signed, "poisson")
        network, inputs, outputs, _ = converter.convert(model)
        compiled = converter.create_compiler(dt=dt, rng_seed=1).compile(network, "net", inputs=inputs, outputs=outputs)
        with compiled:
            predicted, _ = compiled.predict({inputs[0]: x}, outputs, callbacks=[])
        found.append(predicted[outputs[0]][0])
    rates = 4000 * (1 - np.exp(-x[0] * dt))
    np.testing.assert_allclose(found, [rates, rates], atol=130)


def test_mlgenns_neurons_leak_into_the_next_example_as_they_did():
    model, x = _exact()
    converter = Simple(16, input_type="if", mlgenn_neurons=True)
    converted = converter.convert(model)
    assert all(type(p.neuron).__module__.startswith("ml_genn") or p.neuron.bias.any() for p in converted[0].populations)
    assert type(converter.create_compiler()) is InferenceCompiler
    forwards, backwards = _predict(converter, converted, x), _predict(converter, converted, x[::-1])
    assert forwards.dtype == np.uint32  # spikes
    assert not np.array_equal(forwards, backwards[::-1])


@pytest.mark.parametrize("dt", [1.0, 0.1])
def test_data_norm_follows_the_model_with_all_that_ml_genn_tf_refuses(dt):
    model, x = _rich(), _images(20, 8, 8, 2)
    converter = DataNorm(200, norm_data=[[(x, None)]], input_type=InputType.IF)
    network, inputs, outputs, populations = converter.convert(model)
    assert len(network.populations) > len(populations)  # max pooling takes several, which have one layer
    compiled = converter.create_compiler(dt=dt).compile(network, "rich", inputs=inputs, outputs=outputs)
    with compiled:
        predicted, _ = compiled.predict({inputs[0]: x}, outputs, callbacks=[])
    found, expected = predicted[outputs[0]].ravel(), model.predict(x, verbose=0).ravel()
    assert np.corrcoef(found, expected)[0, 1] > 0.99


def test_the_thresholds_of_data_norm_are_relative_to_the_layer_before():
    model, x = _plain(), _images(16, 10, 10, 2)
    converter = DataNorm(10, norm_data=[[(x[:8], None), (x[8:], None)]])
    thresholds = converter.pre_convert(model).thresholds
    largest = [
        np.max(keras.Model(model.inputs, model.get_layer(name).output).predict(x, verbose=0))
        for name in ("conv", "conv2", "dense")
    ]
    expected = [largest[0], largest[1] / largest[0], largest[2] / largest[1]]
    np.testing.assert_allclose(
        [thresholds[model.get_layer(n)] for n in ("conv", "conv2", "dense")], expected, rtol=1e-5
    )
    assert set(model.layers) <= set(thresholds)
    network, *_ = converter.convert(model)
    np.testing.assert_allclose([p.neuron.v_thresh for p in network.populations[1:]], expected, rtol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
def test_few_spike_equals_the_engine(signed):
    model, x = _rich(), _images(6, 8, 8, 2)
    x = 2 * x - 1 if signed else x
    converter = FewSpike(k=6, signed_input=signed, norm_data=[[(x, None)]])
    converted = converter.convert(model)
    assert converted[1][0].neuron.alpha == pytest.approx(np.abs(x).max() / (1 - 2.0**-6))
    found = _predict(converter, converted, x)
    expected = model.predict(x, verbose=0)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    pipeline = f"lower-max-pool,few-spike{{k=6,alpha=max,input=few-spike,signed={str(signed).lower()}}}"
    engine = snnc.compile(snnc.convert(snnc.load(model), pipeline, calibration=x, progress=False))
    # not exactly: populations of one layer share an alpha here
    np.testing.assert_allclose(
        found, engine.simulate(x, progress=False).decoded["digit"][-1], atol=0.05 * np.ptp(expected)
    )


def test_few_spike_with_mlgenns_neurons_has_their_common_alphas_and_refuses_biases():
    model, x = _plain(), _images(4, 10, 10, 2)
    converter = FewSpike(k=8, norm_data=[[(x, None)]], mlgenn_neurons=True)
    network, *_ = converted = converter.convert(model)
    assert {type(p.neuron) for p in network.populations} == {mlgenn.FewSpikeRelu, mlgenn.FewSpikeReluInput}
    found = np.maximum(_predict(converter, converted, x), 0)  # the potential, which a rectifier would cut
    assert np.corrcoef(found.ravel(), model.predict(x, verbose=0).ravel())[0, 1] > 0.95
    with pytest.raises(ir.UnsupportedModelError, match="it has a bias"):
        FewSpike(mlgenn_neurons=True).convert(_rich())


class _Own(Simple):
    """Overrides everything, and remembers what it was asked."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.asked = []

    def pre_convert(self, tf_model):
        self.asked.append(("pre_convert", tf_model.name))
        return "found"

    def create_input_neurons(self, pre_convert_output):
        assert pre_convert_output == "found"
        return mlgenn.IntegrateFireInput()

    def create_neurons(self, tf_layer, pre_convert_output, is_output):
        assert pre_convert_output == "found"
        self.asked.append((tf_layer.name, is_output))
        return mlgenn.IntegrateFire(v_thresh=1.0, readout="spike_count" if is_output else None)

    def validate_tf_layer(self, tf_layer, config):
        assert config.tf_layer is tf_layer
        self.asked.append((tf_layer.name, config.has_activation, config.is_output, config.shape))

    def post_convert(self, mlg_network, mlg_network_inputs, mlg_model_outputs):
        self.asked.append(("post_convert", len(mlg_network.populations)))


def test_hooks_are_called_with_keras_layers():
    model, x = _exact()
    converter = _Own(20)
    converted = converter.convert(model)
    assert converter.asked == [
        ("pre_convert", model.name),
        *[("stem", False), ("down", False), ("merged", False), ("digit", True)],
        ("stem", True, False, (6, 6, 4)),
        ("down", True, False, (3, 3, 4)),
        ("branch", False, False, (3, 3, 4)),
        ("skip", False, False, (3, 3, 4)),
        ("merged", True, False, (3, 3, 4)),
        ("digit", True, True, (3,)),
        ("post_convert", 5),
    ]
    stem = converted[3][model.get_layer("stem")]
    assert isinstance(stem.neuron, mlgenn.IntegrateFire)  # with a bias, which mlGeNN's has not
    np.testing.assert_array_equal(stem.neuron.bias[0, 0], model.get_layer("stem").get_weights()[1])
    assert _predict(converter, converted, x).any()


def test_a_refused_layer_is_named():
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="tanh", name="curved")])
    with pytest.raises(ir.UnsupportedModelError, match="curved"):
        Simple(10).convert(model)


def test_layers_of_nested_models_are_found():
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="relu", name="first")], name="inner")
    model = keras.Sequential([layers.Input((4,)), inner, layers.Dense(2, activation="relu", name="second")])
    *_, populations = Simple(10).convert(model)
    assert {inner.get_layer("first"), model.get_layer("second")} < set(populations)


def test_several_inputs():
    a, b = layers.Input((4,), name="a"), layers.Input((3,), name="b")
    both = layers.ReLU(name="both")(layers.Add()([layers.Dense(5)(a), layers.Dense(5)(b)]))
    model = randomise(keras.Model([a, b], layers.Dense(2, name="digit")(both)))
    x = [_images(30, 4), _images(30, 3, seed=1)]
    converter = DataNorm(300, norm_data=[[(x, None)]], input_type="if")
    found = _predict(converter, converter.convert(model), x)
    assert np.corrcoef(found.ravel(), model.predict(x, verbose=0).ravel())[0, 1] > 0.99
    simple = Simple(300, input_type="if")
    converted = simple.convert(model)
    assert spike_normalise(*converted[:3], [([part[i : i + 1] for part in x], None) for i in range(10)], 50)


def test_spike_normalise_balances_a_converted_network_with_branches_and_biases():
    model, x = _rich(), _images(20, 8, 8, 2)
    converter = Simple(300, input_type="if")
    network, inputs, outputs, _ = converted = converter.convert(model)
    batches = [(x[i : i + 1], np.zeros(1, int)) for i in range(20)]
    found = spike_normalise(network, inputs, outputs, iter(batches), evaluate_timesteps=60, num_batches=12)
    assert set(found) == {p for p in network.populations if isinstance(p.neuron, neurons.IntegrateFire)} - {*outputs}
    assert all(population.neuron.v_thresh == threshold for population, threshold in found.items())
    assert all(population.neuron.v == 0.5 * threshold for population, threshold in found.items())
    predicted = _predict(converter, converted, x)
    assert np.corrcoef(predicted.ravel(), model.predict(x, verbose=0).ravel())[0, 1] > 0.99


def test_spike_normalise_finds_the_largest_input_of_any_step():
    """One neuron a layer: the input spikes in every step, so every input of a layer is its weight or nothing."""
    network = Network()
    with network:
        image = Population(mlgenn.BinarySpikeInput(), 2, name="image")
        hidden = Population(mlgenn.IntegrateFire(v_thresh=1.0), 2, name="hidden")
        side = Population(mlgenn.IntegrateFire(v_thresh=1.0), 2, name="side")
        output = Population(mlgenn.IntegrateFire(v_thresh=1.0, readout="spike_count"), 1, name="output")
        Connection(image, hidden, Dense(np.diag([3.0, 2.0])))
        Connection(image, side, Dense(np.diag([0.5, 0.25])))
        Connection(hidden, output, Dense(np.full((2, 1), 2.0)))
        Connection(side, output, Dense(np.full((2, 1), 4.0)))
    found = spike_normalise(network, image, output, [np.ones((1, 2)), np.zeros((1, 2))], evaluate_timesteps=8)
    assert (found[hidden], found[side]) == (3.0, 0.5)
    # a spike of `hidden` has come to stand for 3 and one of `side` for a half; both meet in every other step at most
    strong, weak = (edge().connectivity.weight for edge in output.incoming_connections)
    np.testing.assert_allclose(strong, 2.0)
    np.testing.assert_allclose(weak, 4.0 / 6, rtol=1e-6)
    assert found[output] == output.neuron.v_thresh == pytest.approx((2 * 2.0 * 3 + 2 * 4.0 * 0.5) / 3)


def test_spike_normalise_needs_data_and_one_threshold_per_population():
    converted = Simple(10).convert(_plain())
    with pytest.raises(ir.DataError, match="no batches"):
        spike_normalise(*converted[:3], [], evaluate_timesteps=5)


@pytest.mark.parametrize("kind", ["simple", "data-norm", "spike-norm", "few-spike"])
def test_the_example_runs_with_every_converter(kind, tmp_path):
    from snnc import demo

    x_train, y_train, x_test, y_test = demo.digits()
    scale = 255 / max(x_train.max(), 1e-6)
    images = {"x_train": x_train * scale, "x_test": x_test * scale}
    model = randomise(
        keras.Sequential([layers.Input(x_train.shape[1:]), layers.Flatten(), layers.Dense(10, activation="softmax")])
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam(0.02))
    model.fit(x_train / x_train.max(), y_train, epochs=10, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "digits.npz", y_train=y_train, y_test=y_test, **images)
    command = [sys.executable, ROOT / "examples" / "mlgenn_simple_cnn.py", "digits.npz", "--model", "model.keras"]
    command += ["--converter", kind, "--test-images", "40", "--norm-images", "8", "--timesteps", "80"]
    done = subprocess.run(map(str, command), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = float(done.stdout.rpartition(": ")[2].rstrip("%\n"))
    assert accuracy > 75
