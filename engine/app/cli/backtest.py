"""`viewfinder backtest`: new rules tried on what people really did."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import asyncpg
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.history import History
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.revisions import Revisions
from engine.adapters.postgres.store import connect
from engine.app.backtest import Trial
from engine.app.backtest_report import page, print_report
from engine.app.backtest_workers import Result, Work, WorkerLost, run, workers_for
from engine.app.cli.check import check_folders, models_of, print_problems
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import errors, fail, read_settings, write_file
from engine.app.cli.rulings import Rulings
from engine.app.ruling import Ruling
from engine.app.settings import Settings
from engine.domain.offers.rules import Namespace
from engine.formats.workspace_values import duration_of

QUICKLY_VERIFIED = 20_000
"""A record of so few events is made again for everybody, whether that was asked for or not."""


def backtest(
    folder: Path,
    /,
    *,
    against: Annotated[
        Path | None, Parameter(help="Another workspace to compare with; what is active by default.")
    ] = None,
    since: Annotated[str, Parameter(help="How far back, such as 12h, 7d.")] = "7d",
    profiles: Annotated[int | None, Parameter(help="Only so many people, chosen fairly.")] = None,
    verify: Annotated[
        bool, Parameter(help="Make every decision on record again, rather than those of a sample of people.")
    ] = False,
    html: Annotated[Path | None, Parameter(help="Write the report as a page to this file.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Run new rules over recorded events, side by side with what is active.

    Parameters
    ----------
    folder
        The rules' folder; its models are beside it.
    """
    started = time.perf_counter()
    settings = read_settings()
    span = duration_of(since)
    if span is None:
        fail(f"--since: {since!r} is no duration such as 12h or 7d", 2)
        raise AssertionError
    if profiles is not None and profiles < 1:
        fail("--profiles must be at least 1", 2)
    if html is not None and not html.absolute().parent.is_dir():
        fail(f"there is no folder {html.parent}", 2)
    tried = _workspace(folder)
    other = _workspace(against) if against is not None else None
    names = (str(against) if against is not None else "active", str(folder))
    with database(settings) as dsn:
        try:
            prepared = asyncio.run(
                _prepare(dsn, settings, tried, other, datetime.now(UTC), span, profiles, verify)
            )
            began = time.perf_counter() - started
            result, seconds, workers = _play(prepared)
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise
        except WorkerLost as fault:
            fail(str(fault), 1)
            raise
    report = _report(result, prepared.work.trial, names, seconds, began, workers)
    if html is not None:
        write_file(html, page(report).encode())
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        print_report(report, Console())
        if html is not None:
            Console().out(f"the page: {html}")
    return 0


def _workspace(folder: Path) -> Ruling:
    checked = check_folders(folder, models_of(folder))
    if checked.ruling is None:
        print_problems(checked, errors)
        sys.exit(1)
    return checked.ruling


class _Prepared(NamedTuple):
    """What is to be tried, and how many events there are to read."""

    work: Work
    events: int


async def _prepare(
    dsn: str,
    settings: Settings,
    tried: Ruling,
    other: Ruling | None,
    now: datetime,
    span: timedelta,
    profiles: int | None,
    verify: bool,
) -> _Prepared:
    await migrate(dsn)
    store = await connect(dsn, size=2)
    connection = await asyncpg.connect(dsn)
    try:
        rulings = Rulings(Revisions(store.pool), settings)
        await rulings.load()
        active = rulings.set(other) if other is not None else rulings.active
        tried = rulings.set(tried)
        every = [active, tried, *rulings.all]
        named: list[Sequence[Namespace]] = []
        for ruling in every:
            if ruling.rules.workspace.namespaces not in named:
                named.append(ruling.rules.workspace.namespaces)
        events = await History(connection).count()
        trial = Trial(
            active=active,
            tried=tried,
            ruling_of=rulings.of,
            since=now - span,
            until=now,
            suppressed_since=now - rulings.active.rules.workspace.retention["suppressed"],
            secret=await store.secret(bytes(32)),
            is_recorded=other is None,
            verifies_all=verify or events <= QUICKLY_VERIFIED,
        )
        work = Work(
            dsn=dsn,
            trial=trial,
            namespaces=tuple(named),
            joins_accounts=any(ruling.rules.uses_accounts for ruling in every),
            most=profiles,
        )
        return _Prepared(work, events)
    finally:
        await connection.close()
        await store.close()


def _play(prepared: _Prepared) -> tuple[Result, float, int]:
    """The result, the seconds that it took, and by how many workers."""
    workers = workers_for(prepared.events)
    started = time.perf_counter()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
    ) as bar:
        task = bar.add_task("events read and replayed", total=2 * prepared.events)
        result = run(prepared.work, workers, lambda done: bar.advance(task, done))
        bar.update(task, total=bar.tasks[0].completed)
    return result, time.perf_counter() - started, workers


def _report(
    result: Result, trial: Trial, names: tuple[str, str], seconds: float, began: float, workers: int
) -> dict[str, Any]:
    """Events are counted where they are in the period; those before it had only to be told."""
    count = result.count
    return {
        "since": trial.since,
        "until": count.until or trial.since,
        "events": count.events,
        "eventsBefore": count.before,
        "people": count.people,
        "active": count.active.report(names[0], trial.active.rules.revision),
        "tried": count.tried.report(names[1], trial.tried.rules.revision),
        "changes": count.changes(),
        "history": count.agreement.report(),
        "excused": count.excused,
        "leftOut": dict(count.left_out),
        "withoutPositions": count.positionless,
        "isSame": trial.is_same,
        "weatherIsLimited": trial.tried.rules.reads_weather and not trial.is_same,
        "workers": workers,
        "startupSeconds": round(began, 2),
        "seconds": round(seconds, 2),
        "eventsPerSecond": round(count.events / seconds),
    }
