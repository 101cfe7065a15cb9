"""Calibration: what a set of images evokes in every population, streamed once.

Running maxima and histograms are kept per channel. A histogram spans [0, its range); when a larger
activation arrives the range doubles and neighbouring bins merge, so one sweep is enough and memory does not
depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numba import get_num_threads, njit, prange

from ..ir import AnalogNeuron, DataError, Identity, Network, Neuron, Population, ProbabilityReadout
from ..ir.codes import staircase

BINS = 1024
_SMALLEST = BINS / float(np.finfo(np.float32).max) * 2  # range of a histogram: float32 has to hold the bins per unit
_BLOCK = 256  # positions of which one channel is counted before the next; all channels of them fit a cache
_SHARES = np.linspace(1 / 64, 1, 64, dtype=np.float32)[::-1].copy()  # from 1 down: of equal errors the larger λ


class Statistics:
    """The distribution of one population's activations over the calibration images.

    `maximum` is the largest activation of each channel, (C,), and `minimum` the smallest, neither beyond zero; a flat
    population of N neurons has N channels. Activations below zero count as zero in the histograms; with `magnitude`,
    for spikes with a sign, by their magnitude there and in the maximum.
    """

    def __init__(self, channels: int, magnitude: bool = False):
        self.magnitude = magnitude
        self.maximum = np.zeros(channels, np.float32)
        self.minimum = np.zeros(channels, np.float32)
        self.count = 0  # activations per channel
        self._sum = np.zeros(channels, np.float64)
        self._range = np.zeros(channels, np.float64)
        self._bins = np.zeros((channels, BINS), np.int64)

    def update(self, activations: np.ndarray, histogram: bool = True) -> None:
        """Take in a batch of activations, (…, channels); or only for the mean and the maxima.

        Raises FloatingPointError where one is not finite, which no histogram has a place for.
        """
        rows = activations.reshape(-1, activations.shape[-1])
        _sum_up(rows, self._sum, self.maximum, self.minimum)
        if not np.isfinite(self._sum).all():
            raise FloatingPointError
        if self.magnitude:
            rows = np.abs(rows)
            np.maximum(self.maximum, -self.minimum, out=self.maximum)
        self.count += len(rows)
        if not histogram:
            return
        self._widen()
        per_bin = (BINS / np.where(self._range > 0, self._range, 1)).astype(np.float32)
        for planes in _blocks(rows):
            _count(planes, per_bin, self._bins)

    @property
    def mean(self) -> np.ndarray:
        """The mean activation of each channel, (C,)."""
        return self._sum / max(self.count, 1)

    def percentile(self, q: float, per_channel: bool) -> np.ndarray:
        """The activation that `q` per cent of all activations, zeros included, do not exceed.

        One number per channel, (C,), or one for the whole population, (1,). Exact for q = 100, else off by at
        most one bin: a 512th of the channel's largest activation. Zero if the percentile lies among the zeros.
        """
        if q == 100:
            return self.maximum if per_channel else self.maximum.max(keepdims=True)
        if per_channel:
            return np.minimum(self._channel_percentile(q / 100), self.maximum).astype(np.float32)
        return np.minimum(self._layer_percentile(q / 100), self.maximum.max(keepdims=True)).astype(np.float32)

    def least_error(self, timesteps: int, v_init: float, per_channel: bool) -> np.ndarray:
        """The λ whose staircase of `timesteps` steps is nearest to the activations, in mean squared error [Li 2021].

        The staircase is that of `snnc.ir.codes`, where `v_init` is a share of λ. One number per channel, (C,), or one
        for the population, (1,): the best of 64 shares of the largest activation. Zero where there is none.
        """
        largest = self.maximum if per_channel else np.full_like(self.maximum, self.maximum.max())
        errors = _staircase_errors(self._bins, self._range, largest, _SHARES, timesteps, v_init)
        if not per_channel:
            return largest[:1] * _SHARES[errors.sum(0).argmin()]
        return largest * _SHARES[errors.argmin(1)]

    def _widen(self) -> None:
        """Grow the ranges until they hold the maxima, by doubling."""
        fresh = self._range == 0
        largest = self.maximum[fresh] * (1 + 1e-6)
        self._range[fresh] = np.where(largest > 0, np.maximum(largest, _SMALLEST), 0)
        while (narrow := (self._range <= self.maximum) & (self.maximum > 0)).any():
            merged = self._bins[narrow].reshape(-1, BINS // 2, 2).sum(-1)
            self._bins[narrow] = np.pad(merged, ((0, 0), (0, BINS // 2)))
            self._range[narrow] *= 2

    def _channel_percentile(self, share: float) -> np.ndarray:
        cumulated = self._bins.cumsum(1)
        positive = cumulated[:, -1]
        rank = share * self.count - (self.count - positive)
        index = np.minimum((cumulated < rank[:, None]).sum(1), BINS - 1)
        inside = np.take_along_axis(self._bins, index[:, None], 1)[:, 0]
        below = np.take_along_axis(cumulated, index[:, None], 1)[:, 0] - inside
        position = index + (rank - below) / np.maximum(inside, 1)
        return np.where(rank > 0, position * self._range / BINS, 0)

    def _layer_percentile(self, share: float) -> np.ndarray:
        """All channels' bins in order of their upper edges, weighted by what they hold."""
        edges = (self._range[:, None] * np.arange(1, BINS + 1) / BINS).reshape(-1)
        order = np.argsort(edges, kind="stable")
        cumulated = self._bins.reshape(-1)[order].cumsum()
        activations = self.count * len(self.maximum)
        rank = share * activations - (activations - cumulated[-1])
        index = min(int(np.searchsorted(cumulated, rank)), len(order) - 1)
        return np.array([edges[order[index]] if rank > 0 else 0])


