"""Arguments of every kind: the public functions and the command line give results, or errors of our own."""

import io
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from networks import weights

import snnc
from snnc import bisect, cli, ir, passes, plot, profile, report
from snnc.backend import mlgenn
from snnc.ir import Connection, Network, Population
from snnc.passes import instruments
from snnc.passes.registry import BUILT_IN

fuzz = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

IMAGES = weights(1, 6, 4, 4, 2, scale=3.0)
LABELS = np.array([0, 1, 2, 2, 1, 0])


@cache
def analog() -> Network:
    """A convolution, pooling and a readout, of weights far from what initialisers give."""
    return Network(
        [
            Population("image", (4, 4, 2), ir.Input()),
            Population("stem", (4, 4, 3), ir.Relu(), weights(2, 3, scale=2.0), ir.Origin(("conv",))),
            Population("pool", (2, 2, 3), ir.MaxPool2D((4, 4, 3), (2, 2), (2, 2), ((0, 0), (0, 0)))),
            Population("digit", (3,), ir.Softmax(), weights(3, 3, scale=5.0)),
        ],
        [
            Connection("image", "stem", (ir.Conv2D(weights(4, 3, 3, 2, 3, scale=4.0), padding=((1, 1), (1, 1))),)),
            Connection("stem", "pool"),
            Connection("pool", "digit", (ir.Flatten(), ir.Dense(weights(5, 12, 3, scale=3.0)))),
        ],
        ["image"],
        ["digit"],
    )


@cache
def bisected() -> bisect.Bisection:
    steps = "canonicalise,lower-max-pool,data-norm"
    return bisect.bisect(analog(), steps, IMAGES, LABELS, 1.0, calibration=IMAGES, timesteps=1, progress=False)


@cache
def spiking() -> Network:
    return snnc.convert(analog(), "lower-max-pool,data-norm", calibration=IMAGES, timesteps=6, progress=False)


def whoever_fails_at_it(*_, **__):
    raise RuntimeError("made to fail")


class Unfit:
    """An array that will not be one, a sequence without a length, a path without a name."""

    __array__ = __len__ = __fspath__ = __iter__ = __getitem__ = __int__ = __bool__ = whoever_fails_at_it
    ndim, shape, dtype = 4, (6, 4, 4, 2), np.float32


# What nobody means.
WRONG = (
    *(None, True, False, ..., NotImplemented, int, abs, object(), Unfit()),
    *(0, -1, 1, 3, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 10**5000),
    *(0.5, -0.0, np.nan, np.inf, -np.inf, 1e-320, 1e300, 2 + 3j, Fraction(1, 3), Decimal(2), Decimal("NaN")),
    *(np.int8(3), np.uint64(2**64 - 1), np.float16(2), np.float32(np.nan), np.bool_(True), np.array(4)),
    *(
        "",
        "8",
        "x",
        "a\0b",
        "\ud800",
        "{",
        "data-norm",
        "x" * 5000,
        b"net.snn",
        np.str_("digit"),
        np.datetime64("2026"),
    ),
    *(Path("net.snn"), Path("."), Path("missing/x.snn"), Path("net.snn/x")),
    *((), [[]], [None], [[1], [1, 2]], ["a"], ["digit"], [True], [np.nan], [10**400], range(3), slice(2), {3}),
    *({}, {1: 2}, {"image": IMAGES}, {"digit": LABELS}, [IMAGES], (IMAGES, LABELS), [IMAGES, IMAGES], IMAGES.tolist()),
    *(IMAGES[:0], IMAGES[0], IMAGES[..., None], IMAGES.T, IMAGES * np.float32(1e38), IMAGES * np.nan, IMAGES + 1j),
    *(IMAGES.astype(np.float64) * 1e200, IMAGES.astype(str), IMAGES.astype(object), IMAGES.astype("M8[s]")),
    *(IMAGES.astype([("x", np.float32)]), np.full(6, None), np.eye(3), weights(9, 6, 3)),
    *(np.ma.masked_greater(IMAGES, 0), np.ma.masked_all_like(LABELS), SimpleNamespace(shape=(6, 4, 4, 2))),
    *(LABELS - 1, LABELS[:-1], LABELS * 2**62),
    *(analog(), analog().populations["stem"], Network([], [], [], []), analog().replace(inputs=("digit",))),
    *([passes.Canonicalise(), None], [passes.Canonicalise], passes.Canonicalise()),
)
wrong = st.one_of(
    st.sampled_from(WRONG),
    st.builds(lambda: (image for image in IMAGES)),
    st.builds(memoryview, st.just(IMAGES)),
    st.builds(spiking),
    st.builds(lambda: spiking().replace(timesteps=None)),
    st.text(max_size=8),
    st.floats(),
    st.integers(-3, 30) | st.integers(2**21),
    st.recursive(st.none() | st.integers(-1, 3) | st.text(max_size=2), lambda inner: st.lists(inner, max_size=3)),
)


