"""`viewfinder pause`: the stop button."""

from __future__ import annotations

import sys
from datetime import UTC
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from engine.adapters.postgres.pauses import Pauses
from engine.adapters.postgres.revisions import Revisions
from engine.adapters.postgres.store import Store
from engine.app import rulesets
from engine.app.cli.database import with_store
from engine.app.cli.environment import errors, fail
from engine.app.stops import Stop, unknown
from engine.domain.offers.pauses import Pause


def pause(
    *,
    rule: Annotated[str | None, Parameter(help="Stop this rule.")] = None,
    offer: Annotated[str | None, Parameter(help="Stop this offer, whichever rule makes it.")] = None,
    channel: Annotated[str | None, Parameter(help="Stop everything that goes out this way: push.")] = None,
    all: Annotated[bool, Parameter(help="Stop everything.")] = False,
    reason: Annotated[str, Parameter(help="Why, for everybody who wonders.")] = "",
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Stop a rule, an offer, a channel or everything, on every engine within two seconds.

    Queued and deferred sends are held until `viewfinder resume`, or until they expire. With nothing to
    stop it lists what is stopped.
    """
    stop = Stop(reason=reason, rule=rule, offer=offer, channel=channel, all=all)
    if stop == Stop(reason=reason):
        return show(with_store(lambda store: Pauses(store.pool).active()), json)
    try:
        what, name = stop.what()
    except ValueError as fault:
        fail(str(fault), 2)
        raise

    async def begin(store: Store) -> tuple[Pause, str | None]:
        # Stopped first, looked up afterwards: seconds count.
        begun = await Pauses(store.pool).begin(what, name, reason)
        revisions = Revisions(store.pool)
        active = await revisions.active()
        folders = await revisions.folders(active.revision) if active is not None else None
        if folders is None:
            return begun, None
        ruling = rulesets.build(rulesets.Files(folders["rules"], folders["models"])).ruling
        return begun, unknown(what, name, ruling.rules) if ruling is not None else None

    begun, wrong = with_store(begin)
    if json:
        sys.stdout.write(msgspec.json.encode(begun).decode() + "\n")
    else:
        Console().out(f"stopped: {said(begun)}\nlet it go on with: viewfinder resume {begun.id}")
    if wrong is not None:
        errors.out(f"warning: in the active revision {wrong}")
    return 0


def show(pauses: list[Pause], json: bool) -> int:
    """What is stopped."""
    if json:
        sys.stdout.write(msgspec.json.encode({"pauses": pauses}).decode() + "\n")
        return 0
    if not pauses:
        Console().print("nothing is stopped")
        return 0
    table = Table("stopped", "since", "because", "id")
    for one in pauses:
        table.add_row(said(one), f"{one.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", one.reason, one.id)
    Console().print(table)
    return 0


def said(pause: Pause) -> str:
    return "everything" if pause.what == "all" else f"{pause.what} {pause.name}"
