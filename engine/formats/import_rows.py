"""Rows of a file: CSV, JSON Lines or Parquet. Each by the names of its columns, numbered from 1."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Literal

import msgspec

from engine.formats.import_mapping import WHITESPACE, ImportMapping

Format = Literal["csv", "jsonl", "parquet"]
LARGEST_ROW_BYTES = 32 * 1024
_PARQUET_ROWS = 4096


class Unreadable(ValueError):
    """The file as a whole is not what its name says."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """`values` by column; None, with `fault`, where the row cannot be read. `raw` is what stands there."""

    number: int
    values: dict[str, Any] | None
    raw: Any
    fault: str = ""

    def __repr__(self) -> str:
        return f"Row({self.number}, …)"


class Table(msgspec.Struct, frozen=True):
    """The columns, as far as the file names them beforehand, and the rows."""

    columns: tuple[str, ...]
    rows: Iterator[Row]

    def __repr__(self) -> str:
        return f"Table({len(self.columns)} columns)"


def format_of(name: str) -> Format:
    """By the ending of a file's name; CSV where it says nothing."""
    ending = name.rpartition(".")[2].lower()
    return "jsonl" if ending in ("jsonl", "ndjson", "json") else "parquet" if ending == "parquet" else "csv"


def table(file: BinaryIO, form: Format, given: ImportMapping) -> Table:
    """The rows of an open file.

    Raises:
        Unreadable: there is no table in it.
    """
    if form == "jsonl":
        return _json_lines(file)
    if form == "parquet":
        return _parquet(file)
    return _csv(file, given)


def _csv(file: BinaryIO, given: ImportMapping) -> Table:
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader: Iterator[list[str]]
    if given.separator == WHITESPACE:
        reader = (line.split() for line in lines)
    else:
        reader = csv.reader(lines, delimiter=given.separator, strict=True)
    columns = given.columns
    if not columns:
        try:
            columns = tuple(word.strip() for word in next(reader, []))
        except csv.Error as fault:
            raise Unreadable(f"the heading cannot be read: {fault}") from fault
    if not any(columns):
        raise Unreadable("the file is empty: expected a heading with the names of the columns")
    twice = [word for word in columns if columns.count(word) > 1]
    if twice:
        raise Unreadable(f'two columns are called "{twice[0]}"')
    return Table(columns, _csv_rows(reader, columns))


def _csv_rows(reader: Iterator[list[str]], columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            number += 1
            yield Row(number, None, None, str(fault))
            continue
        if not cells:
            continue
        number += 1
        if len(cells) != len(columns):
            yield Row(number, None, cells, f"{len(cells)} cells in {len(columns)} columns")
        elif sum(map(len, cells)) > LARGEST_ROW_BYTES:
            yield Row(number, None, None, f"a row may have {LARGEST_ROW_BYTES} bytes")
        elif not _is_text(cells):
            yield Row(number, None, None, "not UTF-8")
        else:
            yield Row(number, dict(zip(columns, cells, strict=True)), cells)


def _json_lines(file: BinaryIO) -> Table:
    first = file.readline()
    try:
        found = msgspec.json.decode(first) if first.strip() else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    columns = tuple(found) if isinstance(found, dict) else ()
    return Table(columns, _json_rows(file, first))


def _json_rows(file: BinaryIO, first: bytes) -> Iterator[Row]:
    number = 0
    line = first
    while line:
        text = line.strip()
        if text:
            number += 1
            yield _json_row(number, text)
        line = file.readline()


def _json_row(number: int, text: bytes) -> Row:
    if len(text) > LARGEST_ROW_BYTES:
        return Row(number, None, None, f"a row may have {LARGEST_ROW_BYTES} bytes")
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Row(number, None, text.decode("utf-8", "replace"), "not JSON")
    if not isinstance(found, dict):
        return Row(number, None, found, "not a JSON object")
    return Row(number, found, found)


def _parquet(file: BinaryIO) -> Table:
    try:
        import pyarrow.parquet as parquet
    except ImportError as fault:
        message = "Parquet needs the extra `parquet`: pip install viewfinder[parquet]"
        raise Unreadable(message) from fault
    try:
        opened = parquet.ParquetFile(file)
    except (OSError, ValueError) as fault:
        raise Unreadable("not a Parquet file") from fault
    return Table(tuple(opened.schema_arrow.names), _parquet_rows(opened))


def _parquet_rows(opened: Any) -> Iterator[Row]:
    number = 0
    for batch in opened.iter_batches(batch_size=_PARQUET_ROWS):
        for values in batch.to_pylist():
            number += 1
            yield Row(number, values, values)


def _is_text(cells: Sequence[str]) -> bool:
    """False where bytes that are not UTF-8 were read, which stand in there as lone surrogates."""
    together = "".join(cells)
    if together.isascii():
        return True
    try:
        together.encode()
    except UnicodeEncodeError:
        return False
    return True
