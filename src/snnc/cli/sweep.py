"""Compare pipelines: sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import DEFAULT_PIPELINE, LOWERING
from .app import BackendName, InputShape, ModelFile, Scale, app, input_shapes, note_bytes, out

# What is tried without --pipeline.
PIPELINES = (
    f"{LOWERING},data-norm",
    DEFAULT_PIPELINE,
    f"{LOWERING},data-norm{{per-channel=true,threshold=mse}},bias-correction",
    f"{LOWERING},spike-norm{{percentile=99.9}}",
    f"{LOWERING},few-spike{{k=4,per-channel=true}},bias-correction",
)


@app.command()
def sweep(
    model: ModelFile,
    data: Annotated[
        Path, typer.Option("--data", "-d", help="Images and labels, .npz: `x_test`, `y_test` or `x`, `y`, or by name.")
    ],
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", "-c", help="Training images, .npz or .npy; without it, `x_train` (or `x`) of the data."
        ),
    ] = None,
    pipeline: Annotated[
        list[str] | None,
        typer.Option("--pipeline", "-p", help="A pipeline to try; give several. `snnc passes` lists the passes."),
    ] = None,
    timesteps: Annotated[
        list[str] | None,
        typer.Option(
            "--timesteps", "-t", help="T: how long an image is shown. Give several: `-t 4 -t 8`, or `-t 4,8`."
        ),
    ] = None,
    backend: Annotated[
        BackendName, typer.Option("--backend", "-b", help="The embedded engine, or GeNN through mlGeNN.")
    ] = BackendName.onnxruntime,
    images: Annotated[int, typer.Option(min=1, help="Use at most this many images.")] = 1000,
    scale: Scale = "1",
    input_shape: InputShape = None,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against T, spikes and operations.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the best pipeline and T for a model: accuracy, spikes and synaptic operations of each.

    Every pipeline converts the model for every T, and every conversion is evaluated. A synaptic operation is a spike
    that crosses a synapse; graded inputs send no spikes. Where neurons apply functions, it says how often, too.
    Few-spike networks have a T of their own and run once.

    Without --pipeline, a few common ones are tried; without --timesteps, 4 to 64. At most 512 images calibrate.

    Example: `snnc sweep model.keras --data mnist.npz --scale 1/255 -p data-norm -p "data-norm{percentile=99.9}"
    -t 4,8,16 --plot sweep.png`
    """
    import snnc

    from ..datafiles import read_images, read_labels
    from ..passes import parse
    from ..sweep import TIMESTEPS, to_json, to_table

    durations = _numbers(timesteps) if timesteps else list(TIMESTEPS)
    pipelines = pipeline or PIPELINES
    for text in pipelines:
        parse(text)  # a misspelt pass is found before a large model is read
    loaded = snnc.load(model, inputs=input_shapes(input_shape))
    x = read_images(data, loaded, ("x_test", "x"), scale, images)
    y = read_labels(data, loaded, ("y_test", "y"), images)
    calibrating = read_images(calibration or data, loaded, ("x_train", "x"), scale, 512)
    note_bytes(loaded, x, scale)
    found = snnc.sweep(
        loaded,
        pipelines,
        x,
        y,
        calibration=calibrating,
        timesteps=durations,
        backend=backend.value,
    )
    if plot:
        from ..plot import plot_sweep

        plot_sweep(found, plot)
    if as_json:
        print(json.dumps(to_json(found)))
    else:
        out.print(to_table(found))


def _numbers(texts: list[str]) -> list[int]:
    parts = [part for text in texts for part in text.split(",")]
    if not all(part.strip().isdecimal() and len(part) < 20 for part in parts):
        raise typer.BadParameter(f"--timesteps takes whole numbers, not {' '.join(texts)!r}")
    return [int(part) for part in parts]
