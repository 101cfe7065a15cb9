"""The text form, there and back."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import operator_chains, residual, weights

from snnc import ir
from snnc.ir import Connection, Network, Origin, Population
from snnc.ir.text import connection_line
from snnc.passes import Canonicalise, Context

GOLDEN = Path(__file__).parent / "golden"

# Names that look like something else in the text form, that hold what ends a token, or that no one expects.
ODD = ["by", "from", "->", "a -> b", "one-to-one", "network", "bias", "None", "1", "", " ", '"', "\\", "a, b", "Relu()"]
ODD += ["float32[3]#00000000", "dense/BiasAdd:0", "Größe", "\n", "\u2028", "\ud800", "😀", "-", "inputs=(a)", "x [3]"]
NAMES = st.one_of(st.sampled_from(ODD), st.text(max_size=6), st.from_regex(r"[\w./#@+-]{1,8}", fullmatch=True))
FLOATS = st.floats(width=32, allow_nan=False)
LAYERS = st.lists(NAMES, max_size=2).map(tuple)
ORIGINS = st.one_of(
    st.builds(Origin, LAYERS, LAYERS), st.builds(Origin, LAYERS, LAYERS, NAMES.filter(bool), st.floats(allow_nan=False))
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    return weights(draw(st.integers(0, 99)), *shape)


NEURONS = st.one_of(
    st.sampled_from(
        [ir.Relu(), ir.Identity(), ir.Softmax(), ir.Input(), ir.CurrentInput(), ir.Integrate(), ir.Clip(6), None]
    ),
    FLOATS.map(ir.Clip),
    st.builds(
        ir.IntegrateFire,
        *[st.one_of(FLOATS, arrays())] * 2,
        st.sampled_from(["subtract", "zero", "soft", "None", "1e3"]),
        st.sampled_from([">=", ">"]),
    ),
    st.just(ir.MaxPool2D((4, 4, 1), (2, 2), (2, 1), ((0, 1), (1, 0)))),
)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Networks of any structure, acyclic or not: most of them break the rules, and all of them print."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
    populations = [
        Population(name, draw(shapes), draw(NEURONS), draw(st.none() | arrays()), draw(ORIGINS)) for name in names
    ]
    ends = st.sampled_from(names) | NAMES
    operators = operator_chains().map(lambda drawn: drawn[1])
    connections = st.builds(Connection, ends, ends, operators, st.integers(-1, 3), ORIGINS)
    some = st.lists(NAMES, max_size=2)
    return Network(
        populations,
        draw(st.lists(connections, max_size=5)),
        draw(some),
        draw(some),
        draw(st.none() | st.integers(0, 99)),
    )


@settings(max_examples=300, derandomize=True, deadline=None)
@given(networks())
def test_print_parse_print_is_the_identity(network):
    text, collected = ir.to_text(network), ir.arrays_of(network)
    again = ir.parse(text, collected)
    assert ir.to_text(again) == text
    assert text.replace("\n", "").isprintable()
    assert again == network.replace(connections=again.connections)
    assert sorted(again.connections, key=connection_line) == sorted(network.connections, key=connection_line)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("höhe", "höhe"),
        ("слой/卷积", "слой/卷积"),
        ("Größe in m", '"Größe in m"'),
        ("to\u0308", '"to\u0308"'),
        ('"ß"', r'"\"ß\""'),
        ("a\u2028b\u202ec\x85", r'"a\u2028b\u202ec\u0085"'),
        ("\ue000😀\U000e0041", r'"\ue000😀\udb40\udc41"'),
    ],
)
def test_names_of_any_script_print_as_they_are_and_what_cannot_be_seen_escaped(name, printed):
    network = Network([Population(name, (1,), ir.Input())], [], [name], [])
    assert str(network).splitlines()[1] == f"  {printed} [1] Input()"
    assert ir.parse(str(network), {}) == network


def test_names_escaped_as_in_older_texts_are_read():
    assert ir.parse(r'network inputs=("h\u00f6he") outputs=()', {}).inputs == ("höhe",)


@pytest.mark.parametrize("network", [residual(), Canonicalise().run(residual(), Context())], ids=["raw", "canonical"])
def test_what_is_read_back_is_the_network_itself(network):
    again = ir.parse(str(network), ir.arrays_of(network))
    assert again == network.replace(connections=again.connections)  # they come in the order of the text
    assert sorted(again.connections, key=connection_line) == sorted(network.connections, key=connection_line)
    assert ir.parse(str(again), ir.arrays_of(again)) == again


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("residual*.txt")), ids=lambda path: path.stem)
def test_golden_texts_parse(path):
    canonical = Canonicalise().run(residual(), Context())
    arrays = ir.arrays_of(residual()) | ir.arrays_of(canonical)
    assert str(ir.parse(path.read_text(), arrays)) == path.read_text()


HEADER = "network inputs=(x) outputs=(y)\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 .*expected 'network', not 'the end of the line'"),
        ("netwerk", "line 1 .*expected 'network', not 'netwerk'"),
        ("network timesteps=many inputs=(x) outputs=(y)", "expected timesteps as int, not 'many'"),
        ("network inputs=(x outputs=(y)", r"expected '\)', not 'outputs'"),
        (HEADER + "\n  x [4 Input()", r"line 3 .*expected '\]', not 'Input'"),
        (HEADER + "  x [4,] Input()", "line 2 .*expected a value, not ']'"),
        (HEADER + "  x [four] Input()", "expected a size, not 'four'"),
        (HEADER + "  x [4]", "expected a value, not 'the end of the line'"),
        (HEADER + "  x [4] Flatten()", "expected a neuron, not 'Flatten'"),
        (HEADER + "  x [4] Rely()", "there is no neuron or operator 'Rely'"),
        (HEADER + "  x [4] Clip(maximum=6.0)", "Clip has no field 'maximum'"),
        (HEADER + "  x [4] Clip(spiking=True)", "Clip has no field 'spiking'"),
        (HEADER + "  x [4] Clip()", "Clip needs max="),
        (HEADER + "  x [4] Clip(max=high)", "expected Clip.max as float, not 'high'"),
        (HEADER + "  x [4] Relu() bias=3", "expected bias as ndarray, not '3'"),
        (HEADER + "  x [4] Relu() bias=float32[4]#01234567", r"the array float32\[4\]#01234567 is not given"),
        (HEADER + "  x [4] Relu() from", "expected a name, not 'the end of the line'"),
        (HEADER + "  x [4] Relu() from a b", "expected the end of the line, not 'b'"),
        (HEADER + "  x [4] Relu() by a within little of silu", "expected an error, not 'little'"),
        (HEADER + "  x [4] Relu() by a within 0.1", "expected 'of', not 'the end of the line'"),
        (HEADER + "  x -> y", "expected ':', not 'the end of the line'"),
        (HEADER + "  x -> y: Relu()", "expected an operator, not 'Relu'"),
        (HEADER + "  x -> y: Pad(amounts=((1,1),(1)))", "expected Pad.amounts as tuple.*, not '\\('"),
        (HEADER + "  x -> y: one-to-one delay=1.5", "expected delay as int, not '1.5'"),
        (HEADER + '  "x -> y: one-to-one', "expected a name, not '\"'"),
        (HEADER + r'  "\q" -> y: one-to-one', "not a string as JSON"),
        (HEADER + "  x -> y: Pad(amounts=" + "(" * 5000, "brackets"),
    ],
)
def test_a_text_that_cannot_be_read_says_where_and_why(text, message):
    with pytest.raises(ir.NetworkTextError, match=message):
        ir.parse(text, {})


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data())
def test_a_damaged_text_is_refused_with_an_error_of_ours_or_read(data):
    text, collected = str(residual()), ir.arrays_of(residual())
    position = data.draw(st.integers(0, len(text)))
    damaged = text[:position] + data.draw(st.text(max_size=3)) + text[position + data.draw(st.integers(0, 3)) :]
    try:
        again = ir.parse(damaged, collected)
    except ir.SnncError:
        return
    assert str(ir.parse(str(again), collected)) == str(again)


def test_arrays_that_share_a_hash_are_refused_rather_than_mixed_up():
    seen: dict[str, int] = {}
    for number in range(2**20):  # the birthday paradox finds two within some 2¹⁶ arrays
        token = hashlib.sha256(np.array([number], np.float32).tobytes()).hexdigest()[:8]
        if token in seen:
            break
        seen[token] = number
    scales = tuple(ir.Scale(np.array([value], np.float32)) for value in (seen[token], number))
    with pytest.raises(ir.NetworkTextError, match=f"both print as float32.1.#{token}"):
        ir.arrays_of(Network([], [Connection("x", "y", scales)], [], []))
