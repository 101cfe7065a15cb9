"""Search for the pipeline that gives what is wanted: tune."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import BackendName, InputShape, ModelFile, Scale, app, err, input_shapes, note_bytes, note_functions, out

if TYPE_CHECKING:
    import numpy as np

    from ..wish import Trial


class FewestName(StrEnum):
    steps = "steps"
    spikes = "spikes"
    operations = "operations"


class SpikesName(StrEnum):
    signed = "signed"
    binary = "binary"


@app.command()
def tune(
    model: ModelFile,
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Training images and labels, .npz: `x_train`, `y_train` or `x`, `y`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the spiking network (.snn).")],
    within: Annotated[
        float | None, typer.Option(min=0, max=100, help="Lose no more than so many points of accuracy, as in 0.5.")
    ] = None,
    timesteps: Annotated[
        int | None,
        typer.Option("--timesteps", "-t", min=1, help="T at most; of few-spike codes, so many bits. [default: 64]"),
    ] = None,
    fewest: Annotated[
        FewestName | None,
        typer.Option(help="Of what is --within, take that of the fewest. [default: steps from an image to its answer]"),
    ] = None,
    spikes: Annotated[SpikesName, typer.Option(help="Whether spikes may have signs.")] = SpikesName.signed,
    backend: Annotated[
        BackendName, typer.Option("--backend", "-b", help="What has to run it: the embedded engine, or GeNN.")
    ] = BackendName.onnxruntime,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            "-c",
            help="Images for the passes, .npz or .npy; without it, the first of the data, which are not chosen on.",
        ),
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="Calibrate with at most this many images.")] = 512,
    images: Annotated[int, typer.Option(min=1, help="Choose on at most this many images.")] = 1000,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Without labels: accuracy is how often the model itself says the same.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a search that was interrupted, from the journal it left.")
    ] = False,
    scale: Scale = "1",
    input_shape: InputShape = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy against latency, spikes and operations (.png, .svg, .pdf).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Search for the pipeline, its settings and T that give what you want, and write that network.

    Say how many points of accuracy may be lost (--within), and what to have the fewest of; or how long an image may be
    shown at most (--timesteps), and get what is nearest to the model. Rate codes, layers that wait, signed spikes and
    few-spike codes are tried, with several ways to balance and to correct them, on training images that the passes
    do not calibrate on. A few images sort out most of them. Keep test images for the network that is chosen.

    What no other candidate beats in accuracy, latency, spikes and synaptic operations is shown while it goes, and
    printed in the end, with the command that makes the network again. If the wish cannot be met, the nearest network is
    written, and the exit status is 1. Every measurement is kept in a journal beside the output (`net.tune.jsonl`):
    after Ctrl-C, or anything worse, the same command with --resume goes on from there.

    Example: `snnc tune model.keras --data train.npz --scale 1/255 --within 0.5 --fewest operations -o net.snn`

    Example: `snnc tune model.keras --data train.npz --scale 1/255 -t 4 --spikes binary -o net.snn --plot front.png`
    """
    import snnc

    from ..datafiles import read_images, read_labels
    from ..ir import DataError
    from ..tune import to_json, to_table
    from ..wish import Wish

    wish = Wish(within, timesteps, fewest.value if fewest else None, spikes.value, backend.value)
    loaded = snnc.load(model, inputs=input_shapes(input_shape))
    skipped = 0 if calibration else calibration_images
    x = read_images(data, loaded, ("x_train", "x"), scale, skipped + images)
    y = None if agreement else read_labels(data, loaded, ("y_train", "y"), skipped + images)
    calibrating = read_images(calibration or data, loaded, ("x_train", "x"), scale, calibration_images)
    note_bytes(loaded, x, scale)
    x, y = _after(x, skipped), None if y is None else _after(y, skipped)
    if not len(next(iter(x.values()))):
        raise DataError(f"calibration takes all images of {data}: give more, or fewer by --calibration-images")
    journal = output.with_suffix(".tune.jsonl")
    if not resume and journal.exists():
        raise DataError(f"{journal} tells of an earlier search: give --resume to go on with it, or remove it")
    try:
        found = snnc.tune(
            loaded,
            calibrating,
            x,
            y,
            within=wish.within,
            timesteps=wish.timesteps,
            fewest=wish.fewest,
            spikes=wish.spikes,
            backend=wish.backend,
            journal=journal,
            resume=resume,
        )
    except KeyboardInterrupt:
        if not journal.exists():
            raise
        err.print(f"interrupted; what was measured is in {journal}: give the same command with --resume to go on")
        raise typer.Exit(1) from None
    snnc.save(found.network, output)
    command = _command(model, output, calibration or data, calibration_images, scale, input_shape, found.chosen)
    if plot:
        from ..plot import plot_tuning

        plot_tuning(found, plot)
    if as_json:
        print(json.dumps({**to_json(found), "command": command}))
    else:
        out.print(to_table(found))
        out.print(found.verdict, highlight=False)
        print(command)
    note_functions(found.network)
    if not found.is_met:
        raise typer.Exit(1)


def _after(arrays: Mapping[str, np.ndarray], skipped: int) -> dict[str, np.ndarray]:
    return {name: array[skipped:] for name, array in arrays.items()}


def _command(
    model: Path,
    output: Path,
    calibration: Path,
    images: int,
    scale: str,
    input_shape: list[str] | None,
    chosen: Trial,
) -> str:
    """What makes the network again, for a shell."""
    words = ["snnc", "convert", str(model), "--calibration", str(calibration), "--images", str(images)]
    words += [] if scale == "1" else ["--scale", scale]
    words += [word for each in input_shape or () for word in ("--input-shape", each)]
    words += ["--pipeline", chosen.pipeline, "--timesteps", str(chosen.timesteps), "--output", str(output)]
    return shlex.join(words)
