"""Passes, and the loop that runs them: a pass says what it requires and ensures, and is held to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..ir import Images, Network, PipelineError, Stage, VerificationError, verify
from .calibration import Statistics, calibrate

Activations = Callable[[Network, Images], Iterator[Mapping[str, np.ndarray]]]


@dataclass(frozen=True)
class Context:
    """What passes may ask for beyond the network.

    `activations` runs the analog network: batch by batch the activation of every population, by name.
    `calibration` are the images to run it on, `timesteps` the T that the conversion is for.
    """

    activations: Activations | None = None
    calibration: Images | None = None
    timesteps: int | None = None
    _statistics: list[tuple[Network, Mapping[str, Statistics]]] = field(default_factory=list, repr=False)

    def statistics(self, network: Network) -> Mapping[str, Statistics]:
        """What the calibration images evoke in each population of an analog network; streamed once, then kept."""
        for known, statistics in self._statistics:
            if known is network:
                return statistics
        if self.activations is None or self.calibration is None:
            raise PipelineError("this pass needs calibration images: give calibration=… (or --calibration)")
        statistics = calibrate(network, self.activations(network, self.calibration))
        self._statistics.append((network, statistics))
        return statistics


@dataclass(frozen=True)
class Pass(ABC):
    """A transformation of networks. Options are dataclass fields; `run` never changes its argument.

    `name` is what pipelines call it, `requires` and `ensures` are the stages of the network before and after.
    """

    name: ClassVar[str]
    requires: ClassVar[Stage]
    ensures: ClassVar[Stage]

    @abstractmethod
    def run(self, network: Network, context: Context) -> Network:
        """The transformed network."""


def run(passes: Sequence[Pass], network: Network, context: Context) -> Network:
    """Run `passes` in order, verifying the network before the first and after each.

    Raises PipelineError for a pass that stands where it cannot run, VerificationError for a network that
    is broken from the start, and whatever a pass itself raises.
    """
    verify(network)
    for number, step in enumerate(passes, 1):
        _hold(network, step.requires, f"pass {number} ({step.name}) requires a network at stage {step.requires!r}")
        network = step.run(network, context)
        _hold(network, step.ensures, f"pass {number} ({step.name}) broke the network")
    return network


def _hold(network: Network, stage: Stage, complaint: str) -> None:
    try:
        verify(network, stage)
    except VerificationError as error:
        raise PipelineError(f"{complaint}; {error}") from None