def overflow(image: int, population: Population) -> DataError:
    """What to say of an image that drives a population to infinity."""
    layers = ", ".join(population.origin.layers) or population.name
    return DataError(
        f"calibration image {image} drives {layers} beyond what float32 holds: leave it out, "
        "or scale the images as in training"
    )


def with_logits(network: Network) -> Network:
    """An analog network whose readouts give the logits, not the probabilities that are made of them."""
    if not any(isinstance(population.neuron, ProbabilityReadout) for population in network.populations.values()):
        return network
    return network.replace(
        populations=[
            replace(population, neuron=Identity()) if isinstance(population.neuron, ProbabilityReadout) else population
            for population in network.populations.values()
        ]
    )


def calibrate(network: Network, batches: Iterator[Mapping[str, np.ndarray]]) -> Mapping[str, Statistics]:
    """Statistics of every population that receives connections, from batches of activations by population.

    Populations are shared out over threads that sleep while they wait, unlike numba's own, which take each other's
    time on a machine that has other work. Raises DataError, which names layer and image, for activations that are not
    finite.
    """

    def take(name: str) -> None:
        try:
            statistics[name].update(batch[name])
        except FloatingPointError:
            image = first + int(np.isfinite(batch[name].reshape(len(batch[name]), -1)).all(1).argmin())
            raise overflow(image, network.populations[name]) from None

    first = 0
    statistics = {
        name: Statistics(population.shape[-1], _says_magnitudes(population.neuron))
        for name, population in network.populations.items()
        if not population.neuron.is_input
    }
    with ThreadPoolExecutor(get_num_threads()) as threads:
        for batch in batches:
            list(threads.map(take, statistics))
            first += len(next(iter(batch.values())))
    return statistics


def _says_magnitudes(neuron: Neuron) -> bool:
    """Whether what is in place of an analog neuron sends spikes with a sign."""
    return isinstance(neuron, AnalogNeuron) and neuron.is_signed and not neuron.is_readout


def _blocks(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, channels) as planes, (blocks, channels, positions), and what is left over as one more.

    A row at a time every activation would want another channel's histogram; so, the histogram stays in the cache.
    """
    whole = len(rows) // _BLOCK * _BLOCK
    return rows[:whole].reshape(-1, _BLOCK, rows.shape[1]).transpose(0, 2, 1), rows[whole:].T[None]


@njit(nogil=True, cache=True)
def _sum_up(rows: np.ndarray, total: np.ndarray, largest: np.ndarray, smallest: np.ndarray) -> None:
    """Add (rows, channels) to the totals and widen the ranges, reading memory once; NaN stays what it is."""
    for row in range(rows.shape[0]):
        for channel in range(rows.shape[1]):
            value = rows[row, channel]
            total[channel] += value
            if value > largest[channel] or value != value:
                largest[channel] = value
            if value < smallest[channel]:
                smallest[channel] = value


@njit(nogil=True, cache=True)
def _count(planes: np.ndarray, per_bin: np.ndarray, bins: np.ndarray) -> None:
    """Add the positive ones of (rows, channels, positions) to the histograms; `per_bin` is bins per unit.

    There is no branch on the sign, which nobody could predict: what is not positive adds 0 to one bin or another.
    """
    rows, channels, positions = planes.shape
    last = bins.shape[1] - 1
    for row in range(rows):
        for channel in range(channels):
            line, counts, scale = planes[row, channel], bins[channel], per_bin[channel]
            for position in range(positions):
                place = min(np.int32(line[position] * scale), last)
                positive = line[position] > 0
                counts[place if positive else position & last] += positive


_staircase = njit(staircase)


@njit(parallel=True, cache=True)
def _staircase_errors(
    bins: np.ndarray, ranges: np.ndarray, largest: np.ndarray, shares: np.ndarray, timesteps: int, v_init: float
) -> np.ndarray:
    """Summed squared error of the staircase over each channel's histogram, for each λ: (channels, shares)."""
    channels, count = bins.shape
    errors = np.zeros((channels, len(shares)))
    for channel in prange(channels):
        if ranges[channel] == 0:
            continue
        for candidate in range(len(shares)):
            threshold = largest[channel] * shares[candidate]
            for place in range(count):
                activation = (place + 0.5) * ranges[channel] / count
                error = _staircase(activation, threshold, timesteps, v_init) - activation
                errors[channel, candidate] += bins[channel, place] * error * error
    return errors
