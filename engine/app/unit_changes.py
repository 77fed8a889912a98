"""Rows of what receivers are told of a unit's people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from engine.adapters.postgres.rows import ChangeRow
from engine.app.unit import Unit
from engine.domain.offers.decisions import Decision
from engine.domain.people.profiles import bucket_of
from engine.domain.sharing.changes import OUTCOMES, Outcome, changes
from engine.domain.sharing.readers import Told

_json = msgspec.json.Encoder().encode


def change_rows(unit: Unit, sharing: Told, now: datetime) -> Iterator[ChangeRow]:
    """What is told of everybody whom the unit writes, under the unit's number."""
    decisions: dict[str, list[Decision]] = {}
    if "decisions" in sharing.topics:
        for pending in unit.done:
            for decision in pending.decisions:
                decisions.setdefault(decision.profile_id, []).append(decision)
    outcomes: dict[str, list[Outcome]] = {}
    if "deliveries" in sharing.topics:
        for row in unit.event_rows:
            if row.sender != "engine" or row.name not in OUTCOMES:
                continue
            outcomes.setdefault(row.profile_id, []).append(Outcome(row.name, row.body.properties))
    for profile in unit.written.values():
        if profile.account:  # is nobody
            continue
        bucket = bucket_of(profile.id)
        told = changes(
            sharing,
            unit.before(profile.id),
            profile,
            decisions.get(profile.id, ()),
            outcomes.get(profile.id, ()),
            now,
        )
        for one in told:
            yield ChangeRow(
                unit=unit.number,
                bucket=bucket,
                profile_id=profile.id,
                receiver=one.receiver,
                position=one.position,
                id=one.id,
                topic=one.topic,
                body=msgspec.Raw(_json(one.body)),
            )
