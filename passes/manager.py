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
    `keeps_function` says that the analog network computes the same after the pass as before: the instrument
    check-equivalence holds such a pass to it.
    """

    name: ClassVar[str]
    requires: ClassVar[Stage]
    ensures: ClassVar[Stage]
    keeps_function: ClassVar[bool] = False

    @abstractmethod
    def run(self, network: Network, context: Context) -> Network:
        """The transformed network."""


class Instrument:
    """Something that looks on while passes run: the hooks around them, which do nothing by default.

    Passes are numbered from 1. Instruments never change a network; they may raise to stop the run. They nest: the
    last one given is nearest to the pass.
    """

    def start(self, passes: Sequence[Pass], network: Network, context: Context) -> None:
        """Before the first pass."""

    def before(self, number: int, step: Pass, network: Network, context: Context) -> None:
        """Before each pass."""

    def after(self, number: int, step: Pass, before: Network, after: Network, context: Context) -> None:
        """After each pass, once the network it made is verified."""

    def finish(self) -> None:
        """After the last pass, or after the one that failed."""


def run(passes: Sequence[Pass], network: Network, context: Context, instruments: Sequence[Instrument] = ()) -> Network:
    """Run `passes` in order, verifying the network before the first and after each.

    Raises PipelineError for a pass that stands where it cannot run or breaks the network, VerificationError for a
    network that is broken from the start, and whatever passes and instruments raise themselves.
    """
    verify(network)
    try:
        for instrument in instruments:
            instrument.start(passes, network, context)
        for number, step in enumerate(passes, 1):
            network = _step(number, step, network, context, instruments)
    finally:
        for instrument in instruments:
            instrument.finish()
    return network


def _step(number: int, step: Pass, network: Network, context: Context, instruments: Sequence[Instrument]) -> Network:
    _hold(network, step.requires, f"pass {number} ({step.name}) requires a network at stage {step.requires!r}")
    for instrument in instruments:
        instrument.before(number, step, network, context)
    result = step.run(network, context)
    _hold(result, step.ensures, f"pass {number} ({step.name}) broke the network")
    for instrument in reversed(instruments):  # nested, so that the last one sees nothing but the pass
        instrument.after(number, step, network, result, context)
    return result


def _hold(network: Network, stage: Stage, complaint: str) -> None:
    try:
        verify(network, stage)
    except VerificationError as error:
        raise PipelineError(f"{complaint}; {error}") from None
