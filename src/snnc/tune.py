"""From what is wanted to the pipeline that gives it: a search over conversions, their settings and corrections.

T by T, shortest first, candidates are measured on ever more images (successive halving): of those that differ in
settings alone the better half goes on, by the divergence of their probabilities from the model's, and nothing goes on
that another one beats in accuracy, by more than chance, and in every cost. What takes long to correct is corrected only
once the setting is known. Longer T are not tried where they can only cost more.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .agreement import divergence
from .backend import Backend
from .backend.compiled import Result, by_output, told
from .candidates import HEAVY, LIGHT, LONGEST, Candidate, Group, Spikes, by_timesteps
from .ir import (
    DataError,
    Images,
    ModelWarning,
    Network,
    PipelineError,
    SnncError,
    SpikingNeuron,
    as_flag,
    as_inputs,
    as_labels,
    shown,
)
from .journal import Journal, Record
from .sweep import Converter, measure, short
from .wish import Fewest, Trial, Wish, by_latency, front, is_number

if TYPE_CHECKING:
    from rich.table import Table

SHARES = (16, 4, 1)  # of the images: a sixteenth, a quarter, all
LEAST = 32  # images that anything is judged by
CERTAIN = 2.0  # standard errors


@dataclass(frozen=True)
class Tuning:
    """What a search found: the `network` of the pipeline `chosen`, and every trial on all `images` images.

    `ann` is the model's own accuracy by output: 1 where there were no labels, as its own answers stood for them.
    `is_met` says whether the wish is met; where not, `chosen` is what comes nearest.
    """

    wish: Wish
    ann: Mapping[str, float]
    images: int
    labelled: bool
    trials: tuple[Trial, ...]
    chosen: Trial
    network: Network

    @property
    def is_met(self) -> bool:
        """Whether the wish is met."""
        return self.wish.is_met(self.chosen)

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other beats in accuracy and all costs, by latency."""
        return front(self.trials)

    @property
    def verdict(self) -> str:
        """In a line what came of the wish."""
        lost = f"{self.chosen.loss:.2f} points below the model" if self.chosen.loss > 0 else "nothing lost"
        if self.is_met:
            return f"met ({self.wish}): {lost} on {self.images} images"
        return f"not met ({self.wish}): the nearest is {lost} on {self.images} images"


def tune(
    model: Any,
    calibration: Images,
    x: Images,
    y: Any = None,
    *,
    within: float | None = None,
    timesteps: int | None = None,
    fewest: Fewest | None = None,
    spikes: Spikes = "signed",
    backend: Backend = "onnxruntime",
    journal: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Tuning:
    """Search for the pipeline, its settings and T that give what is wanted (`Wish` says what can be).

    `model` is an analog network, or what `load` makes one of. `calibration` are training images for the passes; `x`
    other training images, which alone are chosen on, and `y` their labels as `evaluate` takes them: without, the
    model's own answers are. The first few images sort out most candidates on the embedded engine; all images decide, on
    `backend`. The same input makes the same choice. With a `journal`, a path, each measurement is written down; with
    `resume`, what an earlier search of the same model, images and wish wrote there is not measured again.

    Raises PipelineError for a wish that makes no sense, and where nothing can be converted, DataError for data and
    journals that do not fit, and what `load` and `compile` raise.
    """
    from . import _context, convert, load
    from .backend.onnxruntime import CompiledAnalog
    from .passes.calibration import with_logits

    wish = Wish(within, timesteps, fewest, spikes, backend)
    resume = as_flag(resume, "resume")
    network = model if isinstance(model, Network) else load(model)
    analog = CompiledAnalog(with_logits(network))
    _require_answers(network)
    calibrating = as_inputs(network, calibration, "calibration")
    inputs = as_inputs(network, x)
    labels = None if y is None else as_labels(network, y, _count(inputs))
    inputs, labels = _without_calibration(inputs, labels, calibrating)
    about = _about(network, calibrating, inputs, labels, wish)
    kept = Journal(journal, about, resume)
    reference = _Reference.of(network, by_output(network, analog.predict(inputs, progress=progress)), labels)
    context = _context(calibrating, None, progress=False)
    with _display(reference, wish, progress) as show:
        search = _Search(network, Converter(network, context), inputs, reference, wish, kept, show)
        trials = search.run()
    chosen = wish.best(trials)
    kept.add({"chosen": chosen.pipeline, "timesteps": chosen.timesteps, "met": wish.is_met(chosen)})
    snn = convert(network, chosen.pipeline, calibration=calibrating, timesteps=chosen.timesteps, progress=progress)
    return Tuning(wish, reference.accuracy, _count(inputs), y is not None, tuple(trials), chosen, snn)


@dataclass(frozen=True)
class _Reference:
    """What the model makes of the images: logits by output, its answers, and the labels that both are held to."""

    logits: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    telling_labels: frozenset[str]  # the outputs that tell, of several labels, which hold
    labelled: bool

    @classmethod
    def of(
        cls, network: Network, logits: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray] | None
    ) -> _Reference:
        flat = {name: values.reshape(len(values), -1) for name, values in logits.items()}
        telling = frozenset(
            name
            for name in flat
            if network.populations[name].neuron.tells_labels and (labels is None or labels[name].ndim > 1)
        )
        answers = {name: told(values[None], name in telling)[0] for name, values in flat.items()}
        return cls(flat, answers, labels or answers, telling, labels is not None)

    @property
    def accuracy(self) -> Mapping[str, float]:
        return self.accuracy_of(_count(self.logits))

    def accuracy_of(self, images: int) -> Mapping[str, float]:
        """On the first `images` images."""
        return {
            name: float((answers[:images] == self.labels[name][:images]).mean())
            for name, answers in self.answers.items()
        }

    def judged(self, result: Result, network: Network) -> tuple[float, float]:
        """How far a run's probabilities are from the model's, and the share of its answers that are others."""
        decoded, said = by_output(network, result.decoded), by_output(network, result.predictions)
        images = result.images
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            apart = [
                divergence(decoded[name].reshape(images, -1), logits[:images], name in self.telling_labels)
                for name, logits in self.logits.items()
            ]
        differing = [float((said[name][-1] != answers[:images]).mean()) for name, answers in self.answers.items()]
        return sum(apart), max(differing)


