"""A watched folder: what is put into `DATA/import/KIND/` is brought in.

A file is taken once it has stopped growing. `mapping.yaml` beside it says which column is what. Then it
goes to `done/`, or to `failed/` with the reason in a text file beside it. There it stays for a month,
without the people who were erased since.
"""

from __future__ import annotations

import asyncio
import fcntl
import time
from contextlib import closing
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from engine.adapters.postgres import audit, rights
from engine.adapters.postgres.faults import StoreError
from engine.app import import_files
from engine.app.importing_files import begin, bring_in, prepare
from engine.app.rejected_rows import RejectedRows
from engine.app.replies import Interrupted
from engine.formats.import_mapping import KINDS, Kind
from engine.formats.import_rows import Unreadable
from engine.formats.problems import render_all

if TYPE_CHECKING:
    from engine.app.engine import Engine

POLL_SECONDS = 2.0
CLEAN_SECONDS = 3600.0
"""How long an erasure that another machine was asked for may take to reach the files of this one."""
MAPPING = "mapping.yaml"
_ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet")

log = structlog.get_logger()


async def watch(engine: Engine, folder: Path) -> None:
    """Looks now and then, for as long as the engine runs."""
    sizes: dict[Path, int] = {}
    cleaned = -inf
    while True:
        if time.monotonic() - cleaned > CLEAN_SECONDS:
            cleaned = time.monotonic()
            await _clean(engine, folder)
        await asyncio.sleep(POLL_SECONDS)
        found = await asyncio.to_thread(_files, folder)
        for file, size in found.items():
            if sizes.get(file) == size and size:
                try:
                    await _take_alone(engine, file)
                except Exception:
                    log.exception("import_failed", file=file.name)
        sizes = found


async def _clean(engine: Engine, folder: Path) -> None:
    """Kept files without who was erased meanwhile, by whichever engine."""
    try:
        await asyncio.to_thread(import_files.forget_old, folder, datetime.now(UTC))
        if any(import_files.kept(folder)):
            erased = dict(await rights.ledger(engine.store.pool))
            namespaces = engine.ruling.rules.workspace.namespaces
            await asyncio.to_thread(import_files.scrub, folder, erased, engine.secret, namespaces)
    except (StoreError, OSError) as fault:
        log.warning("import_files_not_cleaned", fault=type(fault).__name__)


def _files(folder: Path) -> dict[Path, int]:
    """The files that wait, with their sizes."""
    return {
        file: file.stat().st_size
        for kind in KINDS
        for file in sorted((folder / kind).glob("*"))
        if file.suffix.lower() in _ENDINGS and file.is_file()
    }


async def _take_alone(engine: Engine, file: Path) -> None:
    """Of several workers on one folder, one takes a file."""
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        await take(engine, file)


async def take(engine: Engine, file: Path) -> None:
    """Brings one file in and puts it away. What the database interrupts stays, and goes on later."""
    refused = file.with_name(file.name + import_files.REJECTED)
    try:
        reason = await _bring(engine, file, refused)
    except (Interrupted, StoreError, asyncio.CancelledError) as fault:
        log.warning("import_waits", file=file.name, fault=type(fault).__name__)
        if isinstance(fault, asyncio.CancelledError):
            raise
        return
    except (Unreadable, OSError) as fault:
        reason = str(fault)
    await asyncio.to_thread(_put_away, file, refused, reason)
    log.info("imported" if reason is None else "import_failed", file=file.name)


async def _bring(engine: Engine, file: Path, refused: Path) -> str | None:
    kind: Kind = file.parent.name  # type: ignore[assignment]
    beside = file.with_name(MAPPING)
    said = beside if beside.is_file() else None
    prepared, problems = prepare(kind, file, said, engine.ruling.rules.workspace)
    if prepared is None:
        return render_all(problems, {})
    done = await begin(engine, prepared)
    if not done.rows:
        await audit.append(engine.store.pool, "import folder", f"import {kind}", engine.clock())
    with closing(RejectedRows(refused, done.rows)) as reject, file.open("rb") as opened:
        await bring_in(engine, prepared, opened, done, reject, reject.flush)
    return None


def _put_away(file: Path, refused: Path, reason: str | None) -> None:
    to = file.parent / ("done" if reason is None else "failed")
    to.mkdir(exist_ok=True)
    named = _free(to, file)
    file.replace(to / named)
    if reason is not None:
        (to / f"{named}.reason.txt").write_text(reason + "\n", "utf-8")
    if refused.exists():
        refused.replace(to / (named + import_files.REJECTED))


def _free(folder: Path, file: Path) -> str:
    """The file's name, with a number where another one of that name was put away before."""
    name, number = file.name, 1
    while (folder / name).exists() or (folder / (name + import_files.REJECTED)).exists():
        number += 1
        name = f"{file.stem}-{number}{file.suffix}"
    return name
