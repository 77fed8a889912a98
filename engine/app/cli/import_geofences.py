"""`viewfinder import geofences`: a file of places into the workspace."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.app.cli.environment import errors, fail
from engine.domain.places.fences import Fence
from engine.formats.fence_file import SUFFIX, write_fences
from engine.formats.fence_rows import FenceRow, Unreadable, fence_rows
from engine.formats.geojson import Sizes

FOLDER: Final = "places"
_TOLD: Final = 10
"""Rejected rows that are told on the terminal; the others stand in the file."""
_EVERY: Final = 1_000

_json = msgspec.json.Encoder().encode


class _Counts:
    def __init__(self) -> None:
        self.rows = self.fences = self.rejected = self.mended = 0


def bring_geofences(
    file: Path, rules: Path, id_path: str, sizes: Sizes, rejected: Path | None, json: bool
) -> int:
    """Examines the places of a file and writes the good ones to the workspace, as `places/NAME.fences`
    with the YAML that names it, in the place of an earlier one of the same name. Exit code 1 where rows
    were rejected."""
    if not rules.is_dir():
        fail(f"there is no folder {rules}", 2)
    name = re.sub(r"[^a-z0-9_-]+", "-", file.stem.lower()).strip("-") or "geofences"
    target = rules / FOLDER / f"{name}{SUFFIX}"
    beside = rejected or file.with_name(file.name + ".rejected.jsonl")
    counts = _Counts()
    try:
        rows = fence_rows(file.read_bytes(), file.name, id_path, sizes)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        with partial.open("wb") as out, beside.open("wb") as refused:
            counts.fences = write_fences(out, _good(rows, file, refused, counts, quiet=json))
        if not counts.rejected:
            beside.unlink()
        if not counts.fences:
            partial.unlink()
            fail(f"{file}: no place in it can be used", 1)
        os.replace(partial, target)
        said = _declare(target, name)
    except Unreadable as fault:
        (target.with_name(f".{target.name}.part")).unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        fail(f"{file}: {fault}", 1)
        raise
    except OSError as fault:
        fail(f"{fault.filename or file}: {fault.strerror}", 2)
        raise
    if json:
        told: dict[str, Any] = {
            "rows": counts.rows,
            "geofences": counts.fences,
            "mended": counts.mended,
            "rejected": counts.rejected,
            "file": str(target),
        }
        sys.stdout.write(_json(told).decode() + "\n")
        return 1 if counts.rejected else 0
    sys.stdout.write(
        f"{target}: {counts.fences:,} geofences, {counts.mended:,} mended, {counts.rejected:,} rejected\n"
    )
    if said is not None:
        sys.stdout.write(f"{said}: names them, with the tag {name}\n")
    if counts.rejected:
        sys.stdout.write(f"rejected rows are in {beside}\n")
    return 1 if counts.rejected else 0


def _good(
    rows: Iterator[FenceRow], file: Path, refused: BinaryIO, counts: _Counts, *, quiet: bool
) -> Iterator[Fence]:
    """The places that can be used; the rejected rows go to their file."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(file.name, total=None)
        for row in rows:
            counts.rows += 1
            if counts.rows % _EVERY == 0:
                bar.update(task, completed=counts.rows)
            counts.mended += bool(row.mended)
            if row.fence is not None:
                yield row.fence
                continue
            counts.rejected += 1
            told = {"row": row.number, "line": row.line, "problems": row.problems, "value": row.raw}
            refused.write(_json(told) + b"\n")
            if counts.rejected <= _TOLD and not quiet:
                for problem in row.problems:
                    errors.out(f"{file}:{row.line}: row {row.number}: {problem}", highlight=False)
        bar.update(task, completed=counts.rows, total=counts.rows)


def _declare(target: Path, name: str) -> Path | None:
    """Writes the YAML that brings the file in, once; it may be changed afterwards."""
    said = target.with_suffix(".yaml")
    if said.exists():
        return None
    said.write_text(f"geofences:\n  {name}: {{file: {target.name}, tags: [{name}]}}\n", "utf-8")
    return said