Show = Callable[[Sequence[Trial], str], None]


@dataclass
class _Search:
    """The search itself. What it does next depends on nothing but what was measured."""

    network: Network
    converter: Converter
    x: Mapping[str, np.ndarray]
    reference: _Reference
    wish: Wish
    journal: Journal
    show: Show
    _measured: list[Trial] = field(default_factory=list)
    _refusals: list[str] = field(default_factory=list)

    def run(self) -> list[Trial]:
        """All trials on all images."""
        levels = by_timesteps(self.network, self.wish.timesteps or LONGEST, self.wish.spikes, self.wish.backend)
        for timesteps, groups in levels.items():
            if self._is_settled(timesteps):
                break
            self._level(timesteps, groups)
            self.converter.forget()
        if not self._complete:
            raise PipelineError(f"nothing can be converted so ({self.wish}): {' '.join(self._refusals[:1])}")
        return self._complete

    @property
    def _images(self) -> int:
        return _count(self.x)

    @property
    def _complete(self) -> list[Trial]:
        return [trial for trial in self._measured if trial.images == self._images]

    def _level(self, timesteps: int, groups: Sequence[Group]) -> None:
        """Measure candidates of one T on ever more images, each time the better half of those before."""
        racing = [[each for base in group for each in base.corrected(LIGHT)] for group in groups]
        for rung, share in enumerate(SHARES):
            images = min(self._images, max(self._images // share, LEAST))
            found = [self._trials(candidates, images, timesteps) for candidates in racing]
            beaten = {id(trial) for pairs in found for _, trial in pairs if self._is_hopeless(trial)}
            racing = []
            for pairs in found:
                promising = [pair for pair in pairs if id(pair[1]) not in beaten]
                promising.sort(key=lambda pair: (pair[1].divergence, pair[1].pipeline))
                better = [candidate for candidate, _ in promising[: math.ceil(len(promising) / 2)]]
                heavy = better[0].corrected(HEAVY) if better and rung == 0 else ()
                racing.append([*better, *heavy])

    def _trials(self, candidates: Iterable[Candidate], images: int, timesteps: int) -> list[tuple[Candidate, Trial]]:
        pairs = []
        for candidate in candidates:
            self.show(self._complete, f"T = {timesteps}, {images} images: {candidate.pipeline}")
            trial = self._trial(candidate, images)
            if trial:
                pairs.append((candidate, trial))
        return pairs

    def _trial(self, candidate: Candidate, images: int) -> Trial | None:
        """What a candidate comes to, as the journal says or by measuring; None for what cannot be converted."""
        key = {"pipeline": candidate.pipeline, "for": candidate.timesteps, "images": images}
        record = next((record for record in self.journal.records if key.items() <= record.items()), None)
        if record is None:
            record = {**key, **self._measure(candidate, images)}
            self.journal.add(record)
        if "refused" in record:
            self._refusals.append(f"{candidate.pipeline}: {record['refused']}")
            return None
        trial = _recalled(record)
        if trial not in self._measured:
            self._measured.append(trial)
        return trial

    def _measure(self, candidate: Candidate, images: int) -> Record:
        from . import passes

        steps = (passes.Canonicalise(), *passes.parse(candidate.pipeline))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)  # those of the network that is chosen are shown in the end
            try:
                snn = self.converter.converted(steps, candidate.timesteps)
            except SnncError as error:
                return {"refused": str(error)}
            refusal = self._refusal(snn)
            if refusal:
                return {"refused": refusal}
            x = {name: array[:images] for name, array in self.x.items()}
            y = {name: array[:images] for name, array in self.reference.labels.items()}
            backend = self.wish.backend if images == self._images else "onnxruntime"
            point, result = measure(candidate.pipeline, snn, x, y, backend)
        ann = self.reference.accuracy_of(images)
        apart, differing = self.reference.judged(result, snn)
        if not math.isfinite(apart):
            return {"refused": "its outputs are not finite"}
        return {
            "timesteps": point.timesteps,
            "accuracy": dict(point.accuracy),
            "loss": max(100 * (ann[name] - share) for name, share in point.accuracy.items()),
            "divergence": apart,
            "differing": differing,
            "latency": snn.latency,
            "spikes_per_image": point.spikes_per_image,
            "synaptic_operations_per_image": point.synaptic_operations_per_image,
            "function_evaluations_per_image": point.function_evaluations_per_image,
        }

    def _refusal(self, snn: Network) -> str:
        """Why a network is not what was wished for, if it is not."""
        if self.wish.timesteps and (snn.timesteps or 0) > self.wish.timesteps:
            return f"its phases have {snn.timesteps} steps"
        if self.wish.spikes == "signed":
            return ""
        neurons = {name: population.neuron for name, population in snn.populations.items()}
        signed = [
            name
            for name, neuron in neurons.items()
            if isinstance(neuron, SpikingNeuron) and neuron.fires and neuron.sends_signs
        ]
        return f"the spikes of {', '.join(signed)} have signs" if signed else ""

    def _is_hopeless(self, trial: Trial) -> bool:
        """Whether another trial on the same images is better for certain, at no higher cost."""
        rivals = (other for other in self._measured if other.images == trial.images)
        return any(trial.is_beaten_by(other, _margin(trial, other)) for other in rivals)

    def _is_settled(self, timesteps: int) -> bool:
        """Whether nothing that takes T = `timesteps` or more can be better than what was found already."""
        if not self._complete:
            return False
        best = self.wish.best(self._complete)
        if self.wish.within is None:
            return best.loss <= 0
        if not self.wish.is_met(best):
            return False
        if self.wish.fewest in (None, "steps"):
            return timesteps + min(trial.latency - trial.timesteps for trial in self._complete) >= best.latency
        longest = max(trial.timesteps for trial in self._complete)  # longer runs have more spikes
        last = [trial for trial in self._complete if trial.timesteps == longest]
        return all(self.wish.cost(trial) >= self.wish.cost(best) for trial in last)


def _margin(trial: Trial, other: Trial) -> float:
    """Points of accuracy that two trials on the same images may be apart by chance.

    They differ on images only where one of them is not the model's answer.
    """
    return 100 * CERTAIN * math.sqrt(max(trial.differing + other.differing, 1 / trial.images) / trial.images)


def _recalled(record: Record) -> Trial:
    """A trial as a journal has it. Raises DataError."""
    names = {each.name for each in fields(Trial)}
    try:
        trial = Trial(**{name: value for name, value in record.items() if name in names})
        sizes = (trial.loss, trial.divergence, trial.differing, *trial.costs, trial.timesteps, *trial.accuracy.values())
        sound = all(map(is_number, sizes)) and trial.differing >= 0
    except (TypeError, AttributeError):
        sound = False
    if not sound:
        raise DataError(f"the journal's record of {shown(record.get('pipeline'))} is damaged: begin anew elsewhere")
    return trial


def _count(arrays: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(arrays.values())))


