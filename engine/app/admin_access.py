"""Who may do what under `/admin`, and that it is written down.

| Role | May |
|---|---|
| viewer | read what concerns nobody in particular: rules, sizes of audiences, what is stopped |
| marketer | that, and reload and publish rules, stop and resume them |
| operator | that, and look at people, import, take merges back, and whatever keeps it running |
| privacy | read everything, export, erase, restrict, correct; changes nothing else |

The first token (`VIEWFINDER_ADMIN_TOKEN`) may do everything.
"""

from __future__ import annotations

import hmac
from typing import Any

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from engine.adapters.postgres import audit, tokens
from engine.adapters.postgres.rights import hash_of
from engine.app.engine import Engine
from engine.domain.people import identity

FIRST = "first token"
ROLES = ("viewer", "marketer", "operator", "privacy")
_PEOPLE = (
    *("/admin/profiles", "/admin/accounts", "/admin/erasures"),
    *("/admin/decisions", "/admin/rejected", "/admin/live"),
    "/admin/receivers",
)
_RIGHTS = ("/admin/profiles/erase", "/admin/profiles/restrict", "/admin/profiles/correct")
_LOOKS = ("/admin/profiles/lookup", "/admin/profiles/export")
_RULES = ("/admin/rules", "/admin/pause")
_READS = frozenset(("GET", "HEAD", "OPTIONS"))


class _Named(msgspec.Struct):
    """As much of a body as says whom it is about."""

    namespace: str = ""
    value: str = ""

    def __repr__(self) -> str:
        return "_Named(…)"


_named = msgspec.json.Decoder(_Named).decode


def is_allowed(role: str, method: str, path: str) -> bool:
    """Whether a role may do that."""
    reads = method in _READS or path in _LOOKS
    if reads:
        return not _is_about_people(path) or role in ("operator", "privacy")
    if path in _RIGHTS or (method == "DELETE" and path.startswith("/admin/profiles/")):
        return role == "privacy"
    if path.startswith(_RULES):
        return role in ("marketer", "operator")
    return role == "operator"


def _is_about_people(path: str) -> bool:
    return path.startswith(_PEOPLE) or "/members" in path


async def admin_only(connection: ASGIConnection[Any, Any, Any, Any], _route: BaseRouteHandler) -> None:
    """401 without a token that is good, 403 with one that may not; what concerns a person or changes
    something is written down before it is done."""
    engine: Engine = connection.app.state.engine
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthorizedException("an admin token is needed: Authorization: Bearer TOKEN")
    assert isinstance(connection, Request)
    method, path = connection.method, connection.url.path
    actor = FIRST
    if not engine.admin_token or not hmac.compare_digest(token.encode(), engine.admin_token.encode()):
        found = await tokens.find(engine.store.pool, token, engine.clock())
        if found is None:
            raise NotAuthorizedException("an admin token is needed: Authorization: Bearer TOKEN")
        actor, role = found
        if not is_allowed(role, method, path):
            raise PermissionDeniedException(f"the role {role} may not do this")
    if method not in _READS or _is_about_people(path):
        action, person = await _described(connection, engine, method, path)
        await audit.append(engine.store.pool, actor, action, engine.clock(), person)


async def _described(
    request: Request[Any, Any, Any], engine: Engine, method: str, path: str
) -> tuple[str, bytes | None]:
    """What is asked for, without naming anybody, and a keyed hash of whom it is about."""
    parts = path.split("/")
    named: tuple[str, str] | None = None
    if parts[:3] == ["", "admin", "profiles"]:
        if len(parts) >= 5:
            named = (request.path_params.get("namespace", ""), request.path_params.get("value", ""))
            path = "/".join([*parts[:3], "{namespace}", "{value}", *parts[5:]])
        else:
            try:
                said = _named(await request.body())
                named = (said.namespace, said.value)
            except msgspec.DecodeError:
                named = None
    elif parts[:3] == ["", "admin", "accounts"]:
        path = "/".join([*parts[:3], "{id}", *parts[4:]])
    if named is None:
        return f"{method} {path}", None
    key = identity.normal(named, engine.ruling.rules.workspace.namespaces)
    return f"{method} {path}", hash_of(engine.secret, key)
