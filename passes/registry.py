"""Which passes there are: snnc's own, and those that other packages offer through entry points.

A package offers a pass with an entry point in the group `snnc.passes`, named like the pass:

    [project.entry-points."snnc.passes"]
    prune-weights = "my_package:PruneWeights"
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import get_args, get_type_hints

from ..ir import PipelineError
from .bias_correction import BiasCorrection
from .canonicalise import Canonicalise
from .clip import LowerClip
from .data_norm import DataNorm
from .few_spike import FewSpikeConversion
from .leaky_relu import LowerLeakyRelu
from .lower_functions import LowerFunctions
from .lower_matmul import LowerMatMul
from .lower_max_pool import LowerMaxPool
from .lower_products import LowerProducts
from .manager import Pass
from .spike_norm import SpikeNorm
from .split_signs import SplitSigns
from .tracking import TrackingConversion
from .weight_correction import WeightCorrection

GROUP = "snnc.passes"
BUILT_IN: tuple[type[Pass], ...] = (
    BiasCorrection,
    Canonicalise,
    DataNorm,
    FewSpikeConversion,
    LowerClip,
    LowerFunctions,
    LowerLeakyRelu,
    LowerMatMul,
    LowerMaxPool,
    LowerProducts,
    SpikeNorm,
    SplitSigns,
    TrackingConversion,
    WeightCorrection,
)


@cache
def known_passes() -> Mapping[str, type[Pass]]:
    """Every pass by name. Raises PipelineError where two passes share a name or an entry point does not load."""
    found: dict[str, type[Pass]] = {}
    origin: dict[str, str] = {}
    offers = [(cls, "snnc") for cls in BUILT_IN]
    offers += [(_load(entry), _package(entry)) for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)]
    for cls, package in offers:
        if cls.name in found:
            raise PipelineError(f"two passes are called {cls.name!r}: one of {origin[cls.name]}, one of {package}")
        found[cls.name], origin[cls.name] = cls, package
    return found


@dataclass(frozen=True)
class Option:
    """One option of a pass, as pipelines write it; `meaning` is from the pass's docstring."""

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Documentation:
    """What a pass's docstring and fields say about it."""

    name: str
    stages: str
    summary: str
    details: str
    options: tuple[Option, ...]


def document(cls: type[Pass]) -> Documentation:
    """Read a pass's documentation: the docstring's first line, its text, and its list `- option: meaning`."""
    summary, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\n")
    inherited = [inspect.cleandoc(base.__doc__ or "") for base in reversed(cls.__mro__) if issubclass(base, Pass)]
    meanings = {m[1]: " ".join(m[2].split()) for text in inherited for m in re.finditer(_BULLET, text)}
    hints = get_type_hints(cls)
    options = []
    for field in fields(cls):
        name = field.name.replace("_", "-")
        kind = " | ".join(map(str, get_args(hints[field.name]))) or hints[field.name].__name__
        default = "required" if field.default is MISSING else str(field.default).lower()
        options.append(Option(name, kind, default, meanings.get(name, "")))
    details = re.sub(r"(?<!\n)\n(?!\n)", " ", re.sub(_BULLET, "", rest).strip())  # each paragraph as one line
    return Documentation(cls.name, f"{cls.requires} → {cls.ensures}", summary, details, tuple(options))


_BULLET = re.compile(r"^- ([a-z0-9-]+): (.*(?:\n  .*)*)\n?", re.MULTILINE)


def _load(entry: EntryPoint) -> type[Pass]:
    try:
        cls = entry.load()
    except Exception as error:  # whatever another package raises when it is imported
        raise PipelineError(f"the pass {entry.name!r} of {_package(entry)} does not load: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, Pass)):
        raise PipelineError(f"the entry point {entry.name!r} of {_package(entry)} is not a Pass: {entry.value}")
    if cls.name != entry.name:
        raise PipelineError(f"the entry point {entry.name!r} of {_package(entry)} is for a pass called {cls.name!r}")
    return cls


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value
