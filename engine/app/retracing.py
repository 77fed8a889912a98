"""A decision on record made once more, to see what it looked at.

Decisions do not store what their conditions read. So the person's log is followed up to the event, as a
backtest does it; what was looked at is only told where the very same decision comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from engine.app.backtest_order import Brought, Incomplete, in_order
from engine.app.reasons import Looked
from engine.app.rehearsal import Told
from engine.app.replay import Recorded, Replay
from engine.app.ruling import Ruling
from engine.domain.candidates import put_forward
from engine.domain.offers.decisions import Decision
from engine.domain.offers.eligibility import Candidate
from engine.domain.offers.rules import RuleSet
from engine.domain.people.labels import kept_back

_json = msgspec.json.Encoder().encode
Key = tuple[str, str, str | None, str | None]
"""What tells the candidates of one decision apart: rule, offer, geofence, variant."""


class Unretraced(Exception):
    """Why nobody can say what a decision looked at."""


def retrace(
    decision: Decision,
    rows: Sequence[Recorded],
    merges: dict[str, list[Brought]],
    ruling_of: Callable[[str], Ruling | None],
    secret: bytes,
) -> dict[Key, Looked]:
    """What each candidate could look at.

    Raises:
        Unretraced: the decision cannot be made again.
    """
    try:
        log = in_order(rows, merges)
    except Incomplete as fault:
        raise Unretraced(str(fault)) from fault
    replay: Replay | None = None
    for row in log:
        ruling = ruling_of(row.facts.revision)
        if ruling is None:
            raise Unretraced("the rules of that time are kept no more")
        if replay is None:
            replay = Replay(ruling, secret)
            replay.begin(log)
        told = replay.follow(row, ruling)
        again = next((one for one in told.decisions if one.id == decision.id), None)
        if again is not None:
            if _json(again) != _json(decision):
                break
            return looked_at(ruling.rules, told)
    raise Unretraced("what was known of the person then cannot be told from what is kept of their events")


def looked_at(rules: RuleSet, told: Told) -> dict[Key, Looked]:
    """What each candidate on an event could look at."""
    seen, verdict = told.seen, told.verdict
    if seen is None or verdict is None or verdict.scope is None:
        return {}
    matched = [(t, rule) for t in seen.triggers for rule in rules.by_trigger.get((t.kind, t.name), ())]
    placements = {d.placement for d in told.decisions if d.placement is not None}
    hidden = kept_back(seen.profile.consent, rules.workspace)
    found = put_forward(rules, matched, verdict.scope, seen.profile, placements)
    return by_key(found, hidden)


def by_key(candidates: Iterable[Candidate], hidden: frozenset[str]) -> dict[Key, Looked]:
    """What candidates look at. The first of several that only a channel tells apart stands for them."""
    found: dict[Key, Looked] = {}
    for c in candidates:
        key = (c.rule.id, c.offer.id, c.fence.id if c.fence is not None else None, c.variant)
        found.setdefault(key, Looked(c.scope, hidden))
    return found
