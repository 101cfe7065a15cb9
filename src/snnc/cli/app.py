"""The application: what its commands share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .. import __version__

if TYPE_CHECKING:
    import numpy as np

    from ..ir import Network


app = typer.Typer(
    help="Compile trained neural networks to spiking neural networks.",
    epilog="Start with: snnc demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
out, err = Console(), Console(stderr=True)


class BackendName(StrEnum):
    onnxruntime = "onnxruntime"
    mlgenn = "mlgenn"


class DeviceName(StrEnum):
    gpu = "gpu"
    cpu = "cpu"


ModelFile = Annotated[
    Path, typer.Argument(help="A Keras model (.keras, .h5), a SavedModel folder, or an ONNX model (.onnx).")
]
NetworkFile = Annotated[Path, typer.Argument(help="A network (.snn) written by `snnc convert`, or a model file.")]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Compare the network with the model on random images. [default: if it has fewer than 100 M parameters]",
        show_default=False,
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        help="Sizes that the model file leaves open, batch first: `images=1x3x320x320`. Give one for each input; for "
        "an input of one number, as a sampling rate, the number: `sr=16000`.",
        metavar="NAME=SIZES",
    ),
]
Scale = Annotated[
    str, typer.Option(help="Multiply the images by this number or fraction first, as in training: `1/255` for bytes.")
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a warning, as at an error.")] = False,
) -> None:
    if version:
        print(f"snnc {__version__}")
        raise typer.Exit
    if strict:
        from ..ir import BackendWarning, ModelWarning

        for ours in (BackendWarning, ModelWarning):
            warnings.simplefilter("error", ours)


def input_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]] | None:
    """What `snnc.load` takes as `inputs`, from `--input-shape`."""
    found = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        parts = sizes.split("x")
        if not name or not all(part.isdecimal() and len(part) < 10 for part in parts):
            raise typer.BadParameter(f"--input-shape takes a name and sizes, as in images=1x3x320x320, not {text!r}")
        found[name] = tuple(map(int, parts))
    return found or None


def note_functions(network: Network) -> None:
    """Say how each function is computed, if there are any."""
    from ..functions import computations, to_table

    found = computations(network)
    if found:
        err.print(to_table(found))


def note_bytes(network: Network, data: Mapping[str, np.ndarray] | None, scale: str) -> None:
    real = [array for name, array in (data or {}).items() if network.populations[name].table is None]
    if scale == "1" and max((float(array.max(initial=0)) for array in real), default=0) > 64:
        err.print("note: the images reach above 64; if the model was trained on image / 255, give --scale 1/255")
