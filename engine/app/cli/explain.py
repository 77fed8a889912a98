"""`viewfinder explain`: one decision, as a person would tell it."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.adapters.postgres import audit
from engine.adapters.postgres.history import History
from engine.adapters.postgres.revisions import Revisions
from engine.adapters.postgres.rights import hash_of
from engine.adapters.postgres.store import Store
from engine.app import profile_reading
from engine.app.advice import advice
from engine.app.backtest_order import brought
from engine.app.cli.database import with_store
from engine.app.cli.environment import fail, read_settings
from engine.app.cli.rulings import Rulings
from engine.app.reasons import Looked, sentence, shown, stopped_at, values_read
from engine.app.replay import recorded
from engine.app.retracing import Key, Unretraced, retrace
from engine.domain.offers.decisions import Decision, Judged, Reason
from engine.domain.offers.rules import RuleSet
from engine.domain.people.profiles import PROFILE_NAMESPACE, IdentityKey

CONDITIONS: Final = (Reason.CONDITION_FALSE, Reason.CONDITION_UNKNOWN)


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
    settings = read_settings()

    async def ask(store: Store) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        try:
            found = await profile_reading.decision(store, decision)
        except ValueError:
            fail(f"{decision!r} is no id of a decision", 2)
            raise
        if found is None:
            return None
        await looked_up(store, "explain", (PROFILE_NAMESPACE, found["profileId"]))
        return found, await _told(
            store, msgspec.convert(found, Decision), Rulings(Revisions(store.pool), settings)
        )

    answer = with_store(ask)
    if answer is None:
        fail(f"there is no decision {decision}; past its retention, or a condition that was only false", 1)
        raise AssertionError
    found, candidates = answer
    report = found | {"told": candidates}
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        Console().out("\n".join(lines(msgspec.convert(found, Decision), report)), highlight=False)
    return 0


async def looked_up(store: Store, command: str, key: IdentityKey) -> None:
    """Writes down that somebody is looked at, before it is done."""
    secret = await store.secret(secrets.token_bytes(32))
    await audit.append(store.pool, "command", command, datetime.now(UTC), hash_of(secret, key))


async def _told(store: Store, decision: Decision, rulings: Rulings) -> list[dict[str, Any]]:
    """Each candidate's fate, with what its condition read where the decision can be made again."""
    if all(stopped not in CONDITIONS for stopped in (one.reason for one in decision.candidates)):
        return [told_of(one) for one in decision.candidates]
    looked: Mapping[Key, Looked] = {}
    why: str | None = None
    rules: RuleSet | None = None
    try:
        async with store.pool.acquire() as connection, connection.transaction(readonly=True):
            history = History(connection)
            people, ended = await history.family(decision.profile_id)
            rows = [recorded(*row) async for page in history.log_of(people) for row in page]
        await rulings.learn({row.facts.revision for row in rows})
        if (ruling := rulings.of(decision.revision)) is not None:
            rules = ruling.rules
        looked = retrace(decision, rows, brought(ended), rulings.of, await store.secret(bytes(32)))
    except Unretraced as fault:
        why = str(fault)
    return [
        told_of(one, rules, looked.get((one.rule, one.offer, one.geofence, one.variant)), why)
        for one in decision.candidates
    ]


def told_of(
    judged: Judged, rules: RuleSet | None = None, looked: Looked | None = None, why: str | None = None
) -> dict[str, Any]:
    """A candidate's fate in words. `values` are what the condition that stopped it read, None where that
    cannot be said, and `why` not."""
    expression = stopped_at(judged, rules) if rules is not None else None
    values = None
    if expression is not None and looked is not None and judged.reason in CONDITIONS:
        values = dict(values_read(expression, looked))
    return {
        "rule": judged.rule,
        "offer": judged.offer,
        "reason": judged.reason,
        "because": sentence(judged),
        "values": values,
        "valuesUnknown": why if values is None and judged.reason in CONDITIONS else None,
        "needed": advice(judged, rules, looked),
    }


def lines(decision: Decision, report: dict[str, Any]) -> Iterator[str]:
    """The story, line by line."""
    event, facts = report.get("event", {}), report.get("facts", {})
    yield f"{decision.decided_at:%Y-%m-%d %H:%M:%S} UTC, profile {decision.profile_id}"
    name = event.get("name") or event.get("kind", "something that is kept no more")
    at = f" of {event['timestamp']}" if "timestamp" in event else ""
    place = f" at {decision.geofence}" if decision.geofence else ""
    yield f"What came in: {name}{at}; it set off: {decision.trigger}{place}"
    account = event.get("group_id")
    known = [f"revision {decision.revision}"]
    known += [f"propensity {model} {shown(score)}" for model, score in facts.get("propensity", {}).items()]
    known += [f"weather {word} {shown(value)}" for word, value in facts.get("weather", {}).items()]
    known += [f"account {account}"] if account is not None else []
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
        yield from said_of_values(one)
        if one["needed"]:
            yield f"      it would have gone further if {one['needed']}"
    delivery = report.get("delivery")
    if delivery is not None:
        code = (delivery["result"] or {}).get("code")
        yield f"What became of it: {delivery['state']} after {delivery['attempts']} attempts" + (
            f", {code}" if code else ""
        )


def said_of_values(one: Mapping[str, Any]) -> Iterator[str]:
    """What a candidate's condition read, line by line."""
    for path, value in (one["values"] or {}).items():
        yield f"        {path} is {value}"
    if one["valuesUnknown"]:
        yield f"        what it read is not known: {one['valuesUnknown']}"
