"""`/admin`, what a person may ask for: to see everything, to be erased, left alone, or put right."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec
import structlog
from litestar import MediaType, Response, delete, get, post
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody

from engine.adapters.postgres import rights as stored
from engine.adapters.postgres.rights import Receipt
from engine.app import profile_reading, rights
from engine.app.engine import Engine
from engine.app.export_page import page
from engine.app.import_files import FOLDER
from engine.app.routes.admin import Lookup
from engine.domain.people import identity
from engine.domain.people.profiles import IdentityKey, Profile

log = structlog.get_logger()
_json = msgspec.json.Encoder().encode


class ReceiptId(msgspec.Struct, frozen=True):
    """Where to ask what an erasure did: `GET /admin/erasures/{receipt}`."""

    receipt: str


class Restriction(Lookup, frozen=True):
    """Whose data is to be stored and not used, or to be used again."""

    restricted: bool = True


class Correction(Lookup, frozen=True):
    """Whose traits to set right; a null takes one away. `accounts` by id: what they are in it, `role` and
    more, or null for no member."""

    traits: dict[str, Any] = msgspec.field(default_factory=dict)
    accounts: dict[str, dict[str, Any] | None] = msgspec.field(default_factory=dict)


@delete(
    "/profiles/{namespace:str}/{value:str}", operation_id="erase", summary="Erase a person", status_code=202
)
async def erase(namespace: FromPath[str], value: FromPath[str], state: State) -> ReceiptId:
    return await _erase(state.engine, namespace, value)


@post("/profiles/erase", operation_id="eraseNamed", summary="The same, by the body", status_code=202)
async def erase_named(data: JSONBody[Lookup], state: State) -> ReceiptId:
    return await _erase(state.engine, data.namespace, data.value)


@get("/erasures/{receipt_id:uuid}", operation_id="erasure", summary="What an erasure did")
async def erasure(receipt_id: FromPath[UUID], state: State) -> Receipt:
    found = await stored.receipt(state.engine.store.pool, str(receipt_id))
    if found is None:
        raise NotFoundException("no erasure by that id")
    return found


@get(
    "/profiles/{namespace:str}/{value:str}/export",
    operation_id="export",
    summary="Everything about one person, as JSON or as a page",
)
async def export(
    namespace: FromPath[str],
    value: FromPath[str],
    state: State,
    format: FromQuery[Literal["json", "html"]] = "json",
) -> Response[bytes]:
    return await _export(state.engine, namespace, value, format)


@post(
    "/profiles/export", operation_id="exportNamed", summary="The same, asked for in the body", status_code=200
)
async def export_named(
    data: JSONBody[Lookup], state: State, format: FromQuery[Literal["json", "html"]] = "json"
) -> Response[bytes]:
    return await _export(state.engine, data.namespace, data.value, format)


@post(
    "/profiles/restrict",
    operation_id="restrict",
    summary="Store a person's data and do not use it, or use it again",
    status_code=200,
)
async def restrict(data: JSONBody[Restriction], state: State) -> profile_reading.ProfileView:
    engine: Engine = state.engine
    found = await _found(engine, data.namespace, data.value)
    await rights.restrict(engine.lane, found, data.restricted, engine.clock())
    return await _view(engine, data)


@post("/profiles/correct", operation_id="correct", summary="Set traits right", status_code=200)
async def correct(data: JSONBody[Correction], state: State) -> profile_reading.ProfileView:
    engine: Engine = state.engine
    found = await _found(engine, data.namespace, data.value)
    await rights.correct(engine.lane, found, data.traits, engine.clock(), data.accounts)
    return await _view(engine, data)


def _key(engine: Engine, namespace: str, value: str) -> IdentityKey:
    if "\0" in namespace + value:
        raise NotFoundException("no profile by that identity")
    return identity.normal((namespace, value), engine.ruling.rules.workspace.namespaces)


async def _found(engine: Engine, namespace: str, value: str) -> Profile:
    found = await profile_reading.find(engine, namespace, value)
    if found is None:
        raise NotFoundException("no profile by that identity")
    return found


async def _view(engine: Engine, data: Lookup) -> profile_reading.ProfileView:
    return profile_reading.view(
        await _found(engine, data.namespace, data.value), engine.ruling, engine.clock()
    )


async def _erase(engine: Engine, namespace: str, value: str) -> ReceiptId:
    key = _key(engine, namespace, value)
    namespaces = engine.ruling.rules.workspace.namespaces
    erased = await stored.erase(engine.store.pool, key, engine.secret, engine.clock(), namespaces)
    if erased is None:
        raise NotFoundException("no profile by that identity")
    receipt, person = erased
    for profile_id in person.ids:
        engine.cache.evict(profile_id)
    engine.vacuums.ask(table for table, rows in receipt.deleted.items() if rows)
    files = Path(engine.settings.data) / FOLDER
    try:
        await rights.without_files(engine.store.pool, receipt, person, engine.secret, files)
    except OSError as fault:  # tried again within the hour
        log.warning("import_files_not_cleaned", fault=type(fault).__name__)
    return ReceiptId(receipt.id)


async def _export(engine: Engine, namespace: str, value: str, form: str) -> Response[bytes]:
    namespaces = engine.ruling.rules.workspace.namespaces
    key = _key(engine, namespace, value)
    found = await rights.export(engine.store.pool, key, engine.clock(), namespaces)
    if found is None:
        raise NotFoundException("no profile by that identity")
    if form == "html":
        return Response(page(found).encode(), media_type=MediaType.HTML)
    return Response(_json(found), media_type=MediaType.JSON)


HANDLERS = (erase, erase_named, erasure, export, export_named, restrict, correct)
