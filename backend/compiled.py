"""What every backend gives back: a compiled network, its results, and the reductions that they share."""

from __future__ import annotations

import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ir import (
    BackendError,
    DataError,
    Images,
    ModelWarning,
    Network,
    Population,
    Sigmoid,
    Softmax,
    SpikingNeuron,
    as_flag,
    as_inputs,
    as_labels,
    as_names,
    is_whole,
    shown,
)

_SLACK = 0.1  # of the range; so far beyond what spikes say, images lose little

PerOutput = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Recording:
    """What a spiking network did on some images; every array is in the order of the images.

    `spike_counts`: population that fires → (images, *shape), int32; negative spikes of a signed input count too.
    `potentials`: population that integrates → membrane potential after the last step, (images, *shape).
    `decoded`: output → activation decoded after each step, (T, images, *shape), in the ANN's units. A few-spike
    network has its answer only when a phase is over: (1, images, *shape).
    `trains`: population that fires and was recorded → spikes, (T, images, *shape), int8: 1, or −1 for a negative
    spike; None where nothing was. Step t of a train is step t of the population's own window.
    `steps`: how long each image was shown, (images,), where that may be shorter than T.
    """

    spike_counts: Mapping[str, np.ndarray]
    potentials: Mapping[str, np.ndarray]
    decoded: Mapping[str, np.ndarray]
    trains: Mapping[str, np.ndarray] | None = None
    steps: np.ndarray | None = None


@dataclass(frozen=True)
class Wanted:
    """What a run is to keep: the trains of some populations, by name, and whether counts and potentials of each image.

    Without those of each image, counts are summed over images, (1, *shape), by part or in the last part for all, and
    there are no potentials. An image may then be shown for less than T: it stops after `until_stable` steps in which
    its prediction did not change, and what it decoded last stands for the rest.
    """

    trains: frozenset[str] = frozenset()
    each_image: bool = True
    until_stable: int | None = None


TOTALS = Wanted(each_image=False)


@dataclass(frozen=True)
class Result:
    """How well a spiking network did, at every timestep, from one run.

    `accuracy`: (T,), the share of images classified rightly after each step: `accuracy[t - 1]` is that of
    a run of t steps, `accuracy[-1]` that of the whole run. `predictions`: (T, images), class numbers. Where labels were
    given, accuracy is the share of all images' labels that are told rightly, and predictions are (T, images, labels),
    whether each holds. A few-spike network answers once, so its T is 1 here. For a network with several outputs, both
    are mappings from output names to such arrays. `spike_counts`: firing population → spikes of each
    neuron summed over all images, of the population's shape. `images` were shown, in `seconds`. `steps`: (images,),
    how long each of them was shown. `decoded`: what the output decoded to in the end, (images, *output shape).
    """

    accuracy: PerOutput
    predictions: PerOutput
    spike_counts: Mapping[str, np.ndarray]
    images: int
    seconds: float
    steps: np.ndarray
    decoded: PerOutput


