"""The one tree of exceptions: whatever snnc refuses, it refuses with a `SnncError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SnncError(Exception):
    """Base of every error that snnc raises on purpose; its text is meant for the user."""


class ShapeError(SnncError):
    """A linear operator or a neuron cannot take an input of this shape."""


class VerificationError(SnncError):
    """A network breaks the rules of its stage; `faults` holds every one of them."""

    def __init__(self, title: str, faults: Sequence[str]):
        self.title, self.faults = title, tuple(faults)
        super().__init__("\n".join([title, *(f"  - {fault}" for fault in self.faults)]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.title, self.faults)


class NetworkFileError(SnncError):
    """A network file cannot be read or written."""


class NetworkTextError(SnncError):
    """A network's text form cannot be read back."""


class ModelFileError(SnncError):
    """A model file is missing, damaged, or not what its name says."""


class Refusal(str):
    """A line of a report, `layer (kind): reason`, with its parts. The reason says why, and what to do about it."""

    layer: str
    kind: str
    reason: str

    def __new__(cls, layer: str, kind: str, reason: str) -> Refusal:
        line = super().__new__(cls, f"{layer} ({kind}): {reason}")
        line.layer, line.kind, line.reason = layer, kind, reason
        return line

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.layer, self.kind, self.reason)


class UnsupportedModelError(SnncError):
    """A model holds layers that have no spiking counterpart; `problems` names every one of them.

    Those about a layer are Refusals. `layers` are all layers of the model, where they are known, and `unread` those
    that take what a refused layer gives, so that nothing can be said about them.
    """

    def __init__(self, title: str, problems: Sequence[str], layers: Sequence[str] = (), unread: Sequence[str] = ()):
        self.title, self.problems = title, tuple(problems)
        self.layers, self.unread = tuple(layers), tuple(unread)
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.title, self.problems, self.layers, self.unread)


class MismatchError(SnncError):
    """A network does not compute what the model does that it was read from.

    `layer` is the first layer that differs, None where only outputs could be compared.
    """

    def __init__(self, message: str, layer: str | None = None):
        self.layer = layer
        super().__init__(message)


class UncomparableError(SnncError):
    """A network cannot be compared with the model that it was read from: nothing here runs the model."""


class ModelWarning(UserWarning):
    """A model was read, but a part of it computes something that the network only comes close to."""


class DataError(SnncError):
    """Images, labels or shapes do not fit the network or the model, or hold numbers that are not finite."""


class PipelineError(SnncError):
    """A pipeline cannot be parsed, or a pass cannot run where it stands."""


class BackendError(SnncError):
    """A backend is not installed, or cannot run this network."""


class BackendWarning(UserWarning):
    """A backend runs the network, but not where or how one would expect it to."""
