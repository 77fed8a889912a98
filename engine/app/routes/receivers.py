"""`/admin/receivers`: the business's other systems that are told what happens."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec
from litestar import delete, get, post
from litestar.datastructures import State
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, JSONBody

from engine.adapters.addresses import allowed
from engine.adapters.postgres import receivers as stored
from engine.adapters.postgres.changes import Changes
from engine.adapters.postgres.outbox import Outbox
from engine.app import registering
from engine.app.dead_letters import dead_letters, revive
from engine.app.engine import Engine
from engine.app.receivers import trial, way_to
from engine.app.registering import Wish
from engine.app.routes.admin import Limit
from engine.domain.offers.delivery import Delivered
from engine.domain.sharing.receivers import Receiver


class Secret(msgspec.Struct, frozen=True):
    """Shown once: nobody can ask for it again."""

    name: str
    secret: str

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"


class Which(msgspec.Struct, frozen=True):
    """Which message to try again; without an `id` all of them."""

    id: UUID | None = None


class Trial(msgspec.Struct, frozen=True):
    """What came of a test message; `code` is why it was not taken."""

    taken: bool
    code: str | None


@get("/receivers", operation_id="receivers", summary="All receivers, without their secrets")
async def receivers(state: State) -> dict[str, Any]:
    engine: Engine = state.engine
    return {"receivers": [registering.shown(one) for one in await stored.all_of(engine.store.pool)]}


@post("/receivers", operation_id="addReceiver", summary="Takes a receiver in; answers with its secret, once")
async def add(data: JSONBody[Wish], state: State) -> Secret:
    engine: Engine = state.engine
    may = allowed(engine.settings.receivers_allow)
    try:
        receiver = await registering.taken(data, engine.ruling.rules, may, engine.clock())
    except registering.NotTaken as fault:
        raise ClientException(str(fault)) from fault
    if not await stored.add(engine.store.pool, receiver):
        raise ClientException("there is a receiver by that name already")
    await engine.receivers.look()
    return Secret(receiver.name, receiver.secret)


@get("/receivers/{name:str}", operation_id="receiver", summary="One receiver, without its secret")
async def receiver(name: FromPath[str], state: State) -> dict[str, Any]:
    return registering.shown(await _found(state.engine, name))


@delete(
    "/receivers/{name:str}", operation_id="removeReceiver", summary="Forgets it, and all that waits for it"
)
async def remove(name: FromPath[str], state: State) -> None:
    engine: Engine = state.engine
    await _found(engine, name)
    await stored.remove(engine.store.pool, name)
    await Changes(engine.store.pool).forget(name)
    await engine.receivers.look()


@post(
    "/receivers/{name:str}/rotate",
    operation_id="rotateReceiver",
    summary="A new secret; the old one signs as well for a day",
    status_code=200,
)
async def rotate(name: FromPath[str], state: State) -> Secret:
    engine: Engine = state.engine
    secret = await stored.rotate(engine.store.pool, name, engine.clock())
    if secret is None:
        raise NotFoundException("no receiver by that name")
    await engine.receivers.look()
    return Secret(name, secret)


@post(
    "/receivers/{name:str}/enable",
    operation_id="enableReceiver",
    summary="Goes on with one that answered 410",
    status_code=200,
)
async def enable(name: FromPath[str], state: State) -> dict[str, Any]:
    engine: Engine = state.engine
    await _found(engine, name)
    await stored.enable(engine.store.pool, name)
    await engine.receivers.look()
    return registering.shown(await _found(engine, name))


@post(
    "/receivers/{name:str}/test",
    operation_id="testReceiver",
    summary="Sends it a message now",
    status_code=200,
)
async def test(name: FromPath[str], state: State) -> Trial:
    engine: Engine = state.engine
    way = way_to(await _found(engine, name), allowed(engine.settings.receivers_allow))
    try:
        verdict = await way.tell(trial(str(uuid4()), engine.clock()), 0.0)
    finally:
        await way.aclose()
    return Trial(True, None) if isinstance(verdict, Delivered) else Trial(False, verdict.code)


@get(
    "/receivers/{name:str}/dead-letters",
    operation_id="deadLetters",
    summary="What it did not take in time, newest first",
)
async def dead(name: FromPath[str], state: State, limit: Limit = 100) -> dict[str, Any]:
    engine: Engine = state.engine
    receiver, pool = await _found(engine, name), engine.store.pool
    return {"deadLetters": await dead_letters(Changes(pool), Outbox(pool), receiver, limit)}


@post(
    "/receivers/{name:str}/requeue",
    operation_id="requeue",
    summary="Tries all of those again, or one",
    status_code=200,
)
async def requeue(name: FromPath[str], data: JSONBody[Which], state: State) -> dict[str, int]:
    engine: Engine = state.engine
    receiver, pool = await _found(engine, name), engine.store.pool
    message = str(data.id) if data.id is not None else None
    revived = await revive(Changes(pool), Outbox(pool), receiver, message, engine.clock())
    engine.sharing.wake([name])
    engine.sender.wake()
    return {"requeued": revived}


async def _found(engine: Engine, name: str) -> Receiver:
    found = await stored.find(engine.store.pool, name) if "\0" not in name else None
    if found is None:
        raise NotFoundException("no receiver by that name")
    return found


HANDLERS = (receivers, add, receiver, remove, rotate, enable, test, dead, requeue)
