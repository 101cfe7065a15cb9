"""The command line. Diagnostics go to stderr, what was asked for to stdout."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

from . import commands, sweep, tools
from .app import app, err


def main() -> None:
    """The `snnc` command: errors that snnc raises on purpose are printed, not traced."""
    from ..ir import SnncError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what the terminal has no sign for
    try:
        app()
    except SnncError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")


def _fail(message: str) -> NoReturn:
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


__all__ = ["app", "commands", "main", "sweep", "tools"]
