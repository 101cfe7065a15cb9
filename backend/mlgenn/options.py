"""What one can choose about a build with GeNN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ...ir import BackendError

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
        if not isinstance(self.workers, int) or self.workers < 1:
            raise BackendError(f"workers is a number of processes from 1 on, not {self.workers!r}")
        if self.batch_size is not None and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise BackendError(f"batch_size is a number of images from 1 on, not {self.batch_size!r}")
        alone = [name for name in ("kernel_profiling", "communicator") if getattr(self, name)]
        if self.workers > 1 and alone:
            raise BackendError(f"{' and '.join(alone)} cannot be had together with workers: compile with workers=1")


def _require(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise BackendError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}")
