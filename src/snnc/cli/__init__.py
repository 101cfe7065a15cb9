"""The command line. Diagnostics go to stderr, what was asked for to stdout."""

from __future__ import annotations

import io
import sys
import warnings
from typing import NoReturn

from . import commands, sweep, tools, tune
from .app import app, err


def main() -> None:
    """The `snnc` command: errors that snnc raises on purpose are printed, not traced."""
    from ..ir import BackendWarning, ModelWarning, SnncError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what the terminal has no sign for
    try:
        with warnings.catch_warnings():
            said: set[str] = set()
            warnings.showwarning = lambda message, category, *_: _show(str(message), category, said)
            for ours in (BackendWarning, ModelWarning):
                warnings.simplefilter("always", ours)
            app()
    except (SnncError, BackendWarning, ModelWarning) as error:  # warnings under --strict
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")


def _show(message: str, category: type[Warning], said: set[str]) -> None:
    """A warning of ours in one line, once; those of other packages are not about the user's files."""
    from ..ir import BackendWarning, ModelWarning

    if message not in said and issubclass(category, (BackendWarning, ModelWarning)):
        said.add(message)
        err.print("[bold yellow]warning:[/] ", end="")
        err.print(message, markup=False, highlight=False, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    err.print("[bold red]error:[/] ", end="")
    err.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


__all__ = ["app", "commands", "main", "sweep", "tools", "tune"]