def one_of(*values):
    return st.sampled_from(values)


def some_of(names, most):
    return st.lists(one_of(*names), max_size=most, unique=True) if names else st.just([])


NETWORK = st.builds(analog)
SPIKING = st.builds(spiking)
X = one_of(IMAGES, IMAGES[:2], {"image": IMAGES}, [IMAGES])
Y = one_of(LABELS, LABELS.tolist(), np.eye(3)[LABELS], {"digit": LABELS})
XY = {"x": st.just(IMAGES), "y": Y}
PIPELINE = one_of(
    "canonicalise,lower-max-pool,data-norm",
    "lower-max-pool,spike-norm",
    [passes.Canonicalise(), passes.LowerMaxPool(), passes.DataNorm()],
)
CALIBRATION = {"calibration": X, "timesteps": one_of(1, 5, np.int64(4)), "progress": st.booleans()}
PATH = one_of("new.snn", Path("new.snn"))


def options(cls):
    """Values for each option of a pass, its default among them."""
    given = {
        "percentile": one_of(100.0, 99.9, 50, 1e-9),
        "v_init": one_of(0.5, 0.0, 0.999),
        "seed": one_of(0, -1, 2**70),
        "scale": one_of(1.0, 0.25, 1e-30, 1e30),
        "k": one_of(4, 1, 24),
        "input_k": one_of(0, 3),
        "layer_k": one_of("", "stem:2 conv:3", "x:1", "stem:²", "stem:" + "9" * 5000, ":", "stem:0"),
        "rounds": one_of(1, 3),
    }
    hints = get_type_hints(cls)
    return {
        field.name: given.get(field.name, one_of(*(get_args(hints[field.name]) or (False, True))))
        for field in fields(cls)
    }


def converted_by(cls, **given):
    """What a pass with these options makes of a network is read back from text and from a file, and runs."""
    step = cls(**given)
    others = [passes.Canonicalise(), passes.LowerMaxPool(), passes.DataNorm()]
    steps = (*(other for other in others[: 2 + (cls.requires == "spiking")] if other.name != cls.name), step)
    assert passes.parse(passes.to_text(steps)) == steps
    network = snnc.run_pipeline(analog(), steps, calibration=IMAGES, timesteps=4, progress=False)
    snnc.save(network, "converted.snn")
    assert ir.load("converted.snn") == network
    return snnc.compile(network).predict(IMAGES)


