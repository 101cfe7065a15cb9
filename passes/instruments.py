"""Instruments: what to look at while passes run.

network = run(passes, network, context, [Print(), Dump("steps"), Time(), CheckEquivalence()])

They cost nothing when they are not in that list, and none of them changes a network.
"""

from __future__ import annotations

import difflib
import re
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..ir import Images, Network, PipelineError, as_inputs, as_path, load, save
from .manager import Context, Instrument, Pass
from .pipeline import parse, to_text

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Print(Instrument):
    """Print the text form around passes, on stderr or on `console`; in colour on a terminal.

    `when` says what: the whole network `before` or `after` each pass, or, where the pass `changed` something, the
    difference of the two texts. `only` names the passes to print; None is all of them.
    """

    when: Literal["before", "after", "changed"] = "changed"
    only: frozenset[str] | None = None
    console: Console | None = None

    def before(self, number: int, step: Pass, network: Network, context: Context) -> None:
        if self.when == "before" and self._is_meant(step):
            self._show([f"# before pass {number} ({step.name})", *str(network).splitlines()])

    def after(self, number: int, step: Pass, before: Network, after: Network, context: Context) -> None:
        if self.when == "before" or not self._is_meant(step):
            return
        title = f"after pass {number} ({step.name})"
        if self.when == "after":
            self._show([f"# {title}", *str(after).splitlines()])
            return
        old, new = str(before).splitlines(), str(after).splitlines()
        self._show(difflib.unified_diff(old, new, "before", title, lineterm=""))

    def _is_meant(self, step: Pass) -> bool:
        return self.only is None or step.name in self.only

    def _show(self, lines: Iterable[str]) -> None:
        from rich.text import Text

        console = self.console or _stderr()
        for line in lines:
            console.print(Text(line, _STYLES.get(line[:1], "")), soft_wrap=True)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


_STYLES = {"+": "green", "-": "red", "@": "cyan", "#": "cyan"}


@dataclass(frozen=True)
class Dump(Instrument):
    """Write the network and its text form into `folder`: `000-input.snn` and `.txt`, then `001-<pass>` and so on.

    `pipeline.txt` holds the pipeline, so that `resume` can go on from any of the files. The folder is made where it
    does not exist; the numbered files of an earlier dump in it are removed. Raises PipelineError or NetworkFileError
    where it cannot be written.
    """

    folder: str | PathLike[str]

    def start(self, passes: Sequence[Pass], network: Network, context: Context) -> None:
        folder = as_path(self.folder, "a dump's folder", PipelineError)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in _dumped(folder):
                path.unlink()
                path.with_suffix(".txt").unlink(missing_ok=True)
            (folder / _PIPELINE).write_text(to_text(passes) + "\n")
        except OSError as error:
            raise PipelineError(f"cannot dump into {folder}: {error.strerror or error}") from None
        self._write(0, "input", network)

    def after(self, number: int, step: Pass, before: Network, after: Network, context: Context) -> None:
        self._write(number, step.name, after)

    def _write(self, number: int, name: str, network: Network) -> None:
        path = Path(self.folder) / f"{number:03d}-{name}.snn"
        save(network, path)
        try:
            path.with_suffix(".txt").write_text(str(network), "utf-8")
        except OSError as error:
            raise PipelineError(f"cannot dump into {path.parent}: {error.strerror or error}") from None


_PIPELINE = "pipeline.txt"


def resume(path: str | PathLike[str]) -> tuple[Network, tuple[Pass, ...]]:
    """The network of a dump, and the passes that remain to be run on it.

    `path` is one of the dump's numbered network files, or its folder: that is the last file in it. Running these
    passes gives what the dumped run gave, or would have given; calibration images and timesteps are the context's
    and not in the dump. Raises PipelineError where there is no dump, NetworkFileError for a damaged file.
    """
    path = as_path(path, "a dump", PipelineError)
    folder = path if path.is_dir() else path.parent
    try:
        pipeline = (folder / _PIPELINE).read_text().strip()
        dumped = _dumped(folder)
    except OSError as error:
        raise PipelineError(f"{folder} does not hold a dump: {error.strerror or error}") from None
    chosen = dumped[-1:] if path == folder else [file for file in dumped if file == path]
    if not chosen:
        raise PipelineError(f"{path}: not a dumped network; there are: {', '.join(f.name for f in dumped) or 'none'}")
    passes = parse(pipeline) if pipeline else ()
    return load(chosen[0]), passes[_number(chosen[0]) :]


def _dumped(folder: Path) -> list[Path]:
    """The network files of a dump, in order."""
    found = [path for path in folder.iterdir() if re.fullmatch(r"\d{3,}-[a-z0-9-]+\.snn", path.name)]
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


