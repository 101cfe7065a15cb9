"""Passes: transformations of networks, by name in pipelines."""

from .calibration import Statistics, calibrate
from .canonicalise import Canonicalise
from .data_norm import DataNorm
from .manager import Context, Instrument, Pass, run
from .pipeline import parse, to_text

PASSES: dict[str, type[Pass]] = {cls.name: cls for cls in (Canonicalise, DataNorm)}

__all__ = [
    "PASSES",
    "Canonicalise",
    "Context",
    "DataNorm",
    "Instrument",
    "Pass",
    "Statistics",
    "calibrate",
    "parse",
    "run",
    "to_text",
]
