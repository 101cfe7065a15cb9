"""For those who write passes and debug conversions: opt, passes, diff, profile, bisect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .. import DEFAULT_PIPELINE
from .app import InputShape, NetworkFile, Scale, app, err, input_shapes, note_bytes, out

if TYPE_CHECKING:
    from ..passes import Instrument

Pipeline = Annotated[str, typer.Option("--pipeline", "-p", help="Passes and their options; `snnc passes` lists them.")]
Calibration = Annotated[
    Path | None,
    typer.Option("--calibration", "-c", help="Training images, .npz (`x_train` or `x`, or one per input) or .npy."),
]
Timesteps = Annotated[int, typer.Option("--timesteps", "-t", min=1, help="T: how long an image is shown.")]
Data = Annotated[
    Path, typer.Option("--data", "-d", help="Images and labels, .npz: `x_test`, `y_test` or `x`, `y`, or by name.")
]
Images = Annotated[int, typer.Option(min=1, help="Use at most this many images.")]


@app.command()
def opt(
    network: Annotated[
        Path | None,
        typer.Argument(help="A network (.snn) or model file; left out with --resume-from.", show_default=False),
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Passes and their options; `snnc passes` lists them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the network here (.snn) instead of printing its text.")
    ] = None,
    calibration: Calibration = None,
    timesteps: Timesteps = 64,
    images: Images = 512,
    scale: Scale = "1",
    input_shape: InputShape = None,
    print_before: Annotated[
        list[str] | None, typer.Option(help="Print the network before this pass; `all` for every one.")
    ] = None,
    print_after: Annotated[
        list[str] | None, typer.Option(help="Print the network after this pass; `all` for every one.")
    ] = None,
    print_changed: Annotated[bool, typer.Option(help="Print what each pass changed, as a diff of the text.")] = False,
    check_equivalence: Annotated[
        bool, typer.Option(help="Fail at the first pass that changes a function it promises to keep.")
    ] = False,
    time: Annotated[bool, typer.Option("--time", help="Print seconds and memory per pass.")] = False,
    dump_dir: Annotated[
        Path | None, typer.Option(help="Write the network after every pass into this folder, numbered.")
    ] = None,
    resume_from: Annotated[
        Path | None, typer.Option(help="Go on from a network in a --dump-dir: runs the passes that remain.")
    ] = None,
) -> None:
    """Run any pipeline on a network, and look at what it does.

    The passes run as they stand: unlike `convert`, nothing is put in front of them. The resulting network goes to
    stdout as text, or to a file; what the instruments have to say goes to stderr.

    Example: `snnc opt model.keras -p canonicalise --print-changed --check-equivalence`
    """
    import snnc

    from ..datafiles import read_images
    from ..passes import parse
    from ..passes.instruments import resume

    if resume_from:
        if network or pipeline:
            raise typer.BadParameter("--resume-from brings its own network and pipeline")
        loaded, steps = resume(resume_from)
    elif network and pipeline:
        loaded, steps = snnc.load(network, inputs=input_shapes(input_shape)), parse(pipeline)
    else:
        raise typer.BadParameter("give a network and a pipeline, or --resume-from")
    data = read_images(calibration, loaded, ("x_train", "x"), scale, images) if calibration else None
    note_bytes(loaded, data, scale)
    instruments = _instruments(print_before, print_after, print_changed, check_equivalence, time, dump_dir)
    result = snnc.run_pipeline(loaded, steps, calibration=data, timesteps=timesteps, instruments=instruments)
    if output:
        snnc.save(result, output)
    else:
        print(result, end="")


def _instruments(
    print_before: list[str] | None,
    print_after: list[str] | None,
    print_changed: bool,
    check_equivalence: bool,
    time: bool,
    dump_dir: Path | None,
) -> list[Instrument]:
    from ..passes import instruments

    wanted: list[Instrument] = []
    if print_before:
        wanted.append(instruments.Print("before", _named(print_before)))
    if print_after:
        wanted.append(instruments.Print("after", _named(print_after)))
    if print_changed:
        wanted.append(instruments.Print("changed"))
    if check_equivalence:
        wanted.append(instruments.CheckEquivalence())
    if dump_dir:
        wanted.append(instruments.Dump(dump_dir))
    if time:
        wanted.append(instruments.Time())
    return wanted


def _named(passes: list[str]) -> frozenset[str] | None:
    return None if "all" in passes else frozenset(passes)


@app.command()
def passes(
    names: Annotated[list[str] | None, typer.Argument(help="Only these passes.", show_default=False)] = None,
) -> None:
    """Document every pass and its options, from their own docstrings.

    Other packages' passes, offered through the entry point group `snnc.passes`, are listed too.
    """
    from ..ir import PipelineError
    from ..passes import document, known_passes

    known = known_passes()
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise PipelineError(f"there is no pass {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    for name in names or sorted(known):
        documentation = document(known[name])
        out.print(f"[bold]{name}[/]  ({documentation.stages})", highlight=False)
        out.print(documentation.summary, markup=False, highlight=False)
        if documentation.details:
            out.print(documentation.details, markup=False, highlight=False)
        if documentation.options:
            table = Table("option", "value", "default", "meaning", box=None, pad_edge=False)
            for option in documentation.options:
                table.add_row(option.name, option.kind, option.default, option.meaning)
            out.print(table)
        out.print()


@app.command()
def diff(a: NetworkFile, b: NetworkFile, input_shape: InputShape = None) -> None:
    """Show how two networks differ, by population and connection.

    `+` added, `-` removed, `~` changed; arrays with their largest difference. The exit status is 1 if they differ.
    --input-shape is for those that are model files.
    """
    import snnc

    from ..ir import diff as differences
    from ..ir import diff_text

    found = differences(*(snnc.load(path, inputs=input_shapes(input_shape)) for path in (a, b)))
    print(diff_text(found), end="")
    if found:
        raise typer.Exit(1)


@app.command()
def profile(
    analog: Annotated[Path, typer.Argument(help="The analog network (.snn) or the model file it was read from.")],
    spiking: Annotated[Path, typer.Argument(help="The spiking network (.snn) made of it.")],
    data: Data,
    images: Images = 256,
    scale: Scale = "1",
    input_shape: InputShape = None,
    plot: Annotated[Path | None, typer.Option(help="Draw activations and errors by layer (.png, .svg, .pdf).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the layer that loses accuracy: decoded activations against the ANN's.

    Every layer's error is split into clipping (activations above λ, or above what K bits of α say), quantisation (T
    steps or K bits are finite), and unevenness (what remains: spikes that came at the wrong time, and errors handed on
    by earlier layers). A second table says how functions beyond rectifiers are computed, and how far that is off.

    Example: `snnc profile model.keras net.snn --data test.npz --scale 1/255 --plot profile.png`
    """
    import snnc

    from .. import functions
    from .. import profile as profiles
    from ..datafiles import read_images

    network, converted = snnc.load(analog, inputs=input_shapes(input_shape)), snnc.load(spiking)
    x = read_images(data, converted, ("x_test", "x"), scale, images)
    note_bytes(network, x, scale)
    result = profiles.profile(network, converted, x)
    if plot:
        profiles.plot(result, plot)
    if as_json:
        print(json.dumps(profiles.to_json(result)))
    else:
        out.print(profiles.to_table(result))
        if result.functions:
            out.print(functions.to_table(result.functions))


