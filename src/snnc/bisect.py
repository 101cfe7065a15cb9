"""Which pass costs the accuracy: run a pipeline, measure after every pass, stop at the first that falls too low.

The scan is linear on purpose. Binary search would measure less, but finds the first drop only if accuracy, once below
the floor, stays below it to the end, and a later pass may well repair what an earlier one broke. The passes have to run
in order anyway, and the scan stops at the first bad one, so that nothing beyond it is made or measured.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

import snnc

from .backend.compiled import by_output
from .backend.onnxruntime import CompiledAnalog, CompiledEngine
from .ir import DataError, Images, Network, PipelineError, as_inputs, as_labels, as_path, save, shown
from .passes import Context, Instrument, Pass, to_text

# What a reproducer holds at most of either kind of image; more stays where it is.
LARGEST_COPY = 256 * 2**20


@dataclass(frozen=True)
class Measurement:
    """The accuracy of the network that pass `number` made, a share of images; number 0 is the network as given."""

    number: int
    step: Pass | None
    accuracy: float

    def __str__(self) -> str:
        return f"pass {self.number} ({to_text((self.step,))})" if self.step else "the network as given"


@dataclass(frozen=True, eq=False)
class Bisection:
    """What a bisection measured, in order, and on what; it stopped at the first accuracy below `floor`.

    `before` is the network that the last measured pass was given: the input of the bad pass, if there is one. A pass
    that compares with the analog network cannot run on that alone: `before` is then the analog network, and
    `leading` are the passes that led on from it.
    `x`, `y` and `calibration` map input and output names to arrays. `timesteps` is the T of the conversion.
    """

    floor: float
    measured: tuple[Measurement, ...]
    before: Network
    leading: tuple[Pass, ...]
    x: Mapping[str, np.ndarray]
    y: Mapping[str, np.ndarray]
    calibration: Mapping[str, np.ndarray] | None
    timesteps: int | None

    @property
    def bad(self) -> Measurement | None:
        """The first measurement below the floor; its number is 0 if the network was bad before any pass."""
        return self.measured[-1] if self.measured[-1].accuracy < self.floor else None

    @property
    def verdict(self) -> str:
        """What was found, in one sentence."""
        bad = self.bad
        if bad is None:
            return f"accuracy stays at or above {self.floor:.2%} after every pass"
        if bad.step is None:
            return f"{bad} has an accuracy of {bad.accuracy:.2%}, below {self.floor:.2%} before any pass"
        return (
            f"{bad} takes accuracy from {self.measured[-2].accuracy:.2%} to {bad.accuracy:.2%}, below {self.floor:.2%}"
        )


def bisect(
    network: Network,
    pipeline: str | Sequence[Pass],
    x: Images,
    y: Any,
    floor: float,
    *,
    calibration: Images | None = None,
    timesteps: int | None = None,
    progress: bool = True,
) -> Bisection:
    """Find the first pass after which the accuracy on `x`, `y` is below `floor`, a share of the images.

    The passes run as they stand, like those of `snnc.run_pipeline`: `snnc.convert` puts `canonicalise` in front, this
    does not. `calibration` and `timesteps` are as there, `x` and `y` as in `evaluate`. Raises DataError for data that
    does not fit, and whatever the passes raise.
    """
    if not (isinstance(floor, Real) and 0 <= floor <= 1):
        raise DataError(f"the accuracy floor is a share of the images, from 0 to 1, not {shown(floor)}")
    inputs = as_inputs(network, x)
    labels = as_labels(network, y, len(next(iter(inputs.values()))))
    images = None if calibration is None else as_inputs(network, calibration, "calibration")
    scan = _Scan(inputs, labels, floor, progress)
    with suppress(_BelowFloor):
        snnc.run_pipeline(
            network, pipeline, calibration=images, timesteps=timesteps, instruments=[scan], progress=progress
        )
    return Bisection(floor, tuple(scan.measured), scan.given, scan.leading, inputs, labels, images, timesteps)


def to_table(bisection: Bisection) -> Table:
    """What was measured, for a terminal: a line per network, the bad one in red."""
    table = Table(
        "after", "accuracy", title=f"accuracy after each pass, floor {bisection.floor:.2%}", title_justify="left"
    )
    for measurement in bisection.measured:
        style = "bold red" if measurement is bisection.bad else None
        table.add_row(escape(str(measurement)), f"{measurement.accuracy:.2%}", style=style)
    return table


def to_json(bisection: Bisection) -> dict[str, Any]:
    """What was measured, as JSON takes it; `bad` is the number of the first bad pass, 0 for the start, or null."""
    measured = [
        {"number": m.number, "pass": to_text((m.step,)) if m.step else None, "accuracy": m.accuracy}
        for m in bisection.measured
    ]
    bad = bisection.bad.number if bisection.bad else None
    return {"floor": bisection.floor, "bad": bad, "verdict": bisection.verdict, "measured": measured}


def measure(network: Network, x: Images, y: Any, *, progress: bool = True) -> float:
    """The accuracy of an analog or a spiking network after its last step; of several outputs, the mean."""
    if not network.is_spiking:
        return float(np.mean(list(CompiledAnalog(network).accuracy(x, y, progress=progress).values())))
    curves = CompiledEngine(network).evaluate(x, y, progress=progress).accuracy
    return float(np.mean([curve[-1] for curve in by_output(network, curves).values()]))


def write_reproducer(bisection: Bisection, folder: Path) -> None:
    """Write a folder that shows the bad pass alone: its input, its text, the data, and the commands to run.

    `before.snn`, `pipeline.txt`, `data.npz`, `calibration.npz` and `reproduce.sh`. Data larger than 256 MiB are
    not copied; the script then says what is missing. The folder is made under another name first, so it is there whole
    or not at all. Raises PipelineError where no pass is to blame, DataError where it cannot be written or is not empty.
    """
    if bisection.bad is None or bisection.bad.step is None:
        raise PipelineError(f"there is nothing to reproduce: {bisection.verdict}")
    folder = as_path(folder, "a reproducer's folder", DataError)
    try:
        with tempfile.TemporaryDirectory(prefix=".snnc-", dir=folder.absolute().parent) as beside:
            made = Path(beside, "reproducer")
            made.mkdir()
            _write_files(bisection, bisection.bad.step, made)
            os.replace(made, folder)
    except OSError as error:
        raise DataError(f"cannot write the reproducer {folder}: {error.strerror or error}") from None


class _BelowFloor(Exception):
    """Ends the run of the passes."""


class _Scan(Instrument):
    """Measures after every pass and stops at the first accuracy below the floor."""

    def __init__(self, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray], floor: float, progress: bool):
        self.measured: list[Measurement] = []
        self.given: Network
        self.leading: tuple[Pass, ...] = ()
        self._since_analog: tuple[Pass, ...] = ()
        self._data = x, y
        self._floor = floor
        self._progress = progress

    def start(self, passes: Sequence[Pass], network: Network, context: Context) -> None:
        self.given = network
        self._measure(0, None, network)

    def after(self, number: int, step: Pass, before: Network, after: Network, context: Context) -> None:
        needs_analog = step.needs_analog and context.analog is not None
        self._since_analog = self._since_analog if before.is_spiking else ()
        self.leading = self._since_analog if needs_analog else ()
        self.given = context.analog if needs_analog and context.analog else before
        self._since_analog += (step,)
        self._measure(number, step, after)

    def _measure(self, number: int, step: Pass | None, after: Network) -> None:
        accuracy = measure(after, *self._data, progress=self._progress)
        self.measured.append(Measurement(number, step, accuracy))
        if accuracy < self._floor:
            raise _BelowFloor


def _write_files(bisection: Bisection, step: Pass, folder: Path) -> None:
    save(bisection.before, folder / "before.snn")
    (folder / "pipeline.txt").write_text(f"{to_text((*bisection.leading, step))}\n", "utf-8")
    notes = [bisection.verdict]
    arrays = {"data.npz": {**bisection.x, **bisection.y}, "calibration.npz": bisection.calibration or {}}
    for name, content in arrays.items():
        size = sum(array.nbytes for array in content.values())
        if size > LARGEST_COPY:
            notes.append(f"{name} is not here, it would take {size / 2**20:.0f} MiB: put it beside this file.")
        elif content:
            np.savez_compressed(folder / name, **content)  # type: ignore[arg-type]
    script = folder / "reproduce.sh"
    script.write_text(_script(bisection, step, notes), "utf-8")
    script.chmod(0o755)


def _script(bisection: Bisection, step: Pass, notes: Sequence[str]) -> str:
    calibration = ""
    if bisection.calibration is not None:
        calibration = f" --calibration calibration.npz --images {len(next(iter(bisection.calibration.values())))}"
    timesteps = f" --timesteps {bisection.timesteps}" if bisection.timesteps else ""
    pipeline = shlex.quote(to_text((*bisection.leading, step)))
    return "\n".join(
        [
            "#!/bin/sh",
            *(f"# {note}" for note in notes),
            'set -ex && cd "$(dirname "$0")"',
            "snnc evaluate before.snn --data data.npz",
            f"snnc opt before.snn -p {pipeline}{calibration}{timesteps} -o after.snn",
            "snnc evaluate after.snn --data data.npz",
            "",
        ]
    )
