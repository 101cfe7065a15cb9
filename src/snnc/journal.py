"""A journal: what was measured so far, in JSON lines, so that whoever was interrupted can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from .ir import DataError, as_path

Record = Mapping[str, Any]


class Journal:
    """Records, and the file that holds them: a line that says what they are about, then one line for each.

    The file is written anew beside itself for every record, then renamed, so that whenever the process ends it holds
    whole records. The same records give the same bytes. Without a path, records are only kept.
    """

    def __init__(self, path: str | os.PathLike[str] | None, about: Record, resume: bool = False):
        """Begin a journal, or go on with the one at `path`, which has to be about the same.

        Raises DataError where it cannot be read or written, is about something else, or is there already.
        """
        self._path = None if path is None else as_path(path, "a journal", DataError)
        self._about = about
        self.records: list[Record] = []
        if resume:
            self.records = self._read()
        elif self._path and self._path.exists():
            raise DataError(f"{self._path} is there already: resume what it tells of, or remove it")
        else:
            self._write()

    def add(self, record: Record) -> None:
        """Keep one more record, unless it is there. Raises DataError where the file cannot be written."""
        if record not in self.records:
            self.records.append(record)
            self._write()

    def _read(self) -> list[Record]:
        if self._path is None or not self._path.is_file():
            raise DataError(f"there is no journal to resume{f' at {self._path}' if self._path else ''}")
        try:
            about, *records = (json.loads(line) for line in self._path.read_text("utf-8").splitlines())
            objects = all(isinstance(each, dict) for each in (about, *records))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self._path} is not a journal that can be resumed: {error}") from None
        if not objects:
            raise DataError(f"{self._path} is not a journal that can be resumed: its lines are no JSON objects")
        others = [key for key in self._about if about.get(key) != self._about[key]]
        if others:
            raise DataError(
                f"{self._path} was begun with another {', another '.join(others)}: give what it was begun with, or "
                "begin anew with a journal elsewhere"
            )
        return records

    def _write(self) -> None:
        if self._path is None:
            return
        lines = (json.dumps(each, separators=(",", ":"), allow_nan=False) for each in (self._about, *self.records))
        beside = self._path.with_name(f".{self._path.name}.part")  # always the same, so that none are left to gather
        try:
            try:
                with beside.open("w", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in lines)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, self._path)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot write the journal {self._path}: {error.strerror or error}") from None