@app.command()
def bisect(
    network: NetworkFile,
    data: Data,
    floor: Annotated[float, typer.Option("--floor", "-f", min=0, max=1, help="The accuracy that must be kept.")],
    pipeline: Pipeline = f"canonicalise,{DEFAULT_PIPELINE}",
    calibration: Calibration = None,
    timesteps: Timesteps = 64,
    images: Images = 1000,
    scale: Scale = "1",
    input_shape: InputShape = None,
    reproducer: Annotated[
        Path | None, typer.Option(help="Write the bad pass, its network, data and commands into this new folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the first pass after which accuracy falls below a floor.

    Accuracy is measured before the first pass and after each. Without --calibration, the passes calibrate on the
    first 512 of `x_train` in the data. The exit status is 1 if a pass is to blame.

    Example: `snnc bisect model.keras --data mnist.npz --scale 1/255 --floor 0.95 --reproducer bad-pass`
    """
    import snnc

    from ..bisect import bisect as find
    from ..bisect import to_json, to_table, write_reproducer
    from ..datafiles import read_images, read_labels
    from ..passes import parse

    loaded = snnc.load(network, inputs=input_shapes(input_shape))
    x = read_images(data, loaded, ("x_test", "x"), scale, images)
    y = read_labels(data, loaded, ("y_test", "y"), images)
    calibrating = read_images(calibration or data, loaded, ("x_train", "x"), scale, 512)
    note_bytes(loaded, x, scale)
    found = find(loaded, parse(pipeline), x, y, floor, calibration=calibrating, timesteps=timesteps)
    if as_json:
        print(json.dumps(to_json(found)))
    else:
        out.print(to_table(found))
        out.print(found.verdict, highlight=False)
    if found.bad and found.bad.step and reproducer:
        write_reproducer(found, reproducer)
        err.print(f"to see it alone: sh {reproducer / 'reproduce.sh'}", highlight=False)
    if found.bad:
        raise typer.Exit(1)
