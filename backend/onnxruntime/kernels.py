"""The neurons' time loops, compiled with numba.

All arrays are (timesteps, images, neurons) or (images, neurons), float32 and contiguous; `constant` and `counts` may
have one row for all images. The loops run over time inside one image, so that its membrane potentials stay in cache;
other threads run other images. The innermost ones index with one number, so that they are vectorised.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .intrinsics import fused


@njit(nogil=True, cache=True)
def integrate_fire(
    current: np.ndarray,
    constant: np.ndarray,
    v_thresh: np.ndarray,
    v: np.ndarray,
    counts: np.ndarray,
    subtract: bool,
    fires_at_threshold: bool,
) -> None:
    """Step integrate-and-fire neurons; `current` holds their input and, on return, their spikes (0 or 1).

    `constant` is added to the input in every step. The potentials `v` and the spike `counts` (int32) are carried on in
    place.
    """
    timesteps, images, neurons = current.shape
    for image in range(images):
        held, steady, counted = v[image], constant[image % len(constant)], counts[image % len(counts)]
        for t in range(timesteps):
            now = current[t, image]
            for i in range(neurons):
                potential = held[i] + (now[i] + steady[i])
                threshold = v_thresh[i]
                fires = potential >= threshold if fires_at_threshold else potential > threshold
                rest = potential - threshold if subtract else np.float32(0.0)
                held[i] = rest if fires else potential
                now[i] = np.float32(1.0) if fires else np.float32(0.0)
                counted[i] += 1 if fires else 0


@njit(nogil=True, cache=True)
def integrate(current: np.ndarray, constant: np.ndarray, v: np.ndarray) -> None:
    """Step readouts that never fire; `current` holds their input and, on return, their potential after each step."""
    timesteps, images, neurons = current.shape
    for image in range(images):
        for t in range(timesteps):
            for i in range(neurons):
                v[image, i] += current[t, image, i] + constant[image % len(constant), i]
                current[t, image, i] = v[image, i]


@njit(nogil=True, cache=True)
def track(
    current: np.ndarray,
    v_thresh: np.ndarray,
    v_init: np.ndarray,
    levels: int,
    low: float,
    high: float,
    time: np.ndarray,
    v: np.ndarray,
    said: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Step tracking neurons; `current` holds t · f(X / t) of every step and, on return, the spikes, −levels … levels.

    f is first bounded to `low` and `high`; `time` is t of every step, (steps,) float32. What was sent so far, `said`,
    and the spike `counts` (int32) are carried on in place, and `v` is what is left of the potential.
    """
    timesteps, images, neurons = current.shape
    most, least = np.float32(levels), np.float32(low)
    for image in range(images):
        left, sent, counted = v[image], said[image], counts[image % len(counts)]
        for t in range(timesteps):
            now = current[t, image]
            bound = np.float32(high) * time[t]
            for i in range(neurons):
                y = now[i]
                y = y if y > least else least
                y = (y if y < bound else bound) + v_init[i]
                number = np.floor((y - v_thresh[i] * sent[i]) / v_thresh[i])
                number = number if number < most else most
                number = number if number > -most else -most
                sent[i] += number
                left[i] = y - v_thresh[i] * sent[i]
                now[i] = number
                counted[i] += np.int32(np.abs(number))


