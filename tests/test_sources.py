"""Whose word on a trait stands: by source first, then by time, in whatever order it is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.app.processing_report import markdown, processing
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.merging import merged
from engine.domain.people.profiles import Profile, decode_profile
from engine.domain.people.sources import PARTIES, provenance, rank
from tests.story import BEFORE, NOON, People, event, rule_set, seconds, someone, stored

WORKSPACE = """
consent: {purposes: {marketing: {basis: consent}}, labels: {personal: [marketing]}}
identities:
  - {namespace: user_id, one: true}
  - {namespace: email, from: [traits.email]}
  - {namespace: anonymous_id}
traits:
  first_name: {type: string, source: zero_party, label: personal}
  score: {type: number, source: second_party}
"""
RULES = rule_set(workspace=WORKSPACE)


def states(traits: dict[str, Any], at: float = 0, **fields: Any) -> Event:
    """An identify call so many seconds after noon, from an app unless the fields say otherwise."""
    said = {"user_id": "ada", **fields}
    return event("", NOON + seconds(at), kind=Kind.IDENTIFY, traits=traits, **said)


def brought(traits: dict[str, Any], at: float = 0, party: str = "", **fields: Any) -> Event:
    return states(traits, at, sender=Sender.IMPORT, trusted=True, party=party, **fields)


def corrected(traits: dict[str, Any], at: float = 0, **fields: Any) -> Event:
    return states(traits, at, sender=Sender.ENGINE, trusted=True, **fields)


def told(*events: Event) -> People:
    people = People(RULES)
    people.tell(*events)
    return people


def said(profile: Profile, name: str) -> tuple[Any, str, str]:
    trait = profile.traits[name]
    source = provenance(trait.source, trait.at)
    return trait.value, source.source, source.origin


def test_a_trait_says_who_stated_it_and_when() -> None:
    ada = told(
        states({"first_name": "Ada", "shoe": 39}),
        states({"score": 7}, 1, trusted=True),
        brought({"town": "Cork"}, 2),
        brought({"income": 5}, 3, party="third_party"),
        corrected({"title": "Dr"}, 4),
    ).of("ada")
    assert said(ada, "first_name") == ("Ada", "zero_party", "app")
    assert said(ada, "shoe") == (39, "first_party", "app")
    assert said(ada, "score") == (7, "second_party", "server")
    assert said(ada, "town") == ("Cork", "first_party", "import")
    assert said(ada, "income") == (5, "third_party", "import")
    assert said(ada, "title") == ("Dr", "correction", "operator")
    assert ada.traits["income"].at == NOON + seconds(3)


def test_what_a_partner_told_does_not_take_the_place_of_the_persons_own_word() -> None:
    people = told(states({"first_name": "Ada"}), brought({"first_name": "Adelaide"}, 60, "second_party"))
    assert said(people.of("ada"), "first_name") == ("Ada", "zero_party", "app")
    assert people.notes == ("a trait is known from a better source: not changed",)
    people.tell(states({"first_name": "Augusta"}, 30))
    assert said(people.of("ada"), "first_name") == ("Augusta", "zero_party", "app")


def test_the_persons_own_word_takes_the_place_of_a_partners_even_an_older_one() -> None:
    people = told(brought({"first_name": "Adelaide"}, 60, "second_party"), states({"first_name": "Ada"}))
    assert said(people.of("ada"), "first_name") == ("Ada", "zero_party", "app")


def test_a_correction_stands_until_the_operator_takes_it_away() -> None:
    people = told(states({"first_name": "Ad"}, 5), corrected({"first_name": "Ada"}, 3))
    people.tell(states({"first_name": "Ad"}, 7, trusted=True))
    assert said(people.of("ada"), "first_name") == ("Ada", "correction", "operator")
    people.tell(corrected({"first_name": "Augusta"}, 8))
    assert people.of("ada").traits["first_name"].value == "Augusta"
    people.tell(corrected({"first_name": None}, 9))
    assert people.of("ada").traits["first_name"].value is None
    people.tell(brought({"first_name": "Ada"}, 10, "third_party"))
    assert said(people.of("ada"), "first_name") == ("Ada", "third_party", "import")


def test_a_document_from_before_sources_is_read_as_the_business_own() -> None:
    class Old(msgspec.Struct, array_like=True):
        value: Any
        at: Any

    raw = msgspec.to_builtins(someone(), builtin_types=(type(NOON),))
    raw["traits"] = {"town": Old("Cork", NOON)}
    ada = decode_profile(msgspec.msgpack.encode(raw))
    assert said(ada, "town") == ("Cork", "first_party", "")
    assert rank(ada.traits["town"].source) == rank(told(states({"x": 1})).of("ada").traits["x"].source)


def test_where_a_value_comes_from_costs_a_document_a_byte() -> None:
    class Old(msgspec.Struct, array_like=True):
        value: Any
        at: Any

    trait = told(corrected({"first_name": "Ada"})).of("ada").traits["first_name"]
    assert len(msgspec.msgpack.encode(trait)) - len(msgspec.msgpack.encode(Old(trait.value, trait.at))) == 1


def test_the_records_of_processing_say_whose_word_stands() -> None:
    found = processing(RULES)
    assert found.survivorship == ["correction", "zero_party", "first_party", "second_party", "third_party"]
    assert "correction, then zero party, then first party, then second party" in markdown(found)


class Statement(NamedTuple):
    value: int
    party: str
    person: int


STATEMENTS = st.builds(Statement, st.integers(0, 9), st.sampled_from(PARTIES), st.integers(0, 2))
ORDERS = st.lists(STATEMENTS).flatmap(lambda all_: st.permutations(list(enumerate(all_))))


@given(ORDERS, st.permutations(range(3)), st.booleans())
def test_no_order_of_words_and_of_merges_changes_which_stands(
    order: list[tuple[int, Statement]], turns: list[int], left: bool
) -> None:
    """Three people are told of in any order, and become one in any order."""
    people = told(*(states({}, user_id=None, anonymous_id=f"app-{n}") for n in range(3)))
    for at, one in order:
        ids: dict[str, Any] = {"user_id": None, "anonymous_id": f"app-{one.person}"}
        people.tell(brought({"x": one.value}, at, one.party, **ids))
    first, second, third = (people.whose("anonymous_id", f"app-{n}") for n in turns)
    assert first is not None
    assert second is not None
    assert third is not None
    at_ = NOON + timedelta(hours=1)
    if left:
        one_ = merged(merged(first, second, RULES.workspace, at_), third, RULES.workspace, at_)
    else:
        one_ = merged(first, merged(second, third, RULES.workspace, at_), RULES.workspace, at_)
    expected = max(order, key=lambda told: (PARTIES.index(told[1].party), told[0]), default=None)
    found = stored(one_).traits.get("x")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.value, found.at) == (expected[1].value, NOON + seconds(expected[0]))


@pytest.mark.parametrize("party", PARTIES)
def test_every_party_has_its_name_back(party: str) -> None:
    trait = told(brought({"x": 1}, party=party)).of("ada").traits["x"]
    assert provenance(trait.source, BEFORE).source == party


def test_what_nothing_reads_is_kept_in_the_log_alone() -> None:
    """Of an event that no rule, model or trait reads, the document keeps that the person was there."""
    people = told(states({"first_name": "Ada"}))
    before = people.of("ada")
    read_by_nobody = event(
        "Page Scrolled",
        NOON + seconds(1),
        user_id="ada",
        properties={"depth": 0.7, "secret": "never kept"},
        context={
            "userAgent": "never kept",
            "page": {"url": "never kept"},
            "campaign": {"name": "never kept"},
        },
    )
    people.tell(read_by_nobody)
    after = people.of("ada")
    assert (after.seq, after.last_seen) == (before.seq + 1, NOON + seconds(1))
    same = {"seq": before.seq, "last_seen": before.last_seen, "version": before.version}
    used = tuple(msgspec.structs.replace(i, used_at=None) for i in after.identities)
    assert msgspec.structs.replace(after, **same, identities=used) == msgspec.structs.replace(
        before, identities=tuple(msgspec.structs.replace(i, used_at=None) for i in before.identities)
    )
    assert b"never kept" not in msgspec.msgpack.encode(after)
