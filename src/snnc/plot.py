"""Pictures: accuracy against timesteps, and how every picture is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .ir import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_accuracy(curves: Mapping[str, np.ndarray], path: Path, reference: float | None = None) -> None:
    """Draw accuracy (share of images) against timesteps, one curve per entry, and the ANN's as a dashed line.

    Raises DataError where the picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    for label, accuracy in curves.items():
        axes.plot(np.arange(1, len(accuracy) + 1), accuracy, marker="." if len(accuracy) <= 64 else "", label=label)
    if reference is not None:
        axes.axhline(reference, linestyle="--", color="0.4", label=f"ANN ({reference:.1%})")
    axes.set(xlabel="timesteps", ylabel="accuracy")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture (.png, .svg, .pdf): beside `path` first, then renamed, so that no half-written file is left.

    Figures are made without pyplot, so no display is looked for and nothing needs closing. Raises DataError.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".snnc-", dir=path.parent) as folder:
            beside = Path(folder, f"plot{path.suffix or '.png'}")
            figure.savefig(beside, dpi=150)
            os.replace(beside, path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write the plot {path}: {error}") from None
