"""`viewfinder receivers`: the business's other systems that are told what happens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from engine.adapters.addresses import allowed
from engine.adapters.postgres import audit
from engine.adapters.postgres import receivers as stored
from engine.adapters.postgres.changes import Changes
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.outbox import Outbox
from engine.adapters.postgres.store import Store, connect
from engine.app import registering
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings
from engine.app.cli.workspace import workspace
from engine.app.dead_letters import DeadLetter, dead_letters, revive
from engine.app.receivers import trial, way_to
from engine.app.settings import Settings
from engine.domain.offers.delivery import Delivered
from engine.domain.sharing.receivers import TOPICS, Receiver

T = TypeVar("T")
Action = Literal["list", "add", "show", "remove", "rotate", "enable", "test", "dead-letters", "requeue"]

_json = msgspec.json.Encoder().encode
_COMMAND = "command"
MOST_SHOWN = 1000
_TOPICS = ", ".join(TOPICS)


def receivers(
    action: Action = "list",
    name: str | None = None,
    url: str | None = None,
    /,
    *,
    topics: Annotated[str, Parameter(help=f"With add: what it is told, of {_TOPICS}; comma-separated.")] = "",
    purpose: Annotated[
        str | None, Parameter(help="With add: the consent purpose for which it is told of people.")
    ] = None,
    without: Annotated[
        str, Parameter(help="With add: labels of traits that it does not get; comma-separated.")
    ] = "",
    create_stream: Annotated[
        bool, Parameter(help="With add and nats://: make the stream where there is none.")
    ] = False,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> int:
    """The business's other systems that are told what happens. A secret is shown once, when it is made.

    Parameters
    ----------
    action
        list, show NAME, add NAME URL (https://…, or nats://…; without --topics it gets the actions that
        name it), rotate NAME (the old secret signs as well for a day), test NAME (sends it a message
        now), enable NAME (after it answered 410), dead-letters NAME (what it did not take in time),
        requeue NAME [ID] (tries one of those again, or all), remove NAME.
    name
        As rules name it.
    url
        Where it is; with requeue the message's id.
    """
    if action != "list" and not name:
        fail(f"{action} needs a name", 2)
    if action == "add" and not url:
        fail("add needs a name and a URL", 2)
    if (topics or purpose or without or create_stream) and action != "add":
        fail("--topics, --purpose, --without and --create-stream go with add", 2)
    if url and action not in ("add", "requeue"):
        fail(f"{action} takes a name and nothing else", 2)
    settings = read_settings()
    with database(settings) as dsn:
        if action == "add":
            said = {
                "name": name,
                "url": url,
                "topics": _words(topics),
                "purpose": purpose,
                "without": _words(without),
                "createStream": create_stream,
            }
            return _add(settings, dsn, said, json)
        return _with(dsn, lambda store: _run(store, settings, action, name or "", url, json))


def _with(dsn: str, work: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        await migrate(dsn)
        store = await connect(dsn, size=2)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except (*DATABASE_FAULTS, StoreError) as fault:
        fail(f"the database: {fault}", 1)
        raise


def _add(settings: Settings, dsn: str, said: dict[str, Any], json: bool) -> int:
    try:
        wish = msgspec.convert(said, registering.Wish)
    except msgspec.ValidationError:
        fail(f"--topics: expected some of {_TOPICS}", 2)
        raise
    rules = workspace(settings, dsn).rules

    async def add(store: Store) -> Receiver:
        now = datetime.now(UTC)
        receiver = await registering.taken(wish, rules, allowed(settings.receivers_allow), now)
        await audit.append(store.pool, _COMMAND, f"receivers add {wish.name}", now)
        if not await stored.add(store.pool, receiver):
            raise registering.NotTaken(f'there is a receiver "{wish.name}" already')
        return receiver

    try:
        receiver = _with(dsn, add)
    except registering.NotTaken as fault:
        fail(str(fault), 1)
        raise
    _tell_secret(receiver.name, receiver.secret, json)
    return 0


async def _run(
    store: Store, settings: Settings, action: Action, name: str, message: str | None, json: bool
) -> int:
    pool, now = store.pool, datetime.now(UTC)
    if action == "list":
        _list(await stored.all_of(pool), json)
        return 0
    receiver = await stored.find(pool, name)
    if receiver is None:
        fail(f'there is no receiver "{name}"', 1)
        raise AssertionError
    if action == "show":
        _show(registering.shown(receiver), json)
        return 0
    changes, outbox = Changes(pool), Outbox(store.pool)
    if action == "dead-letters":
        await audit.append(pool, _COMMAND, f"receivers {action} {name}", now)
        _list_dead(await dead_letters(changes, outbox, receiver, MOST_SHOWN), json)
        return 0
    await audit.append(pool, _COMMAND, f"receivers {action} {name}", now)
    match action:
        case "test":
            return await _test(receiver, settings, json)
        case "rotate":
            _tell_secret(name, await stored.rotate(pool, name, now) or "", json)
        case "enable":
            done = await stored.enable(pool, name)
            _say(json, {"name": name, "enabled": done}, "it is told again" if done else "it was not disabled")
        case "requeue":
            try:
                revived = await revive(changes, outbox, receiver, message, now)
            except ValueError:
                fail(f"{message!r} is no message's id", 2)
                raise
            _say(json, {"name": name, "requeued": revived}, f"{revived} to be tried again")
            return 0 if revived or message is None else 1
        case "remove":
            await stored.remove(pool, name)
            await changes.forget(name)
            _say(json, {"name": name, "removed": True}, "removed")
    return 0


async def _test(receiver: Receiver, settings: Settings, json: bool) -> int:
    way = way_to(receiver, allowed(settings.receivers_allow))
    try:
        verdict = await way.tell(trial(str(uuid4()), datetime.now(UTC)), 0.0)
    finally:
        await way.aclose()
    taken = isinstance(verdict, Delivered)
    code = None if isinstance(verdict, Delivered) else verdict.code
    _say(
        json, {"name": receiver.name, "taken": taken, "code": code}, "taken" if taken else f"refused: {code}"
    )
    return 0 if taken else 1


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _tell_secret(name: str, secret: str, json: bool) -> None:
    _say(json, {"name": name, "secret": secret}, secret)


def _say(json: bool, report: dict[str, Any], text: str) -> None:
    sys.stdout.write((_json(report).decode() if json else text) + "\n")


def _list(found: list[Receiver], json: bool) -> None:
    if json:
        sys.stdout.write(_json([registering.shown(r) for r in found]).decode() + "\n")
        return
    table = Table("name", "url", "topics", "purpose", "without", "")
    for one in found:
        state = f"disabled: {one.disabled_because}" if one.disabled_at else ""
        topics = ", ".join(one.topics) or "actions only"
        table.add_row(one.name, one.shown_url, topics, one.purpose or "", ", ".join(one.without), state)
    Console().print(table)


def _list_dead(found: list[DeadLetter], json: bool) -> None:
    if json:
        sys.stdout.write(_json(found).decode() + "\n")
        return
    table = Table("id", "about", "what", "why", "since", "given up")
    for one in found:
        times = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (one.since, one.settled_at))
        table.add_row(one.id, one.profile_id, one.type, one.code or "", *times)
    Console().print(table)


def _show(receiver: dict[str, Any], json: bool) -> None:
    if json:
        sys.stdout.write(_json(receiver).decode() + "\n")
        return
    for field, value in receiver.items():
        if value not in (None, []):
            said = ", ".join(value) if isinstance(value, list) else value
            Console().out(f"{field:<16} {said}", highlight=False)
