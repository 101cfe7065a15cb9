"""Instruments: what they show and write, and what check-equivalence catches."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from networks import residual, weights
from rich.console import Console

from snnc import ir
from snnc.backend.onnxruntime import CompiledAnalog
from snnc.ir import Connection, Network, Population
from snnc.passes import Canonicalise, Context, DataNorm, Pass, run
from snnc.passes.instruments import CheckEquivalence, Dump, Print, Time, resume

IMAGES = weights(100, 40, 8, 8, 2)
PIPELINE = (Canonicalise(), DataNorm(percentile=99.5, per_channel=True))


def activations(network, images):
    return CompiledAnalog(network).activations(images, progress=False)


def context(**changes) -> Context:
    return Context(**{"activations": activations, "calibration": IMAGES, "timesteps": 16, **changes})


@dataclass(frozen=True)
class Rewrite(Pass):
    """A pass that claims to keep the function, whatever `rewrite` does."""

    name: ClassVar[str] = "rewrite"
    requires: ClassVar[str] = "analog"
    ensures: ClassVar[str] = "analog"
    keeps_function: ClassVar[bool] = True

    rewrite: Callable[[Network], Network] = lambda network: network

    def run(self, network, context):
        return self.rewrite(network)


@dataclass(frozen=True)
class Fails(Rewrite):
    name: ClassVar[str] = "fails"

    def run(self, network, context):
        raise ir.PipelineError("as it should")


def console() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream), stream


# Print


def test_print_shows_what_changed_as_a_diff():
    shown, stream = console()
    run([Canonicalise(), Canonicalise()], residual(), context(), [Print(console=shown)])
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["--- before", "+++ after pass 1 (canonicalise)"]
    assert "-  forgotten [8] Relu() from forgotten" in lines
    assert "+  stem -> merged: one-to-one delay=1 by canonicalise" in lines
    assert "pass 2" not in stream.getvalue()  # the second time nothing changes
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("only", [None, frozenset({"data-norm"})])
def test_print_the_whole_network_before_or_after_chosen_passes(only):
    shown, stream = console()
    canonical = run(PIPELINE[:1], residual(), context())
    instruments = [Print("before", only, shown), Print("after", only, shown)]
    spiking = run(PIPELINE[1:], canonical, context(), instruments)
    expected = f"# before pass 1 (data-norm)\n{canonical}# after pass 1 (data-norm)\n{spiking}"
    assert stream.getvalue() == expected
    run(PIPELINE[:1], residual(), context(), [Print(when, frozenset(), shown) for when in ("before", "changed")])
    assert stream.getvalue() == expected


def test_print_goes_to_stderr_and_in_colour_to_a_terminal(capsys):
    run(PIPELINE[:1], residual(), context(), [Print(), Print("before")])
    out, err = capsys.readouterr()
    assert not out
    assert "+++ after pass 1 (canonicalise)" in err
    assert "# before pass 1 (canonicalise)" in err
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, color_system="standard", no_color=False)
    run(PIPELINE[:1], residual(), context(), [Print(console=terminal)])
    assert "\x1b[31m-  forgotten [8] Relu() from forgotten\x1b[0m" in stream.getvalue()


# Dump


def test_dump_writes_every_step_numbered(tmp_path):
    folder = tmp_path / "deep" / "steps"
    result = run(PIPELINE, residual(), context(), [Dump(folder)])
    names = [f"{step}.{kind}" for step in ("000-input", "001-canonicalise", "002-data-norm") for kind in ("snn", "txt")]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "pipeline.txt"]
    assert (folder / "pipeline.txt").read_text() == "canonicalise,data-norm{percentile=99.5,per-channel=true}\n"
    assert (folder / "002-data-norm.txt").read_text() == str(result)
    assert ir.load(folder / "000-input.snn") == residual()
    assert ir.load(folder / "002-data-norm.snn") == result


@pytest.mark.parametrize(
    ("file", "left"), [("000-input.snn", 2), ("001-canonicalise.snn", 1), ("002-data-norm.snn", 0), (".", 0)]
)
def test_a_resumed_run_gives_the_same_bytes(tmp_path, file, left):
    run(PIPELINE, residual(), context(), [Dump(tmp_path / "straight")])
    network, remaining = resume(tmp_path / "straight" / file)
    assert remaining == PIPELINE[2 - left :]
    ir.save(run(remaining, network, context()), tmp_path / "resumed.snn")
    assert (tmp_path / "resumed.snn").read_bytes() == (tmp_path / "straight" / "002-data-norm.snn").read_bytes()


def test_resume_goes_on_where_a_pass_failed(tmp_path):
    straight = run(PIPELINE, residual(), context())
    with pytest.raises(ir.PipelineError, match="calibration"):
        run(PIPELINE, residual(), context(calibration=None), [Dump(tmp_path)])
    network, remaining = resume(tmp_path)
    assert remaining == PIPELINE[1:]
    assert run(remaining, network, context()) == straight


def test_a_pipeline_without_passes_is_dumped_too(tmp_path):
    run([], residual(), context(), [Dump(tmp_path)])
    assert resume(tmp_path) == (residual(), ())


def test_an_earlier_dump_is_replaced_and_other_files_stay(tmp_path):
    run(PIPELINE, residual(), context(), [Dump(tmp_path)])
    (tmp_path / "notes.snn").write_text("mine")
    run(PIPELINE[:1], residual(), context(), [Dump(tmp_path)])
    assert {path.stem for path in tmp_path.iterdir()} == {"000-input", "001-canonicalise", "pipeline", "notes"}


def test_a_folder_that_is_no_dump_or_cannot_be_one(tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "000-input.snn"):
        with pytest.raises(ir.PipelineError, match="does not hold a dump: No such file"):
            resume(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ir.PipelineError, match="cannot dump into"):
        run(PIPELINE, residual(), context(), [Dump(tmp_path / "file")])
    run(PIPELINE, residual(), context(), [Dump(tmp_path)])
    for name in ("003-other.snn", "000-input.txt"):
        with pytest.raises(ir.PipelineError, match=r"000-input\.snn, 001-canonicalise\.snn, 002-data-norm\.snn"):
            resume(tmp_path / name)
    (tmp_path / "001-canonicalise.snn").write_bytes(b"")
    with pytest.raises(ir.NetworkFileError):
        resume(tmp_path / "001-canonicalise.snn")


# Time


def test_time_has_a_row_for_every_pass(capsys):
    run(PIPELINE, residual(), context(), [Time()])
    out, err = capsys.readouterr()
    assert not out
    rows = [line.split() for line in err.splitlines()]
    assert ["1", "canonicalise"] in [row[:2] for row in rows]
    assert ["2", "data-norm"] in [row[:2] for row in rows]
    assert "peak memory, MiB" in err


def test_time_measures_memory_names_the_pass_that_failed_and_starts_afresh():
    def greedy(network):
        assert np.ones(2**22).all()  # 32 MiB
        return network

    shown, stream = console()
    instrument = Time(shown)
    with pytest.raises(ir.PipelineError, match="as it should"):
        run([Rewrite(greedy), Fails()], residual(), context(), [instrument])
    rows = {row[1]: row for row in map(str.split, stream.getvalue().splitlines()) if len(row) > 3 and row[0].isdigit()}
    assert 32 <= float(rows["rewrite"][-1]) < 40
    assert "fails (failed)" in stream.getvalue()
    stream.truncate(0)
    run([Canonicalise()], residual(), context(), [instrument])
    assert "canonicalise" in stream.getvalue()
    assert "rewrite" not in stream.getvalue()


# CheckEquivalence


def zoo() -> Network:
    """Two inputs, two outputs, and one of everything that a wrong pass could get wrong."""
    return Network(
        [
            Population("a", (6, 6, 4), ir.Input()),
            Population("b", (6, 6, 4), ir.Input()),
            Population("conv", (6, 6, 4), ir.Relu(), weights(1, 4)),
            Population("deep", (6, 6, 4), ir.Clip(6.0), weights(2, 4)),
            Population("pool", (3, 3, 4), ir.Relu()),
            Population("max", (2, 2, 4), ir.MaxPool2D((3, 3, 4), (2, 2), (1, 1))),
            Population("square", (16,), ir.Relu(), weights(3, 16)),
            Population("picked", (16,), ir.Relu()),
            Population("y", (16,), ir.Softmax(), weights(4, 16)),
            Population("z", (16,), ir.Identity()),
        ],
        [
            Connection("a", "conv", (ir.Conv2D(weights(5, 3, 3, 4, 4, scale=0.3), padding=((1, 1), (1, 1))),)),
            Connection("b", "conv", (ir.Conv2D(weights(6, 3, 3, 4, 4, scale=0.3), padding=((1, 1), (1, 1))),)),
            Connection(
                "conv", "deep", (ir.Conv2D(weights(7, 3, 3, 2, 4), (1, 1), ((2, 2), (2, 2)), (2, 2), 2),), origin=ORIGIN
            ),
            Connection("conv", "deep"),
            Connection("deep", "pool", (ir.AveragePool2D((3, 3), (2, 2), ((0, 1), (0, 1))), ir.Scale(weights(8, 4)))),
            Connection("pool", "max"),
            Connection("max", "square", (ir.Flatten(), ir.Dense(weights(9, 16, 16, scale=0.5)))),
            Connection("square", "picked", (ir.Pick(np.arange(16)[::-1].copy()),)),
            Connection("picked", "y", (ir.Dense(weights(10, 16, 16, scale=0.1)),)),
            Connection("square", "z"),
        ],
        ["a", "b"],
        ["y", "z"],
    )


ORIGIN = ir.Origin(("deep",))


def population(name: str, **changes) -> Callable[[Network], Network]:
    """A rewrite that changes fields of one population; a function gets the old value."""

    def rewrite(network):
        old = network.populations[name]
        new = replace(old, **{key: value(getattr(old, key)) for key, value in changes.items()})
        return network.replace(populations={**network.populations, name: new})

    return rewrite


def edge(place: int, *operators: Callable, **changes) -> Callable[[Network], Network]:
    """A rewrite that changes one connection: its operators, one function for each, or other fields."""

    def rewrite(network):
        connections = list(network.connections)
        old = connections[place]
        if operators:
            changes["operators"] = tuple(f(o) for f, o in zip(operators, old.operators, strict=True))
        connections[place] = replace(old, **changes)
        return network.replace(connections=connections)

    return rewrite


def weight(change: Callable) -> Callable:
    return lambda operator: replace(operator, weight=np.ascontiguousarray(change(operator.weight)))


def having(**fields) -> Callable:
    return lambda operator: replace(operator, **fields)


def same(operator):
    return operator


def without_edge(place: int) -> Callable[[Network], Network]:
    return lambda network: network.replace(
        connections=[c for number, c in enumerate(network.connections) if number != place]
    )


def entry(values: np.ndarray, index: tuple[int, ...], factor: float) -> np.ndarray:
    changed = values.copy()
    changed[index] *= factor
    return changed


def swapped_sources(network: Network) -> Network:
    first, second, *others = network.connections
    swapped = [replace(first, source=second.source), replace(second, source=first.source)]
    return network.replace(connections=[*swapped, *others])


MUTANTS = {
    "drops a bias": ("conv", population("conv", bias=lambda bias: None)),
    "scales a bias by a thousandth": ("conv", population("conv", bias=lambda bias: bias * np.float32(1.001))),
    "reverses a bias": ("deep", population("deep", bias=lambda bias: bias[::-1].copy())),
    "drops the bias of a readout": ("y", population("y", bias=lambda bias: None)),
    "changes the maximum of a clip": ("deep", population("deep", neuron=lambda neuron: ir.Clip(5.5))),
    "replaces a clip by a relu": ("deep", population("deep", neuron=lambda neuron: ir.Relu())),
    "replaces a relu by a clip": ("conv", population("conv", neuron=lambda neuron: ir.Clip(1.0))),
    "replaces a relu by nothing": ("square", population("square", neuron=lambda neuron: ir.Identity())),
    "replaces a softmax by nothing": ("y", population("y", neuron=lambda neuron: ir.Identity())),
    "moves the windows of a max pooling": (
        "max",
        population("max", neuron=having(pool_size=(2, 2), strides=(2, 2), padding=((0, 1), (0, 1)))),
    ),
    "swaps two output channels": ("conv", edge(0, weight(lambda w: w[..., [1, 0, 2, 3]]))),
    "swaps two input channels": ("conv", edge(0, weight(lambda w: w[:, :, [1, 0, 2, 3]]))),
    "zeroes one channel of a weight": ("conv", edge(1, weight(lambda w: w * np.float32([1, 1, 0, 1])))),
    "changes a single weight by a hundredth": ("conv", edge(1, weight(lambda w: entry(w, (1, 1, 2, 3), 1.01)))),
    "transposes kernels": ("conv", edge(0, weight(lambda w: w.transpose(1, 0, 2, 3)))),
    "scales an edge": ("conv", edge(0, weight(lambda w: w * np.float32(1.001)))),
    "changes a padding": ("conv", edge(0, having(padding=((2, 0), (1, 1))))),
    "changes a dilation": ("deep", edge(2, having(padding=((1, 1), (1, 1)), dilation=(1, 1)))),
    "drops an edge": ("deep", without_edge(3)),
    "doubles an edge": ("deep", lambda n: n.replace(connections=[*n.connections, n.connections[3]])),
    "changes a pooling's padding": ("pool", edge(4, having(padding=((1, 0), (1, 0))), same)),
    "changes a pooling's window": ("pool", edge(4, having(pool_size=(2, 2), padding=((0, 0), (0, 0))), same)),
    "forgets a factor": ("pool", edge(4, same, having(factor=np.ones(4)))),
    "transposes a dense weight": ("square", edge(6, same, weight(np.transpose))),
    "forgets a permutation": ("picked", edge(7, operators=())),
    "swaps the sources of two edges": ("conv", swapped_sources),
    "reads from elsewhere": ("z", edge(9, source="picked")),
}


@pytest.mark.parametrize("images", ["random", "calibration", "own"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_pass_that_changes_the_function_is_caught(mutant, images):
    culprit, rewrite = MUTANTS[mutant]
    own = {"a": 5 * weights(11, 40, 6, 6, 4), "b": 5 * weights(12, 40, 6, 6, 4)}
    instrument = CheckEquivalence(own) if images == "own" else CheckEquivalence()
    given = context(calibration=own if images == "calibration" else None)
    with pytest.raises(ir.PipelineError, match=rf"pass 2 \(rewrite\) changes .*: population '{culprit}' differs by up"):
        run([Rewrite(), Rewrite(rewrite)], zoo(), given, [instrument])


def renamed(old: str, new: str) -> Callable[[Network], Network]:
    def rewrite(network):
        def name(this):
            return new if this == old else this

        return Network(
            [replace(p, name=name(p.name)) for p in network.populations.values()],
            [replace(c, source=name(c.source), target=name(c.target)) for c in network.connections],
            map(name, network.inputs),
            map(name, network.outputs),
        )

    return rewrite


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [
        (lambda n: n.replace(outputs=n.outputs[::-1]), "the outputs were y, z and are z, y"),
        (lambda n: n.replace(inputs=n.inputs[::-1]), "the inputs were a, b and are b, a"),
        (renamed("y", "label"), "the outputs were y, z and are label, z"),
        (lambda n: renamed("square", "hidden")(population("square", bias=lambda b: -b)(n)), "population 'picked' diff"),
    ],
)
def test_inputs_and_outputs_stay_and_renamed_populations_hide_nothing(rewrite, message):
    with pytest.raises(ir.PipelineError, match=message):
        run([Rewrite(rewrite)], zoo(), context(calibration=None), [CheckEquivalence()])


def test_the_error_says_by_how_much():
    network = Network(
        [Population("x", (2,), ir.Input()), Population("y", (2,), ir.Relu())], [Connection("x", "y")], ["x"], ["y"]
    )
    wrong = Rewrite(edge(0, operators=(ir.Scale(np.array([1.0, 1.25])),)))
    x = np.array([[8.0, 4.0], [0.0, 0.0]])
    with pytest.raises(ir.PipelineError, match=r"'y' differs by up to 1, relative .* 0.125, where 0.0001 is allowed"):
        run([wrong], network, context(), [CheckEquivalence(x)])
    run([wrong], network, context(), [CheckEquivalence(x, tolerance=0.2)])


def split_conv(network: Network) -> Network:
    """A convolution as the sum of two edges."""
    first, *others = network.connections
    (conv,) = first.operators
    halves = [replace(first, operators=(replace(conv, weight=conv.weight / 2),)) for _ in range(2)]
    return network.replace(connections=[*halves, *others])


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda network: network,
        split_conv,
        renamed("square", "hidden"),
        edge(3, delay=1),
        edge(7, operators=(ir.Dense(np.eye(16)[::-1].copy()),)),
        lambda n: n.replace(connections=n.connections[::-1]),
        lambda n: n.replace(populations=list(n.populations.values())[::-1]),
    ],
)
def test_a_pass_that_keeps_the_function_is_let_through(rewrite):
    run([Rewrite(rewrite), Canonicalise()], zoo(), context(calibration=None), [CheckEquivalence()])


def test_what_ends_in_silence_is_not_blamed_for_rounding():
    """Large numbers that cancel: the order of summation decides which rounding error is left."""
    w = 100 * weights(1, 64, 8)
    network = Network(
        [Population("x", (64,), ir.Input()), Population("y", (8,), ir.Relu())],
        [Connection("x", "y", (ir.Dense(w),)), Connection("x", "y", (ir.Dense(-w),))],
        ["x"],
        ["y"],
    )

    def merged(network):
        first, second = (c.operators[0].weight for c in network.connections)
        return network.replace(connections=[Connection("x", "y", (ir.Dense(first + second),))])

    run([Rewrite(merged)], network, context(calibration=None), [CheckEquivalence()])


def test_conversions_are_not_held_to_it_and_a_convert_run_passes():
    run(PIPELINE, residual(), context(), [CheckEquivalence()])


def test_it_says_what_it_needs():
    with pytest.raises(ir.PipelineError, match="the context needs activations"):
        run([Canonicalise()], residual(), Context(), [CheckEquivalence()])
    with pytest.raises(ir.DataError, match="has shape"):
        run([Canonicalise()], residual(), context(), [CheckEquivalence(np.zeros((1, 3)))])


def test_all_together_change_nothing(tmp_path):
    plain = run(PIPELINE, residual(), context())
    instruments = [Time(console()[0]), Print(console=console()[0]), Dump(tmp_path), CheckEquivalence()]
    assert run(PIPELINE, residual(), context(), instruments) == plain
