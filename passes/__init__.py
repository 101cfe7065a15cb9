"""Passes: transformations of networks, by name in pipelines."""

from .calibration import Statistics, calibrate
from .canonicalise import Canonicalise
from .data_norm import DataNorm
from .manager import Context, Instrument, Pass, run
from .pipeline import parse, to_text
from .registry import Documentation, document, known_passes

__all__ = [
    "Canonicalise",
    "Context",
    "DataNorm",
    "Documentation",
    "Instrument",
    "Pass",
    "Statistics",
    "calibrate",
    "document",
    "known_passes",
    "parse",
    "run",
    "to_text",
]
