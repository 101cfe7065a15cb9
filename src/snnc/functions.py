"""How the functions of a network are computed, and how far off that is: in the soma of a neuron, or by rectifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from .ir import Function, MatMul, Network, Neuron, Product, SpikingNeuron
from .ir.cost import function_evaluations
from .ir.functions import at_most

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Computation:
    """How a population computes `function`, or stands for it; `layers` are the user's.

    In the `soma` the function is computed as it is, and `error` is what spikes round off at most, of results within
    their reach; for neurons that track their input, if that is steady. Where the function is `expanded`, rectifiers are
    in place of it, and `error` is how far they are off at most, before spikes round them. Errors are in units of the
    ANN's activations. `evaluations` are those that an image takes, which rectifiers need none of.
    """

    population: str
    layers: tuple[str, ...]
    function: str
    computed: Literal["soma", "expanded"]
    error: float
    evaluations: int

    def __str__(self) -> str:
        return f"{self.population}: {self.how}"

    @property
    def how(self) -> str:
        """What is computed, where, and how far off, in a line."""
        return f"{self.function}, {_HOW[self.computed]}, off by at most {at_most(self.error)}"


def computations(network: Network) -> tuple[Computation, ...]:
    """All that is computed in a soma, and all that is expanded, in topological order; nothing for rectifiers."""
    evaluations = function_evaluations(network)
    found = []
    for population in map(network.populations.__getitem__, network.order):
        name, neuron, origin = population.name, population.neuron, population.origin
        if name in evaluations:
            assert isinstance(neuron, SpikingNeuron)
            error = neuron.rounds_off(network.timesteps or 1)
            found.append(Computation(name, origin.layers, called(neuron.soma), "soma", error, evaluations[name]))
        elif origin.function:
            found.append(Computation(name, origin.layers, origin.function, "expanded", origin.error, 0))
    return tuple(found)


def called(neuron: Neuron | None) -> str:
    """What an analog neuron that is more than a rectifier computes, for people."""
    match neuron:
        case Function(function):
            return function
        case Product("identity"):
            return "product"
        case Product(function):
            return f"product with {function}"
        case MatMul():
            return "product of matrices"
    return type(neuron).__name__


def to_table(found: Sequence[Computation]) -> Table:
    """The computations for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    total = sum(each.evaluations for each in found)
    table = Table(
        title=f"functions: {total:,} evaluations per image",
        title_justify="left",
        caption="\n".join(_CAPTIONS[how] for how in _HOW if any(each.computed == how for each in found)),
        caption_justify="left",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("population", overflow="fold", min_width=12)
    table.add_column("function", overflow="fold")
    table.add_column("computed")
    for heading in ("off by\nat most", "evaluations\nper image"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in found:
        table.add_row(
            Text(each.population),
            Text(each.function),
            _HOW[each.computed],
            at_most(each.error),
            f"{each.evaluations:,}" if each.evaluations else "–",
        )
    return table


_HOW = {"soma": "in the soma", "expanded": "by rectifiers"}
_CAPTIONS = {
    "soma": "in the soma: what spikes round off within their reach, of a steady input where they track it",
    "expanded": "by rectifiers: certain for inputs as in calibration, before spikes round the rectifiers",
}


def to_json(found: Sequence[Computation]) -> list[dict[str, Any]]:
    """The computations as JSON takes them."""
    return [asdict(each) | {"layers": list(each.layers)} for each in found]
