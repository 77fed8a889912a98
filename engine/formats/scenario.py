"""Scenario files: who walks where, what the app reports on the way, and what must be decided.

`tests:` stands in files of a `tests` folder, or beside the rules that it is about. Everything is
checked against the rule set when it is read, so that a rule that was renamed shows at the line that
still names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

import msgspec

from engine.domain.offers.decisions import Outcome, Reason
from engine.domain.offers.rules import ComputedKind, RuleSet
from engine.domain.people.events import Kind
from engine.domain.phones import App, Os, Phone
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar, read
from engine.formats.problems import Problem, did_you_mean
from engine.formats.scenario_person import Person, entries, read_person
from engine.formats.workspace_places import plain
from engine.formats.workspace_values import (
    Problems,
    choice,
    fields,
    flag,
    moment,
    name,
    number,
    shown,
    text,
    unresolved,
)

_SECTION: Final = re.compile(rb"""^["']?tests["']?\s*:""", re.MULTILINE)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EXPECT = ("outcome", "rule", "offer", "reason", "geofence", "trigger", "channel", "placement", "message")
_OF_ANY_TYPE = (ComputedKind.FIRST, ComputedKind.LAST, ComputedKind.DISTINCT, ComputedKind.MOST_OFTEN)
_SCENARIO = (
    "name", "profile", "phone", "now", "weather", "propensity", "track", "events", "until", "expect",
    "strict",
)  # fmt: skip
_CALL = (
    "at", "type", "from", "event", "name", "properties", "traits", "context", "userId", "anonymousId",
    "previousId", "groupId", "messageId", "timestamp", "originalTimestamp",
)  # fmt: skip
_WORDS: Final = {"outcome": tuple(o.value for o in Outcome), "reason": tuple(r.value for r in Reason)}
_CALLS: Final = tuple(kind.value for kind in Kind)


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that must be made. What is left out may be anything; `message` holds the texts that
    must be shown, as they are shown. `line` is where it stands."""

    outcome: str
    rule: str | None = None
    offer: str | None = None
    reason: str | None = None
    geofence: str | None = None
    trigger: str | None = None
    channel: str | None = None
    placement: str | None = None
    message: Mapping[str, str] = {}
    line: int = 0

    def agrees(self, decision: Mapping[str, Any]) -> bool:
        """Whether it is this decision, given in its full form."""
        for word in _EXPECT[:-1]:
            stated = getattr(self, word)
            if stated is not None and decision.get(word) != stated:
                return False
        message = decision.get("message") or {}
        return all(message.get(word) == said for word, said in self.message.items())


class ScenarioEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the Segment protocol: when it is sent, after the start, and the fields of its body."""

    at: timedelta
    call: str
    body: Mapping[str, Any]
    from_server: bool = False
    line: int = 0

    def __repr__(self) -> str:
        return f"ScenarioEvent({self.call!r})"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One story. `track` is a path as it was written, and where that stands. `until` is when the story
    ends, after its start."""

    name: str
    file: str
    line: int
    profile: Person
    now: datetime | None = None
    weather: Mapping[str, Any] = {}
    propensity: Mapping[str, float | None] = {}
    phone: Phone | None = None
    track: str | None = None
    track_line: int = 0
    track_column: int = 0
    events: tuple[ScenarioEvent, ...] = ()
    until: timedelta | None = None
    expect: tuple[Expected, ...] = ()
    strict: bool = False


def holds_scenarios(data: bytes) -> bool:
    """Whether a file has a section `tests:`, without reading it whole."""
    return _SECTION.search(data) is not None


def read_scenarios(
    file: str, data: bytes, rules: RuleSet, *, others: bool = False
) -> tuple[tuple[Scenario, ...], tuple[Problem, ...]]:
    """The sound scenarios of a file, and everything that is wrong with the others. With `others` the
    file has sections beside `tests:`, which are not looked at."""
    problems: list[Problem] = []
    root = read(file, data, problems)
    if root is None:
        return (), tuple(problems)
    if not isinstance(root, MapNode):
        return (), (root.problem(f"expected tests:, found {shown(root)}"),)
    for word, entry in root.entries.items():
        if word != "tests" and not others:
            known = frozenset(("tests",))
            problems.append(entry.key.problem(f'unknown section "{word}"', did_you_mean(word, known)))
    section = root.entries.get("tests")
    if section is None or (isinstance(section.node, Scalar) and section.node.value is None):
        return (), tuple(problems)
    if not isinstance(section.node, ListNode):
        hint = 'begin each with "- name: …"'
        problems.append(section.node.problem(f"expected a list of tests, found {shown(section.node)}", hint))
        return (), tuple(problems)
    found: list[Scenario] = []
    for node in section.node.items:
        before = len(problems)
        scenario = _scenario(node, problems, rules)
        if scenario is not None and len(problems) == before:
            found.append(scenario)
    return tuple(found), tuple(problems)


def _scenario(node: AnyNode, problems: Problems, rules: RuleSet) -> Scenario | None:
    found = fields(node, problems, _SCENARIO, expected="a test such as {name: …, events: […], expect: […]}")
    if found is None:
        return None
    title = None
    if "name" in found:
        title = text(found["name"], problems, "what the test is about")
    else:
        problems.append(node.problem('a test needs a "name": what it is about'))
    person = read_person(found["profile"], problems, rules) if "profile" in found else Person()
    now = moment(found["now"], problems, UTC) if "now" in found else None
    if "now" not in found and "track" not in found:
        problems.append(
            node.problem('"now" is missing', "add now: 2026-01-12T09:00:00Z, when the story begins")
        )
    events = _listed(found.get("events"), problems, "events such as {at: +5m, type: track, event: …}")
    calls = tuple(call for item in events if (call := _event(item, problems)) is not None)
    until = _offset(found["until"], problems) if "until" in found else None
    latest = max((call.at for call in calls), default=timedelta(0))
    if until is not None and until < latest:
        problems.append(found["until"].problem("the story goes on after it: an event comes later"))
    if "expect" not in found:
        problems.append(node.problem('"expect" is missing', "add expect: [] where nothing must be offered"))
    wanted = _listed(found.get("expect"), problems, "decisions such as {offer: …, rule: …, outcome: offered}")
    expect = tuple(one for item in wanted if (one := _expected(item, problems, rules)) is not None)
    return Scenario(
        name=title or "",
        file=node.source.file,
        line=node.line,
        profile=person,
        now=now,
        weather=_values(found.get("weather"), problems, "weather such as {temp_c: 4.0}"),
        propensity=_propensity(found["propensity"], problems, rules) if "propensity" in found else {},
        phone=_phone(found["phone"], problems, found) if "phone" in found else None,
        track=name(found["track"], problems, "the name of a GPX file") if "track" in found else None,
        track_line=found["track"].line if "track" in found else 0,
        track_column=found["track"].column if "track" in found else 0,
        events=calls,
        until=until,
        expect=expect,
        strict=bool(flag(found["strict"], problems)) if "strict" in found else False,
    )


def _phone(node: AnyNode, problems: Problems, said: Mapping[str, AnyNode]) -> Phone | None:
    """What the track is seen through."""
    found = fields(node, problems, ("os", "app"), expected="a phone such as {os: ios, app: background}")
    if found is None:
        return None
    if "track" not in said:
        problems.append(node.problem('a phone delivers a "track", and none is here'))
    for word in ("os", "app"):
        if word not in found:
            problems.append(node.problem(f'"{word}" is missing'))
    os = choice(found["os"], problems, ("ios", "android")) if "os" in found else None
    app = choice(found["app"], problems, ("foreground", "background")) if "app" in found else None
    return None if os is None or app is None else Phone(cast(Os, os), cast(App, app))


def _listed(node: AnyNode | None, problems: Problems, what: str) -> tuple[AnyNode, ...]:
    if node is None:
        return ()
    if isinstance(node, ListNode):
        return node.items
    problems.append(node.problem(f"expected a list of {what}, found {shown(node)}"))
    return ()


def _values(node: AnyNode | None, problems: Problems, what: str) -> dict[str, Any]:
    if node is None:
        return {}
    if isinstance(node, MapNode):
        return {word: plain(entry.node) for word, entry in node.entries.items()}
    problems.append(node.problem(f"expected {what}, found {shown(node)}"))
    return {}


# What happens


def _event(node: AnyNode, problems: Problems) -> ScenarioEvent | None:
    found = fields(node, problems, _CALL, expected="an event such as {at: +5m, type: track, event: …}")
    if found is None:
        return None
    for word in ("at", "type"):
        if word not in found:
            problems.append(node.problem(f'"{word}" is missing'))
    at = _offset(found["at"], problems) if "at" in found else None
    call = choice(found["type"], problems, _CALLS) if "type" in found else None
    sender = choice(found["from"], problems, ("app", "server")) if "from" in found else "app"
    body = {word: plain(value) for word, value in found.items() if word not in ("at", "type", "from")}
    if at is None or call is None:
        return None
    return ScenarioEvent(at=at, call=call, body=body, from_server=sender == "server", line=node.line)


def _propensity(node: AnyNode, problems: Problems, rules: RuleSet) -> dict[str, float | None]:
    scores: dict[str, float | None] = {}
    for word, entry in entries(node, problems, "scores by model such as {redeem: 0.6}").items():
        if word not in rules.models:
            problems.append(unresolved(entry.key, "model", word, rules.models))
        elif isinstance(entry.node, Scalar) and entry.node.text == "failed":
            scores[word] = None
        else:
            scores[word] = number(entry.node, problems, f"the score of {word}", low=0, high=1)
    return scores


def _offset(node: AnyNode, problems: Problems) -> timedelta | None:
    written = node.text if isinstance(node, Scalar) else ""
    parts = _PART.findall(written)
    spelt = "".join(amount + unit for amount, unit in parts)
    if spelt and written == f"+{spelt}":
        return timedelta(seconds=sum(float(amount) * _SECONDS[unit] for amount, unit in parts))
    hint = f"did you mean +{spelt}?" if spelt and written == spelt else None
    message = f"expected a time after the start such as +12m or +1h30m, found {shown(node)}"
    problems.append(node.problem(message, hint))
    return None


# What must be decided


def _expected(node: AnyNode, problems: Problems, rules: RuleSet) -> Expected | None:
    found = fields(node, problems, _EXPECT, expected="a decision such as {offer: …, outcome: offered}")
    if found is None:
        return None
    if "outcome" not in found:
        problems.append(node.problem('"outcome" is missing', "one of offered, deferred, suppressed"))
    words: dict[str, str] = {}
    for word, value in found.items():
        if word == "message":
            continue
        options = _WORDS.get(word)
        said = choice(value, problems, options) if options else name(value, problems, f"a {word}")
        if said is not None:
            words[word] = said
    known = {"rule": rules.rules, "offer": {**rules.offers, **rules.actions}, "geofence": rules.fences}
    for word, names in known.items():
        if word in words and words[word] not in names:
            problems.append(unresolved(found[word], word, words[word], names))
    if words.get("outcome") == "offered" and "reason" in words:
        problems.append(found["reason"].problem("what is offered has no reason against it"))
    message: dict[str, str] = {}
    if "message" in found:
        shows = fields(found["message"], problems, ("title", "body", "deeplink", "image")) or {}
        message = {word: said for word, node in shows.items() if (said := text(node, problems))}
    if "outcome" not in words:
        return None
    return Expected(**words, message=message, line=node.line)
