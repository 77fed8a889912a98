"""`viewfinder why-not`: a decision that was never made, and why."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.adapters.postgres.accounts import accounts
from engine.adapters.postgres.pauses import Pauses
from engine.adapters.postgres.revisions import Revisions
from engine.adapters.postgres.store import Store
from engine.app import profile_reading
from engine.app.cli.database import with_store
from engine.app.cli.environment import fail, read_settings
from engine.app.cli.explain import looked_up, said_of_values, told_of
from engine.app.cli.rulings import Rulings
from engine.app.hypothesis import Acting, Hypothesis
from engine.app.rehearsal_outcome import waits_for
from engine.app.retracing import by_key
from engine.app.ruling import Ruling
from engine.domain.offers.patterns import TriggerKind
from engine.domain.offers.pauses import paused
from engine.domain.people.events import Event
from engine.domain.people.identity import normal
from engine.domain.people.labels import kept_back
from engine.domain.people.profiles import Profile, bucket_of
from engine.formats.problems import did_you_mean

_read_event = msgspec.json.Decoder(Event).decode
_EVENTS = {TriggerKind.EVENT: "track", TriggerKind.PAGE: "page", TriggerKind.SCREEN: "screen"}


def why_not(
    namespace: str,
    value: str,
    rule: str,
    /,
    *,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Say why a rule makes somebody no offer: whether its trigger ever came, what was decided last, and
    what it would decide if it came now.

    Parameters
    ----------
    namespace
        How the person is named, such as user_id.
    value
        The name.
    rule
        The rule's id.
    """

    async def ask(store: Store) -> dict[str, Any]:
        ruling = await standing(store)
        await looked_up(store, "why-not", normal((namespace, value), ruling.rules.workspace.namespaces))
        profile = await profile_reading.find_in(store, ruling.rules, namespace, value)
        if profile is None:
            fail("nobody is known by that identity", 1)
            raise AssertionError
        return await _report(store, ruling, profile, known_rule(ruling, rule))

    report = with_store(ask)
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        Console().out("\n".join(_lines(report)), highlight=False)
    return 0


async def standing(store: Store) -> Ruling:
    """What engines decide by now, with what is stopped."""
    rulings = Rulings(Revisions(store.pool), read_settings())
    await rulings.load(past=False)
    stopped = paused(await Pauses(store.pool).active())
    return Ruling(msgspec.structs.replace(rulings.active.rules, paused=stopped), rulings.active.models)


def known_rule(ruling: Ruling, rule: str) -> Hypothesis:
    """The rule of that name; ends where there is none."""
    if rule not in ruling.rules.rules:
        hint = did_you_mean(rule, frozenset(ruling.rules.rules))
        fail(f'the active revision has no rule "{rule}"' + (f": {hint}" if hint else ""), 1)
    return Hypothesis(ruling, rule)


async def _report(store: Store, ruling: Ruling, profile: Profile, asked: Hypothesis) -> dict[str, Any]:
    now = datetime.now(UTC)
    bucket = bucket_of(profile.id)
    names = sorted({name for kind, name in asked.triggers if kind in _EVENTS})
    kinds = sorted({_EVENTS[kind] for kind, _ in asked.triggers if kind in _EVENTS})
    came = await store.fetch("last_event_of", bucket, profile.id, kinds, names) if names else []
    considered = await store.fetch("last_consideration", bucket, profile.id, asked.rule.id)
    event = _read_event(came[0]["body"]) if came else None
    account = max(asked.accounts_of(profile, event), key=lambda a: (a is not None, a or ""))
    documents = await accounts(store, [account]) if account is not None else {}
    acting = Acting(account, documents.get(account or ""))
    (decisions,) = asked.ask([profile], now, event, [acting])
    mine = [c for decision in decisions for c in decision.candidates if c.rule == asked.rule.id]
    hidden = kept_back(profile.consent, ruling.rules.workspace)
    looked = by_key(asked.candidates(profile, now, event, acting), hidden)
    last = msgspec.json.decode(considered[0]["document"]) if considered else None
    return {
        "profileId": profile.id,
        "rule": asked.rule.id,
        "revision": ruling.rules.revision,
        "trigger": {
            "kind": asked.kind.value,
            "waitsFor": waits_for(asked.rule.when),
            "names": [name for _, name in asked.triggers],
            "lastCame": came[0]["occurred_at"] if came else None,
            "isRecorded": bool(names),
        },
        "lastConsidered": None
        if last is None
        else {"decision": last["id"], "at": last["decidedAt"], "reason": last["reason"]},
        "now": [
            told_of(one, ruling.rules, looked.get((one.rule, one.offer, one.geofence, one.variant)))
            for one in mine
        ],
    }


def _lines(report: dict[str, Any]) -> list[str]:
    trigger, last = report["trigger"], report["lastConsidered"]
    said = [f"{report['rule']} waits for: {trigger['waitsFor']}"]
    if trigger["lastCame"] is not None:
        said.append(f"it last came on {trigger['lastCame']:%Y-%m-%d %H:%M:%S} UTC")
    elif trigger["isRecorded"]:
        said.append("it never came, as far as events are kept")
    if last is not None:
        reason = f": {last['reason']}" if last["reason"] else ", and made an offer"
        said.append(f"the rule was last considered at {last['at']} (decision {last['decision']}){reason}")
    else:
        said.append("the rule was never considered for this person, as far as decisions are kept")
    said.append("if it came now:")
    for one in report["now"]:
        reason = one["reason"].value if one["reason"] else "it would be offered"
        said.append(f"  {one['offer']}: {reason}")
        if one["because"] not in ("", "won"):
            said.append(f"      {one['because']}")
        said += said_of_values(one)
        if one["needed"]:
            said.append(f"      it would go further if {one['needed']}")
    if not report["now"]:
        said.append("  nothing: the rule puts nothing forward for this person (rollout, or its variants)")
    return said
