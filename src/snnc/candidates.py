"""What `tune` tries: for each T groups of conversions that cost alike, and the corrections that may follow them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .backend import Backend
from .ir import LeakyRelu, MatMul, MaxPool2D, Network, SomaNeuron

Spikes = Literal["signed", "binary"]

LONGEST = 64  # T where nobody says
LAGS = (1, 2, 3)
LARGEST_K = 8  # more bits than any network was seen to need

# Options of data-norm; what to balance by is the one thing that no rule says.
RATE = (
    "threshold=mse,per-channel=true",
    "percentile=99.9,per-channel=true",
    "percentile=99.0,per-channel=true",
    "percentile=99.9,v-init=0.25,per-channel=true",
)
FEW_SPIKE = ("per-channel=true", "")
LIGHT = ("", "bias-correction")
HEAVY = ("bias-correction{rounds=4}", "weight-correction")  # these take a while


@dataclass(frozen=True)
class Candidate:
    """A pipeline and the T that it converts for: a conversion, what mends it, and what has to come last."""

    conversion: str
    timesteps: int
    correction: str = ""
    ending: str = ""

    @property
    def pipeline(self) -> str:
        """The passes, as text."""
        return ",".join(filter(None, (self.conversion, self.correction, self.ending)))

    def corrected(self, corrections: Sequence[str]) -> tuple[Candidate, ...]:
        """The same conversion with each of these corrections that there is."""
        from .passes import known_passes

        known = [each for each in corrections if not each or each.partition("{")[0] in known_passes()]
        return tuple(replace(self, correction=each) for each in known)


Group = tuple[Candidate, ...]


def by_timesteps(network: Network, most: int, spikes: Spikes, backend: Backend) -> Mapping[int, tuple[Group, ...]]:
    """The conversions of an analog network for T up to `most`, uncorrected, in groups that differ in settings alone.

    Few-spike codes of up to T bits stand with that T. Networks that are more than rectifiers have few-spike and
    tracking neurons; without signs of spikes, only the former, split.
    """
    kinds = _Kinds.of(network)
    ladder = sorted({min(2**power, most) for power in range(1, max(most - 1, 2).bit_length() + 1)} | {most})
    found = {}
    for shorter, timesteps in zip((0, *ladder), ladder, strict=False):
        bits = range(shorter + 1 if shorter else min(2, timesteps), min(timesteps, LARGEST_K) + 1)
        groups = [*_rate(kinds, timesteps)] if not kinds.functions else []
        groups += _tracking(kinds, timesteps, backend) if spikes == "signed" else ()
        groups += [_few_spike(kinds, k, spikes, backend) for k in bits]
        found[timesteps] = tuple(groups)
    return found


@dataclass(frozen=True)
class _Kinds:
    """Which neurons there are that not every conversion takes as they are."""

    functions: bool
    matrices: bool
    max_pools: bool
    leaks: bool

    @classmethod
    def of(cls, network: Network) -> _Kinds:
        neurons = [population.neuron for population in network.populations.values()]
        kinds = (SomaNeuron, MatMul, MaxPool2D, LeakyRelu)
        return cls(*(any(isinstance(neuron, kind) for neuron in neurons) for kind in kinds))

    def lowered(
        self, conversion: str, pooling: str = "lower-max-pool", leaks: bool = True, matrices: bool = False
    ) -> str:
        """A conversion, behind the passes that it needs."""
        needed = (
            ("lower-matmul", self.matrices and matrices),
            (pooling, self.max_pools and bool(pooling)),
            ("lower-leaky-relu", self.leaks and leaks),
        )
        return ",".join((*(text for text, is_needed in needed if is_needed), conversion))


def _rate(kinds: _Kinds, timesteps: int) -> Iterator[Group]:
    for lag in _lags(timesteps):
        texts = [f"data-norm{{{options}{f',lag={lag}' if lag > 1 else ''}}}" for options in RATE]
        yield tuple(Candidate(kinds.lowered(text), timesteps) for text in texts)


def _tracking(kinds: _Kinds, timesteps: int, backend: Backend) -> Iterator[Group]:
    """Its neurons take leaks as they are, and on the embedded engine the largest of a window."""
    on_genn = backend == "mlgenn"
    for lag in _lags(timesteps):
        text = f"tracking{{lag={lag}}}" if lag > 1 else "tracking"
        lowered = kinds.lowered(text, "lower-max-pool" if on_genn else "", leaks=False, matrices=on_genn)
        yield (Candidate(lowered, timesteps),)


def _few_spike(kinds: _Kinds, k: int, spikes: Spikes, backend: Backend) -> Group:
    on_genn = backend == "mlgenn"
    poolings = ["lower-max-pool"]
    if kinds.max_pools and not on_genn:
        poolings.append("lower-max-pool{before-neuron=true}")
    texts = [f"few-spike{{{','.join(filter(None, (f'k={k}', options)))}}}" for options in FEW_SPIKE]
    ending = "split-signs" if kinds.functions and spikes == "binary" else ""
    return tuple(
        Candidate(kinds.lowered(text, pooling, matrices=on_genn), k, ending=ending)
        for pooling in poolings
        for text in texts
    )


def _lags(timesteps: int) -> list[int]:
    """A layer cannot wait longer than its input lasts."""
    return [lag for lag in LAGS if lag <= timesteps]
