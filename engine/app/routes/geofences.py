"""`POST /v1/geofences`: what a phone should watch for this very person (wire.md)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.params import JSONBody

from engine.app import profile_reading
from engine.app.engine import Engine
from engine.app.keys import key_in
from engine.app.responses import Refused
from engine.domain.monitoring import Said, monitored
from engine.domain.people.profiles import Profile, new_profile
from engine.domain.places.shape_check import position_problem
from engine.domain.places.watching import DEFAULT_LIMITS, DELAY_SECONDS, Moving

MOST_REGIONS: Final = 99


class Where(msgspec.Struct, frozen=True):
    """A fix as in events: degrees, metres, metres per second."""

    latitude: float
    longitude: float
    accuracy: float | None = None
    speed: float | None = None

    def __repr__(self) -> str:
        return "Where(…)"


class Phone(msgspec.Struct, frozen=True):
    """`type`: ios or android; `id` as in events."""

    type: str | None = None
    id: str | None = None


class Permissions(msgspec.Struct, frozen=True):
    """As in `context.permissions`; without them, what the device's last event said."""

    location: str | None = None
    precise: bool | None = None


class Asked(msgspec.Struct, frozen=True, rename="camel"):
    """Who asks, and from where. `limit`: 19 on iOS and 99 on Android where not given."""

    location: Where
    user_id: str | None = None
    anonymous_id: str | None = None
    device: Phone = Phone()
    permissions: Permissions = Permissions()
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    write_key: str | None = None

    def __repr__(self) -> str:
        return "Asked(…)"


class RegionView(msgspec.Struct, frozen=True, rename="camel"):
    """A circle to watch, in degrees and metres."""

    id: str
    latitude: float
    longitude: float
    radius: float
    on_enter: bool
    on_exit: bool
    on_dwell: bool


class Watched(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Ask again after `refreshRadius` metres from here, or after `refreshAfter` seconds, whatever
    comes first. `reason`: why there are no regions, where that has one."""

    regions: list[RegionView]
    refresh_radius: float
    refresh_after: int
    reason: str | None = None


@post(
    "/v1/geofences",
    operation_id="geofences",
    summary="The regions that a phone should watch for this person",
    status_code=200,
    tags=["regions"],
    security=[{"writeKey": []}, {"bearerKey": []}],
    response_headers={"access-control-allow-origin": "*", "cache-control": "no-store"},
)
async def geofences(data: JSONBody[Asked], state: State, request: Request[Any, Any, Any]) -> Watched:
    """The places where a rule could be set off for the person: those nearest, and of those equally
    near the ones worth most."""
    engine: Engine = state.engine
    try:
        headers = {name.lower(): value for name, value in request.scope["headers"]}
        engine.keys.trust(key_in(headers) or data.write_key)
    except Refused as refusal:
        raise NotAuthorizedException(refusal.message) from refusal
    where, device = data.location, data.device
    wrong = position_problem(where.latitude, where.longitude)
    if wrong is not None:
        raise HTTPException(detail=wrong, status_code=400)
    profile = await _profile(engine, data)
    address = profile.devices.get(device.id) if device.id else None
    kind = device.type or (address.type if address is not None else None) or "ios"
    limit = min(data.limit or DEFAULT_LIMITS.get(kind, MOST_REGIONS), MOST_REGIONS)
    ruling, now = engine.ruling, engine.clock()
    accuracy = where.accuracy if where.accuracy is not None and where.accuracy >= 0 else 25.0
    speed = where.speed if where.speed is not None and where.speed >= 0 else None
    phone = Moving(
        where.latitude, where.longitude, accuracy, speed, DELAY_SECONDS.get(kind, max(DELAY_SECONDS.values()))
    )
    found, reason = monitored(
        ruling.rules,
        profile,
        address,
        phone,
        Said(data.permissions.location, data.permissions.precise, where.accuracy),
        limit,
        now,
        profile_reading.propensities(profile, ruling, now),
    )
    return Watched(
        [
            RegionView(
                region.id,
                round(region.latitude, 6),
                round(region.longitude, 6),
                round(region.radius, 1),
                region.on_enter,
                region.on_exit,
                region.on_dwell,
            )
            for region in found.regions
        ],
        round(found.refresh_radius, 1),
        found.refresh_after,
        reason,
    )


async def _profile(engine: Engine, asked: Asked) -> Profile:
    """The person who asks; one whom nobody knows yet has no consent and no history."""
    names = [("user_id", asked.user_id), ("anonymous_id", asked.anonymous_id)]
    keys = [(namespace, value) for namespace, value in names if value]
    if not keys:
        raise HTTPException(detail="userId or anonymousId is missing", status_code=400)
    for key in keys:
        found = await profile_reading.find(engine, *key)
        if found is not None:
            return found
    return new_profile(keys[0], b"", engine.clock())
