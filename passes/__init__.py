"""Passes: transformations of networks, by name in pipelines."""

from .calibration import Statistics, calibrate
from .canonicalise import Canonicalise
from .data_norm import DataNorm
from .lower_max_pool import LowerMaxPool
from .manager import Context, Instrument, Pass, run
from .pipeline import parse, to_text
from .registry import Documentation, document, known_passes

__all__ = [
    "Canonicalise",
    "Context",
    "DataNorm",
    "Documentation",
    "Instrument",
    "LowerMaxPool",
    "Pass",
    "Statistics",
    "calibrate",
    "document",
    "known_passes",
    "parse",
    "run",
    "to_text",
]
