"""Profiles and events as XDM records, for whoever may read them as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from engine.app import profile_reading
from engine.app.engine import Engine
from engine.app.ruling import Ruling
from engine.domain.people.events import Event
from engine.domain.people.profiles import Profile
from engine.formats import xdm

_event = msgspec.json.Decoder(Event).decode


def profile(found: Profile, ruling: Ruling, now: datetime, names: xdm.Names) -> dict[str, Any]:
    """The individual profile of a person as it reads at `now`."""
    view: dict[str, Any] = msgspec.to_builtins(profile_reading.view(found, ruling, now))
    return xdm.profile_record(found, ruling.rules.workspace, view, names)


async def events(
    engine: Engine, found: Profile, before: int | None, limit: int, names: xdm.Names
) -> dict[str, Any]:
    """A person's ExperienceEvents, newest first, and what to ask `before` for the next page of them;
    None where that was all."""
    rows = await profile_reading.event_rows(engine, found, before, limit)
    workspace = engine.ruling.rules.workspace
    return {
        "events": [xdm.event_record(_event(row["body"]), workspace, names) for row in rows],
        "before": rows[-1]["seq"] if len(rows) == limit else None,
    }
