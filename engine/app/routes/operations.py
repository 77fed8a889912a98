"""`/admin`, what operators do while the engine runs: other rules, and the stop button."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import delete, get, post
from litestar.datastructures import State
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, JSONBody

from engine.app.engine import Engine
from engine.app.stops import Stop, unknown
from engine.domain.offers.pauses import Pause


@get(
    "/rules",
    operation_id="rules",
    summary="The active revision, and the problems of the last attempt",
    sync_to_thread=False,
)
def rules(state: State) -> dict[str, Any]:
    return _standing(state.engine)


@post(
    "/rules/reload",
    operation_id="reloadRules",
    summary="Looks at the workspace again, on all engines; answers with what stands after it",
    status_code=200,
)
async def reload(state: State) -> dict[str, Any]:
    engine: Engine = state.engine
    await engine.reload()
    return _standing(engine)


def _standing(engine: Engine) -> dict[str, Any]:
    standing = engine.reloading
    return {
        "revision": standing.ruling.rules.revision,
        "loadedAt": standing.loaded_at,
        "problems": standing.problems,
    }


@get("/pause", operation_id="pauses", summary="What is stopped, the oldest first")
async def pauses(state: State) -> dict[str, list[Pause]]:
    engine: Engine = state.engine
    return {"pauses": await engine.pauses.active()}


@post(
    "/pause",
    operation_id="pause",
    summary="Stops a rule, an offer, a channel or everything, on all engines within 2 s",
)
async def pause(data: JSONBody[Stop], state: State) -> Pause:
    engine: Engine = state.engine
    try:
        what, name = data.what()
    except ValueError as fault:
        raise ClientException(str(fault)) from fault
    wrong = unknown(what, name, engine.ruling.rules)
    if wrong is not None:
        raise ClientException(wrong)
    begun = await engine.pauses.begin(what, name, data.reason)
    await engine.look_at_pauses()
    return begun


@delete(
    "/pause/{pause_id:uuid}",
    operation_id="resume",
    summary="Lets what was stopped go on; held sends follow unless they expired",
)
async def resume(pause_id: FromPath[UUID], state: State) -> None:
    engine: Engine = state.engine
    if not await engine.pauses.end(pause_id):
        raise NotFoundException("nothing is stopped by that id")
    await engine.look_at_pauses()


HANDLERS = [rules, reload, pauses, pause, resume]
