"""What users say of a model's inputs: an example of what each takes, or only its shape, in order or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir import DataError, Shape, UnsupportedModelError, is_whole, shown
from .support import Layer

Shapes = tuple[Shape, ...] | dict[str, Shape]

# What a model says of an input, batch first: each size, its name where it is open, or None; None where even the number
# of axes is open.
Sizes = tuple[int | str | None, ...] | None

_EXAMPLE = 64  # a size to give as an example of one
_SAID = "inputs takes an example of what the model takes, or its shape, batch first; of several a tuple, or by name"


def is_shape(given: Any) -> bool:
    """Whether this is a shape, (1, 32, 32, 3), and no example."""
    return isinstance(given, (tuple, list)) and bool(given) and all(map(is_whole, given))


def in_order(inputs: Any) -> tuple[Any, ...]:
    """What is given for each input, one by one; one alone need not be in a tuple."""
    return tuple(inputs) if isinstance(inputs, (tuple, list)) and not is_shape(inputs) else (inputs,)


def shapes_of(inputs: Any) -> Shapes:
    """The shapes that are given, batch first: in order, or by the names of the inputs. Raises DataError."""
    if inputs is None:
        return ()
    if isinstance(inputs, Mapping):
        return {str(name): _shape(given) for name, given in inputs.items()}
    return tuple(map(_shape, in_order(inputs)))


def _shape(given: Any) -> Shape:
    try:
        shape = tuple(given) if is_shape(given) else tuple(getattr(given, "shape", None) or np.shape(given))
    except (TypeError, ValueError):  # of rows of different lengths, of a shape that is not known
        shape = ()
    if not shape or not all(is_whole(size) and size > 0 for size in shape):
        raise DataError(f"{_SAID}; not {shown(given)}")
    return tuple(map(int, shape))


def fixed(
    sizes: Mapping[str, Sizes], inputs: Any, title: str, axes: Mapping[str, int] | None = None
) -> dict[str, Shape]:
    """The shape of each of a model's inputs, for a batch of one: `inputs` says what the model leaves open.

    Sizes of one name are one size. `axes` has the axis of the batch for those inputs where it is not the first. Raises
    UnsupportedModelError with every input that is open still, and DataError for what is given and does not fit.
    """
    given = _by_name(shapes_of(inputs), list(sizes), title)
    places = dict.fromkeys(sizes, 0) | dict(axes or {})
    known: dict[str, int] = {}
    for name, shape in given.items():
        known |= _named(name, sizes[name], shape, known, title, places[name])
    shapes = {name: given.get(name) or _filled(said, known, places[name]) for name, said in sizes.items()}
    problems = [
        Layer(name, "input", -1).problem(_open(name, sizes[name], known, places[name]))
        for name, shape in shapes.items()
        if shape is None
    ]
    if problems:
        raise UnsupportedModelError(f"{title} leaves sizes of its inputs open", problems)
    return {name: _of_one(shape, places[name]) for name, shape in shapes.items() if shape is not None}


def settings(sizes: Mapping[str, Sizes], inputs: Any, title: str) -> tuple[dict[str, np.ndarray], Any]:
    """The inputs that are one number for all examples, as `inputs` says them, and what it says of the others.

    Raises UnsupportedModelError with every such input that is not said, and DataError for what is no number.
    """
    names = [name for name, said in sizes.items() if said == ()]
    if not names:
        return {}, inputs
    others = inputs
    if isinstance(inputs, Mapping):
        others = {name: each for name, each in inputs.items() if name not in names} or None
    elif inputs is not None and len(in_order(inputs)) == len(sizes):
        inputs = dict(zip(sizes, in_order(inputs), strict=True))
        others = tuple(each for name, each in inputs.items() if name not in names) or None
    said = inputs if isinstance(inputs, Mapping) else {}
    problems = [
        Layer(name, "input", -1).problem(
            f"it is one number for all examples; say it, as in inputs={{{name!r}: 1}}, or --input-shape {name}=1"
        )
        for name in names
        if name not in said
    ]
    if problems:
        raise UnsupportedModelError(f"{title} leaves numbers of its inputs open", problems)
    return {name: _number(name, said[name], title) for name in names}, others


def _number(name: str, given: Any, title: str) -> np.ndarray:
    try:
        array = np.asarray(given)
    except (TypeError, ValueError):
        array = np.array(None)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise DataError(f"{title}: {name} takes one number, not {shown(given)}")
    return array.reshape(())


def _of_one(shape: Shape, axis: int) -> Shape:
    """A shape, for a batch of one."""
    return (*shape[:axis], 1, *shape[axis + 1 :])[: len(shape)]


def _by_name(given: Shapes, names: Sequence[str], title: str) -> Mapping[str, Shape]:
    unknown = [name for name in given if name not in names] if isinstance(given, dict) else []
    if unknown:
        raise DataError(f"{title} has no input {shown(unknown[0])}; its inputs are {', '.join(names)}")
    if isinstance(given, dict):
        return given
    if given and len(given) != len(names):
        raise DataError(f"{title} takes {', '.join(names)}, but inputs has {len(given)}")
    return dict(zip(names, given, strict=False))


def _named(name: str, said: Sizes, shape: Shape, known: Mapping[str, int], title: str, batch: int) -> dict[str, int]:
    """The sizes that a given shape says, by their names; raises DataError where it does not fit what the model says."""
    if said is None:
        return {}
    found = dict(known)
    fits = len(said) == len(shape)
    for axis, (own, size) in enumerate(zip(said, shape, strict=False)):
        if axis == batch:
            continue
        fits &= own is None or size == (found.setdefault(own, size) if isinstance(own, str) else own)
    if not fits:
        raise DataError(f"{title}: {name} takes {_text(said, known)}, but is given the shape {shape}")
    return found


def _filled(said: Sizes, known: Mapping[str, int], batch: int) -> Shape | None:
    """The shape of an input, if nothing of it is open any more but the batch."""
    sizes = [1 if axis == batch else size for axis, size in enumerate(said or ())]
    found = [known.get(size) if isinstance(size, str) else size for size in sizes]
    return None if said is None or None in found else tuple(size for size in found if size)


def _open(name: str, said: Sizes, known: Mapping[str, int], batch: int) -> str:
    """What is open of an input, and how to say it."""
    if said is None:
        return f"its number of axes is open; say its shape, batch first, as in inputs={{{name!r}: (1, 3, 64, 64)}}"
    rest = [1 if axis == batch else size for axis, size in enumerate(said)]
    example = tuple((known.get(size) if isinstance(size, str) else size) or _EXAMPLE for size in rest)
    names = dict.fromkeys(size for size in rest if isinstance(size, str) and size not in known)
    which = f" in {' and '.join(names)}" if names else ""
    how = f"inputs={{{name!r}: {example}}}, or --input-shape {name}={'x'.join(map(str, example))}"
    return f"its shape {_text(said, known)} is open{which}; say the sizes, as in {how}"


def _text(said: Sequence[int | str | None], known: Mapping[str, int]) -> str:
    """A shape with the names of what is open."""
    first, *rest = said or ("",)
    texts = [str(known.get(size, size)) if isinstance(size, str) else str(size or "?") for size in rest]
    return f"({', '.join([str(first or 'batch'), *texts])})"
