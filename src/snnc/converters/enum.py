"""How images become spikes."""

from __future__ import annotations

from enum import Enum


class InputType(Enum):
    """The neurons of the inputs of a rate-coded network.

    `SPIKE`: a spike in every step wherever the image is not zero. `POISSON`: a spike with probability 1 − exp(−a) in
    each step, a being the pixel. `IF`: integrate-and-fire neurons driven by the pixel.
    """

    SPIKE = "spike"
    POISSON = "poisson"
    IF = "if"
