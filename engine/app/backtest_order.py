"""One group of people's rows in the order in which they were decided, each under the profile that it was
told to then.

A profile's log is numbered without gaps, whatever clocks engines had. Rows of a profile that became one
with another may stand under that one's id, with greater numbers: the profile in its place says by how
much. Where a number is missing, nobody can say what was known: such a group is not replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter

import msgspec

from engine.app.replay import Recorded
from engine.domain.people.profiles import Profile

BEGUN = "the beginning of their log is past its retention"
INCOMPLETE = "events of theirs are kept no more: a merge was taken back, or found some twice"
_TICK = timedelta(microseconds=1)


class Incomplete(Exception):
    """Why a group cannot be replayed, as one would say it of the people in it."""


class Brought(msgspec.Struct, frozen=True):
    """A profile that became one with another by a message, after that one's first `offset` events."""

    profile_id: str
    offset: int
    message_id: str


def brought(ended: Iterable[Profile]) -> dict[str, list[Brought]]:
    """Who became one with whom: by the profile that stayed, in order."""
    found: dict[str, list[Brought]] = {}
    for profile in ended:
        if profile.ended is not None:
            one = Brought(profile.id, profile.ended.offset, profile.ended.message_id)
            found.setdefault(profile.ended.into, []).append(one)
    for those in found.values():
        those.sort(key=attrgetter("offset"))
    return found


class _Span(msgspec.Struct, frozen=True):
    """The numbers after `offset`, up to `last`, of a profile's log: they were another profile's."""

    profile_id: str
    offset: int
    last: int


class _Log(msgspec.Struct):
    """What was told to one profile, by its own numbers; `spans` are those that it skipped."""

    rows: list[Recorded]
    spans: list[_Span]


def in_order(rows: Sequence[Recorded], merges: Mapping[str, Sequence[Brought]]) -> list[Recorded]:
    """The rows of a group of people, as they were told.

    Raises:
        Incomplete: some are missing.
    """
    stored: dict[str, list[Recorded]] = {}
    for row in rows:
        stored.setdefault(row.profile_id, []).append(row)
    if len(stored) == 1 and merges.keys().isdisjoint(stored):
        ((_, log),) = stored.items()
        _whole(log, ())
        return log
    ended = {merge.profile_id for one in stored for merge in merges.get(one, ())}
    logs: dict[str, _Log] = {}
    for profile_id in [one for one in stored if one not in ended]:
        _unfold(profile_id, stored.pop(profile_id), stored, merges, logs)
    if stored:  # of somebody whose merges go round in a circle
        raise Incomplete(INCOMPLETE)
    moments: dict[int, datetime] = {}
    for profile_id in logs:
        _date(profile_id, logs, moments)
    told = [row for log in logs.values() for row in log.rows]
    told.sort(key=lambda row: (moments[id(row)], row.facts.place, row.profile_id, row.number))
    return told


def _unfold(
    profile_id: str,
    rows: list[Recorded],
    stored: dict[str, list[Recorded]],
    merges: Mapping[str, Sequence[Brought]],
    logs: dict[str, _Log],
    length: int | None = None,
) -> None:
    """Parts a log from those of the profiles that became one with it, and theirs in turn. `stored` is
    what stands under its own id yet, `length` how many numbers the log has had."""
    rows.sort(key=attrgetter("number"))
    spans = _spans(rows, merges.get(profile_id, ()))
    for span in spans:
        theirs = [
            msgspec.structs.replace(row, profile_id=span.profile_id, number=row.number - span.offset)
            for row in rows
            if span.offset < row.number <= span.last
        ]
        theirs += stored.pop(span.profile_id, ())
        _unfold(span.profile_id, theirs, stored, merges, logs, span.last - span.offset)
    if spans:
        rows = [row for row in rows if not any(s.offset < row.number <= s.last for s in spans)]
    _whole(rows, spans, length)
    logs[profile_id] = _Log(rows, spans)


def _spans(rows: Sequence[Recorded], merges: Sequence[Brought]) -> list[_Span]:
    if not merges:
        return []
    found: list[_Span] = []
    for position, merge in enumerate(merges):
        following = merges[position + 1] if position + 1 < len(merges) else None
        if following is not None and following.message_id == merge.message_id:
            last: int | None = following.offset
        else:
            told = (r.number for r in rows if r.event.message_id == merge.message_id)
            last = max((number - 1 for number in told if number > merge.offset), default=None)
        if last is None:
            raise Incomplete(INCOMPLETE)
        found.append(_Span(merge.profile_id, merge.offset, last))
    return found


def _whole(rows: Sequence[Recorded], spans: Sequence[_Span], length: int | None = None) -> None:
    """Makes sure that no number is missing."""
    skipped = {span.offset: span.last for span in spans}
    last = 0
    for row in rows:
        while last in skipped and skipped[last] != last:
            last = skipped[last]
        if row.number != last + 1:
            raise Incomplete(BEGUN if last == 0 else INCOMPLETE)
        last = row.number
    if length is not None and last != length:
        raise Incomplete(INCOMPLETE)


def _date(profile_id: str, logs: Mapping[str, _Log], moments: dict[int, datetime]) -> datetime | None:
    """Gives each of a profile's rows a moment that is not before the row's before it, nor before those
    of the profiles that became one with it by it; answers the last one."""
    log = logs[profile_id]
    if not log.rows:
        return None
    if id(log.rows[-1]) in moments:
        return moments[id(log.rows[-1])]
    latest: datetime | None = None
    position = 0
    for row in log.rows:
        while position < len(log.spans) and log.spans[position].last < row.number:
            ended = _date(log.spans[position].profile_id, logs, moments)
            position += 1
            if ended is not None and (latest is None or ended >= latest):
                latest = ended + _TICK
        latest = row.facts.now if latest is None else max(latest, row.facts.now)
        moments[id(row)] = latest
    return latest
