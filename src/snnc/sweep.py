"""Several pipelines × timesteps on one model: accuracy, spikes and synaptic operations of each.

The images are streamed for calibration once. Pipelines that begin with the same passes share the networks that those
make, so the statistics that are collected on one serve all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from .backend import Backend, compile
from .backend.compiled import CompiledSpiking, Result, by_output, track
from .ir import LARGEST_T, Images, Network, PipelineError, as_inputs, as_labels, as_tuple, is_timesteps, shown
from .ir.cost import function_evaluations, synaptic_operations

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from .passes import Context, Pass

    Pipeline = str | Sequence[Pass]
    Steps = tuple[Pass, ...]

TIMESTEPS = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Point:
    """What one pipeline, converting for T = `timesteps`, comes to.

    `accuracy` is a share of the images, by output. `spikes_per_image` are those of all populations that fire, inputs
    too; `synaptic_operations_per_image` the synapses that they cross (`snnc.ir.cost`), to which graded inputs add
    nothing; `function_evaluations_per_image` what neurons evaluate beside that, where they are more than rectifiers.
    `seconds` is how long all images took. In a few-spike network T is the length of a phase, and an answer takes one
    phase for every layer; in others it takes T steps, plus one for every layer.
    """

    pipeline: str
    timesteps: int
    accuracy: Mapping[str, float]
    spikes_per_image: float
    synaptic_operations_per_image: float
    seconds: float
    function_evaluations_per_image: int = 0


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep over `images` images, by pipeline and then by timesteps, and the ANN's accuracy by output.

    Pipelines are called by their text, or by the label that they were given under.
    """

    ann: Mapping[str, float]
    points: tuple[Point, ...]
    images: int

    @property
    def pipelines(self) -> tuple[str, ...]:
        """The pipelines, in the order in which they were given."""
        return tuple(dict.fromkeys(point.pipeline for point in self.points))

    def of(self, pipeline: str) -> tuple[Point, ...]:
        """The points of one pipeline, in order of timesteps. Raises KeyError."""
        if pipeline not in self.pipelines:
            raise KeyError(f"no pipeline {pipeline!r} in this sweep; there are: {'; '.join(self.pipelines)}")
        return tuple(point for point in self.points if point.pipeline == pipeline)

    def at(self, pipeline: str, timesteps: int) -> Point:
        """The point of one pipeline at T = `timesteps`. Raises KeyError."""
        points = {point.timesteps: point for point in self.of(pipeline)}
        if timesteps not in points:
            raise KeyError(f"{pipeline!r} was not run for {timesteps} timesteps, but for {', '.join(map(str, points))}")
        return points[timesteps]


def sweep(
    network: Network,
    pipelines: Sequence[Pipeline] | Mapping[str, Pipeline],
    x: Images,
    y: Any,
    *,
    calibration: Images,
    timesteps: Sequence[int] = TIMESTEPS,
    backend: Backend = "onnxruntime",
    progress: bool = True,
) -> Sweep:
    """Convert an analog network by each pipeline for each of `timesteps`, and evaluate every conversion.

    `pipelines` are texts or sequences of passes, or a mapping from labels of your own to those; as in `convert`, each
    is run on the canonical network. `x` and `y` are images and labels as `evaluate` takes them, `calibration`
    images as `convert` does. A few-spike network knows its own number of timesteps, and gives one point only.

    All conversions are made before the first is evaluated, so what cannot be converted is found early. Raises
    PipelineError for a pipeline that does not parse, cannot run or does not end in a spiking network, DataError for
    data that does not fit, UnsupportedModelError with every population that a pass cannot convert, BackendError.
    """
    from . import _context
    from .backend.onnxruntime import CompiledAnalog

    wanted, durations = _parsed(pipelines), _checked(timesteps)
    analog = CompiledAnalog(network)
    inputs = as_inputs(network, x)
    images = len(next(iter(inputs.values())))
    labels = as_labels(network, y, images)
    context = _context(as_inputs(network, calibration, "calibration"), None, progress)
    ann = analog.accuracy(inputs, labels, progress=progress)
    converter = Converter(network, context)
    runs = [(label, snn) for label, steps in wanted.items() for snn in converter.conversions(steps, durations)]
    points = []
    with track(f"{len(runs)} runs on {images} images", sum(snn.timesteps or 0 for _, snn in runs), progress) as advance:
        for label, snn in runs:
            points.append(measure(label, snn, inputs, labels, backend)[0])
            advance(snn.timesteps or 0)
    return Sweep(ann, tuple(points), images)


