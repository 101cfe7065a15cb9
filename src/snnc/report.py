"""What stands in the way of a model, what its conversion will need, and how sure it is that it was read right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import Any

from . import frontend, proof
from .functions import called
from .ir import (
    Clip,
    LeakyRelu,
    MaxPool2D,
    ModelFileError,
    Network,
    Neuron,
    QuantizedRelu,
    Refusal,
    Sigmoid,
    Softmax,
    SomaNeuron,
    UnsupportedModelError,
    as_path,
)

# What a conversion does about the neurons that are not plain rectifiers: what they are, why it matters, what to do.
_NOTES: dict[type[Neuron], tuple[str, str, str]] = {
    MaxPool2D: (
        "max pooling",
        "the largest of several rates cannot be told spike by spike",
        "run `lower-max-pool`, which makes rectifiers of it exactly; the default pipeline does",
    ),
    LeakyRelu: (
        "LeakyReLU",
        "spike counts are never negative",
        "run `lower-leaky-relu`, which makes two rectifiers of it exactly; the default pipeline does",
    ),
    Clip: (
        "clipped ReLU",
        "neurons saturate at λ",
        "nothing to do; or run `clip`, which makes rectifiers of it exactly",
    ),
    QuantizedRelu: (
        "quantised ReLU",
        "it has so many levels, and spikes have them at as many timesteps only",
        "nothing to do for up to 64 levels: T is their number by default; beyond, use few-spike",
    ),
    SomaNeuron: (
        "functions beyond rectifiers",
        "a rate code says nothing but rectifiers",
        "nothing to do: few-spike, then the default, applies them as they are; or run `lower-functions`, which makes "
        "rectifiers of them within an error that it says, behind `lower-matmul,lower-products` if there are products",
    ),
    Softmax: (
        "softmax",
        "it needs all activations at once",
        "nothing to do: it is left out, as the class stays the same",
    ),
    Sigmoid: (
        "sigmoid at the output",
        "a probability for each label",
        "nothing to do: it is left out, as labels hold where its input is positive; probabilities=True applies it",
    ),
}


@dataclass(frozen=True)
class Finding:
    """Layers about which there is the same to say: `why` it matters, and what to do.

    `functions` has for each layer what it computes that is more than a rectifier, if that is what it is about.
    """

    kind: str
    why: str
    advice: str
    layers: tuple[str, ...]
    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `check` found. `layers` and `unread` are empty where the model could not be looked into.

    `error` is the largest relative difference between network and model; None where they were not compared.
    """

    title: str
    layers: tuple[str, ...]
    refused: tuple[Finding, ...]
    unread: tuple[str, ...] = ()
    notes: tuple[Finding, ...] = ()
    error: float | None = None

    @property
    def coverage(self) -> str:
        """How much of the model is read, in a line."""
        if not self.refused:
            compared = (
                "" if self.error is None else f"; compared with the model: largest relative error {self.error:.1e}"
            )
            return f"all {len(self.layers)} layers are read{compared}"
        refused = len({layer for finding in self.refused for layer in finding.layers})
        if not self.layers:
            return f"refused: {refused}; the other layers were not looked at"
        read = len(self.layers) - refused - len(self.unread)
        behind = f"; behind those, and not looked at: {len(self.unread)}" if self.unread else ""
        return f"{read} of {len(self.layers)} layers can be read; refused: {refused}{behind}"


def check(model: str | PathLike[str] | Any, inputs: Any = None, verify: bool | None = None) -> Report:
    """Read a model and report on it; `verify` is that of `snnc.load`.

    Raises ModelFileError for files that cannot be read, MismatchError where network and model differ.
    """
    if isinstance(model, (str, PathLike)):
        model = as_path(model, "a model", ModelFileError)
    try:
        reading = frontend.read(model, inputs)
    except UnsupportedModelError as refusal:
        return Report(str(refusal).splitlines()[0], refusal.layers, grouped(refusal.problems), refusal.unread)
    error = proof.compared(reading, verify)
    return Report(reading.title, tuple(reading.layers), (), notes=_notes(reading.network), error=error)


def grouped(problems: Iterable[str]) -> tuple[Finding, ...]:
    """The refusals by what there is to say about them, in the order in which they first occur."""
    groups: dict[str, list[Refusal]] = {}
    others = []
    for problem in problems:
        if isinstance(problem, Refusal):
            groups.setdefault(problem.reason, []).append(problem)
        else:
            others.append(Finding("", *_halves(problem), ()))
    return (*(_finding(reason, refusals) for reason, refusals in groups.items()), *others)


def _finding(reason: str, refusals: list[Refusal]) -> Finding:
    kinds = ", ".join(dict.fromkeys(refusal.kind for refusal in refusals))
    return Finding(kinds, *_halves(reason), tuple(refusal.layer for refusal in refusals))


def _halves(reason: str) -> tuple[str, str]:
    """Why, and what to do: the texts of refusals say the one, a semicolon, and the other."""
    why, _, advice = reason.partition("; ")
    return why, advice


def _notes(network: Network) -> tuple[Finding, ...]:
    found: dict[type[Neuron], dict[str, list[str]]] = {}
    for population in network.populations.values():
        neuron = population.neuron
        layers = found.setdefault(SomaNeuron if isinstance(neuron, SomaNeuron) else type(neuron), {})
        layers.setdefault(population.origin.layers[-1], []).append(called(neuron))
    return tuple(
        Finding(*said, tuple(found[kind]), _joined(found[kind].values()) if kind is SomaNeuron else ())
        for kind, said in _NOTES.items()
        if kind in found
    )


def _joined(functions: Iterable[list[str]]) -> tuple[str, ...]:
    """What each layer computes, each function once."""
    return tuple(", ".join(dict.fromkeys(names)) for names in functions)


def to_text(report: Report) -> str:
    """The report for people."""
    lines = [report.title]
    for finding in report.refused:
        lines += ["", f"refused: {_headline(finding)}", *_listed(finding.layers)]
    for finding in report.notes:
        lines += ["", f"note: {_headline(finding)}", *_listed(_with_functions(finding))]
    return "\n".join([*lines, "", report.coverage])


def _headline(finding: Finding) -> str:
    said = "; ".join(part for part in (finding.why, finding.advice) if part)
    return f"{finding.kind}: {said}" if finding.kind else said


def _with_functions(finding: Finding) -> tuple[str, ...]:
    if not finding.functions:
        return finding.layers
    return tuple(f"{layer}: {names}" for layer, names in zip(finding.layers, finding.functions, strict=True))


def _listed(layers: tuple[str, ...]) -> list[str]:
    return [f"  - {layer}" for layer in layers]


def to_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    read = len(report.layers) - len(report.unread) - len({name for f in report.refused for name in f.layers})
    return {
        "title": report.title,
        "layers": len(report.layers),
        "read": max(read, 0),
        "refused": [_record(finding) for finding in report.refused],
        "unread": list(report.unread),
        "notes": [_record(finding) for finding in report.notes],
        "error": report.error,
    }


def _record(finding: Finding) -> dict[str, Any]:
    record = {"kind": finding.kind, "why": finding.why, "advice": finding.advice, "layers": list(finding.layers)}
    return record | ({"functions": list(finding.functions)} if finding.functions else {})
