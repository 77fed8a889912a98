"""`viewfinder identities`: who is who, and why; and two people who were taken for one."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from engine.adapters.postgres import audit
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.graph import Graph, graph
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.rights import hash_of
from engine.adapters.postgres.store import connect
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings
from engine.app.cli.workspace import workspace
from engine.app.identity_picture import picture
from engine.app.splitting import NotSplit, Split, split
from engine.domain.offers.rules import RuleSet
from engine.domain.people.identity import normal

_json = msgspec.json.Encoder().encode


def identities(
    action: Literal["show", "split"],
    namespace: str,
    value: str,
    /,
    *,
    svg: Annotated[bool, Parameter(help="With show: a picture.")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Show who a person is and why, or take back the merge that an identity came by.

    Parameters
    ----------
    action
        show, or split: the person whom the identity belonged to before the merge is one of their own
        again, for 30 days after it.
    namespace
        Which kind of identity, such as user_id or email.
    value
        The identity.
    """
    settings = read_settings()
    with database(settings) as dsn:
        rules = workspace(settings, dsn).rules
        try:
            found = asyncio.run(_run(dsn, action, namespace, value, rules))
        except NotSplit as fault:
            fail(str(fault), 1)
            raise
        except (*DATABASE_FAULTS, StoreError) as fault:
            fail(f"the database: {fault}", 1)
            raise
    if found is None:
        fail("nobody by that identity", 1)
        raise AssertionError
    if json:
        sys.stdout.write(_json(found).decode() + "\n")
    elif isinstance(found, Split):
        sys.stdout.write(
            f"two people again: {found.survivor} and {found.split}\n"
            f"of {found.events} events since the merge the second one got {found.given}\n"
        )
    elif svg:
        sys.stdout.write(picture(found) + "\n")
    else:
        _print(found)
    return 0


async def _run(dsn: str, action: str, namespace: str, value: str, rules: RuleSet) -> Graph | Split | None:
    await migrate(dsn)
    store = await connect(dsn)
    key = normal((namespace, value), rules.workspace.namespaces)
    try:
        secret = await store.secret(secrets.token_bytes(32))
        now, person = datetime.now(UTC), hash_of(secret, key)
        await audit.append(store.pool, "command", f"identities {action}", now, person)
        if action == "split":
            return await split(store.pool, key, rules, datetime.now(UTC))
        return await graph(store.pool, key)
    finally:
        await store.close()


def _print(found: Graph) -> None:
    table = Table("identity", "value", "linked", "by", title=f"profile {found.profile}")
    for link in found.identities:
        why = f"{link.why.type} {link.why.name}".strip() + f" ({link.why.source})" if link.why else "?"
        table.add_row(link.namespace, link.value, f"{link.linked_at:%Y-%m-%d %H:%M:%S}", why)
    for device in found.devices:
        table.add_row("device", device.id, f"{device.seen_at:%Y-%m-%d %H:%M:%S}", "an address, joins nobody")
    console = Console()
    console.print(table)
    for merge in found.merges:
        why = f"{merge.why.type} ({merge.why.source}), message {merge.why.message_id}" if merge.why else "?"
        console.print(
            f"{merge.profile} became one with {merge.into} at {merge.at:%Y-%m-%d %H:%M:%S} by {why}"
        )
