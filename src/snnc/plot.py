"""Pictures: accuracy against timesteps and against cost, and how every picture is written."""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .ir import DataError, as_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .sweep import Sweep
    from .tune import Tuning
    from .wish import Trial

_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#c2307f", "#7570b3", "#a6761d", "#444444", "#66a61e", "#e6ab02")
_MARKERS = "os^Dv"


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


def plot_sweep(sweep: Sweep, path: Path) -> None:
    """Draw the accuracies of a sweep against timesteps, spikes and synaptic operations; the ANN's as a dashed line.

    A colour per pipeline and, where there are several, a marker per output. Raises DataError where the picture
    cannot be written.
    """
    from matplotlib.figure import Figure

    across = (
        ("timesteps", 2, [float(point.timesteps) for point in sweep.points]),
        ("spikes per image", 10, [point.spikes_per_image for point in sweep.points]),
        ("synaptic operations per image", 10, [point.synaptic_operations_per_image for point in sweep.points]),
    )
    figure = Figure(figsize=(11, 4 + 0.2 * len(sweep.pipelines)), layout="constrained")
    panels = figure.subplots(1, len(across), sharey=True)
    for axes, (label, base, places) in zip(panels, across, strict=True):
        _curves(axes, sweep, places)
        _log_scale(axes, base, places)
        axes.set(xlabel=label)
    panels[0].set(ylabel="accuracy")
    _legend(figure, sweep)
    save_figure(figure, path)


def _curves(axes: Axes, sweep: Sweep, places: Sequence[float]) -> None:
    """One panel: a curve for each pipeline and output, `places` being where along x each point lies."""
    from matplotlib.ticker import PercentFormatter

    for pipeline, colour in zip(sweep.pipelines, cycle(_COLOURS), strict=False):
        mine = [(x, point) for x, point in zip(places, sweep.points, strict=True) if point.pipeline == pipeline]
        for output, marker in zip(sweep.ann, cycle(_MARKERS), strict=False):
            accuracies = [point.accuracy[output] for _, point in mine]
            size = 5 if len(mine) > 1 else 8  # a single point has no line to be seen by
            axes.plot([x for x, _ in mine], accuracies, marker=marker, markersize=size, color=colour)
    for accuracy in sweep.ann.values():
        axes.axhline(accuracy, linestyle="--", linewidth=1, color="0.4", zorder=1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _log_scale(axes: Axes, base: int, places: Sequence[float]) -> None:
    """A logarithmic x axis with plain numbers: powers of two, or 1, 2, 5 and unit prefixes."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    if min(places) <= 0:  # a network without a single spike
        axes.set_xscale("symlog")
        return
    axes.set_xscale("log", base=base)
    if base == 2:
        axes.xaxis.set_major_formatter("{x:.0f}")
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(places) < 100 * min(places) else (1,)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, sweep: Sweep) -> None:
    """Below the panels, where pipelines of any length have room."""
    from matplotlib.lines import Line2D

    several = len(sweep.ann) > 1
    ann = ", ".join(f"{name} {share:.1%}" if several else f"{share:.1%}" for name, share in sweep.ann.items())
    keys = [
        Line2D([], [], label=textwrap.fill(pipeline.replace(",", ", "), 120), color=colour, marker="o", markersize=5)
        for pipeline, colour in zip(sweep.pipelines, cycle(_COLOURS), strict=False)
    ]
    keys += [
        Line2D([], [], label=output, color="0.4", linestyle="", marker=marker)
        for output, marker in zip(sweep.ann, cycle(_MARKERS), strict=False)
        if several
    ]
    keys.append(Line2D([], [], label=f"ANN ({ann})", color="0.4", linestyle="--", linewidth=1))
    columns = 2 if max(len(str(key.get_label())) for key in keys) <= 64 else 1
    legend = figure.legend(handles=keys, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def plot_tuning(found: Tuning, path: Path) -> None:
    """Draw the accuracies of a search's trials against latency, spikes and synaptic operations, and the front of each.

    A colour per conversion; what was chosen is ringed, the ANN's accuracy a dashed line. Of several outputs, the
    accuracy is that of the one that loses most. Raises DataError where the picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    kinds = dict(zip(dict.fromkeys(map(_conversion, found.trials)), cycle(_COLOURS), strict=False))
    headings = (("latency in timesteps", 2), ("spikes per image", 10), ("synaptic operations per image", 10))
    for place, (axes, (heading, base)) in enumerate(zip(panels, headings, strict=True)):
        for kind, colour in kinds.items():
            mine = [trial for trial in found.trials if _conversion(trial) == kind]
            x, y = [trial.costs[place] for trial in mine], [-trial.loss / 100 for trial in mine]
            axes.plot(x, y, "o", markersize=4, color=colour, label=kind)
        stairs = _stairs(found.trials, place)
        axes.step(*stairs, where="post", color="0.4", linewidth=1, zorder=1)
        x, y = [found.chosen.costs[place]], [-found.chosen.loss / 100]
        axes.plot(x, y, "o", markersize=10, color="black", fillstyle="none", label="chosen")
        axes.axhline(0, linestyle="--", linewidth=1, color="0.4", label="ANN")
        axes.set(xlabel=heading)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        _log_scale(axes, base, [trial.costs[place] for trial in found.trials])
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set(ylabel="accuracy − ANN")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    save_figure(figure, path)


def _conversion(trial: Trial) -> str:
    """The pass that converts, which is what a picture has room for."""
    from .passes import parse

    return next(step.name for step in parse(trial.pipeline) if step.ensures == "spiking")


def _stairs(trials: Sequence[Trial], place: int) -> tuple[list[float], list[float]]:
    """The best accuracy, as a difference from the ANN's, that each cost buys."""
    x, y = list[float](), list[float]()
    for trial in sorted(trials, key=lambda trial: (trial.costs[place], trial.loss)):
        if not y or -trial.loss / 100 > y[-1]:
            x.append(trial.costs[place])
            y.append(-trial.loss / 100)
    return x, y


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture (.png, .svg, .pdf): beside `path` first, then renamed, so that no half-written file is left.

    Figures are made without pyplot, so no display is looked for and nothing needs closing. Raises DataError.
    """
    path = as_path(path, "a plot", DataError)
    try:
        with tempfile.TemporaryDirectory(prefix=".snnc-", dir=path.parent) as folder:
            beside = Path(folder, f"plot{path.suffix or '.png'}")
            figure.savefig(beside, dpi=150)
            os.replace(beside, path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write the plot {path}: {error}") from None
