"""The file of rows that an import did not take, each once, however often the import was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import msgspec

_json = msgspec.json.Encoder().encode


class Rejected(msgspec.Struct, frozen=True):
    """A row that was not taken, and why."""

    row: int
    code: str
    message: str
    values: Any = None

    def __repr__(self) -> str:
        return f"Rejected({self.row}, {self.code!r})"


class _Numbered(msgspec.Struct):
    row: int


_numbered = msgspec.json.Decoder(_Numbered).decode


class RejectedRows:
    """Call it with each row; `flush` it before the import's progress is written down, so that no row up to
    there is missing. Opened again after `rows` rows were done, it forgets those beyond: they come again."""

    def __init__(self, file: Path, rows: int) -> None:
        self._file = file
        self._opened: BinaryIO = file.open("r+b" if rows and file.exists() else "w+b")
        end = 0
        for line in self._opened:
            if not line.endswith(b"\n") or not _is_of(line, rows):
                break
            end += len(line)
        self._opened.seek(end)
        self._opened.truncate()

    def __call__(self, row: Rejected) -> None:
        self._opened.write(_json(row) + b"\n")

    def flush(self) -> None:
        self._opened.flush()

    def close(self) -> None:
        """Removes the file where there is nothing in it."""
        self._opened.close()
        if self._file.exists() and not self._file.stat().st_size:
            self._file.unlink()


def _is_of(line: bytes, rows: int) -> bool:
    """Whether it is one of the first so many rows."""
    try:
        return _numbered(line).row <= rows
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
