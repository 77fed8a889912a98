"""What a receiver may know of people: never what its purpose may not read, whoever they are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.offers.decisions import Decision, Judged, Outcome, Reason
from engine.domain.people.profiles import Consent, Ended, Identity, Profile, Trait
from engine.domain.sharing.changes import Outcome as Became
from engine.domain.sharing.changes import changes, message_id
from engine.domain.sharing.readers import Reader, Told, why_not
from engine.domain.sharing.receivers import TOPICS
from engine.formats.workspace_sharing import readable
from tests import lanes
from tests.lanes import NOW
from tests.test_sharing import RULES, WORKSPACE

SET = lanes.rule_set(RULES, WORKSPACE)
PURPOSES = SET.workspace.purposes
YES = {name: Consent(True, NOW) for name in PURPOSES}
WORDS = ("first_name", "email", "illness", "colour", "undeclared")


def told(purpose: str = "marketing", *without: str) -> Told:
    reader = Reader(
        receiver="crm",
        topics=frozenset(TOPICS),
        purpose=PURPOSES[purpose],
        may=readable(SET, purpose, without),
    )
    return Told(readers=(reader,), topics=frozenset(TOPICS), workspace=SET.workspace)


def person(**fields: Any) -> Profile:
    known = {
        "id": "0a000000-0000-8000-8000-000000000001",
        "version": 4,
        "created_at": NOW,
        "last_seen": NOW,
        "consent": YES,
        "identities": (Identity("user_id", "ada", NOW), Identity("email", "ada@x.example", NOW)),
        "traits": {name: Trait(f"its {name}", NOW) for name in WORDS},
    }
    return Profile(**{**known, **fields})


def told_of(sharing: Told, before: Profile | None, after: Profile, **others: Any) -> list[dict[str, Any]]:
    found = changes(sharing, before, after, others.get("decisions", ()), others.get("outcomes", ()), NOW)
    return [one.body for one in found]


BOTH = {"user_id", "email"}
PLAIN, PERSONAL = {"colour"}, {"first_name", "email"}
OPEN = {"thanks", "again"}


@pytest.mark.parametrize(
    ("purpose", "without", "traits", "namespaces", "audiences", "rules"),
    [
        ("marketing", (), PLAIN | PERSONAL, BOTH, {"buyers"}, OPEN),
        ("service", (), PLAIN | PERSONAL | {"illness"}, BOTH, {"buyers", "ill"}, OPEN | {"well"}),
        ("analytics", (), PLAIN, {"user_id"}, {"buyers"}, OPEN),
        ("service", ("personal",), PLAIN | {"illness"}, {"user_id"}, {"buyers", "ill"}, OPEN | {"well"}),
        ("service", ("sensitive",), PLAIN | PERSONAL, BOTH, {"buyers"}, OPEN),
    ],
)
def test_labels(
    purpose: str,
    without: tuple[str, ...],
    traits: set[str],
    namespaces: set[str],
    audiences: set[str],
    rules: set[str],
) -> None:
    may = readable(SET, purpose, without)
    assert (may.traits, may.audiences, may.rules) == (traits, audiences, rules)
    (body,) = told_of(told(purpose, *without), None, person())
    assert body["state"]["traits"].keys() == traits
    assert {one["namespace"] for one in body["profile"]["identities"]} == namespaces


@given(
    st.dictionaries(st.sampled_from(WORDS), st.text(min_size=6, max_size=9, alphabet="xyz")),
    st.dictionaries(st.sampled_from(sorted(PURPOSES)), st.booleans()),
    st.sampled_from(sorted(PURPOSES)),
    st.booleans(),
    st.booleans(),
)
def test_nothing_without_consent_or_beyond_the_purpose(
    stated: dict[str, str], said: dict[str, bool], purpose: str, shares: bool, restricted: bool
) -> None:
    one = person(
        traits={name: Trait(f"{name}={value}", NOW) for name, value in stated.items()},
        consent={name: Consent(granted, NOW) for name, granted in said.items()},
        sharing=None if shares else Consent(False, NOW, "gpc"),
        restricted=restricted,
    )
    text = msgspec.json.encode(told_of(told(purpose), None, one)).decode()
    allowed = purpose == "service" or (said.get(purpose, False) and shares)
    if restricted or not allowed:
        assert text == "[]"
        return
    assert "undeclared=" not in text
    assert ("illness=" in text) == ("illness" in stated and purpose == "service")
    assert ("first_name=" in text) == ("first_name" in stated and purpose != "analytics")
    assert ("colour=" in text) == ("colour" in stated)


def test_only_what_the_receiver_sees_is_a_change() -> None:
    was = person()
    ill = msgspec.structs.replace(was, traits={**was.traits, "illness": Trait("cold", NOW)})
    assert told_of(told(), was, ill) == []
    assert len(told_of(told("service"), was, ill)) == 1
    grown = msgspec.structs.replace(was, last_seen=NOW + timedelta(days=1), seq=9)
    assert told_of(told(), was, grown) == []
    unknown = msgspec.structs.replace(was, consent={})
    assert told_of(told(), unknown, was) != []
    assert told_of(told(), was, unknown) == []


def test_a_merge_is_told_once_by_whoever_ends() -> None:
    was = person()
    ended = msgspec.structs.replace(
        was,
        consent={},
        identities=(),
        traits={},
        ended=Ended("0b000000-0000-8000-8000-000000000002", NOW, "m", 3),
    )
    (body,) = told_of(told(), was, ended)
    assert (body["type"], body["into"], body["profile"]["version"]) == ("profile.merged", ended.ended.into, 5)  # type: ignore[union-attr]
    assert told_of(told(), msgspec.structs.replace(was, consent={}), ended) == []


def decision(rule: str, **others: Any) -> Decision:
    known = {
        "id": "d",
        "message_id": "m",
        "profile_id": person().id,
        "decided_at": NOW,
        "trigger": "enter",
        "outcome": Outcome.OFFERED,
        "revision": "r",
        "geofence": "clinic",
        "rule": rule,
        "offer": "o",
        "candidates": (Judged(rule=rule, offer="o"),),
    }
    return Decision(**{**known, **others})


def test_decisions_and_deliveries_of_rules_that_it_may_know() -> None:
    one = person()
    fell = Judged(rule="t", offer="o", reason=Reason.CONDITION_FALSE)
    made = [decision("thanks"), decision("well"), decision("thanks", candidates=(fell,))]
    became = [Became("Offer Delivered", {"rule": rule, "decision": "d"}) for rule in ("thanks", "well")]
    bodies = told_of(told(), one, one, decisions=made, outcomes=became)
    assert [(b["type"], (b.get("decision") or b["delivery"])["rule"]) for b in bodies] == [
        ("decision.made", "thanks"),
        ("delivery.succeeded", "thanks"),
    ]
    assert bodies[0]["decision"]["geofence"] == "clinic"
    (hidden, *_) = told_of(told("marketing", "location"), one, one, decisions=made)
    assert "geofence" not in hidden["decision"]


def test_ids_are_the_same_for_all_and_again() -> None:
    assert message_id("a", 1) == message_id("a", 1) != message_id("a", 2)


def test_who_is_not_told_of() -> None:
    service, marketing = PURPOSES["service"], PURPOSES["marketing"]
    assert why_not(None, service) == "no_consent"
    assert why_not(person(erased=True), service) == "no_consent"
    assert why_not(person(), None) == "no_consent"
    assert why_not(person(sharing=Consent(False, NOW, "gpc")), service) is None
    assert why_not(person(sharing=Consent(False, NOW, "gpc")), marketing) == "do_not_share"
