"""The structural difference of two networks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from networks import residual
from test_text import networks

from snnc import ir
from snnc.ir import Connection, Difference, Network, Population
from snnc.passes import Canonicalise, Context


def changed(name: str, **fields) -> Network:
    """The residual network with fields of one population changed."""
    network = residual()
    populations = {**network.populations, name: replace(network.populations[name], **fields)}
    return network.replace(populations=populations)


def test_equal_networks_do_not_differ():
    assert ir.diff(residual(), residual()) == ()
    assert ir.diff_text(()) == ""


def test_order_alone_is_no_difference():
    network = residual()
    turned = Network(
        list(network.populations.values())[::-1], network.connections[::-1], network.inputs, network.outputs
    )
    assert ir.diff(network, turned) == ()


def test_an_array_differs_by_its_largest_entry():
    bias = residual().populations["stem"].bias
    shifted = bias + np.eye(8, dtype=np.float32)[3] * np.float32(0.5)
    (difference,) = ir.diff(residual(), changed("stem", bias=shifted))
    assert (difference.kind, difference.what, difference.field) == ("changed", "population stem", "bias")
    assert difference.before == "float32[8]#03d4d5c8"
    assert difference.absolute == pytest.approx(0.5)
    assert difference.relative == pytest.approx(0.5 / max(np.abs(bias).max(), np.abs(shifted).max()))


@pytest.mark.parametrize(
    ("fields", "field", "before", "after", "absolute"),
    [
        ({"bias": None}, "bias", "float32[8,8,8]#032b7749", "None", None),
        ({"bias": np.zeros(8)}, "bias", "float32[8,8,8]#032b7749", "float32[8]#66687aad", None),
        ({"neuron": ir.Clip(5.0)}, "neuron.max", "6.0", "5.0", 1.0),
        ({"neuron": ir.Relu()}, "neuron", "Clip(max=6.0)", "Relu()", None),
        ({"shape": (512,)}, "shape", "(8,8,8)", "(512)", None),
        ({"origin": ir.Origin(("a b",), ("p",))}, "origin", "from add, merged", 'from "a b" by p', None),
        ({"origin": ir.Origin()}, "origin", "from add, merged", "unknown", None),
    ],
)
def test_each_field_of_a_population(fields, field, before, after, absolute):
    (difference,) = ir.diff(residual(), changed("merged", **fields))
    found = (difference.what, difference.field, difference.before, difference.after, difference.absolute)
    assert found == ("population merged", field, before, after, absolute)


def test_the_network_itself():
    differences = ir.diff(residual(), residual().replace(inputs=["a", "b"], outputs=[], timesteps=8))
    assert differences == (
        Difference("changed", "network", "inputs", "(image)", "(a,b)"),
        Difference("changed", "network", "outputs", "(digit)", "()"),
        Difference("changed", "network", "timesteps", "None", "8"),
    )


def test_what_canonicalise_does():
    text = ir.diff_text(ir.diff(residual(), Canonicalise().run(residual(), Context())))
    assert text.splitlines() == [
        "- population forgotten [8] Relu() from forgotten",
        "~ connection image -> stem: operators (Pad(amounts=((1,1),(1,1),(0,0))),"
        "Conv2D(weight=float32[3,3,2,8]#1d4fc270),Scale(factor=float32[8]#f0ace48f)) => "
        "(Conv2D(weight=float32[3,3,2,8]#e801d103, padding=((1,1),(1,1))))",
        "~ connection image -> stem: origin from stem_conv, stem_bn => from stem_conv, stem_bn by canonicalise",
        "~ connection stem -> merged: delay 0 => 1",
        "~ connection stem -> merged: origin unknown => by canonicalise",
        "- connection merged -> forgotten: Flatten(), Dense(weight=float32[512,8]#530e4ff3)",
        "~ connection merged -> digit: operators (AveragePool2D(pool_size=(3,3), strides=(2,2), padding=((0,1),(1,0))),"
        "Scale(factor=float32[8]#c8a1caf6),Flatten(),Dense(weight=float32[128,5]#0c834daa)) => (AveragePool2D("
        "pool_size=(3,3), strides=(2,2), padding=((0,1),(1,0))),Dense(weight=float32[128,5]#56ac4d86))",
        "~ connection merged -> digit: origin unknown => by canonicalise",
    ]


def test_parallel_connections_are_matched_in_order():
    def network(*factors: float) -> Network:
        scales = [Connection("x", "y z", (ir.Scale(np.array([float(factor)])),)) for factor in factors]
        return Network([Population("x", (1,), ir.Input()), Population("y z", (1,), ir.Relu())], scales, ["x"], ["y z"])

    (difference,) = ir.diff(network(1, 2, 3), network(1, 4, 3))
    assert (difference.what, difference.field) == ('connection x -> "y z" (2)', "operators[0].factor")
    assert (difference.absolute, difference.relative) == (2.0, 0.5)
    assert str(difference).endswith("(by up to 2, relative 0.5)")
    (difference,) = ir.diff(network(1, 2), network(1, 2, 3))
    assert (difference.kind, difference.what) == ("added", 'connection x -> "y z" (3)')
    assert str(difference) == '+ connection x -> "y z": Scale(factor=float32[1]#ea284590)'
    (difference,) = ir.diff(network(1, 2), network(1))
    assert (difference.kind, difference.what) == ("removed", 'connection x -> "y z" (2)')


@settings(max_examples=100, derandomize=True, deadline=None)
@given(networks(), networks())
def test_nothing_for_equal_networks_and_both_ways_alike(a, b):
    again = ir.parse(str(a), ir.arrays_of(a))
    assert ir.diff(a, a) == ir.diff(again, again) == ()
    there, back = ir.diff(a, b), ir.diff(b, a)
    assert len(there) == len(back)
    assert bool(there) == (ir.to_text(a) != ir.to_text(b))
    opposite = {"added": "removed", "removed": "added", "changed": "changed"}
    turned = {(opposite[d.kind], d.what, d.field, d.after, d.before, d.absolute, d.relative) for d in back}
    assert turned == {(d.kind, d.what, d.field, d.before, d.after, d.absolute, d.relative) for d in there}
