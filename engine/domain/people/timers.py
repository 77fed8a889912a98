"""Events of the engine's own that are due at a time: a stay that gets long, a cart left alone, a
send that waits for the morning.

A timer is a row beside its profile, written and taken back by the same commit as the profile's
document. It is an alarm, not the truth: what it is about stands in the document, which whoever
folds its event in looks at again. Setting an id that is set already moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.people.events import ENGINE, Event, Kind, Sender

PREFIX = "$"
"""Of the names of events that only the engine itself can send."""


class Timer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An event to come. `id` is one of its profile; `paced` ones may wait for those of people who
    do something now. Whenever it fires, the event's timestamp is `due_at`."""

    id: str
    due_at: datetime
    event: Event
    paced: bool = False

    def __repr__(self) -> str:
        return f"Timer({self.id!r})"


class Alarms(msgspec.Struct, frozen=True, gc=False):
    """What an event does to the timers of its profile: first `cancelled` by id, then `set`."""

    set: tuple[Timer, ...] = ()
    cancelled: tuple[str, ...] = ()

    def __add__(self, later: Alarms) -> Alarms:
        """Both, one after the other."""
        if later is NO_ALARMS or not later:
            return self
        if self is NO_ALARMS:
            return later
        changed = {*later.cancelled, *(timer.id for timer in later.set)}
        kept = tuple(timer for timer in self.set if timer.id not in changed)
        return Alarms((*kept, *later.set), (*self.cancelled, *later.cancelled))

    def __bool__(self) -> bool:
        return bool(self.set or self.cancelled)


NO_ALARMS = Alarms()


def timer(
    identifier: str,
    due_at: datetime,
    name: str,
    properties: Mapping[str, Any],
    *,
    paced: bool = False,
) -> Timer:
    """A timer whose event is called `name`, which begins with `$`. The message id says when it is
    due, so that one that was moved is another message."""
    event = Event(
        kind=Kind.TRACK,
        message_id=f"{identifier}@{due_at.isoformat()}",
        received_at=due_at,
        timestamp=due_at,
        name=name,
        sender=Sender.ENGINE,
        properties=properties,
    )
    return Timer(id=identifier, due_at=due_at, event=event, paced=paced)


def is_internal(event: Event) -> bool:
    """Whether it is an event of the engine's own that sets off no rule by its name."""
    return event.sender is ENGINE and event.name.startswith(PREFIX)
