"""Import files that are still there after they were brought in: without the people who were erased since,
and not for ever.

A line that names somebody by an identity goes; a Parquet file goes whole. What names them is found by the
keyed hashes of erased identities, in any spelling: whoever looks does not have to know who it was.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from engine.adapters.postgres.rights import hash_of
from engine.domain.offers.rules import Namespace
from engine.formats.import_mapping import KINDS

FOLDER = "import"
"""In the data folder."""
KEPT = timedelta(days=30)
PLACES = ("done", "failed")
REJECTED = ".rejected.jsonl"
_SEPARATORS = ",;\t|"
_PAUSE_EVERY = 100
_PAUSE_SECONDS = 0.001
"""A thread that computes would hold up what the engine answers."""


def scrub(
    folder: Path, erased: Mapping[bytes, datetime], secret: bytes, namespaces: Sequence[Namespace]
) -> int:
    """Takes everybody whose hash is in `erased` out of the kept files below `folder` that are older than
    their erasure. Answers how many lines went (a Parquet file counts as one).

    Raises:
        OSError: a file could not be written.
    """
    gone = 0
    for file in kept(folder):
        try:
            written_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            meant = {digest for digest, at in erased.items() if at >= written_at}
            if meant:
                gone += _scrub(file, meant, secret, namespaces)
        except FileNotFoundError:  # another worker was there first
            continue
    return gone


def forget_old(folder: Path, now: datetime) -> None:
    """Lets go of kept files that are past their time."""
    before = (now - KEPT).timestamp()
    for file in kept(folder):
        try:
            if file.stat().st_ctime < before:  # when it was put there
                file.unlink()
        except FileNotFoundError:
            continue


def kept(folder: Path) -> Iterator[Path]:
    """What is left of files that were brought in, or could not be."""
    for kind in KINDS:
        for place in PLACES:
            yield from sorted(f for f in (folder / kind / place).glob("*") if f.is_file())


def _scrub(file: Path, meant: set[bytes], secret: bytes, namespaces: Sequence[Namespace]) -> int:
    def names(cells: Iterable[str]) -> bool:
        return any(
            hash_of(secret, (namespace.name, value)) in meant
            for cell in cells
            for namespace in namespaces
            if (value := namespace.normal(cell) if namespace.normal is not None else cell)
        )

    if file.suffix == ".parquet":
        if not any(names(words(row)) for row in _parquet_rows(file)):
            return 0
        file.unlink()
        return 1
    lines = file.read_bytes().splitlines(keepends=True)
    left: list[bytes] = []
    for number, line in enumerate(lines):
        if number % _PAUSE_EVERY == 0:
            time.sleep(_PAUSE_SECONDS)
        if not names(cells_of(line.decode("utf-8", "replace"))):
            left.append(line)
    if len(left) == len(lines):
        return 0
    status = file.stat()
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(b"".join(left))
    os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
    beside.replace(file)
    return len(lines) - len(left)


def cells_of(line: str) -> set[str]:
    """What may be a cell of a line, by whichever separator, or a text of a JSON line."""
    line = line.strip()
    if line.startswith(("{", "[")):
        try:
            return {word.strip() for word in words(msgspec.json.decode(line))}
        except (msgspec.DecodeError, RecursionError):
            pass
    found = {line, *line.split()}
    for separator in _SEPARATORS:
        if separator in line:
            for row in csv.reader([line], delimiter=separator):
                found.update(cell.strip() for cell in row)
    return found


def words(node: Any) -> Iterator[str]:
    """All texts and numbers of a value, as the texts that an identity would be made of."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, float):
        yield str(int(node)) if node.is_integer() else str(node)
    elif isinstance(node, int) and not isinstance(node, bool):
        yield str(node)
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from words(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from words(value)


def _parquet_rows(file: Path) -> Iterator[Any]:
    import pyarrow.parquet as parquet

    for batch in parquet.ParquetFile(file).iter_batches(batch_size=1000):
        time.sleep(_PAUSE_SECONDS)
        yield from batch.to_pylist()
