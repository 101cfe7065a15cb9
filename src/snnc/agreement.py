"""How near the outputs of a network are to those of another on the same images: needs no labels, and no classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Backend, compile
from .backend.compiled import by_output
from .ir import DataError, Images, Network, ProbabilityReadout, as_inputs

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Agreement:
    """An output of a network and the same output of its reference, over images.

    `largest` is the largest difference, as a share of the largest number of the reference; `mean` the mean difference,
    as a share of the mean magnitude. `cosine` is that of the angle between the two, the mean over images. `top` is the
    share of images, or of their positions, where the largest channel is the same; None where there is one channel.
    """

    largest: float
    mean: float
    cosine: float
    top: float | None

    @classmethod
    def of(cls, found: np.ndarray, expected: np.ndarray) -> Agreement:
        """That of two arrays, (images, …, channels)."""
        difference = np.abs(found - expected)
        least = np.finfo(np.float32).tiny  # of what is nothing everywhere
        a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (found, expected))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return cls(
            float(difference.max() / max(np.abs(expected).max(), least)),
            float(difference.mean() / max(np.abs(expected).mean(), least)),
            float(((a * b).sum(1) / np.maximum(lengths, least)).mean()),
            float((found.argmax(-1) == expected.argmax(-1)).mean()) if expected.shape[-1] > 1 else None,
        )


def agreement(
    network: Network,
    reference: Network,
    x: Images,
    *,
    backend: Backend = "onnxruntime",
    progress: bool = True,
    **options: Any,
) -> dict[str, Agreement]:
    """How well `network` agrees with `reference` on the images `x`, (images, *input shape), for each of its outputs.

    Both are networks, spiking or analog; the reference is commonly the model's own, `snnc.load(model)`. Outputs
    correspond by their order. A spiking network decodes what a softmax or sigmoid is applied to, so that it is applied
    here, too. `backend` and `options` run `network`, and are those of `snnc.compile`; the reference runs on the
    embedded engine.
    Raises DataError for data that does not fit either, and for networks of other inputs or outputs.
    """
    inputs = as_inputs(network, x)
    if len(reference.inputs) != len(inputs) or len(reference.outputs) != len(network.outputs):
        ends = [f"{len(each.inputs)} inputs and {len(each.outputs)} outputs" for each in (network, reference)]
        raise DataError(f"a network of {ends[0]} cannot be compared with one of {ends[1]}")
    given = dict(zip(reference.inputs, inputs.values(), strict=True))
    found = by_output(network, compile(network, backend, **options).predict(inputs, progress=progress))
    expected = by_output(reference, compile(reference).predict(given, progress=progress))
    result = {}
    for name, other in zip(network.outputs, reference.outputs, strict=True):
        values, wanted, neuron = found[name], expected[other], reference.populations[other].neuron
        if values.shape != wanted.shape:
            raise DataError(f"output {name!r} has shape {values.shape[1:]}, but the reference's {wanted.shape[1:]}")
        if isinstance(neuron, ProbabilityReadout) and network.is_spiking:
            values = neuron.apply(values)
        result[name] = Agreement.of(values, wanted)
    return result


def divergence(found: np.ndarray, expected: np.ndarray, labels: bool = False) -> float:
    """The mean Kullback-Leibler divergence of the probabilities of `found` logits from those of `expected` ones.

    Both are (images, classes); or (images, labels), each with a probability of its own, if `labels`.
    """
    wanted, given = (_log_probabilities(logits.astype(np.float64), labels) for logits in (expected, found))
    return float((np.exp(wanted) * (wanted - given)).sum(-1).mean())


def _log_probabilities(logits: np.ndarray, labels: bool) -> np.ndarray:
    """Of the classes, in the last axis; of a label holding, or not, in one more."""
    if labels:
        return -np.logaddexp(0, np.stack((-logits, logits), -1))
    beyond = logits - logits.max(-1, keepdims=True)
    shares: np.ndarray = beyond - np.log(np.exp(beyond).sum(-1, keepdims=True))
    return shares


def to_table(found: Mapping[str, Agreement], images: int) -> Table:
    """The agreement for a terminal, an output a row."""
    from rich import box
    from rich.table import Table

    title = f"agreement with the model over {images} images"
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("output", overflow="fold")
    for heading in ("largest\ndifference", "mean\ndifference", "cosine", "same\nlargest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, each in found.items():
        top = "" if each.top is None else f"{each.top:.2%}"
        table.add_row(name, f"{each.largest:.2%}", f"{each.mean:.2%}", f"{each.cosine:.5f}", top)
    return table


def to_json(found: Mapping[str, Agreement], images: int) -> dict[str, Any]:
    """The agreement as JSON takes it."""
    return {"images": images, "agreement": {name: asdict(each) for name, each in found.items()}}