class CompiledSpiking(ABC):
    """A spiking network, ready to run for `network.timesteps` steps per image."""

    stops_early = False  # whether the backend can show an image for less

    def __init__(self, network: Network):
        self.network = network

    @abstractmethod
    def _run(self, inputs: dict[str, np.ndarray], wanted: Wanted) -> Iterator[Recording]:
        """Simulate the images in order, a few at a time, and keep what is wanted."""

    def evaluate(
        self, x: Images, y: Any, *, transient: int = 0, until_stable: int | None = None, progress: bool = True
    ) -> Result:
        """Classify the images `x`, (images, *input shape), and compare with the labels `y`, (images,).

        The prediction after each step is the output's largest decoded activation. Where the model ends in a sigmoid,
        `y` may be 1 for each label that holds, (images, labels): those with a positive score are predicted, as of the
        only score of two classes. After the first `transient` steps the readout starts anew, so that what they brought
        no longer counts. With `until_stable`, an image is no longer shown once its prediction has been the same for so
        many steps, which is looked at whenever so many are over; its spikes are counted up to there. Several inputs or
        outputs are given as mappings by name. Raises DataError for data that does not fit and a transient as long as
        the run, and BackendError where nothing can stop early.
        """
        self._require_shorter(transient)
        wanted = replace(TOTALS, until_stable=self._stopping(until_stable, transient))
        inputs = self._inputs(x)
        images = len(next(iter(inputs.values())))
        labels = as_labels(self.network, y, images)
        started = time.perf_counter()
        predictions: dict[str, list[np.ndarray]] = {name: [] for name in self.network.outputs}
        last: dict[str, list[np.ndarray]] = {name: [] for name in self.network.outputs}
        spike_counts: dict[str, np.ndarray] = {}
        steps: list[np.ndarray] = []
        for part in self._parts(inputs, wanted, progress):
            steps.append(self._shown(part))
            for name, decoded in part.decoded.items():
                heard = _delayed(decoded, transient)
                predictions[name].append(told(heard, labels[name].ndim > 1))
                last[name].append(heard[-1].copy())  # a view would keep all steps
            for name, counts in part.spike_counts.items():
                spike_counts[name] = spike_counts.get(name, 0) + counts.sum(0, dtype=np.int64)
        seconds = time.perf_counter() - started
        joined = {name: np.concatenate(parts, axis=1) for name, parts in predictions.items()}
        accuracy = {name: (joined[name] == labels[name]).mean(tuple(range(1, joined[name].ndim))) for name in joined}
        shown = np.concatenate(steps)
        ends = per_output({name: np.concatenate(parts) for name, parts in last.items()})
        return Result(per_output(accuracy), per_output(joined), spike_counts, images, seconds, shown, ends)

    def predict(
        self, x: Images, *, probabilities: bool = False, transient: int = 0, progress: bool = True
    ) -> PerOutput:
        """The output's decoded activation after the last step, (images, *output shape).

        With `probabilities` its softmax over the classes, or its sigmoid where the model has one. `transient` and
        errors are those of `evaluate`.
        """
        self._require_shorter(transient)
        wanted = as_flag(probabilities, "probabilities")
        parts = [part.decoded for part in self._parts(self._inputs(x), TOTALS, progress)]
        last = {name: np.concatenate([_delayed(part[name], transient)[-1] for part in parts]) for name in parts[0]}
        return per_output({name: self._likely(name, scores) for name, scores in last.items()} if wanted else last)

    def _likely(self, name: str, scores: np.ndarray) -> np.ndarray:
        readout = Sigmoid() if self.network.populations[name].neuron.tells_labels else Softmax()
        return readout.apply(scores)

    def simulate(self, x: Images, *, record: bool | Collection[str] = False, progress: bool = True) -> Recording:
        """Everything about a few images: counts, potentials and every spike of the populations to `record`.

        `record` names populations, or your own layers; True means all that fire. Memory grows with the number of
        images and neurons and, for what is recorded, with T. Raises DataError for data that does not fit and for
        names of what does not fire.
        """
        wanted = Wanted(self._recorded(record))
        parts = list(self._parts(self._inputs(x), wanted, progress))
        return Recording(
            _join([part.spike_counts for part in parts], axis=0),
            _join([part.potentials for part in parts], axis=0),
            _join([part.decoded for part in parts], axis=1),
            _join([part.trains or {} for part in parts], axis=1) if wanted.trains else None,
        )

    def _inputs(self, x: Images) -> dict[str, np.ndarray]:
        """The images, with a ModelWarning where they go beyond what the network's inputs can say."""
        inputs = as_inputs(self.network, x)
        for name, images in inputs.items():
            neuron = self.network.populations[name].neuron
            assert isinstance(neuron, SpikingNeuron)  # verified
            low, high = neuron.sayable
            beyond = _SLACK * high if neuron.fires else high  # graded inputs cut nothing off, thresholds further on do
            if images.max() > high + beyond or images.min() < low - beyond:
                first = int(
                    ((images > high + beyond) | (images < low - beyond)).reshape(len(images), -1).any(1).argmax()
                )
                warnings.warn(
                    f"input {name!r} is given numbers from {images.min():.4g} to {images.max():.4g}, first in image "
                    f"{first}; {_range(neuron)} {low:.4g} to {high:.4g}: scale the images as in calibration",
                    ModelWarning,
                    stacklevel=3,
                )
        return inputs

    def _recorded(self, record: bool | Collection[str]) -> frozenset[str]:
        firing = {name: p.origin.layers for name, p in self.network.populations.items() if _fires(p)}
        if isinstance(record, bool):
            return frozenset(firing if record else ())
        wanted = as_names(record, "record", DataError)
        chosen = {name for name, layers in firing.items() if name in wanted or (wanted - firing.keys()) & set(layers)}
        unknown = wanted - chosen - {layer for name in chosen for layer in firing[name]}
        if unknown:
            raise DataError(f"cannot record {', '.join(sorted(unknown))}: what fires is {', '.join(firing)}")
        return frozenset(chosen)

    def _stopping(self, until_stable: int | None, transient: int) -> int | None:
        """`until_stable`, or an error where it cannot be had."""
        if until_stable is None:
            return None
        if self.network.is_phased:
            raise DataError("until_stable: a few-spike network answers once, so there is nothing to wait for")
        if self.network.lag > 1:
            raise DataError("until_stable: the layers of this network wait for each other; convert it with lag=1")
        if not is_whole(until_stable) or until_stable < 1 or transient:
            given = shown(until_stable)
            raise DataError(f"until_stable is a number of steps from 1 on, without a transient; not {given}")
        if not self.stops_early:
            raise BackendError("until_stable: this backend shows every image for all T steps; use the embedded engine")
        return until_stable

    def _shown(self, part: Recording) -> np.ndarray:
        """How long the images of a part were shown."""
        if part.steps is not None:
            return part.steps
        images = next(iter(part.decoded.values())).shape[1]
        return np.full(images, self.network.timesteps or 1)

    def _require_shorter(self, transient: int) -> None:
        steps = 1 if self.network.is_phased else self.network.timesteps or 1
        if not is_whole(transient) or not 0 <= transient < steps:
            answers = "answers once" if self.network.is_phased else f"runs for {steps} timesteps"
            raise DataError(f"transient is {shown(transient)}, but the network {answers}")

    def _parts(self, inputs: dict[str, np.ndarray], wanted: Wanted, progress: bool) -> Iterator[Recording]:
        images = len(next(iter(inputs.values())))
        with track(f"simulating {images} images for {self.network.timesteps} timesteps", images, progress) as advance:
            for part in self._run(inputs, wanted):
                yield part
                advance(next(iter(part.decoded.values())).shape[1])