def _require_answers(network: Network) -> None:
    """Raise DataError for outputs that are no classes or labels."""
    outputs = [network.populations[name] for name in network.outputs]
    others = [p.name for p in outputs if p.size != p.shape[-1] or (p.size == 1 and not p.neuron.tells_labels)]
    if others:
        raise DataError(
            f"tune compares classes, and {', '.join(others)} gives none: compare conversions by snnc.agreement"
        )


def _without_calibration(
    x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray] | None, calibration: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Images and labels to choose on, without the images that passes calibrate on. Raises DataError if none is left."""
    seen = set(_digests(calibration))
    kept = np.array([digest not in seen for digest in _digests(x)])
    if not kept.any():
        raise DataError("every image to choose on is a calibration image, too: choose on others")
    if not kept.all():
        warnings.warn(
            f"{np.count_nonzero(~kept)} of {len(kept)} images to choose on are calibration images, too, and left out",
            ModelWarning,
            stacklevel=3,
        )
    chosen = {name: array[kept] for name, array in x.items()}
    return chosen, None if y is None else {name: array[kept] for name, array in y.items()}


def _digests(images: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """Of every image a digest."""
    for each in zip(*images.values(), strict=True):
        yield hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in each)).digest()


def _about(
    network: Network,
    calibration: Mapping[str, np.ndarray],
    x: Mapping[str, np.ndarray],
    y: Mapping[str, np.ndarray] | None,
    wish: Wish,
) -> Record:
    """What a search depends on."""
    from . import __version__

    return {
        "snnc": __version__,
        "model": _digest([str(network).encode()]),
        "calibration": _digest(_digests(calibration)),
        "images": _digest(_digests(x)),
        "labels": _digest(_digests(y)) if y else None,
        "wish": asdict(wish),
    }


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


@contextmanager
def _display(reference: _Reference, wish: Wish, progress: bool) -> Iterator[Show]:
    """Shows the front so far on stderr, if `progress` is wanted and a person is looking."""
    if not (as_flag(progress, "progress") and sys.stderr.isatty()):
        yield lambda trials, doing: None
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), transient=True) as live:

        def show(trials: Sequence[Trial], doing: str) -> None:
            best = wish.best(trials) if trials else None
            table = _table(reference.accuracy, _count(reference.logits), reference.labelled, front(trials), best)
            live.update(Group(table, Text(doing)))

        yield show


def to_table(found: Tuning) -> Table:
    """The Pareto front for a terminal; what was chosen is bold, and stands there even if it is beaten."""
    trials = found.front if found.chosen in found.front else by_latency((*found.front, found.chosen))
    return _table(found.ann, found.images, found.labelled, trials, found.chosen)


def _table(
    ann: Mapping[str, float], images: int, labelled: bool, trials: Sequence[Trial], chosen: Trial | None
) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    several = len(ann) > 1
    shares = ", ".join(f"{share:.2%}{f' ({name})' if several else ''}" for name, share in ann.items())
    against = f"accuracy of the ANN: {shares}" if labelled else "accuracy is agreement with the ANN"
    table = Table(title=f"{images} images; {against}", title_justify="left", title_style="", box=box.SIMPLE)
    table.padding = (0, 1, 0, 0)
    table.add_column("pipeline", overflow="fold", min_width=16)
    accuracies = [f"accuracy\n{name}" if several else "accuracy" for name in ann]
    for heading in ("T", "latency\nin steps", *accuracies, "spikes\nper image", "synaptic\nops / image"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in trials:
        table.add_row(
            Text(trial.pipeline.replace(",", ", ")),  # it still parses, and can be wrapped
            str(trial.timesteps),
            str(trial.latency),
            *(f"{trial.accuracy[name]:.2%}" for name in ann),
            short(trial.spikes_per_image),
            short(trial.synaptic_operations_per_image),
            style="bold" if trial == chosen else "",
        )
    return table


def to_json(found: Tuning) -> dict[str, Any]:
    """What was found, as JSON takes it; the front is that of the trials, by their place among them."""
    return {
        "wish": asdict(found.wish),
        "met": found.is_met,
        "images": found.images,
        "labelled": found.labelled,
        "ann": dict(found.ann),
        "chosen": asdict(found.chosen),
        "front": [found.trials.index(trial) for trial in found.front],
        "trials": [asdict(trial) for trial in found.trials],
    }
