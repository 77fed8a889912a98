"""Offers that wait for a better hour: the end of quiet hours, or the time of day that a rule names.

What is put off is decided again in full when its time comes, on the same trigger: whether that was
fresh stands, everything else is looked at anew. Everybody's hour is spread over some minutes, the
same ones each time, so that a whole country is not sent to at once.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

import msgspec

from engine.domain.offers import caps
from engine.domain.offers.assignment import place
from engine.domain.offers.decisions import Reason
from engine.domain.offers.eligibility import DEFERRED_KEPT, Candidate, Circumstances, Stop
from engine.domain.offers.rules import ON_A_TRIP, PLACED, Rule
from engine.domain.people.timers import PREFIX, Alarms, timer

DEFERRED: Final = f"{PREFIX}deferred"
"""The name of the event of an offer whose time has come."""
SPREAD: Final = timedelta(minutes=5)


class Deferred(msgspec.Struct, frozen=True):
    """Put off until `due_at`, and void after `expires_at`."""

    reason: Reason
    numbers: dict[str, Any]
    due_at: datetime
    expires_at: datetime


def expires_at(rule: Rule, at: datetime) -> datetime:
    """Until when an offer on a trigger at that time may be made."""
    return at + (rule.send.expires if rule.send is not None else DEFERRED_KEPT)


def put_off(c: Candidate, now: Circumstances) -> Deferred | Stop | None:
    """Whether the winner must wait, or may not be made at all at this hour."""
    if c.stands_alone or c.channel == "in_app":  # whoever looks at the app is awake
        return None
    send, hours = c.rule.send, now.workspace.quiet_hours
    if send is not None and c.deferred_at is None:
        return _until(c, now, send.at, Reason.SEND_TIME, {"at": f"{send.at:%H:%M}"})
    if hours is None or not caps.is_quiet(hours, now.local):
        return None
    numbers = {
        "from": f"{hours.start:%H:%M}",
        "to": f"{hours.end:%H:%M}",
        "local": f"{now.local:%H:%M}",
    }
    defers = hours.defer and c.trigger not in PLACED and c.trigger not in ON_A_TRIP
    if c.rule.quiet == "drop" or (c.rule.quiet is None and not defers):
        return Stop(Reason.QUIET_HOURS, numbers)
    return _until(c, now, hours.end, Reason.QUIET_HOURS, numbers)


def _until(
    c: Candidate, now: Circumstances, clock: time, reason: Reason, numbers: dict[str, Any]
) -> Deferred | Stop:
    spread = SPREAD * place(now.profile.cohort_key, f"hour:{c.rule.id}")
    due, expires = next_at(clock, now.local) + spread, expires_at(c.rule, c.at)
    numbers = {**numbers, "until": due, "expires": expires}
    if due > expires:
        return Stop(reason, numbers)
    return Deferred(reason, numbers, due, expires)


def next_at(clock: time, local: datetime) -> datetime:
    """When a clock on the person's wall shows a time of day next, or does so now. A time that is left
    out when clocks are put forward comes as much later; of one that comes twice the first counts."""
    for days in (0, 1, 2):
        found = datetime.combine(local.date() + timedelta(days=days), clock, local.tzinfo).astimezone(UTC)
        if found >= local.astimezone(UTC):
            return found
    raise AssertionError("a day has a time of day")


def alarm(
    c: Candidate, deferred: Deferred, decision: str, decided_at: datetime, account: str | None = None
) -> Alarms:
    """The timer that takes a candidate up again. A rule has one for each person, and value that it
    waits by: what is put off anew takes the place of what was."""
    told: dict[str, Any] = {
        "rule": c.rule.id,
        "at": c.at.isoformat(),
        "decided": (c.deferred_at or decided_at).isoformat(),
        "event": dict(c.scope.event),
        "decision": decision,
    }
    if c.fence is not None:
        told["geofence"] = c.fence.id
    if c.scope.trip:
        told["trip"] = dict(c.scope.trip)
    identifier = f"{DEFERRED}:{c.rule.id}:{c.value_of(c.rule.when.by)}"
    one = timer(identifier, deferred.due_at, DEFERRED, told, paced=True)
    if account is not None:
        one = msgspec.structs.replace(one, event=msgspec.structs.replace(one.event, group_id=account))
    return Alarms((one,))
