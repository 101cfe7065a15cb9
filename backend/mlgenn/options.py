"""What one can choose about a build with GeNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

from ...ir import BackendError, is_whole, shown

Device = Literal["gpu", "cpu"]
MatrixType = Literal["TOEPLITZ", "PROCEDURAL", "SPARSE", "DENSE"]
Forced = MatrixType | Mapping[str, MatrixType]


@dataclass(frozen=True)
class Options:
    """The options of `snnc.backend.mlgenn.compile`, whose docstring explains them, checked."""

    device: Device | None = None
    folder: Path | None = None
    matrix_type: Forced | None = None
    batch_size: int | None = None
    workers: int = 1
    record_spikes: frozenset[str] = frozenset()
    kernel_profiling: bool = False
    communicator: Any = None

    def __post_init__(self) -> None:
        _require("device", self.device, (None, *get_args(Device)))
        is_mapping = isinstance(self.matrix_type, Mapping)
        for matrix_type in self.matrix_type.values() if is_mapping else [self.matrix_type]:  # type: ignore[union-attr]
            _require("matrix_type", matrix_type, (None, *get_args(MatrixType)))
        if not (is_whole(self.workers) and self.workers >= 1):
            raise BackendError(f"workers is a number of processes from 1 on, not {shown(self.workers)}")
        if self.batch_size is not None and not (is_whole(self.batch_size) and self.batch_size >= 1):
            raise BackendError(f"batch_size is a number of images from 1 on, not {shown(self.batch_size)}")
        given = {"kernel_profiling": self.kernel_profiling, "communicator": self.communicator is not None}
        alone = [name for name, wanted in given.items() if wanted]
        if self.workers > 1 and alone:
            raise BackendError(f"{' and '.join(alone)} cannot be had together with workers: compile with workers=1")


def _require(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not (isinstance(value, (str, NoneType)) and value in allowed):
        raise BackendError(f"{name} is one of {', '.join(map(repr, allowed))}, not {shown(value)}")
