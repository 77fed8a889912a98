"""`/admin/audiences`: who is in which audience, and how many they were."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, Parameter

from engine.adapters.postgres import audiences as stored
from engine.app.admin_access import admin_only
from engine.app.engine import Engine
from engine.app.routes.admin import Limit

Days = Annotated[int, Parameter(ge=1, le=400, description="How many days back")]
Of = Literal["person", "account"]
After = Annotated[UUID | None, Parameter(description="Only those behind this profile")]


class AudienceView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An audience of the active rules, with what its members have in common; `of` people unless it says
    otherwise."""

    name: str
    of: Of = "person"
    condition: str
    size: int


class AudiencesView(msgspec.Struct, frozen=True):
    audiences: list[AudienceView]


class SizesView(AudienceView, frozen=True, kw_only=True):
    """One of them, with its sizes by the hour, oldest first."""

    sizes: list[stored.Size]


class MemberView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    profile_id: str
    since: datetime
    identities: list[dict[str, str]]

    def __repr__(self) -> str:
        return f"MemberView({self.profile_id})"


class MembersView(msgspec.Struct, frozen=True, kw_only=True):
    """Members in the order of their profiles' ids. `next` is what to ask for `after` next, None where
    there are no more."""

    members: list[MemberView]
    next: str | None


@get("/", operation_id="audiences", summary="Every audience, with its size")
async def audiences(state: State) -> AudiencesView:
    engine: Engine = state.engine
    declared = _declared(engine)
    sizes = await stored.sizes(engine.store.pool, list(declared))
    return AudiencesView(
        [
            AudienceView(name=name, of=of, condition=text, size=sizes.get(name, 0))
            for name, (of, text) in declared.items()
        ]
    )


@get("/{name:str}", operation_id="audience", summary="One audience, with its sizes by the hour")
async def audience(name: FromPath[str], state: State, days: Days = 30) -> SizesView:
    engine: Engine = state.engine
    of, condition = _named(engine, name)
    pool = engine.store.pool
    return SizesView(
        name=name,
        of=of,
        condition=condition,
        size=(await stored.sizes(pool, [name])).get(name, 0),
        sizes=await stored.sizes_over_time(pool, name, engine.clock() - timedelta(days=days)),
    )


@get("/{name:str}/members", operation_id="audienceMembers", summary="Who is in it, page by page")
async def members(name: FromPath[str], state: State, limit: Limit = 100, after: After = None) -> MembersView:
    engine: Engine = state.engine
    _named(engine, name)
    found = await stored.members(engine.store.pool, name, str(after) if after else None, limit)
    return MembersView(
        members=[
            MemberView(
                profile_id=member.profile_id,
                since=member.since,
                identities=[{"namespace": i.namespace, "value": i.value} for i in member.identities],
            )
            for member in found
        ],
        next=found[-1].profile_id if len(found) == limit else None,
    )


def _declared(engine: Engine) -> dict[str, tuple[Of, str]]:
    """Of every audience who is in it, and its condition."""
    rules = engine.ruling.rules
    declared: dict[str, tuple[Of, str]] = {a.name: ("person", a.condition.text) for a in rules.audiences}
    if rules.of_accounts is not None:
        declared |= {a.name: ("account", a.condition.text) for a in rules.of_accounts.audiences}
    return declared


def _named(engine: Engine, name: str) -> tuple[Of, str]:
    declared = _declared(engine)
    if name not in declared:
        raise NotFoundException("no audience by that name")
    return declared[name]


router = Router(
    path="/admin/audiences",
    route_handlers=[audiences, audience, members],
    guards=[admin_only],
    response_headers={"cache-control": "no-store"},
    security=[{"adminToken": []}],
    tags=["admin"],
)