CALLS = {
    "load": (snnc.load, {"model": one_of("net.snn", Path("net.snn")), "verify": one_of(True, False, None)}),
    "convert": (snnc.convert, {"network": NETWORK, "pipeline": PIPELINE, **CALIBRATION, "instruments": one_of(())}),
    "run_pipeline": (
        snnc.run_pipeline,
        {"network": NETWORK, "pipeline": one_of("canonicalise"), **CALIBRATION, "instruments": one_of(())},
    ),
    "default_timesteps": (snnc.default_timesteps, {"network": NETWORK}),
    "compile": (
        snnc.compile,
        {
            "network": NETWORK | SPIKING,
            "backend": one_of("onnxruntime"),
            "memory": one_of(None, 2**20, "1MB"),
            "threads": one_of(None, 1, 2),
        },
    ),
    "save": (snnc.save, {"network": NETWORK | SPIKING, "path": PATH}),
    "sweep": (
        snnc.sweep,
        {
            "network": NETWORK,
            "pipelines": one_of(["lower-max-pool,data-norm"], {"a": "lower-max-pool,few-spike{k=2}"}),
            **XY,
            **CALIBRATION,
            "timesteps": one_of([2], (1, 4)),
            "backend": one_of("onnxruntime"),
        },
    ),
    "tune": (
        snnc.tune,
        {
            "model": NETWORK,
            "calibration": one_of(IMAGES[:3], {"image": IMAGES[:3]}),
            "x": one_of(IMAGES[3:], [IMAGES[3:]]),
            "y": one_of(None, LABELS[3:]),
            "within": one_of(100, np.float32(100)),
            "timesteps": one_of(1, np.int64(1)),
            "fewest": one_of(None, "steps"),
            "spikes": one_of("binary", "signed"),
            "backend": one_of("onnxruntime"),
            "journal": one_of(None, "j.jsonl", Path("j.jsonl")),
            "resume": st.booleans(),
            "progress": st.booleans(),
        },
    ),
    "profile": (profile.profile, {"analog": NETWORK, "spiking": SPIKING, "x": X, "progress": st.booleans()}),
    "bisect": (
        bisect.bisect,
        {"network": NETWORK, "pipeline": PIPELINE, **XY, "floor": one_of(0, 0.3, 1), **CALIBRATION},
    ),
    "write_reproducer": (
        lambda folder: bisect.write_reproducer(bisected(), folder),
        {"folder": one_of("r", Path("r"))},
    ),
    "evaluate": (
        lambda **given: snnc.compile(spiking()).evaluate(**given),
        {
            **XY,
            "transient": one_of(0, 2),
            "until_stable": one_of(None, 2),
            "progress": st.booleans(),
        },
    ),
    "predict": (
        lambda **given: snnc.compile(spiking()).predict(**given),
        {"x": X, "probabilities": st.booleans(), "transient": one_of(0, 2), "progress": st.booleans()},
    ),
    "simulate": (
        lambda **given: snnc.compile(spiking()).simulate(**given),
        {"x": X, "record": one_of(True, False, ["stem"], "conv"), "progress": st.booleans()},
    ),
    "analog.predict": (lambda **given: snnc.compile(analog()).predict(**given), {"x": X, "progress": st.booleans()}),
    "analog.accuracy": (lambda **given: snnc.compile(analog()).accuracy(**given), {**XY, "progress": st.booleans()}),
    "analog.activations": (
        lambda **given: list(snnc.compile(analog()).activations(**given)),
        {"x": X, "progress": st.booleans()},
    ),
    "ir.load": (ir.load, {"path": one_of("net.snn")}),
    "ir.verify": (ir.verify, {"network": NETWORK | SPIKING, "stage": one_of(None, "analog")}),
    "ir.diff": (ir.diff, {"a": NETWORK, "b": SPIKING}),
    "passes.parse": (passes.parse, {"text": st.just("data-norm")}),
    "passes.to_text": (passes.to_text, {"passes": st.just([passes.DataNorm(percentile=99.0)])}),
    **{cls.name: (partial(converted_by, cls), options(cls)) for cls in BUILT_IN if options(cls)},
    "instruments.resume": (instruments.resume, {"path": one_of("dump")}),
    "instruments.Dump": (
        lambda folder: snnc.run_pipeline(analog(), "canonicalise", instruments=[instruments.Dump(folder)]),
        {"folder": one_of("dumped")},
    ),
    "check": (report.check, {"model": one_of("net.snn"), "verify": one_of(True, False, None)}),
    "plot_accuracy": (
        lambda path: plot.plot_accuracy({"a": np.array([0.5, 1])}, path),
        {"path": one_of("a.png", Path("a.pdf"))},
    ),
    "mlgenn.plan": (
        mlgenn.plan,
        {
            "network": SPIKING,
            "device": one_of(None, "gpu", "cpu"),
            "matrix_type": one_of(None, "SPARSE", {"stem -> pool": "DENSE"}),
            "batch_size": one_of(None, 3),
        },
    ),
    "mlgenn.compile": (
        lambda **given: snnc.compile(backend="mlgenn", **given),
        {
            "network": SPIKING,
            "device": one_of("cpu"),
            "folder": one_of(None, "kept", Path("kept")),
            "matrix_type": one_of(None, "SPARSE"),
            "batch_size": one_of(None, 1),
            "workers": one_of(1, 2),
            "record_spikes": one_of((), ["stem"]),
            "kernel_profiling": st.booleans(),
            "communicator": one_of(None),
        },
    ),
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """What the arguments name, and where results are written: networks, a dump, a model, data, and what is none."""
    folder = tmp_path_factory.mktemp("arguments")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        snnc.save(analog(), "net.snn")
        snnc.save(spiking(), "spiking.snn")
        snnc.run_pipeline(analog(), "canonicalise,lower-max-pool", instruments=[instruments.Dump("dump")])
        onnx.save(_model(), "model.onnx")
        np.savez("data.npz", x=IMAGES, y=LABELS, names=np.array(["a"]), odd=np.full(6, None))
        np.save("images.npy", IMAGES)
        Path("noise.bin").write_bytes(bytes(range(256)))
        Path("empty.npz").touch()
        yield folder


def _model() -> onnx.ModelProto:
    """A dense layer, for the commands that read models."""
    weight = onnx.numpy_helper.from_array(weights(1, 4, 3, scale=5.0), "w")
    sizes = {"x": 4, "y": 3}
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in sizes.items())
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_built():
    """GeNN takes seconds for every build, and sees none of the arguments before they are checked."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("pygenn") and find_spec("ml_genn"):
            patch.setattr("snnc.backend.mlgenn.compiled.CompiledGenn._build", lambda *_: None)
        yield


@pytest.mark.parametrize("name", CALLS)
def test_functions_give_results_or_errors_of_ours(name):
    function, arguments = CALLS[name]

    @settings(fuzz, max_examples=40)
    @given(st.data())
    def called(data):
        chosen = {argument: data.draw(values) for argument, values in arguments.items()}
        for spoilt in data.draw(some_of(arguments, 2)):
            chosen[spoilt] = data.draw(wrong)
        with quiet(), suppress(ir.SnncError):
            function(**chosen)

    called()


class quiet(warnings.catch_warnings):
    """Without the warnings that are ours; one of numpy's would be a number that was not looked at."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)