@njit(nogil=True, cache=True)
def few_spike(
    current: np.ndarray,
    constant: np.ndarray,
    alpha: np.ndarray,
    v_init: np.ndarray,
    largest: np.ndarray,
    k: int,
    v: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Fire few-spike neurons for a whole phase: `current` holds the input and, on return, Σ 2^−step over the spikes.

    Potentials start at `largest` at most. `v` becomes what is left of the potential. The spikes are the bits of a whole
    number of quanta, so they come without a loop over steps: subtracting a height from a potential below twice the
    height rounds nothing, so it is the number of quanta that fit in. A division finds it to within one, and what is
    left, rounded only once, has the right sign.
    """
    _fire_for_a_phase(current, constant, alpha, v_init, largest, k, v, counts, False)


@njit(nogil=True, cache=True)
def few_spike_signed(
    current: np.ndarray,
    constant: np.ndarray,
    alpha: np.ndarray,
    v_init: np.ndarray,
    largest: np.ndarray,
    k: int,
    v: np.ndarray,
    counts: np.ndarray,
) -> None:
    """As `few_spike`, of the input's magnitude; every spike has its sign."""
    _fire_for_a_phase(current, constant, alpha, v_init, largest, k, v, counts, True)


@njit(nogil=True, cache=True, inline="always")
def _fire_for_a_phase(
    current: np.ndarray,
    constant: np.ndarray,
    alpha: np.ndarray,
    v_init: np.ndarray,
    largest: np.ndarray,
    k: int,
    v: np.ndarray,
    counts: np.ndarray,
    signed: bool,
) -> None:
    images, neurons = current.shape
    share = np.float32(0.5) ** np.float32(k)
    quanta = alpha * share
    inverse = np.float32(1.0) / quanta
    most = np.float32(2**k - 1)
    for image in range(images):
        now, steady = current[image], constant[image % len(constant)]
        left, counted = v[image % len(v)], counts[image % len(counts)]
        for i in range(neurons):
            x = now[i] + steady[i]
            potential = v_init[i] + (np.abs(x) if signed else x)
            potential = potential if potential < largest[i] else largest[i]
            number = _quanta_in(potential, quanta[i], inverse[i], most)
            left[i] = fused(-number, quanta[i], potential)
            now[i] = number * (-share if signed and x < 0 else share)
            counted[i] += _bits_of(number)


@njit(nogil=True, cache=True, inline="always")
def _quanta_in(potential: np.float32, quantum: np.float32, inverse: np.float32, most: np.float32) -> np.float32:
    """How many quanta fit into a potential, `most` at most."""
    quotient = potential * inverse
    quotient = quotient if quotient > np.float32(0.0) else np.float32(0.0)
    number = np.floor(quotient if quotient < most else most)
    too_many = (fused(-number, quantum, potential) < 0) & (number > 0)
    too_few = (fused(-number - np.float32(1.0), quantum, potential) >= 0) & (number < most)
    return number + np.float32(too_few) - np.float32(too_many)


@njit(nogil=True, cache=True, inline="always")
def _bits_of(number: np.float32) -> np.int32:
    """How many bits of a whole number are set, by adding up neighbours, pairs and so on."""
    bits = np.uint32(np.int32(number))
    bits = np.uint32(bits - ((bits >> np.uint32(1)) & np.uint32(0x55555555)))
    bits = np.uint32((bits & np.uint32(0x33333333)) + ((bits >> np.uint32(2)) & np.uint32(0x33333333)))
    bits = np.uint32((bits + (bits >> np.uint32(4))) & np.uint32(0x0F0F0F0F))
    return np.int32(np.uint32(bits * np.uint32(0x01010101)) >> np.uint32(24))


@njit(nogil=True, cache=True)
def poisson(
    sent: np.ndarray, probability: np.ndarray, counts: np.ndarray, seed: int, numbers: np.ndarray, first_step: int
) -> None:
    """Spikes drawn with the given probabilities, (images, neurons), in every step of `sent`.

    Each number depends on the seed, the image's number in `numbers`, the step and the neuron alone, so the way in which
    images and steps are cut into chunks changes nothing.
    """
    timesteps, images, neurons = sent.shape
    for image in range(images):
        for t in range(timesteps):
            stream = _mixed(_mixed(_mixed(np.uint64(seed)) + np.uint64(numbers[image])) + np.uint64(first_step + t))
            for i in range(neurons):
                uniform = np.float32(_mixed(stream + np.uint64(i)) >> np.uint64(40)) * np.float32(2.0**-24)
                fires = uniform < probability[image, i]
                sent[t, image, i] = np.float32(1.0) if fires else np.float32(0.0)
                counts[image % len(counts), i] += 1 if fires else 0


@njit(cache=True)
def _mixed(x: np.uint64) -> np.uint64:
    """SplitMix64 [Steele 2014, https://doi.org/10.1145/2714064.2660195]: neighbouring numbers give unrelated ones."""
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
