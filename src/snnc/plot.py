"""Accuracy against timesteps, as a picture."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .ir import DataError


def plot_accuracy(curves: Mapping[str, np.ndarray], path: Path, reference: float | None = None) -> None:
    """Draw accuracy (share of images) against timesteps, one curve per entry, and the ANN's as a dashed line.

    Written beside `path` first, then renamed. Raises DataError where the picture cannot be written.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    figure, axes = plt.subplots(figsize=(6, 3.8), layout="constrained")
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
    try:
        with tempfile.TemporaryDirectory(prefix=".snnc-", dir=path.parent) as folder:
            beside = Path(folder, f"plot{path.suffix or '.png'}")
            figure.savefig(beside, dpi=150)
            os.replace(beside, path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write the plot {path}: {error}") from None
    finally:
        plt.close(figure)
