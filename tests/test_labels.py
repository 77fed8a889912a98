"""Labels: what nobody may read for any allowed purpose decides nothing and is shown to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.app.rehearsal import Rehearsal, Told
from engine.app.ruling import Ruling
from engine.domain.offers.rules import RuleSet
from engine.domain.people.computed import profile_view
from engine.domain.people.consent import permits
from engine.domain.people.events import Event, Kind
from engine.domain.people.labels import readable
from engine.domain.people.profiles import Profile
from engine.domain.views import event_view
from engine.formats.workspace import load
from tests.story import NOON, event, phone, rule_set, seconds

WORKSPACE = """
consent:
  purposes:
    marketing: {basis: consent, unknown: deny}
    partners: {basis: consent, unknown: deny}
    service: {basis: contract}
  labels: {personal: [marketing], shared: [marketing, partners], sensitive: []}
traits:
  age: {type: number, label: personal}
  diet: {type: string, label: shared}
  illness: {type: string, label: sensitive}
  city: {type: string}
computed:
  wishes: {count: Wish}
  adult_wishes: {count: {event: Wish, if: event.traits.age >= 18}}
  last_age: {last: event.traits.age, of: Wish}
  generation: {steps: last_age, from: {young: 0, old: 50}}
  adult_share: {ratio: adult_wishes, of: wishes}
"""
RULES = """
audiences:
  adults: profile.age >= 18
  older: '"adults" in profile.audiences && profile.generation == "old"'
  vegans: profile.diet == "vegan"
  likely: propensity.redeem > 0.5
offers:
  by_trait: {purpose: marketing, message: {push: {title: "{{ profile.age }}", body: b}}}
  by_model: {purpose: marketing, value: 5, propensity: {model: redeem, at_least: 0.5},
             message: {push: {title: t, body: b}}}
  by_partner: {purpose: partners, message: {push: {title: "{{ profile.diet }}", body: b}}}
  plain: {purpose: service, message: {push: {title: "{{ profile.city }}", body: b}}}
rules:
  trait: {when: Wish, if: profile.age >= 18, offer: by_trait}
  counted: {when: Wish, if: profile.adult_wishes > 1 || profile.adult_share > 0.4, offer: by_trait}
  steps: {when: Wish, if: profile.generation == "old", offer: by_trait}
  stated: {when: Wish, if: event.traits.age >= 18, offer: by_trait}
  earlier: {when: Wish, after: {event: Look, if: event.traits.age >= 18, within: 7d}, offer: by_trait}
  among: {when: Wish, audience: older, offer: by_trait}
  entered: {when: {audience: adults, change: entered}, offer: by_trait}
  model: {when: Wish, offer: by_model}
  likely: {when: Wish, audience: likely, offer: by_trait}
  partner: {when: Wish, if: '"vegans" in profile.audiences', offer: by_partner}
  plain: {when: Wish, offer: plain}
"""
CARD = b"""
name: redeem
version: "1"
model: redeem.onnx
inputs:
  - {name: age, from: profile.age}
  - {name: adult, from: profile.adult_share > 0.5}
