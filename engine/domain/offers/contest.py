"""One decision over the candidates that compete: who wins, and the record of all of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from engine.domain.offers import arbitration, caps, deferral, eligibility
from engine.domain.offers.decisions import ORDER, Decision, Judged, Outcome, Reason, decision_id
from engine.domain.offers.deferral import Deferred
from engine.domain.offers.eligibility import Candidate, Circumstances, Stop, Worth
from engine.domain.people.profiles import Contact, bucket_of
from engine.domain.people.timers import NO_ALARMS, Alarms

DEFAULT_TIME_TO_LIVE = timedelta(hours=4)
ACTION_TIME_TO_LIVE = timedelta(days=1)


class Contest(msgspec.Struct, frozen=True):
    """How a contest ended: the record, the winner if the offer is made now, and the timer of one that is
    put off."""

    decision: Decision
    won: Candidate | None
    alarms: Alarms = NO_ALARMS


def decide_group(
    revision: str,
    seq: int,
    group: list[tuple[Candidate, Worth | Stop]],
    circumstances: Circumstances,
    ordinal: int,
) -> Contest:
    """One decision over candidates that compete."""
    ranks = {
        position: arbitration.rank(c.rule, result.value, c.fence.id if c.fence else None, c.offer.id)
        for position, (c, result) in enumerate(group)
        if isinstance(result, Worth)
    }
    best = min(ranks, key=ranks.__getitem__) if ranks else None
    won: Candidate | None = None
    deferred: Deferred | None = None
    judged: list[Judged] = []
    for position, (candidate, result) in enumerate(group):
        stop = result if isinstance(result, Stop) else None
        if position == best:
            stop = eligibility.control(candidate, circumstances)
            put_off = deferral.put_off(candidate, circumstances) if stop is None else stop
            if isinstance(put_off, Deferred):
                deferred, stop = put_off, Stop(put_off.reason, put_off.numbers)
            else:
                won, stop = candidate if put_off is None else None, put_off
        elif best is not None and stop is None:
            stop = Stop(Reason.OUTRANKED, {"by": group[best][0].rule.id, **_scores(group[best][1])})
        judged.append(_judged(candidate, result, stop))

    profile_id = circumstances.profile.id
    leading = judged[best] if best is not None else max(judged, key=_how_far)
    outcome, expires_at = Outcome.SUPPRESSED, None
    if won is not None:
        outcome, expires_at = Outcome.OFFERED, circumstances.now + _time_to_live(won)
    elif deferred is not None:
        outcome, expires_at = Outcome.DEFERRED, deferred.expires_at
    decision = Decision(
        id=decision_id(profile_id, bucket_of(profile_id), seq, ordinal, circumstances.now),
        message_id=circumstances.event.message_id,
        profile_id=profile_id,
        decided_at=circumstances.now,
        trigger=(group[best][0] if best is not None else _candidate_of(group, judged, leading)).trigger.value,
        outcome=outcome,
        revision=revision,
        channel=group[0][0].channel,
        placement=group[0][0].placement,
        geofence=leading.geofence,
        rule=leading.rule,
        offer=leading.offer,
        reason=leading.reason,
        propensity=leading.propensity,
        expected_value=leading.expected_value,
        expires_at=expires_at,
        candidates=tuple(judged),
    )
    if deferred is None or best is None:
        return Contest(decision, won)
    account = circumstances.event.group_id
    alarm = deferral.alarm(group[best][0], deferred, decision.id, circumstances.now, account)
    return Contest(decision, None, alarm)


def contact_of(decision: Decision, won: Candidate, account: str | None = None) -> Contact:
    """What the person's document keeps of an offer made: for caps, and for what becomes of it; and that
    of their `account`, whose caps count it too."""
    return Contact(
        at=decision.decided_at,
        offer=won.offer.id,
        rule=won.rule.id,
        channel=decision.channel,
        purpose=won.purpose.name,
        decision=decision.id,
        uncounted=won.is_contract,
        by=_counted_by(won, account),
    )


def _counted_by(won: Candidate, account: str | None) -> dict[str, str]:
    by = {cap.by.text: won.value_of(cap.by) for cap in won.rule.caps if cap.by is not None}
    if any(cap.of_account for cap in won.rule.caps):
        by[caps.ACCOUNT] = account or ""
    return by


def _judged(candidate: Candidate, result: Worth | Stop, stop: Stop | None) -> Judged:
    numbers = stop.numbers if stop is not None else {}
    scored = result if isinstance(result, Worth) else None
    return Judged(
        rule=candidate.rule.id,
        offer=candidate.offer.id,
        geofence=candidate.fence.id if candidate.fence is not None else None,
        variant=candidate.variant,
        reason=stop.reason if stop is not None else None,
        numbers=numbers,
        propensity=scored.propensity if scored else numbers.get("propensity"),
        expected_value=scored.value if scored else numbers.get("expectedValue"),
    )


def _scores(result: Worth | Stop) -> dict[str, Any]:
    return {"expectedValue": result.value} if isinstance(result, Worth) else {}


def _how_far(judged: Judged) -> tuple[int, str, str, str]:
    """Which suppressed candidate came furthest; names break ties, so that order does not."""
    far = ORDER[judged.reason] if judged.reason else -1
    return (far, judged.rule, judged.offer, judged.geofence or "")


def _candidate_of(
    group: list[tuple[Candidate, Worth | Stop]], judged: list[Judged], leading: Judged
) -> Candidate:
    return group[next(i for i, j in enumerate(judged) if j is leading)][0]


def _time_to_live(candidate: Candidate) -> timedelta:
    if candidate.is_action:
        return ACTION_TIME_TO_LIVE
    push = candidate.offer.push
    return push.time_to_live if push is not None else DEFAULT_TIME_TO_LIVE