def to_table(sweep: Sweep) -> Table:
    """The points for a terminal, a section per pipeline; the best accuracy at each number of timesteps is bold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    several = len(sweep.ann) > 1
    ann = ", ".join(f"{accuracy:.2%}{f' ({name})' if several else ''}" for name, accuracy in sweep.ann.items())
    title = f"{sweep.images} images; accuracy of the ANN: {ann}"
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("pipeline", overflow="fold", min_width=16)
    accuracies = [f"accuracy\n{name}" if several else "accuracy" for name in sweep.ann]
    evaluates = _evaluates(sweep)
    evaluations = ["function\nevals / image"] if evaluates else []
    for heading in ("T", *accuracies, "spikes\nper image", "synaptic\nops / image", *evaluations):
        table.add_column(heading, justify="right", no_wrap=True)
    for pipeline in sweep.pipelines:
        for place, point in enumerate(sweep.of(pipeline)):
            table.add_row(
                Text("" if place else pipeline.replace(",", ", ")),  # it still parses, and can be wrapped
                str(point.timesteps),
                *(Text(f"{point.accuracy[name]:.2%}", _style(sweep, point, name)) for name in sweep.ann),
                short(point.spikes_per_image),
                short(point.synaptic_operations_per_image),
                *([short(point.function_evaluations_per_image)] if evaluates else []),
            )
        table.add_section()
    return table


def to_json(sweep: Sweep) -> dict[str, Any]:
    """The sweep as JSON takes it; with evaluations of functions if there are any."""
    evaluates = _evaluates(sweep)
    points = [
        {
            "pipeline": point.pipeline,
            "timesteps": point.timesteps,
            "accuracy": dict(point.accuracy),
            "spikes_per_image": point.spikes_per_image,
            "synaptic_operations_per_image": point.synaptic_operations_per_image,
            "seconds": point.seconds,
            **({"function_evaluations_per_image": point.function_evaluations_per_image} if evaluates else {}),
        }
        for point in sweep.points
    ]
    return {"images": sweep.images, "ann": dict(sweep.ann), "points": points}


def _evaluates(sweep: Sweep) -> bool:
    """Whether any network applies functions that are more than rectifiers."""
    return any(point.function_evaluations_per_image for point in sweep.points)


class Converter:
    """Runs pipelines, and keeps what their passes made: what two pipelines begin with is made once."""

    def __init__(self, network: Network, context: Context):
        self._network = network
        self._context = context
        self._made: list[tuple[Steps, int, Network]] = []

    def conversions(self, steps: Steps, durations: Sequence[int]) -> list[Network]:
        """The spiking networks that `steps` make for each T; only one of a few-spike network, which has a T of its own.

        Passes may look at T, so every T is converted for.
        """
        first = self.converted(steps, durations[0])
        return [first] if first.is_phased else [first, *(self.converted(steps, t) for t in durations[1:])]

    def converted(self, steps: Steps, timesteps: int) -> Network:
        """The network that `steps` make for T = `timesteps`."""
        from . import passes

        if not steps:
            return self._network
        for known, duration, network in self._made:
            if (known, duration) == (steps, timesteps):
                return network
        before = self.converted(steps[:-1], timesteps)
        analog = tuple(takewhile(lambda step: step.ensures != "spiking", steps))
        source = self.converted(analog, timesteps) if before.is_spiking else None
        made = passes.run(steps[-1:], before, replace(self._context, timesteps=timesteps, analog=source))
        if not made.is_spiking:
            # Statistics belong to the network that they were collected on: equal networks have to be one and the same.
            made = next((network for *_, network in self._made if not network.is_spiking and network == made), made)
        self._made.append((steps, timesteps, made))
        return made

    def forget(self) -> None:
        """Let go of spiking networks, which nobody will build upon again."""
        self._made = [entry for entry in self._made if not entry[2].is_spiking]


def measure(
    pipeline: str, snn: Network, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray], backend: Backend
) -> tuple[Point, Result]:
    """The point of a conversion on images `x` with labels `y`, as they are checked, and the run that it comes from."""
    compiled = compile(snn, backend)
    assert isinstance(compiled, CompiledSpiking)  # the pipeline's last pass ensures it
    result = compiled.evaluate(x, y, progress=False)
    assert snn.timesteps is not None  # verified
    point = Point(
        pipeline,
        snn.timesteps,
        {name: float(curve[-1]) for name, curve in by_output(snn, result.accuracy).items()},
        sum(int(counts.sum()) for counts in result.spike_counts.values()) / result.images,
        synaptic_operations(snn, result.spike_counts) / result.images,
        result.seconds,
        sum(function_evaluations(snn).values()),
    )
    return point, result


def _parsed(pipelines: Sequence[Pipeline] | Mapping[str, Pipeline]) -> dict[str, Steps]:
    """The passes of each pipeline, canonicalisation first, by label."""
    from . import passes

    if isinstance(pipelines, str):
        raise PipelineError(f"pipelines are given in a list or a mapping, even a single one: [{pipelines!r}]")
    if isinstance(pipelines, Mapping):
        labelled: list[tuple[Any, Any]] = [*pipelines.items()]
    else:
        given = as_tuple(pipelines, object, "pipelines are given in a list or a mapping", PipelineError)
        labelled = [(None, pipeline) for pipeline in given]
    parsed: dict[str, Steps] = {}
    for label, pipeline in labelled:
        steps = passes.as_passes(pipeline)
        text = passes.to_text(steps)
        if not steps or steps[-1].ensures != "spiking":
            raise PipelineError(f"the pipeline {text!r} does not end in a spiking network; let it end in data-norm")
        parsed[str(label or text)] = (passes.Canonicalise(), *steps)
    if not parsed:
        raise PipelineError("there is no pipeline to sweep over")
    return parsed


def _checked(timesteps: Sequence[int]) -> list[int]:
    expected = f"a sweep needs one number of timesteps or more in a list, each from 1 to {LARGEST_T:,}"
    durations: tuple[Any, ...] = as_tuple(timesteps, object, expected, PipelineError)
    if not durations or not all(map(is_timesteps, durations)):
        raise PipelineError(f"{expected}, not {shown(timesteps)}")
    return sorted(set(map(int, durations)))


def _style(sweep: Sweep, point: Point, output: str) -> str:
    """Bold for the best of several pipelines that ran as long."""
    rivals = [other.accuracy[output] for other in sweep.points if other.timesteps == point.timesteps]
    return "bold" if len(rivals) > 1 and point.accuracy[output] == max(rivals) else ""


def short(number: float) -> str:
    """Three digits and a unit: 1234567 as 1.23 M."""
    rounded = float(f"{number:.3g}")
    size, unit = next((pair for pair in _UNITS if rounded >= pair[0]), (1.0, ""))
    return f"{rounded / size:#.3g}".rstrip(".") + unit


_UNITS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