@contextmanager
def track(what: str, total: int, progress: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr, if `progress` is wanted and a person is looking; yields what advances it."""
    if not (as_flag(progress, "progress") and sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


def _range(neuron: SpikingNeuron) -> str:
    """What an input's range is the range of."""
    if not neuron.fires:
        return "it was calibrated for"
    return f"its {'signed' if neuron.sayable[0] else 'unsigned'} spikes ({type(neuron).__name__}) say"


def _fires(population: Population) -> bool:
    return isinstance(population.neuron, SpikingNeuron) and population.neuron.fires


def told(decoded: np.ndarray, labels: bool, threshold: float = 0.0) -> np.ndarray:
    """The class with the largest of each image's numbers, (steps, images); or which of the labels hold, (…, labels)."""
    flat = decoded.reshape(*decoded.shape[:2], -1)
    return flat > threshold if labels else flat.argmax(-1).astype(np.int32)


def _delayed(decoded: np.ndarray, transient: int) -> np.ndarray:
    """`decoded`, (T, …), as a readout gives it that starts counting only after `transient` steps."""
    if not transient:
        return decoded
    steps = np.arange(1, len(decoded) + 1, dtype=np.float32).reshape(-1, *[1] * (decoded.ndim - 1))
    total = decoded * steps
    late = (total[transient:] - total[transient - 1]) / (steps[transient:] - transient)
    return np.concatenate([decoded[:transient], late])


def per_output(by_name: dict[str, np.ndarray]) -> PerOutput:
    """The array of a network's only output, or the mapping where there are several."""
    return by_name if len(by_name) > 1 else next(iter(by_name.values()))


def by_output(network: Network, value: PerOutput) -> Mapping[str, np.ndarray]:
    """The inverse of `per_output`: always a mapping from output names."""
    return value if isinstance(value, Mapping) else {network.outputs[0]: value}


def _join(parts: list[Mapping[str, np.ndarray]], axis: int) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}
