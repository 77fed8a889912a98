"""`viewfinder explain`: one decision, as a person would tell it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.app import profile_reading
from engine.app.advice import advice
from engine.app.cli.database import with_store
from engine.app.cli.environment import fail
from engine.app.reasons import sentence, shown
from engine.domain.offers.decisions import Decision, Judged


def explain(
    decision: str,
    /,
    *,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Tell a decision: what came in, what was known, each candidate, which gate stopped it and by how
    much, and what would have had to be different.

    Parameters
    ----------
    decision
        The decision's id.
    """
    try:
        found = with_store(lambda store: profile_reading.decision(store, decision))
    except ValueError:
        fail(f"{decision!r} is no id of a decision", 2)
        raise
    if found is None:
        fail(f"there is no decision {decision}; past its retention, or a condition that was only false", 1)
        raise AssertionError
    told = msgspec.convert(found, Decision)
    report = found | {"told": [told_of(one) for one in told.candidates]}
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        Console().out("\n".join(lines(told, report)), highlight=False)
    return 0


def told_of(judged: Judged) -> dict[str, Any]:
    """A candidate's fate in words."""
    return {
        "rule": judged.rule,
        "offer": judged.offer,
        "reason": judged.reason,
        "because": sentence(judged),
        "needed": advice(judged),
    }


def lines(decision: Decision, report: dict[str, Any]) -> Iterator[str]:
    """The story, line by line."""
    event, facts = report.get("event", {}), report.get("facts", {})
    yield f"{decision.decided_at:%Y-%m-%d %H:%M:%S} UTC, profile {decision.profile_id}"
    name = event.get("name") or event.get("kind", "something that is kept no more")
    at = f" of {event['timestamp']}" if "timestamp" in event else ""
    place = f" at {decision.geofence}" if decision.geofence else ""
    yield f"What came in: {name}{at}; it set off: {decision.trigger}{place}"
    known = [f"revision {decision.revision}"]
    known += [f"propensity {model} {shown(score)}" for model, score in facts.get("propensity", {}).items()]
    known += [f"weather {word} {shown(value)}" for word, value in facts.get("weather", {}).items()]
    yield f"What was known: {', '.join(known)}"
    if decision.rule is not None and decision.outcome.value != "suppressed":
        made = f"{decision.offer} by the rule {decision.rule}, over {decision.channel}"
        yield f"So: {decision.outcome.value} {made}"
        if decision.message is not None:
            yield f"    “{decision.message.title}” “{decision.message.body}”"
    else:
        yield f"So: nothing; {decision.reason.value if decision.reason else 'no reason'} came furthest"
    for one in report["told"]:
        reason = one["reason"].value if one["reason"] else "won"
        yield f"  {one['rule']} → {one['offer']}: {reason}"
        if one["because"] not in ("", "won"):
            yield f"      {one['because']}"
        if one["needed"]:
            yield f"      it would have gone further if {one['needed']}"
    delivery = report.get("delivery")
    if delivery is not None:
        code = (delivery["result"] or {}).get("code")
        yield f"What became of it: {delivery['state']} after {delivery['attempts']} attempts" + (
            f", {code}" if code else ""
        )
