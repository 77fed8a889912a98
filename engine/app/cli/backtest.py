"""`viewfinder backtest`: new rules tried on what people really did."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.adapters.postgres.history import History
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.revisions import Revisions
from engine.adapters.postgres.store import StoreError, connect
from engine.app.backtest import Agreement, Backtest, play
from engine.app.backtest_report import page, print_report
from engine.app.cli.check import check_folders, models_of, print_problems
from engine.app.cli.environment import DATABASE_FAULTS, database, errors, fail, read_settings, write_file
from engine.app.cli.rulings import Rulings
from engine.app.ruling import Ruling
from engine.app.settings import Settings
from engine.app.tick import is_kept
from engine.formats.workspace_values import duration_of


def backtest(
    folder: Path,
    /,
    *,
    against: Annotated[
        Path | None, Parameter(help="Another workspace to compare with; what is active by default.")
    ] = None,
    since: Annotated[str, Parameter(help="How far back, such as 12h, 7d.")] = "7d",
    profiles: Annotated[int | None, Parameter(help="Only so many people, chosen fairly.")] = None,
    html: Annotated[Path | None, Parameter(help="Write the report as a page to this file.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Run new rules over recorded events, side by side with what is active.

    Parameters
    ----------
    folder
        The rules' folder; its models are beside it.
    """
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
            report = asyncio.run(_run(dsn, settings, tried, other, datetime.now(UTC) - span, profiles, names))
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise
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


async def _run(
    dsn: str,
    settings: Settings,
    tried: Ruling,
    other: Ruling | None,
    since: datetime,
    profiles: int | None,
    names: tuple[str, str],
) -> dict[str, Any]:
    await migrate(dsn)
    store = await connect(dsn, size=2)
    connection = await asyncpg.connect(dsn)
    try:
        revisions = Rulings(Revisions(store.pool), settings)
        await revisions.load()
        active = revisions.set(other) if other is not None else revisions.active
        history = History(connection)
        left_out = await history.choose(profiles)
        total, _ = await history.count(since)
        decided = await history.decided(since, active.rules.revision) if other is None else {}
        backtest = Backtest(
            active=active,
            tried=revisions.set(tried),
            ruling_of=revisions.of,
            since=since,
            told=await history.told(since),
            agreement=Agreement(decided, is_kept),
            secret=await store.secret(bytes(32)),
        )
        started = time.perf_counter()
        with Progress(
            TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=errors
        ) as bar:
            task = bar.add_task("", total=total)
            await play(backtest, history.log(), lambda done: bar.advance(task, done))
        seconds = time.perf_counter() - started
        return backtest.report(names) | {
            "peopleLeftOut": left_out,
            "replayed": total,
            "seconds": round(seconds, 2),
            "eventsPerSecond": round(total / seconds) if seconds else 0,
        }
    finally:
        await connection.close()
        await store.close()
