"""Write docs/ir.md from the docstrings, so that the page cannot say anything that the code does not.

python docs/make_ir.py           # write the page
python docs/make_ir.py --check   # exit 1 if the committed page is stale
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path

import numpy as np

from snnc import ir
from snnc.ir import file, neurons, operators
from snnc.ir.text import value_text

INTRODUCTION = """\
A network is a directed graph: nodes are populations, which apply a nonlinearity; edges are connections, which apply
linear operators. This page has every class with its equation, its fields and its text form, as `print(network)` and
`snnc show` write it. [ARCHITECTURE.md](../ARCHITECTURE.md) says why it is built like this."""

PAGE = Path(__file__).with_name("ir.md")
EXAMPLES = (
    ir.Conv2D(np.ones((3, 3, 8, 16)), strides=(2, 2), padding=((1, 1), (1, 1))),
    ir.ConvTranspose2D(np.ones((4, 4, 16, 8)), strides=(2, 2), cropping=((1, 1), (1, 1))),
    ir.Dense(np.ones((128, 10))),
    ir.AveragePool2D((2, 2), (2, 2)),
    ir.Scale(np.ones(16)),
    ir.Pad(((0, 0), (0, 0), (8, 0))),
    ir.Pick(np.array([2, 0, 1])),
    ir.Resample(0, np.array([[0, 0, 1, 1]]), np.ones((1, 4))),
    ir.Flatten(),
    ir.Input(),
    ir.Relu(),
    ir.Clip(6.0),
    ir.QuantizedRelu(2.0, 8),
    ir.Function("silu"),
    ir.Product(),
    ir.MatMul((4, 16, 8), (4, 8, 16)),
    ir.LeakyRelu(0.1),
    ir.MaxPool2D((8, 8, 16), (2, 2), (2, 2)),
    ir.MaxPoolRelu2D((8, 8, 16), (2, 2), (2, 2)),
    ir.Identity(),
    ir.Sigmoid(),
    ir.Softmax(),
    ir.LogSoftmax(),
    ir.CurrentInput(),
    ir.IntegrateFireInput(1.0, v_init=0.5),
    ir.PoissonInput(1.0, seed=1),
    ir.SpikeInput(1.0, signed=True),
    ir.IntegrateFire(1.5, 0.75),
    ir.Integrate(),
    ir.GradedInput(),
    ir.FewSpikeInput(4, 1.0, 0.03125),
    ir.FewSpike(4, 2.0, 0.0625),
    ir.FewSpikeFunction(8, 2.0, 0.00390625, ir.Product()),
    ir.Tracking(0.5, 0.25, 2, ir.Function("silu")),
    ir.FewSpikeReadout(),
)


def page() -> str:
    """The whole page."""
    return "\n\n".join(_parts()) + "\n"


def _parts() -> Iterator[str]:
    yield "# The IR"
    yield (
        "<!-- Written by docs/make_ir.py from the docstrings in ir/: edit those, then run `python docs/make_ir.py`. -->"
    )
    yield INTRODUCTION
    yield "## An example"
    yield _example()
    yield _gate()
    yield "## The graph"
    for cls in (ir.Network, ir.Population, ir.Connection, ir.Origin):
        yield from _section(cls)
    yield "## Operators"
    yield _prose(operators)
    for kind in operators.OPERATORS.values():
        yield from _section(kind)
    yield "## Neurons"
    yield _prose(neurons)
    for title, base in (("Analog neurons", ir.AnalogNeuron), ("Spiking neurons", ir.SpikingNeuron)):
        yield f"### {title}"
        yield _prose(base)
        for neuron in neurons.NEURONS.values():
            if issubclass(neuron, base):
                yield from _section(neuron, "####")
    yield "## Stages"
    yield _prose(import_module("snnc.ir.verify"))  # snnc.ir.verify is the function
    yield "## Text form"
    yield _prose(import_module("snnc.ir.text"))
    yield "## Files"
    yield _prose(file)


def _section(cls: type, level: str = "###") -> Iterator[str]:
    """A class: what its docstring says, a table of its fields, an example of its text form."""
    yield f"{level} {cls.__name__}"
    yield _prose(cls)
    rows = [
        f"| `{field.name}` | `{_type(field)}` | {_default(field)} |" for field in fields(cls) if field.name[0] != "_"
    ]
    if rows:
        yield "\n".join(["| Field | Type | Default |", "| --- | --- | --- |", *rows])
    for example in EXAMPLES:
        if type(example) is cls:
            yield f"```\n{value_text(example)}\n```"


def _prose(documented: object) -> str:
    """A docstring as Markdown; what is indented in it is code."""
    text = inspect.getdoc(documented) or ""
    return re.sub(r"(?m)^( {4}.+\n?)+", lambda block: f"```\n{inspect.cleandoc(block[0])}\n```\n", text).strip()


def _type(field: Field) -> str:
    return str(field.type).replace("|", "\\|")


def _default(field: Field) -> str:
    if field.default_factory is not MISSING:
        return f"`{field.default_factory.__name__}()`"
    return "" if field.default is MISSING else f"`{value_text(field.default)}`"


def _example() -> str:
    """A residual block with a readout, as the analog network that a frontend makes."""
    network = ir.Network(
        [
            ir.Population("image", (8, 8, 3), ir.Input()),
            ir.Population("stem", (8, 8, 16), ir.Relu(), np.ones(16), ir.Origin(("conv", "bn", "stem"))),
            ir.Population("block", (8, 8, 16), ir.Relu(), None, ir.Origin(("conv_1", "add", "block"))),
            ir.Population("digit", (10,), ir.Softmax(), None, ir.Origin(("digit",))),
        ],
        [
            ir.Connection("image", "stem", (ir.Conv2D(np.ones((3, 3, 3, 16)), padding=((1, 1), (1, 1))),)),
            ir.Connection("stem", "block", (ir.Conv2D(np.ones((1, 1, 16, 16))),), origin=ir.Origin(("conv_1",))),
            ir.Connection("stem", "block"),
            ir.Connection("block", "digit", (ir.AveragePool2D((8, 8), (8, 8)), ir.Dense(np.ones((16, 10))))),
        ],
        ["image"],
        ["digit"],
    )
    ir.verify(network)
    return (
        f"```\n{network}```\n\n"
        "The residual addition is two edges into `block`, one of them one to one; the batch normalisation has "
        "disappeared into a weight and a bias."
    )


def _gate() -> str:
    """A gate: a product of two summed inputs."""
    network = ir.Network(
        [
            ir.Population("image", (8, 8, 3), ir.Input()),
            ir.Population("features", (8, 8, 16), ir.Function("silu"), None, ir.Origin(("conv", "silu"))),
            ir.Population("share", (8, 8, 16), ir.Function("sigmoid"), np.ones(16), ir.Origin(("gate", "sigmoid"))),
            ir.Population("gated", (8, 8, 16), ir.Product(), None, ir.Origin(("mul",)), np.ones(16)),
        ],
        [
            ir.Connection("image", "features", (ir.Conv2D(np.ones((1, 1, 3, 16))),)),
            ir.Connection("image", "share", (ir.Conv2D(np.ones((1, 1, 3, 16))),)),
            ir.Connection("features", "gated"),
            ir.Connection("share", "gated", port=1),
        ],
        ["image"],
        ["gated"],
    )
    ir.verify(network)
    return (
        "A population may have several summed inputs, its *ports*. A connection says to which it adds, where that is "
        f"not port 0, and `second_bias` belongs to port 1:\n\n```\n{network}```"
    )


def main() -> int:
    """Write the page, or check it."""
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(f"{PAGE} is stale: run python docs/make_ir.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
