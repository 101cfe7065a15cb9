"""Passes: transformations of networks, by name in pipelines."""

from .bias_correction import BiasCorrection
from .calibration import Statistics, calibrate
from .canonicalise import Canonicalise
from .clip import LowerClip
from .data_norm import DataNorm
from .few_spike import FewSpikeConversion
from .leaky_relu import LowerLeakyRelu
from .lower_functions import LowerFunctions
from .lower_matmul import LowerMatMul
from .lower_max_pool import LowerMaxPool
from .lower_products import LowerProducts
from .manager import Adjust, Context, Drive, Instrument, Pass, run
from .pipeline import as_passes, parse, to_text
from .registry import Documentation, document, known_passes
from .spike_norm import SpikeNorm
from .split_signs import SplitSigns
from .tracking import TrackingConversion

__all__ = [
    "Adjust",
    "BiasCorrection",
    "Canonicalise",
    "Context",
    "DataNorm",
    "Documentation",
    "Drive",
    "FewSpikeConversion",
    "Instrument",
    "LowerClip",
    "LowerFunctions",
    "LowerLeakyRelu",
    "LowerMatMul",
    "LowerMaxPool",
    "LowerProducts",
    "Pass",
    "SpikeNorm",
    "SplitSigns",
    "Statistics",
    "TrackingConversion",
    "as_passes",
    "calibrate",
    "document",
    "known_passes",
    "parse",
    "run",
    "to_text",
]
