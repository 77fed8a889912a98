"""`viewfinder publish`: which rules the engines decide by, where they follow the database."""

from __future__ import annotations

import sys
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from engine.adapters.postgres.revisions import Publication, Revisions
from engine.adapters.postgres.store import Store
from engine.app.cli.check import check_folders, models_of, print_problems
from engine.app.cli.database import with_store
from engine.app.cli.environment import errors, fail

HISTORY = 50


def publish(
    folder: Path | None = None,
    /,
    *,
    models: Annotated[Path | None, Parameter(help="The models' folder; `models` beside it.")] = None,
    rollback: Annotated[
        str | None, Parameter(help="Make an earlier revision active again: its id, or `previous`.")
    ] = None,
    history: Annotated[bool, Parameter(help="List what was active when, the newest first.")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Check a workspace and make it the active one: engines with VIEWFINDER_RULES=db follow within two
    seconds.

    Parameters
    ----------
    folder
        The rules' folder.
    """
    if (folder is not None) + (rollback is not None) + history != 1:
        fail("say which folder to publish, or --rollback, or --history", 2)
    if history:
        return _show(with_store(lambda store: Revisions(store.pool).history(HISTORY)), json)
    if rollback is not None:
        wanted = rollback
        return _tell(*with_store(lambda store: _back(store, wanted)), json)
    assert folder is not None
    checked = check_folders(folder, models or models_of(folder))
    if checked.ruling is None:
        print_problems(checked, errors)
        return 1
    revision, files = checked.ruling.rules.revision, checked.files

    async def make_active(store: Store) -> tuple[str, bool]:
        revisions = Revisions(store.pool)
        await revisions.keep(revision, {"rules": files.rules, "models": files.models})
        return revision, await revisions.publish(revision, "publish")

    return _tell(*with_store(make_active), json)


async def _back(store: Store, wanted: str) -> tuple[str, bool]:
    revisions = Revisions(store.pool)
    if wanted == "previous":
        past = await revisions.history(2)
        if len(past) < 2:
            fail("no other revision was active before", 1)
        revision = past[1].revision
    else:
        found = await revisions.named(wanted)
        if len(found) != 1:
            fail(f'{"no revision is" if not found else "several revisions are"} called "{wanted}"', 1)
        (revision,) = found
    return revision, await revisions.publish(revision, "rollback")


def _tell(revision: str, is_new: bool, json: bool) -> int:
    if json:
        _write({"revision": revision, "changed": is_new})
    else:
        Console().out(f"{'active now' if is_new else 'active already'}: revision {revision}")
    return 0


def _show(past: list[Publication], json: bool) -> int:
    if json:
        _write({"publications": past})
        return 0
    table = Table("revision", "active since", "by")
    for number, one in enumerate(past):
        since = f"{one.published_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        table.add_row(one.revision, since, one.how, style="bold" if number == 0 else None)
    Console().print(table)
    return 0


def _write(report: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
