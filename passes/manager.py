"""Passes, and the loop that runs them: a pass says what it requires and ensures, and is held to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np

from ..ir import (
    Connection,
    Images,
    Network,
    PipelineError,
    Population,
    Stage,
    VerificationError,
    as_tuple,
    is_whole,
    shown,
    verify,
)
from .calibration import Statistics, calibrate, with_logits


class Activations(Protocol):
    """Runs an analog network: batch by batch the activation of every population, by name, or only `of` those."""

    def __call__(
        self, network: Network, images: Images, of: Sequence[str] | None = None
    ) -> Iterator[Mapping[str, np.ndarray]]: ...


class Drive(Protocol):
    """A population of a spiking network, and what reaches it from the calibration images, everything before it run."""

    @property
    def network(self) -> Network:
        """The network as it is now."""

    @property
    def population(self) -> Population:
        """The population as it is now."""

    @property
    def incoming(self) -> Sequence[Connection]:
        """The connections that reach it."""

    def having(self, population: Population, incoming: Sequence[Connection] = ()) -> Drive:
        """The same place with another `population` and, where given, with others in place of the `incoming` edges."""

    def only(self, images: np.ndarray) -> Drive:
        """The same place, looked at on those images alone that are marked in (images,)."""

    def received(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Batch by batch what each source has said after the whole run, by name: (images, *shape of the source)."""

    def currents(self) -> Iterator[np.ndarray]:
        """Batch by batch the summed input of every step, bias included: (steps · images, *shape)."""

    def decoded(self) -> Iterator[np.ndarray]:
        """Batch by batch what the population decodes after the whole run: (images, *shape)."""


Adjust = Callable[[Drive], Drive]
Sweep = Callable[[Network, Images, Adjust], Network]


def _unheard(note: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Context:
    """What passes may ask for beyond the network.

    `activations` runs the analog network. `sweep` runs a spiking network layer by layer, letting each population, and
    what reaches it, be adjusted before it is run. `calibration` are the images to run them on, `timesteps` the T that
    the conversion is for, `analog` the network that was last converted. `note` tells the user what a pass did, in a
    line; by default nobody.
    """

    activations: Activations | None = None
    calibration: Images | None = None
    timesteps: int | None = None
    sweep: Sweep | None = None
    analog: Network | None = None
    note: Callable[[str], object] = _unheard
    _statistics: list[tuple[Network, Mapping[str, Statistics]]] = field(default_factory=list, repr=False)

    def statistics(self, network: Network) -> Mapping[str, Statistics]:
        """What the calibration images evoke in each population of an analog network; streamed once, then kept.

        Of a softmax these are the logits that go into it.
        """
        for known, statistics in self._statistics:
            if known is network:
                return statistics
        if self.activations is None or self.calibration is None:
            raise PipelineError(_NO_CALIBRATION)
        statistics = calibrate(network, self.activations(with_logits(network), self.calibration))
        self._statistics.append((network, statistics))
        return statistics

    def adjusted(self, network: Network, adjust: Adjust) -> Network:
        """A spiking network that, in graph order, is at each population as `adjust` would have it."""
        if self.sweep is None or self.calibration is None:
            raise PipelineError(_NO_CALIBRATION)
        return self.sweep(network, self.calibration, adjust)


_NO_CALIBRATION = "this pass needs calibration images: give calibration=… (or --calibration)"


@dataclass(frozen=True)
class Pass(ABC):
    """A transformation of networks. Options are dataclass fields; `run` never changes its argument.

    `name` is what pipelines call it, `requires` and `ensures` are the stages of the network before and after.
    `keeps_function` says that the analog network computes the same after the pass as before: the instrument
    check-equivalence holds such a pass to it. `needs_analog` says that the pass, run on a spiking network, looks at the
    one that it was converted from, `context.analog`.
    """

    name: ClassVar[str]
    requires: ClassVar[Stage]
    ensures: ClassVar[Stage]
    keeps_function: ClassVar[bool] = False
    needs_analog: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise PipelineError for an option that is not of its kind. Passes that check more call this first."""
        hints = get_type_hints(type(self)) if fields(self) else {}
        for name in (option.name for option in fields(self)):
            kind, value = hints[name], getattr(self, name)
            if not _is_of(kind, value):
                wanted = ", ".join(map(repr, get_args(kind))) or kind.__name__
                raise PipelineError(f"{self.name}: {name.replace('_', '-')} takes {wanted}, not {shown(value)}")

    @abstractmethod
    def run(self, network: Network, context: Context) -> Network:
        """The transformed network."""


def _is_of(kind: Any, value: object) -> bool:
    """Whether an option may have this value: numbers are numpy's too, and what no pipeline can say is not looked at."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind is int:
        return is_whole(value)
    if kind is float:
        return is_whole(value) or isinstance(value, (float, np.floating))
    if kind is bool:
        return isinstance(value, (bool, np.bool_))
    return kind is not str or isinstance(value, str)


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
    instruments = as_tuple(instruments, Instrument, "instruments are Instrument objects in a list", PipelineError)
    try:
        for instrument in instruments:
            instrument.start(passes, network, context)
        for number, step in enumerate(passes, 1):
            if not network.is_spiking:
                context = replace(context, analog=network)
            network = _step(number, step, network, context, instruments)
    finally:
        for instrument in instruments:
            instrument.finish()
    return network


def _step(number: int, step: Pass, network: Network, context: Context, instruments: Sequence[Instrument]) -> Network:
    _hold(network, step.requires, f"pass {number} ({step.name}) requires a network at stage {step.requires!r}")
    if step.needs_analog and context.analog is None:
        raise PipelineError(
            f"pass {number} ({step.name}) compares the spiking network with the analog one that it was made of: "
            "run it in the same pipeline as the pass that converts, after it"
        )
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
