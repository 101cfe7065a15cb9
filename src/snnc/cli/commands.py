"""From a model to spikes: check, convert, evaluate, show, demo."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .. import DEFAULT_PIPELINE
from ..backend.compiled import by_output
from .app import (
    BackendName,
    DeviceName,
    InputShape,
    ModelFile,
    NetworkFile,
    Scale,
    Verify,
    app,
    err,
    input_shapes,
    note_bytes,
    note_functions,
    out,
)

if TYPE_CHECKING:
    import numpy as np

    from ..agreement import Agreement
    from ..backend.compiled import Result
    from ..ir import Network


@app.command()
def check(
    model: ModelFile,
    input_shape: InputShape = None,
    verify: Verify = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say whether a model can be read, what stands in the way and what to do about it.

    Every layer in the way is named, grouped by what there is to say about it, and what the conversion will need. The
    exit status is 1 if any layer is refused.

    Example: `snnc check model.keras`
    """
    from .. import report

    found = report.check(model, input_shapes(input_shape), verify)
    if as_json:
        print(json.dumps(report.to_json(found)))
    else:
        print(report.to_text(found))
    if found.refused:
        raise typer.Exit(1)


@app.command()
def convert(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the spiking network (.snn).")],
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", "-c", help="Training images, .npz (array `x_train` or `x`, or one per input) or .npy."
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            "--pipeline",
            "-p",
            help=f"Passes and their options. [default: {DEFAULT_PIPELINE}; few-spike for more than rectifiers]",
            show_default=False,
        ),
    ] = None,
    timesteps: Annotated[
        int | None,
        typer.Option(
            "--timesteps",
            "-t",
            min=1,
            help="T: how long an image is shown. [default: 64, or the number of levels if activations are quantised]",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Calibrate with at most this many images.")] = 512,
    scale: Scale = "1",
    input_shape: InputShape = None,
    verify: Verify = None,
) -> None:
    """Convert a trained model to a spiking network.

    The model becomes an analog network; the passes of the pipeline balance its thresholds on the calibration
    images and replace its neurons by spiking ones. How each function that is more than a rectifier is computed, in the
    soma or by rectifiers in place of it, and how far that is off, goes to stderr.

    Example: `snnc convert model.keras --calibration train.npz --scale 1/255 --timesteps 32 -o net.snn`
    """
    import snnc

    from ..datafiles import read_images
    from ..ir import summary

    network = snnc.load(model, inputs=input_shapes(input_shape), verify=verify)
    data = read_images(calibration, network, ("x_train", "x"), scale, images) if calibration else None
    note_bytes(network, data, scale)
    if pipeline is None:
        pipeline = snnc.default_pipeline(network)
        if pipeline != DEFAULT_PIPELINE:
            err.print(f"note: activations are more than rectifiers, so the pipeline is {pipeline}", highlight=False)
    if timesteps is None:
        timesteps = snnc.default_timesteps(network)
        if timesteps < snnc.LONGEST_DEFAULT:
            err.print(f"note: activations are quantised, so T = {timesteps}, their number of levels", highlight=False)
    snn = snnc.convert(network, pipeline, calibration=data, timesteps=timesteps)
    snnc.save(snn, output)
    err.print(f"{output}: {summary(snn)}", highlight=False, soft_wrap=True)
    note_functions(snn)


@app.command()
def evaluate(
    network: NetworkFile,
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Images and labels, .npz: `x_test`, `y_test` or `x`, `y`, or by name.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(help="Compare the outputs with those of this model or network; no labels are needed then."),
    ] = None,
    backend: Annotated[
        BackendName, typer.Option("--backend", "-b", help="The embedded engine, or GeNN through mlGeNN.")
    ] = BackendName.onnxruntime,
    timesteps: Annotated[
        int | None, typer.Option("--timesteps", "-t", min=1, help="Run for this T, not the network's.")
    ] = None,
    transient: Annotated[int, typer.Option(min=0, help="Start reading out only after this many steps.")] = 0,
    until_stable: Annotated[
        int | None, typer.Option(min=1, help="Stop showing an image once its class was the same for so many steps.")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Use at most this many images.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="GeNN on a CPU: simulate in so many processes.")] = None,
    build_folder: Annotated[
        Path | None, typer.Option(help="GeNN: keep what is compiled here, and do not compile it again.")
    ] = None,
    scale: Scale = "1",
    input_shape: InputShape = None,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against timesteps (.png, .svg, .pdf).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure accuracy at every timestep, and spikes.

    One run gives the accuracy after each step up to T. A model file is evaluated as the ANN that it is. With --against,
    the decoded outputs are compared with a model's instead: the largest and the mean difference, relative to the
    model's largest and mean number; the cosine of the angle between both; how often the largest channel is the same.

    Example: `snnc evaluate net.snn --data test.npz --scale 1/255 --plot accuracy.png`

    Example: `snnc evaluate net.snn --against model.onnx --data images.npz`
    """
    import snnc

    from ..backend.onnxruntime import CompiledAnalog
    from ..datafiles import read_images, read_labels
    from ..ir import DataError

    if against and (plot or transient or until_stable):
        raise typer.BadParameter("--against compares the last outputs: no --plot, --transient, --until-stable")
    loaded = snnc.load(network, inputs=input_shapes(input_shape))
    x = read_images(data, loaded, ("x_test", "x"), scale, images)
    note_bytes(loaded, x, scale)
    if not loaded.is_spiking and not against:
        y = read_labels(data, loaded, ("y_test", "y"), images)
        _print_analog(CompiledAnalog(loaded).accuracy(x, y), as_json)
        return
    if plot and loaded.is_phased:
        raise DataError("a few-spike network answers once, so there is no curve to draw; see snnc sweep --plot")
    if timesteps and loaded.is_phased:
        raise DataError(f"{network} is a few-spike network, which runs for its own {loaded.timesteps} steps a phase")
    if timesteps:
        loaded = loaded.replace(timesteps=timesteps)
    options: dict[str, Any] = {n: value for n, value in (("workers", workers), ("folder", build_folder)) if value}
    if against:
        reference = snnc.load(against, inputs=input_shapes(input_shape), verify=None)
        _print_agreement(snnc.agreement(loaded, reference, x, backend=backend.value, **options), x, as_json)
        return
    y = read_labels(data, loaded, ("y_test", "y"), images)
    compiled = snnc.compile(loaded, backend.value, **options)
    result = compiled.evaluate(x, y, transient=transient, until_stable=until_stable)  # type: ignore[union-attr]
    if plot:
        from ..plot import plot_accuracy

        plot_accuracy(by_output(loaded, result.accuracy), plot)
    _print_json(loaded, result) if as_json else _print_result(loaded, result)


@app.command()
def show(
    network: NetworkFile,
    html: Annotated[Path | None, typer.Option(help="Write a page with the graph to look at and search.")] = None,
    backend: Annotated[
        BackendName | None, typer.Option("--backend", "-b", help="Print how this backend would store the connections.")
    ] = None,
    device: Annotated[
        DeviceName | None, typer.Option(help="With --backend mlgenn: where GeNN would run, if not here.")
    ] = None,
    input_shape: InputShape = None,
) -> None:
    """Print a network as text, one line per population and connection.

    A line gives the shape, the neuron or the operators, and the layers it came from; arrays appear as type,
    shape and hash. The text goes to stdout, a summary to stderr, with a table of how functions beyond rectifiers are
    computed, how far that is off, and how many evaluations an image takes. With --html, a page is written instead; with
    --backend mlgenn, one line per connection tells how GeNN would store its synapses, and in how much memory;
    --device gpu says so for a GPU, with 16 GB where there is none to ask.
    """
    import snnc

    from ..ir import summary

    loaded = snnc.load(network, inputs=input_shapes(input_shape))
    if html:
        from ..view import write_html

        write_html(loaded, html, network.stem)
    elif backend == BackendName.mlgenn:
        _print_edges(loaded, device)
    else:
        print(loaded, end="")
    err.print(summary(loaded), highlight=False, soft_wrap=True)
    note_functions(loaded)


@app.command()
def demo(
    timesteps: Annotated[int, typer.Option("--timesteps", "-t", min=1, help="T: how long an image is shown.")] = 64,
    plot: Annotated[Path, typer.Option(help="Where to draw accuracy against timesteps.")] = Path("snnc-demo.png"),
) -> None:
    """Train a small CNN on handwritten digits, convert it, and watch it spike.

    Trains a Keras network with biases, batch normalisation and a residual branch on scikit-learn's digits,
    converts it, prints accuracy against timesteps, and checks the spikes against GeNN if pygenn is installed.
    """
    from ..demo import run

    run(out, timesteps, plot)


def _print_edges(network: Network, device: DeviceName | None) -> None:
    from ..backend.mlgenn import plan
    from ..ir.cost import readable

    edges = plan(network, device=device.value if device else None)
    width = max((len(str(edge.connection)) for edge in edges), default=0)
    for edge in edges:
        memory = readable(edge.bytes)
        print(f"{edge.connection!s:{width}}  {edge.matrix_type:10}  {edge.synapses:>15,} synapses  {memory:>10}")
    print(
        f"{'in all':{width}}  {'':10}  {sum(edge.synapses for edge in edges):>15,} synapses  "
        f"{readable(sum(edge.bytes for edge in edges)):>10}"
    )


def _print_analog(accuracy: dict[str, float], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"accuracy": accuracy}))
        return
    for name, share in accuracy.items():
        print(f"ANN accuracy of {name}: {share:.2%}")


def _print_agreement(found: Mapping[str, Agreement], x: Mapping[str, np.ndarray], as_json: bool) -> None:
    from ..agreement import to_json, to_table

    images = len(next(iter(x.values())))
    if as_json:
        print(json.dumps(to_json(found, images)))
    else:
        out.print(to_table(found, images))


def _print_json(network: Network, result: Result) -> None:
    content = {
        "images": result.images,
        "seconds": result.seconds,
        "steps_per_image": float(result.steps.mean()),
        "latency": network.latency,
        "accuracy": {name: curve.tolist() for name, curve in by_output(network, result.accuracy).items()},
        "spikes_per_image": {name: int(counts.sum()) / result.images for name, counts in result.spike_counts.items()},
    }
    print(json.dumps(content))


def _print_result(network: Network, result: Result) -> None:
    curves = by_output(network, result.accuracy)
    if network.is_phased:
        for name, curve in curves.items():
            out.print(f"accuracy of {name} after phases of {network.timesteps} steps: {curve[-1]:.1%}", highlight=False)
    else:
        out.print(accuracy_table(curves))
    table = Table("population", "neurons", "spikes per image", "rate per neuron and step")
    for name, counts in result.spike_counts.items():
        per_image = counts.sum() / result.images
        rate = per_image / counts.size / result.steps.mean()
        table.add_row(name, str(counts.size), f"{per_image:.1f}", f"{rate:.3f}")
    out.print(table)
    steps = f", shown for {result.steps.mean():.1f} steps on average" if result.steps.min() < result.steps.max() else ""
    out.print(f"{result.images} images in {result.seconds:.2f} s{steps}", highlight=False)
    out.print(
        f"latency: {network.latency} timesteps from an image to its answer; the next may follow after "
        f"{network.timesteps}",
        highlight=False,
    )


def accuracy_table(curves: Mapping[str, np.ndarray]) -> Table:
    """Accuracy at powers of two of timesteps, and at the last."""
    timesteps = len(next(iter(curves.values())))
    steps = sorted({2**k for k in range(timesteps.bit_length())} | {timesteps})
    table = Table("timesteps", *(str(step) for step in steps), title="accuracy against timesteps", title_justify="left")
    for name, curve in curves.items():
        table.add_row(name, *(f"{curve[step - 1]:.1%}" for step in steps))
    return table
