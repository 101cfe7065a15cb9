"""Pipelines as text: `canonicalise,data-norm{percentile=99.9,per-channel=true}`.

Options are the fields of the pass, with `-` for `_`; their types come from the annotations.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..ir import PipelineError, as_tuple, shown
from .manager import Pass
from .registry import known_passes

_STEP = re.compile(r"\s*([a-z0-9-]+)\s*(?:\{([^{}]*)\})?\s*(,|$)")


def as_passes(pipeline: str | Sequence[Pass]) -> tuple[Pass, ...]:
    """The passes of a pipeline, given as text or as themselves. Raises PipelineError."""
    if isinstance(pipeline, str):
        return parse(pipeline)
    abstract: Any = Pass
    return as_tuple(pipeline, abstract, "a pipeline is text or a sequence of passes", PipelineError)


def parse(text: str) -> tuple[Pass, ...]:
    """The passes that `text` names. Raises PipelineError, saying what exists, where it does not parse."""
    if not isinstance(text, str):
        raise PipelineError(f"a pipeline to be read is text, not {shown(text)}")
    known = known_passes()
    passes: list[Pass] = []
    position = 0
    while position < len(text) or not passes:
        step = _STEP.match(text, position)
        if step is None or (step[3] == "," and step.end() == len(text)):
            raise PipelineError(f"cannot read the pipeline {text!r} at {text[position:]!r}: {_FORM}")
        passes.append(_pass(step[1], step[2] or "", known))
        position = step.end()
    return tuple(passes)


def to_text(passes: Sequence[Pass]) -> str:
    """The pipeline as text that `parse` reads back; options at their default are left out."""
    return ",".join(map(_pass_text, as_passes(passes)))


_FORM = "expected pass,pass{option=value,option=value},…"


def _pass(name: str, options: str, passes: Mapping[str, type[Pass]]) -> Pass:
    cls = passes.get(name)
    if cls is None:
        raise PipelineError(f"there is no pass {name!r}{_suggest(name, passes)}")
    known = {field.name.replace("_", "-"): field for field in fields(cls)}
    values = {}
    for option in filter(None, map(str.strip, options.split(","))):
        key, equals, text = map(str.strip, option.partition("="))
        if not equals:
            raise PipelineError(f"pass {name!r}: cannot read the option {option!r}; {_FORM}")
        if key not in known:
            raise PipelineError(f"pass {name!r} has no option {key!r}{_suggest(key, known)}")
        values[known[key].name] = _value(cls, known[key], text)
    missing = [key for key, field in known.items() if field.default is MISSING and field.name not in values]
    if missing:
        raise PipelineError(f"pass {name!r} needs the option {missing[0]!r}")
    return cls(**values)


def _value(cls: type[Pass], field: Field[Any], text: str) -> Any:
    kind = get_type_hints(cls)[field.name]
    choices = get_args(kind) if get_origin(kind) is Literal else ("true", "false") if kind is bool else None
    if choices:
        if text not in choices:
            raise PipelineError(f"pass {cls.name!r}: {field.name.replace('_', '-')} is one of {', '.join(choices)}")
        return text == "true" if kind is bool else text
    try:
        return kind(text)
    except ValueError:
        option = field.name.replace("_", "-")
        raise PipelineError(f"pass {cls.name!r}: {option} takes a {kind.__name__}, not {text!r}") from None


def _pass_text(step: Pass) -> str:
    set_ = {
        field.name: getattr(step, field.name) for field in fields(step) if getattr(step, field.name) != field.default
    }
    options = ",".join(f"{name.replace('_', '-')}={_option_text(value)}" for name, value in set_.items())
    return f"{step.name}{{{options}}}" if options else step.name


def _option_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return f"{meant} There are: {', '.join(sorted(known)) or 'none'}"
