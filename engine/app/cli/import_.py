"""`viewfinder import`: a file of profiles, purchases, consents, accounts or interactions."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.adapters.postgres import audit, imports
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.imports import Progress as Done
from engine.adapters.postgres.migrations import migrate
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import errors, fail, read_settings
from engine.app.cli.import_geofences import bring_geofences
from engine.app.cli.workspace import workspace
from engine.app.import_lane import own_lane
from engine.app.importing import Import
from engine.app.importing_files import Prepared, prepare
from engine.app.rejected_rows import RejectedRows
from engine.app.replies import Interrupted
from engine.app.ruling import Ruling
from engine.domain.offers.rules import Workspace
from engine.formats.geojson import Sizes
from engine.formats.import_mapping import KINDS, Kind, kind_of
from engine.formats.import_rows import Unreadable
from engine.formats.problems import render_all

_json = msgspec.json.Encoder().encode


def import_(
    kind: str,
    file: Path,
    /,
    *,
    mapping: Annotated[Path | None, Parameter(help="YAML: which column is what.")] = None,
    rejected: Annotated[Path | None, Parameter(help="Where rejected rows go; FILE.rejected.jsonl.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
    id: Annotated[str, Parameter(help="Geofences: where a feature's id stands.")] = "id",
    radius: Annotated[float | None, Parameter(help="Geofences: of points that state none, metres.")] = None,
    width: Annotated[float | None, Parameter(help="Geofences: of lines that state none, metres.")] = None,
) -> int:
    """Bring in a CSV, JSON Lines or Parquet file, row by row as events. One that was interrupted goes on
    where it was; the same file again adds nothing. Geofences come from GeoJSON or a CSV of circles and
    become part of the workspace.

    Parameters
    ----------
    kind
        profiles, purchases, consents, accounts, interactions or geofences.
    file
        The file.
    """
    settings = read_settings()
    if kind == "geofences":
        return bring_geofences(file, Path(settings.rules), id, Sizes(radius, width), rejected, json)
    known = kind_of(kind)
    if known is None:
        fail(f"{kind!r}: expected one of {', '.join(KINDS)}, geofences", 2)
        raise AssertionError
    beside = rejected or file.with_name(file.name + ".rejected.jsonl")
    with database(settings) as dsn:
        ruling = workspace(settings, dsn)
        prepared = _prepared(known, file, mapping, ruling.rules.workspace)
        try:
            return asyncio.run(_run(dsn, ruling, prepared, beside, json))
        except Interrupted:
            fail("the database went away; run the same command again to go on", 1)
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}; run the same command again to go on", 1)
    return 1


def _prepared(kind: Kind, file: Path, mapping: Path | None, workspace: Workspace) -> Prepared:
    """How to bring the file in; ends with what is wrong with it or its mapping."""
    try:
        prepared, problems = prepare(kind, file, mapping, workspace)
    except Unreadable as fault:
        fail(f"{file}: {fault}", 1)
        raise
    except OSError as fault:
        fail(f"{fault.filename or file}: {fault.strerror}", 2)
        raise
    if prepared is None:
        sources = {str(mapping): mapping.read_bytes()} if mapping is not None else {}
        errors.out(render_all(problems, sources), highlight=False)
        sys.exit(1)
    return prepared


async def _run(dsn: str, ruling: Ruling, prepared: Prepared, beside: Path, json: bool) -> int:
    await migrate(dsn)
    async with own_lane(dsn, ruling) as own:
        pool = own.store.pool
        done = await imports.begin(pool, prepared.identifier, prepared.kind, prepared.file.name)
        if done.finished_at is not None:
            _tell(prepared, done, 0.0, json, "was brought in before")
            return 0
        await audit.append(pool, "command", f"import {prepared.kind}", datetime.now(UTC))
        began, before = time.monotonic(), done.rows
        with (
            closing(_opened(beside, before)) as reject,
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                disable=json or not sys.stderr.isatty(),
            ) as bar,
        ):
            task = bar.add_task(prepared.file.name, total=prepared.total, completed=before)

            work = Import(
                pool,
                own.lane,
                ruling.rules.workspace,
                prepared.identifier,
                reject=reject,
                flush=reject.flush,
                watch=lambda progress: bar.update(task, completed=progress.rows),
            )
            with prepared.file.open("rb") as opened:
                await work.run(prepared.table(opened).rows, prepared.event_of, done)
        seconds = time.monotonic() - began
    note = f"rejected rows are in {beside}" if done.rejected else ""
    _tell(prepared, done, (done.rows - before) / max(seconds, 0.001), json, note)
    return 0 if not done.rejected else 1


def _opened(beside: Path, rows: int) -> RejectedRows:
    try:
        return RejectedRows(beside, rows)
    except OSError as fault:
        fail(f"{beside}: {fault.strerror}", 2)
        raise


def _tell(prepared: Prepared, done: Done, rate: float, json: bool, note: str) -> None:
    if json:
        told = {
            "rows": done.rows,
            "accepted": done.accepted,
            "duplicates": done.duplicates,
            "rejected": done.rejected,
            "rowsPerSecond": round(rate),
        }
        sys.stdout.write(_json(told).decode() + "\n")
        return
    counts = f"{done.accepted:,} accepted, {done.duplicates:,} known before, {done.rejected:,} rejected"
    speed = f", {rate:,.0f} rows/s" if rate else ""
    sys.stdout.write(f"{prepared.file}: {done.rows:,} rows: {counts}{speed}\n")
    if note:
        sys.stdout.write(f"{note}\n")
