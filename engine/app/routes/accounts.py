"""`/admin/accounts`: a business customer, with what its members do together, and who they are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, Parameter

from engine.adapters.postgres import accounts as stored
from engine.app.admin_access import admin_only
from engine.app.engine import Engine
from engine.app.routes.admin import Limit
from engine.domain.people import computed
from engine.domain.people.counting import whole

After = Annotated[UUID | None, Parameter(description="Only members behind this profile")]


class AccountMemberView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A member, since when, and what was stated of them as one, `role` for one."""

    profile_id: str
    since: datetime
    role: Any
    traits: dict[str, Any]
    identities: list[dict[str, str]]

    def __repr__(self) -> str:
        return f"AccountMemberView({self.profile_id})"


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it reads now. `next` is what to ask for `after` to see further members, None where
    there are no more."""

    id: str
    version: int
    traits: dict[str, Any]
    computed: dict[str, Any]
    audiences: list[str]
    members: list[AccountMemberView]
    next: str | None


@get("/{account:str}", operation_id="account", summary="An account, with its members page by page")
async def account(
    account: FromPath[str], state: State, limit: Limit = 100, after: After = None
) -> AccountView:
    engine: Engine = state.engine
    found = await stored.account(engine.store, account)
    if found is None:
        raise NotFoundException("no account by that id")
    inner = engine.ruling.rules.of_accounts
    read = computed.read(found.computed, whole(found, inner.workspace), engine.clock()) if inner else {}
    members, behind = await stored.members(engine.store, account, str(after) if after else None, limit)
    return AccountView(
        id=account,
        version=found.version,
        traits={name: trait.value for name, trait in found.traits.items() if trait.value is not None},
        computed=read,
        audiences=sorted(found.audiences.since),
        members=[_view(member) for member in members],
        next=behind,
    )


def _view(member: stored.AccountMember) -> AccountMemberView:
    traits = {name: trait.value for name, trait in member.seat.traits.items()}
    return AccountMemberView(
        profile_id=member.profile.id,
        since=member.seat.since,
        role=traits.pop("role", None),
        traits=traits,
        identities=[{"namespace": i.namespace, "value": i.value} for i in member.profile.identities],
    )


router = Router(
    path="/admin/accounts",
    route_handlers=[account],
    guards=[admin_only],
    response_headers={"cache-control": "no-store"},
    security=[{"adminToken": []}],
    tags=["admin"],
)
