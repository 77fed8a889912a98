"""Profiles and events as XDM records, for whoever may read them as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from engine.app import profile_reading
from engine.app.engine import Engine
from engine.app.ruling import Ruling
from engine.domain.people.events import Event, Sender
from engine.domain.people.profiles import Profile
from engine.domain.people.timers import PREFIX
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
    None where that was all. What the engine told itself to do is none."""
    rows = await profile_reading.event_rows(engine, found, before, limit)
    workspace = engine.ruling.rules.workspace
    known = [one.key for one in found.identities]
    told = [event for row in rows if not _is_internal(event := _event(row["body"]))]
    return {
        "events": [xdm.event_record(event, workspace, names, known) for event in told],
        "before": rows[-1]["seq"] if len(rows) == limit else None,
    }


def _is_internal(event: Event) -> bool:
    return event.sender is Sender.ENGINE and event.name.startswith(PREFIX)
