"""What is wanted of a conversion, and what was measured of one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

from .backend import Backend, as_backend
from .candidates import Spikes
from .ir import LARGEST_T, PipelineError, is_timesteps, shown

Fewest = Literal["steps", "spikes", "operations"]

_COSTS: Mapping[Fewest, str] = {"steps": "timesteps", "spikes": "spikes", "operations": "synaptic operations"}


@dataclass(frozen=True)
class Wish:
    """What is wanted.

    - within: how many points of accuracy may be lost, of the images to choose on.
    - timesteps: T, or the bits of a few-spike code, at most.
    - fewest: of what is `within`, that with the fewest timesteps from an image to its answer (`steps`, where nothing is
      said), `spikes` or synaptic `operations`. Without `within`, what is nearest to the model is wanted.
    - spikes: whether they may be `signed`, or only `binary`.
    - backend: what the network has to run on, and is measured on.
    """

    within: float | None = None
    timesteps: int | None = None
    fewest: Fewest | None = None
    spikes: Spikes = "signed"
    backend: Backend = "onnxruntime"

    def __post_init__(self) -> None:
        """Raise PipelineError for what cannot be wished for."""
        if self.within is not None and not (is_number(self.within) and 0 <= self.within <= 100):
            raise PipelineError(f"within is {shown(self.within)}; it is a number of points of accuracy, from 0 to 100")
        if self.timesteps is not None and not is_timesteps(self.timesteps):
            raise PipelineError(f"timesteps is {shown(self.timesteps)}; T is a number from 1 to {LARGEST_T:,}")
        for name, value, known in (("fewest", self.fewest, Fewest), ("spikes", self.spikes, Spikes)):
            if not (isinstance(value, str) and value in get_args(known)) and not (name == "fewest" and value is None):
                raise PipelineError(f"{name} is one of {', '.join(get_args(known))}, not {shown(value)}")
        if self.fewest and self.within is None:
            raise PipelineError(f"fewest={self.fewest} needs within=…: with no accuracy to keep, silence costs least")
        as_backend(self.backend)
        for name, kind in (("within", float), ("timesteps", int)):  # numpy's numbers, too, as JSON takes them
            if getattr(self, name) is not None:
                object.__setattr__(self, name, kind(getattr(self, name)))

    def __str__(self) -> str:
        parts = [
            f"within {self.within:g} points" if self.within is not None else "as near to the model as can be",
            f"T at most {self.timesteps}" if self.timesteps else "",
            f"fewest {_COSTS[self.fewest or 'steps']}" if self.within is not None else "",
            "no signed spikes" if self.spikes == "binary" else "",
            f"on {self.backend}",
        ]
        return ", ".join(filter(None, parts))

    def cost(self, trial: Trial) -> float:
        """What there is to be least of."""
        match self.fewest:
            case "spikes":
                return trial.spikes_per_image
            case "operations":
                return trial.synaptic_operations_per_image
        return trial.latency

    def is_met(self, trial: Trial) -> bool:
        """Whether a trial loses no more than it may; candidates keep to all else."""
        return self.within is None or trial.loss <= self.within + 1e-9

    def best(self, trials: Iterable[Trial]) -> Trial:
        """The trial that is wanted; where none is within reach, the one that comes nearest."""
        return min(trials, key=self._rank)

    def _rank(self, trial: Trial) -> tuple[Any, ...]:
        if self.within is None:
            return (trial.divergence, trial.latency, trial.pipeline)
        if self.is_met(trial):
            return (0, self.cost(trial), trial.divergence, trial.pipeline)
        return (1, trial.loss, self.cost(trial), trial.divergence, trial.pipeline)


@dataclass(frozen=True)
class Trial:
    """What one pipeline, converting for T = `timesteps`, came to on the first `images` images.

    `accuracy` is by output; `loss` how many points that is below the model's, of the output that loses most.
    `divergence` is that of the probabilities from the model's, summed over outputs; `differing` the share of answers
    that are not the model's. `latency` is in timesteps, from an image's first to its answer; the costs per image are
    those of `snnc.sweep`.
    """

    pipeline: str
    timesteps: int
    images: int
    accuracy: Mapping[str, float]
    loss: float
    divergence: float
    differing: float
    latency: int
    spikes_per_image: float
    synaptic_operations_per_image: float
    function_evaluations_per_image: int

    @property
    def costs(self) -> tuple[float, ...]:
        """Latency, spikes, synaptic operations."""
        return self.latency, self.spikes_per_image, self.synaptic_operations_per_image

    def is_beaten_by(self, other: Trial, margin: float = 0.0) -> bool:
        """Whether `other` loses less, by more than `margin` points, and costs no more; or loses the same for less."""
        dearer = any(a > b for a, b in zip(other.costs, self.costs, strict=True))
        if margin == 0 and other.loss == self.loss:
            return not dearer and other.costs != self.costs
        return not dearer and other.loss + margin < self.loss


def front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials that no other beats in accuracy and all costs, by latency."""
    trials = tuple(trials)
    best = [trial for trial in trials if not any(trial.is_beaten_by(other) for other in trials)]
    return by_latency(best)


def by_latency(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """In order of latency, then of spikes and operations."""
    return tuple(sorted(trials, key=lambda trial: (trial.costs, trial.loss, trial.pipeline)))


def is_number(value: Any) -> bool:
    """Whether it is a real number, Python's or numpy's, and finite."""
    is_real = isinstance(value, Real) and not isinstance(value, bool)
    return is_real and bool(-math.inf < value < math.inf)