FILE = one_of("net.snn", "spiking.snn")
ANALOG = one_of("net.snn")
DATA = {"--data": one_of("data.npz")}
RUN = {"--calibration": one_of("data.npz", "images.npy"), "--timesteps": one_of("4"), "--images": one_of("6", "1")}
SCALE = {"--scale": one_of("1", "1/255", "0.5")}
PIPES = ("lower-max-pool,data-norm", "lower-max-pool,few-spike{k=2}", "lower-max-pool,spike-norm")
SOME = {"--pipeline": one_of(*PIPES)}
WHOLE = {"--pipeline": one_of(*(f"canonicalise,{pipeline}" for pipeline in PIPES))}
FLAG = st.just("")
JSON = {"--json": FLAG}

# What each command needs, and what it may be given besides. Names without dashes are of arguments.
COMMANDS = {
    "check": ({"MODEL": one_of("model.onnx")}, {**JSON, "--no-verify": FLAG}),
    "convert": ({"MODEL": ANALOG, "--output": one_of("o.snn"), **SOME, **RUN}, SCALE),
    "evaluate": (
        {"NETWORK": FILE, **DATA},
        {
            "--backend": one_of("onnxruntime"),
            "--timesteps": one_of("5"),
            "--transient": one_of("1"),
            "--until-stable": one_of("2"),
            "--images": one_of("3"),
            **SCALE,
            "--plot": one_of("e.png"),
            **JSON,
        },
    ),
    "show": (
        {"NETWORK": FILE},
        {"--html": one_of("s.html"), "--backend": one_of("mlgenn"), "--device": one_of("cpu", "gpu")},
    ),
    "sweep": ({"MODEL": ANALOG, **DATA, **SOME, "--timesteps": one_of("2,4")}, {**SCALE, **JSON}),
    "tune": (
        {
            "MODEL": ANALOG,
            **DATA,
            "--output": one_of("o.snn"),
            "--within": one_of("100"),
            "--timesteps": one_of("1"),
            "--calibration-images": one_of("3"),
        },
        {
            **SCALE,
            **JSON,
            "--fewest": one_of("spikes"),
            "--spikes": one_of("binary"),
            "--agreement": FLAG,
            "--resume": FLAG,
            "--plot": one_of("t.png"),
        },
    ),
    "opt": (
        {"NETWORK": ANALOG, **WHOLE, **RUN},
        {
            "--output": one_of("o.snn"),
            "--print-after": one_of("all"),
            "--print-changed": FLAG,
            "--check-equivalence": FLAG,
            "--time": FLAG,
            "--dump-dir": one_of("dumped"),
        },
    ),
    "opt --resume-from": ({"": one_of("dump", "dump/001-canonicalise.snn")}, {**RUN, "--output": one_of("o.snn")}),
    "passes": ({}, {"NAME": one_of("data-norm", "clip")}),
    "diff": ({"A": FILE, "B": FILE}, {}),
    "profile": (
        {"ANALOG": ANALOG, "SPIKING": one_of("spiking.snn"), **DATA},
        {**SCALE, "--images": one_of("2"), **JSON},
    ),
    "bisect": (
        {"NETWORK": ANALOG, **DATA, "--floor": one_of("0.9", "0", "1"), **WHOLE},
        {**RUN, **SCALE, "--reproducer": one_of("bad"), **JSON},
    ),
}
NUMBERS = ("-1", "0", "1e9", "nan", "inf", "1/0", "1e999999999", "9" * 5000, "٣", "²", "3.5", "true", ",,", "")
FILES = ("net.snn", "spiking.snn", "model.onnx", "data.npz", "empty.npz", "noise.bin", ".", "/", "net.snn/x", "no/such")
STEPS = (
    "data-norm",
    "data-norm{",
    "data-norm{}",
    "data-norm{percentile=nan}",
    "few-spike{k=99}",
    "spike-norm{scale=1}",
)
OTHERS = ("--", "-x", "\udcff", "\x1b[31m", "[/bold]", "a\nb", "%s{0}", "mlgenn", "all", "é,ü", " ")
TEXTS = one_of(*NUMBERS, *FILES, *STEPS, *OTHERS) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_end_in_a_result_or_one_message(command, monkeypatch):
    needed, others = COMMANDS[command]

    @settings(fuzz, max_examples=70)
    @given(st.data())
    def called(data):
        names = [*needed, *data.draw(some_of(others, 3))]
        chosen = {name: data.draw((needed | others)[name]) for name in names}
        for spoilt in data.draw(some_of(names, 2)):
            chosen[spoilt] = data.draw(TEXTS)
        monkeypatch.setattr(sys, "argv", ["snnc", *command.split(), *words_of(chosen)])
        code, shown = ended()
        assert code in (0, 1, 2)
        assert "Traceback" not in shown

    called()


def words_of(chosen):
    """Options by name, with a value if they have one, and arguments in their order."""
    for name, text in chosen.items():
        yield from filter(None, (name, text)) if name.startswith("--") else (text,)


def ended():
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err, quiet():
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue() + err.getvalue()
