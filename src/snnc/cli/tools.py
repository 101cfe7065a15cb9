"""For those who write passes and debug conversions: opt, passes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from .app import app, out


@app.command()
def passes(
    names: Annotated[list[str] | None, typer.Argument(help="Only these passes.", show_default=False)] = None,
) -> None:
    """Document every pass and its options, from their own docstrings.

    Other packages' passes, offered through the entry point group `snnc.passes`, are listed too.
    """
    from ..ir import PipelineError
    from ..passes import document, registry

    known = registry()
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise PipelineError(f"there is no pass {unknown[0]!r}; there are: {', '.join(sorted(known))}")
    for name in names or sorted(known):
        documentation = document(known[name])
        out.print(f"[bold]{name}[/]  ({documentation.stages})", highlight=False)
        out.print(documentation.summary, markup=False, highlight=False)
        if documentation.details:
            out.print(documentation.details, markup=False, highlight=False)
        if documentation.options:
            table = Table("option", "value", "default", "meaning", box=None, pad_edge=False)
            for option in documentation.options:
                table.add_row(option.name, option.kind, option.default, option.meaning)
            out.print(table)
        out.print()