@dataclass
class Time(Instrument):
    """A table of what each pass cost, once the passes are through or one has failed.

    On stderr, or on `console`. Seconds are of wall time, with the verification of the network after the pass. Memory
    is the most that was allocated at once beyond what was held when the pass began, in MiB, as tracemalloc sees it:
    all of Python's and numpy's memory, but not what onnxruntime or a kernel allocates for itself. Tracing slows a
    pass a little. Give it last, nearest to the pass: else what other instruments do counts as the pass's own.
    """

    console: Console | None = None
    _rows: list[tuple[str, str, float, float]] = field(default_factory=list, init=False, repr=False)
    _running: tuple[int, Pass, float, int] | None = field(default=None, init=False, repr=False)
    _traces: bool = field(default=False, init=False, repr=False)

    def start(self, passes: Sequence[Pass], network: Network, context: Context) -> None:
        self._traces = not tracemalloc.is_tracing()
        if self._traces:
            tracemalloc.start()

    def before(self, number: int, step: Pass, network: Network, context: Context) -> None:
        tracemalloc.reset_peak()
        self._running = (number, step, time.perf_counter(), tracemalloc.get_traced_memory()[0])

    def after(self, number: int, step: Pass, before: Network, after: Network, context: Context) -> None:
        self._stop("")

    def finish(self) -> None:
        self._stop(" (failed)")
        if self._traces:
            tracemalloc.stop()
        if self._rows:
            self._show()
        self._rows, self._traces = [], False

    def _stop(self, remark: str) -> None:
        if self._running is None:
            return
        number, step, began, held = self._running
        seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
        self._rows.append((str(number), step.name + remark, seconds, (peak - held) / 2**20))
        self._running = None

    def _show(self) -> None:
        from rich import box
        from rich.table import Table

        table = Table("", "pass", box=box.SIMPLE)
        table.add_column("seconds", justify="right")
        table.add_column("peak memory, MiB", justify="right")
        for number, name, seconds, peak in self._rows:
            table.add_row(number, name, f"{seconds:.3f}", f"{peak:.1f}")
        total, largest = sum(row[2] for row in self._rows), max((row[3] for row in self._rows), default=0.0)
        table.add_section()
        table.add_row("", "all", f"{total:.3f}", f"{largest:.1f}")
        (self.console or _stderr()).print(table)


@dataclass(frozen=True, eq=False)
class CheckEquivalence(Instrument):
    """Hold every pass that `keeps_function` to it: the analog networks before and after it, on the same images.

    Populations of the same name are compared, the first in topological order first; no image may evoke activations
    that are further apart than `tolerance`, as a share of the population's largest activation on that image. The
    inputs and outputs have to be the same. The images are `images`, (images, *input shape) or a mapping for several
    inputs; else the first `count` of the context's calibration images; else `count` random ones from `seed`.

    Raises PipelineError with the pass, the first population that differs and by how much.
    """

    images: Images | None = None
    count: int = 32
    seed: int = 0
    tolerance: float = 1e-4

    def after(self, number: int, step: Pass, before: Network, after: Network, context: Context) -> None:
        if not step.keeps_function or before.is_spiking:  # spiking networks have no analog semantics
            return
        found = _interface(before, after) or self._first_difference(before, after, context)
        if found:
            raise PipelineError(f"pass {number} ({step.name}) changes what the network computes: {found}")

    def _first_difference(self, before: Network, after: Network, context: Context) -> str | None:
        if context.activations is None:
            raise PipelineError("check-equivalence runs the analog network: the context needs activations=…")
        names = [name for name in after.order if name in before.populations]
        worst = dict.fromkeys(names, (0.0, 0.0, 0.0))
        images = self._inputs(before, context)
        runs = (_one_by_one(context.activations(network, images)) for network in (before, after))
        for expected, found in zip(*runs, strict=True):
            largest = max(float(np.abs(values).max()) for values in expected.values())
            for name in names:
                worst[name] = max(worst[name], self._excess(expected[name], found[name], largest))
        for name, (excess, absolute, relative) in worst.items():
            if excess > 0:
                return (
                    f"population {name!r} differs by up to {absolute:.3g}, relative to its largest activation "
                    f"{relative:.3g}, where {self.tolerance:g} is allowed"
                )
        return None

    def _excess(self, expected: np.ndarray, found: np.ndarray, largest: float) -> tuple[float, float, float]:
        """How far two activations are apart beyond what is allowed; and how far at all, absolute and relative."""
        with np.errstate(invalid="ignore"):  # infinities
            apart = np.where(expected == found, 0, np.abs(expected - found))
        absolute, scale = float(np.nan_to_num(apart, nan=np.inf).max()), float(np.abs(expected).max())
        # What cancels to (almost) nothing keeps the rounding errors of the larger numbers that it came from.
        allowed = self.tolerance * scale + float(np.finfo(np.float32).eps) * largest
        return absolute - allowed, absolute, absolute / scale if scale else np.inf

    def _inputs(self, network: Network, context: Context) -> dict[str, np.ndarray]:
        if self.images is not None:
            return as_inputs(network, self.images)
        if context.calibration is not None:
            calibration = as_inputs(network, context.calibration, "calibration")
            return {name: images[: self.count] for name, images in calibration.items()}
        rng = np.random.default_rng(self.seed)
        shapes = {name: network.populations[name].shape for name in network.inputs}
        # From faint images, where biases show, to glaring ones, which reach the clips.
        spread = np.geomspace(0.1, 10, self.count)
        return {
            name: np.moveaxis(rng.standard_normal((*shape, self.count)) * spread, -1, 0)
            for name, shape in shapes.items()
        }


def _interface(before: Network, after: Network) -> str | None:
    """How inputs, outputs or the shapes of populations differ, if they do."""
    for what in ("inputs", "outputs"):
        if getattr(before, what) != getattr(after, what):
            return f"the {what} were {', '.join(getattr(before, what))} and are {', '.join(getattr(after, what))}"
    for name, population in before.populations.items():
        shape = after.populations.get(name, population).shape
        if shape != population.shape:
            return f"population {name!r} had shape {population.shape} and has {shape}"
    return None


def _one_by_one(batches: Iterator[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """The activations of one image after the other: batches differ in size between networks."""
    for batch in batches:
        for image in range(len(next(iter(batch.values())))):
            yield {name: values[image] for name, values in batch.items()}
