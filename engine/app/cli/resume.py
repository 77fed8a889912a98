"""`viewfinder resume`: the stop button, released."""

from __future__ import annotations

import sys
from typing import Annotated
from uuid import UUID

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.adapters.postgres.pauses import Pauses
from engine.adapters.postgres.store import Store
from engine.app.cli.database import with_store
from engine.app.cli.environment import fail
from engine.app.cli.pause import said
from engine.domain.offers.pauses import Pause


def resume(
    pause: str | None = None,
    /,
    *,
    all: Annotated[bool, Parameter(help="Let everything that is stopped go on.")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Let what was stopped go on; held sends follow, unless they expired meanwhile.

    Parameters
    ----------
    pause
        The pause's id, or the name of the rule, offer or channel.
    """
    if (pause is None) is not all:
        fail("say which pause (`viewfinder pause` lists them), or --all", 2)

    async def end(store: Store) -> list[Pause]:
        pauses = Pauses(store.pool)
        wanted = [p for p in await pauses.active() if all or pause in (p.id, p.name)]
        return [one for one in wanted if await pauses.end(UUID(one.id))]

    ended = with_store(end)
    if not ended and not all:
        fail(f'nothing is stopped by "{pause}"', 1)
    if json:
        sys.stdout.write(msgspec.json.encode({"resumed": ended}).decode() + "\n")
    else:
        Console().out("".join(f"goes on: {said(one)}\n" for one in ended) or "nothing was stopped", end="")
    return 0