"""
LABELS = {"age": ("marketing",), "diet": ("marketing", "partners")}
BY_LABEL = {"by_trait": "age", "by_model": "age", "by_partner": "diet"}


class Model:
    """A score that hangs on everything that it is told."""

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float | None]:
        return [0.9 if any(value > 30 for value in row) else 0.1 for row in rows]


def rules(text: str = RULES, workspace: str = WORKSPACE) -> RuleSet:
    files = {"workspace.yaml": workspace.encode(), "rules.yaml": text.encode()}
    loaded = load(files, {"redeem.yaml": CARD, "redeem.onnx": b""})
    assert loaded.rule_set is not None, loaded.problems
    return loaded.rule_set


LOADED = rules()


class Person:
    def __init__(self) -> None:
        self.rehearsal = Rehearsal(Ruling(LOADED, {"redeem": Model()}))

    def tell(self, told: Event) -> Told:
        return self.rehearsal.tell([told], told.received_at)[0]

    @property
    def profile(self) -> Profile:
        found = self.rehearsal.owner(("user_id", "ada"))
        assert found is not None
        return found


KINDS = st.sampled_from(["Wish", "Wish", "Look", ""])
CONSENT = st.dictionaries(st.sampled_from(["marketing", "partners"]), st.booleans(), max_size=2)
TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "age": st.tuples(*[st.sampled_from([None, 7, 20, 40, 70])] * 2),
        "diet": st.tuples(*[st.sampled_from([None, "vegan", "all"])] * 2),
        "illness": st.tuples(*[st.sampled_from(["flu", "none"])] * 2),
    },
)
"""Each with two values: of one history and of the other."""


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(KINDS, CONSENT, TRAITS), max_size=12))
def test_what_must_not_be_read_decides_nothing(
    story: list[tuple[str, dict[str, bool], dict[str, tuple[Any, Any]]]],
) -> None:
    """Two histories that differ in labelled traits only come to the same wherever those are kept back;
    and who gets an offer that used one has allowed its purpose."""
    people = (Person(), Person())
    for number, (name, consent, traits) in enumerate(story):
        at = NOON + number * timedelta(hours=3)
        message = f"m{number}"
        told = [
            person.tell(
                event(
                    name,
                    at,
                    kind=Kind.TRACK if name else Kind.IDENTIFY,
                    message_id=message,
                    user_id="ada",
                    traits={trait: values[side] for trait, values in traits.items()},
                    consent=consent,
                    device=phone(),
                )
            )
            for side, person in enumerate(people)
        ]
        one, other = (person.profile for person in people)
        assert one.consent == other.consent
        purposes = LOADED.workspace.purposes
        allowed = {label for label in purposes if permits(one.consent, purposes[label])}
        hidden = {trait for trait, readers in LABELS.items() if allowed.isdisjoint(readers)}
        for each in told:
            for decision in each.decisions:
                if decision.outcome.value == "offered" and decision.offer in BY_LABEL:
                    assert BY_LABEL[decision.offer] not in hidden
        if hidden == set(LABELS):
            assert profile_view(one, LOADED.workspace, at) == profile_view(other, LOADED.workspace, at)
            assert one.audiences.since == other.audiences.since
            assert [d.candidates for d in told[0].decisions] == [d.candidates for d in told[1].decisions]
            assert [d.message for d in told[0].decisions] == [d.message for d in told[1].decisions]


def test_traits_come_and_go_with_consent() -> None:
    person = Person()
    traits = {"age": 70, "diet": "vegan", "illness": "flu", "city": "Cork"}
    person.tell(event("Wish", NOON, user_id="ada", traits=traits))
    for number, (consent, known) in enumerate(
        [
            ({}, {"city"}),
            ({"partners": True}, {"city", "diet"}),
            ({"marketing": True}, {"city", "diet", "age", "last_age", "generation", "adult_wishes"}),
            ({"partners": False}, {"city", "diet", "age", "last_age", "generation", "adult_wishes"}),
            ({"marketing": False}, {"city"}),
        ]
    ):
        at = NOON + seconds(number + 1)
        person.tell(event("", at, kind=Kind.IDENTIFY, user_id="ada", consent=consent))
        view = profile_view(person.profile, LOADED.workspace, at)
        assert set(view) - {"last_seen", "audiences", "wishes", "adult_share"} == known
        assert ("adult_share" in view) is ("age" in known)
        assert ("vegans" in view["audiences"]) is ("diet" in known)
        assert ("older" in view["audiences"]) is ("age" in known)


def test_an_event_is_read_without_what_is_kept_back() -> None:
    view = event_view(event(traits={"age": 7, "city": "Cork"}))
    assert readable(view, {}, LOADED.workspace)["traits"] == {"city": "Cork"}
    assert readable(view, {}, rule_set().workspace) is view


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("if: event.traits.age > 9, offer: x", '"event.traits.age" is read for "partners"'),
        ("if: profile.last_age > 9, offer: x", '"profile.last_age" is read for "partners"'),
        ("if: profile.adult_wishes > 9, offer: x", '"profile.adult_wishes" is read for "partners"'),
        ("if: profile.generation == 'old', offer: x", '"profile.generation" is read for "partners"'),
        ("if: profile.adult_share > 0.5, offer: x", '"profile.adult_share" is read for "partners"'),
        ("after: {event: Look, if: event.traits.age > 9}, offer: x",
         '"event.traits.age" is read for "partners"'),
        ("audience: older, offer: x",
         '"profile.age" is read through the audience older through the audience adults for "partners"'),
        ("do: tell", '"profile.age" is read for "partners"'),
    ],
)  # fmt: skip
def test_what_is_read_beyond_its_purpose_is_told_with_its_line(rule: str, message: str) -> None:
    text = f"""
offers:
  x: {{purpose: partners, message: {{push: {{title: t, body: b}}}}}}
actions:
  tell: {{purpose: partners, webhook: them, body: {{age: "{"{{ profile.age }}" if "do:" in rule else "x"}"}}}}
rules:
  r: {{when: Wish, {rule}}}
"""
    audiences = RULES[: RULES.index("offers:")].replace("  likely: propensity.redeem > 0.5\n", "")
    files = {"workspace.yaml": WORKSPACE.encode(), "a.yaml": audiences.encode(), "b.yaml": text.encode()}
    loaded = load(files)
    assert loaded.rule_set is None
    assert {p.file for p in loaded.problems} == {"b.yaml"}
    assert {p.line for p in loaded.problems} == {5 if "do:" in rule else 7}
    told = f'{message}: it is labelled "personal", which only marketing may read'
    assert told in [p.message for p in loaded.problems]
