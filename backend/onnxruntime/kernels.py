"""The neurons' time loops, compiled with numba.

All arrays are (timesteps, images, neurons) or (images, neurons), float32 and contiguous. The loops run over
time inside one image, so that its membrane potentials stay in cache, and images run in parallel.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(parallel=True, cache=True)
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

    `constant`, (images, neurons), is added to the input in every step. The potentials `v` and the spike
    `counts` (int32) are carried on in place.
    """
    timesteps, images, neurons = current.shape
    for image in prange(images):
        for t in range(timesteps):
            for i in range(neurons):
                potential = v[image, i] + (current[t, image, i] + constant[image, i])
                threshold = v_thresh[i]
                fires = potential >= threshold if fires_at_threshold else potential > threshold
                rest = potential - threshold if subtract else np.float32(0.0)
                v[image, i] = rest if fires else potential
                current[t, image, i] = np.float32(1.0) if fires else np.float32(0.0)
                counts[image, i] += 1 if fires else 0


@njit(parallel=True, cache=True)
def integrate(current: np.ndarray, constant: np.ndarray, v: np.ndarray) -> None:
    """Step readouts that never fire; `current` holds their input and, on return, their potential after each step."""
    timesteps, images, neurons = current.shape
    for image in prange(images):
        for t in range(timesteps):
            for i in range(neurons):
                v[image, i] += current[t, image, i] + constant[image, i]
                current[t, image, i] = v[image, i]
