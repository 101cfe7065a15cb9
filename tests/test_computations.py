"""How functions are computed, and how far that is off: kept in networks, measured, and said wherever it should be."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from networks import residual, weights
from reference import analog

import snnc
from snnc import ir
from snnc.functions import to_json
from snnc.ir import Connection, Network, Origin, Population
from snnc.ir.cost import function_evaluations
from snnc.profile import profile
from snnc.profile import to_json as profile_json
from snnc.view import describe

IMAGE = (4, 4, 2)
X = weights(1, 40, *IMAGE, scale=1.5)
MATRICES = ir.MatMul((4, 4, 3), (4, 3, 4))


def everything() -> Network:
    """Rectifiers, a function over a convolution, one over a dense layer, a gate, and a product of matrices."""
    conv = (ir.Conv2D(weights(2, 3, 3, 2, 3, scale=0.4), padding=((1, 1), (1, 1))),)
    turned = ir.Pick(np.arange(48).reshape(4, 4, 3).transpose(0, 2, 1))
    return Network(
        [
            Population("x", IMAGE, ir.Input()),
            Population("plain", (4, 4, 3), ir.Relu(), None, Origin(("plain",))),
            Population("maps", (4, 4, 3), ir.Function("silu", 1.25), weights(3, 3), Origin(("conv", "act"))),
            Population("gate", (3,), ir.Function("sigmoid"), weights(4, 3), Origin(("gate",))),
            Population("gated", (4, 4, 3), ir.Product("tanh"), None, Origin(("times",)), weights(5, 3)),
            Population("scores", (4, 4, 4), MATRICES, None, Origin(("attend",))),
            Population("y", (4,), ir.Identity(), weights(6, 4), Origin(("head",))),
        ],
        [
            Connection("x", "plain", (ir.Conv2D(weights(7, 1, 1, 2, 3)),)),
            Connection("x", "maps", conv),
            Connection("maps", "gate", (ir.Dense(weights(8, 48, 3, scale=0.3)),)),
            Connection("maps", "gated"),
            Connection("gate", "gated", (ir.Pick(np.broadcast_to(np.arange(3), (4, 4, 3))),), port=1),
            Connection("gated", "scores"),
            Connection("plain", "scores", (turned,), port=1),
            Connection("scores", "y", (ir.Dense(weights(9, 64, 4, scale=0.3)),)),
        ],
        ["x"],
        ["y"],
    )


def converted(pipeline: str, network: Network | None = None, timesteps: int = 12) -> Network:
    network = network or everything()
    return snnc.convert(network, pipeline, calibration=X, timesteps=timesteps, progress=False)


EXPANDED = "lower-matmul,lower-products,lower-functions{pieces=8}"


# In the network.


def test_parts_say_what_they_are_in_place_of():
    network = converted(f"{EXPANDED},data-norm,bias-correction")
    marked = {name: (p.origin.function, p.origin.error) for name, p in network.populations.items() if p.origin.function}
    expected = {"maps": "silu", "gate": "sigmoid", "gated/tanh": "tanh"}
    squares = [f"{name}/{half}" for name in ("gated", "scores/products") for half in ("sum", "difference")]
    expected = {f"{name}/pieces": function for name, function in (expected | dict.fromkeys(squares, "square")).items()}
    assert {name: function for name, (function, _) in marked.items()} == expected | {"scores/left": "identity"}
    assert all(0 < error < 0.1 for _, error in marked.values())
    assert not any(connection.origin.function for connection in network.connections)
    maps = network.populations["maps/pieces"]
    assert maps.origin.passes == ("lower-functions", "data-norm", "bias-correction")
    assert str(network).count(" within ") == len(marked)
    assert f"by lower-functions, data-norm, bias-correction within {maps.origin.error} of silu\n" in str(network)


def test_the_error_that_is_kept_is_certain():
    before = everything().replace(outputs=["y", "maps"])
    after = snnc.run_pipeline(before, "canonicalise,lower-functions{pieces=8}", progress=False)
    images = {"x": weights(10, 300, *IMAGE, scale=8).astype(np.float64)}
    real = np.abs(analog(after, images)["maps"] - analog(before, images)["maps"]).max()
    assert real <= after.populations["maps/pieces"].origin.error <= 2.2 * real


def test_what_has_no_stretches_is_marked_at_its_end():
    network = everything()
    maps = replace(network.populations["maps"], neuron=ir.Function("abs"))
    network = network.replace(populations=network.populations | {"maps": maps})
    after = snnc.run_pipeline(network, "canonicalise,lower-functions", progress=False)
    functions = {name: p.origin.function for name, p in after.populations.items()}
    assert (functions["maps/left"], functions["maps/right"]) == ("abs", "")
    assert after.populations["maps/left"].origin.error < 1e-10


def test_later_lowering_keeps_it_on_populations_alone():
    network = snnc.run_pipeline(everything(), "canonicalise,lower-functions{pieces=8},clip", progress=False)
    assert [network.populations[f"maps/pieces{part}"].origin.function for part in ("", "/excess")] == ["silu"] * 2
    assert not any(connection.origin.function for connection in network.connections)


def test_of_several_functions_the_worst_is_kept():
    near, far, none = Origin(("a",), ("p",), "silu", 0.01), Origin(("b",), ("p", "q"), "exp", 0.5), Origin(("c",))
    assert near.merge(none, far) == Origin(("a", "c", "b"), ("p", "q"), "exp", 0.5)
    assert far.merge(near) == Origin(("b", "a"), ("p", "q"), "exp", 0.5)
    assert none.merge(near) == Origin(("c", "a"), ("p",), "silu", 0.01)
    assert near.by("r") == replace(near, passes=("p", "r"))


def test_files_keep_it_and_say_nothing_without_it(tmp_path):
    network = converted(f"{EXPANDED},few-spike{{k=6}}")
    snnc.save(network, tmp_path / "net.snn")
    assert snnc.load(tmp_path / "net.snn") == network
    assert ir.parse(str(network), ir.arrays_of(network)).populations == network.populations
    plain = snnc.convert(residual(), calibration=weights(2, 30, 8, 8, 2), timesteps=8, progress=False)
    again = pickle.loads(pickle.dumps(plain))
    for each, name in ((plain, "plain"), (again, "again")):
        snnc.save(each, tmp_path / f"{name}.snn")
    content = (tmp_path / "plain.snn").read_bytes()
    assert content == (tmp_path / "again.snn").read_bytes()
    assert b"error" not in content
    assert b"function" not in content
    assert "within" not in str(plain)


@pytest.mark.parametrize(("function", "error"), [("silu", -0.5), ("silu", np.inf), ("silu", "little"), (3, 0.5)])
@pytest.mark.parametrize("part", ["populations", "connections"])
def test_what_is_no_error_is_a_fault(function, error, part):
    network = everything()
    first, *others = (network.populations | {}).values() if part == "populations" else network.connections
    first = replace(first, origin=Origin((), (), function, error))
    with pytest.raises(ir.VerificationError, match="which is no error of a function"):
        ir.verify(network.replace(**{part: [first, *others]}))


def test_differences_show_it():
    network = converted(f"{EXPANDED},few-spike")
    near = network.populations["maps/pieces"]
    far = replace(near, origin=replace(near.origin, error=0.75))
    changed = network.replace(populations=network.populations | {"maps/pieces": far})
    assert "within 0.75 of silu" in ir.diff_text(ir.diff(network, changed))


# What it costs, and how far it is off.


def test_evaluations_are_those_of_somas():
    once = {"maps": 48, "gate": 3, "gated": 48, "scores": 4 * 4 * 4 * 3}
    assert function_evaluations(converted("few-spike{k=5}")) == once
    assert function_evaluations(converted("tracking", timesteps=7)) == {name: 7 * count for name, count in once.items()}
    for network in (everything(), converted(f"{EXPANDED},data-norm"), converted("tracking", rectified())):
        assert function_evaluations(network) == {}


def rectified() -> Network:
    """A network of rectifiers that takes the same images."""
    network = everything()
    populations = [network.populations[name] for name in ("x", "plain", "y")]
    edges = [network.connections[0], Connection("plain", "y", (ir.Dense(weights(9, 48, 4)),))]
    return Network(populations, edges, ["x"], ["y"])


@pytest.mark.parametrize(
    "pipeline",
    ["few-spike{k=5,alpha=max}", "few-spike{k=4,alpha=max,per-channel=true,rounding=false}", "tracking{threshold=max}"],
)
def test_the_error_in_the_soma_is_at_most_what_is_said_and_no_less(pipeline):
    network = everything()
    head = network.populations["y"]
    one = Network(
        [network.populations["x"], network.populations["maps"], replace(head, shape=(4, 4, 3), bias=None)],
        [network.connections[1], Connection("maps", "y")],
        ["x"],
        ["y"],
    )
    images = weights(12, 400, *IMAGE, scale=1.5)
    snn = snnc.convert(one, pipeline, calibration=images, timesteps=24, progress=False)
    (found,) = snnc.computations(snn)
    decoded = snnc.compile(snn).predict(images, progress=False)
    real = np.abs(decoded - analog(one, {"x": images})["y"]).max()
    assert real <= found.error * (1 + 1e-4)
    assert found.error <= 1.1 * real


# Where it is said.


def test_every_function_is_listed_with_how_it_is_computed():
    soma = snnc.computations(converted("few-spike{k=5}"))
    assert [(each.population, each.layers, each.function, each.evaluations) for each in soma] == [
        ("maps", ("conv", "act"), "silu", 48),
        ("gate", ("gate",), "sigmoid", 3),
        ("gated", ("times",), "product with tanh", 48),
        ("scores", ("attend",), "product of matrices", 192),
    ]
    assert {each.computed for each in soma} == {"soma"}
    assert str(soma[0]).startswith("maps: silu, in the soma, off by at most 0.0")
    expanded = snnc.computations(converted(f"{EXPANDED},data-norm"))
    assert {each.computed for each in expanded} == {"expanded"}
    assert [each.evaluations for each in expanded] == [0] * 8
    assert snnc.computations(everything()) == ()
    assert json.loads(json.dumps(to_json(soma)))[0] == {
        "population": "maps",
        "layers": ["conv", "act"],
        "function": "silu",
        "computed": "soma",
        "error": soma[0].error,
        "evaluations": 48,
    }


def test_profiles_have_it():
    for pipeline in ("few-spike{k=5}", f"{EXPANDED},data-norm"):
        snn = converted(pipeline)
        found = profile(everything(), snn, X, progress=False)
        assert found.functions == snnc.computations(snn) != ()
        assert profile_json(found)["functions"] == to_json(found.functions)
    plain = rectified()
    assert "functions" not in profile_json(profile(plain, converted("data-norm", plain), X, progress=False))


def test_pages_have_it():
    fields = {
        each["name"]: [field["text"] for field in each["fields"] if field["name"] == "function"]
        for each in describe(converted("lower-functions{pieces=8},few-spike{k=5}"), "net")["populations"]
    }
    assert fields["maps/pieces"][0].startswith("silu, by rectifiers, off by at most 0.0")
    assert fields["gated"][0].startswith("product with tanh, in the soma, off by at most 0.0")
    assert not any(fields[name] for name in ("x", "plain", "maps/right", "y"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", x_train=X, x_test=X, y_test=np.arange(len(X)) % 4)
    snnc.save(everything(), "gates.snn")
    snnc.save(rectified(), "plain.snn")
    return tmp_path


def words(text: str) -> str:
    return " ".join(text.split())


def test_commands_say_it(folder, snnc_command):
    shown = {
        "few-spike{k=5}": "functions: 291 evaluations per image",
        f"{EXPANDED},data-norm": "functions: 0 evaluations per image",
    }
    for pipeline, title in shown.items():
        arguments = ("-c", "data.npz", "-t", 12, "-p", pipeline, "-o", "net.snn")
        _, _, err = snnc_command("convert", "gates.snn", *arguments)
        assert title in words(err)
        _, out, err = snnc_command("show", "net.snn")
        assert title in words(err)
        network = snnc.load("net.snn")
        assert out == str(network)
        assert all(words(f"{each.population} {each.function}") in words(err) for each in snnc.computations(network)[:3])
        _, out, _ = snnc_command("profile", "gates.snn", "net.snn", "--data", "data.npz")
        assert title in words(out)
        _, out, _ = snnc_command("profile", "gates.snn", "net.snn", "--data", "data.npz", "--json")
        assert len(json.loads(out)["functions"]) == len(snnc.computations(network))


def test_commands_say_nothing_of_rectifiers(folder, snnc_command):
    for command in (
        ("convert", "plain.snn", "-c", "data.npz", "-t", 12, "-o", "net.snn"),
        ("show", "net.snn"),
        ("profile", "plain.snn", "net.snn", "--data", "data.npz"),
        ("sweep", "plain.snn", "--data", "data.npz", "-p", "data-norm", "-t", 4),
        ("sweep", "plain.snn", "--data", "data.npz", "-p", "data-norm", "-t", 4, "--json"),
    ):
        code, out, err = snnc_command(*command)
        assert code == 0
        assert "function" not in out + err


def test_sweeps_count_evaluations(folder, snnc_command):
    pipelines = ("-p", "few-spike{k=5}", "-p", "tracking", "-p", f"{EXPANDED},data-norm")
    arguments = ("sweep", "gates.snn", "--data", "data.npz", *pipelines, "-t", 4)
    _, out, _ = snnc_command(*arguments, "--json")
    points = json.loads(out)["points"]
    assert [point["function_evaluations_per_image"] for point in points] == [291, 4 * 291, 0]
    _, out, _ = snnc_command(*arguments)
    assert "evals / image" in out
    assert "1.16 k" in out
