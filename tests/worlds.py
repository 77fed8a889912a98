"""Scenarios brought about for real: a served workspace, people who come to be as the scenarios state,
and everything that happens sent as phones and servers send it.

A world is one `serve` on the replay clock with all scenarios that agree in what is outside the workspace:
what the weather is, and whether models say what a scenario states or what they find. Its people live side
by side on one clock; each scenario has somebody of its own, in the same groups of every experiment.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import h3.api.basic_int as h3
import msgspec

from engine.adapters.weather import FIELDS
from engine.app.rehearsal import SECRET, Told
from engine.app.rehearsal_outcome import Outcomes, compare
from engine.app.rehearsal_story import Played, of_what, play
from engine.app.ruling import Ruling
from engine.app.weather import RESOLUTION
from engine.domain.offers.assignment import is_rolled_out, place, variant
from engine.domain.offers.decisions import Decision, Outcome
from engine.domain.offers.rules import RuleSet
from engine.domain.people.profiles import new_profile
from engine.formats.scenario import Scenario
from engine.formats.scenario_calls import Call, begins_at, calls, introduction
from engine.formats.scenario_files import Story
from tests import served, test_weather
from tests.pasts import ImpossiblePast, past

MODELS = Path(__file__).parent / "data" / "models"
TOLD = "told_"
"""Before a model's name: the trait by which a person's score is stated."""
PASSER_BY = {"userId": "passer-by", "anonymousId": "passer-by-app"}
_HAVE_ARRIVED_SECONDS = 20.0
_OURS = {ours: theirs for theirs, ours in FIELDS.items()}

Sky = tuple[tuple[str, float], ...]


class World(NamedTuple):
    """What is outside a workspace; `as_told`: models say of each person what their scenario states."""

    sky: Sky
    as_told: bool


class Happened(NamedTuple):
    """What became of one scenario."""

    story: Story
    outcomes: Outcomes
    faults: tuple[str, ...]


def worlds(stories: Sequence[Story], ruling: Ruling) -> dict[World, list[Story]]:
    """The scenarios by a world in which each comes out as it states. One that says nothing of the weather
    goes wherever that does not matter, and likewise with the models."""
    found: dict[World, list[Story]] = {}
    for story in sorted(stories, key=lambda one: not (one.scenario.weather or one.scenario.propensity)):
        scenario = story.scenario
        own = _sky(scenario)
        skies = [own] if own else [*dict.fromkeys(world.sky for world in found), ()]
        told = [True] if scenario.propensity else [True, False]
        options = [World(sky, as_told) for as_told in told for sky in skies]
        options.sort(key=lambda world: world not in found)
        world = next((one for one in options if _comes_out(story, ruling, one)), options[0])
        found.setdefault(world, []).append(story)
    return found


def _sky(scenario: Scenario) -> Sky:
    """What a weather service would say; nothing where the app itself must know."""
    if not scenario.weather or not scenario.weather.keys() <= _OURS.keys():
        return ()
    return tuple(sorted(scenario.weather.items()))


def _comes_out(story: Story, ruling: Ruling, world: World) -> bool:
    scenario = story.scenario
    if world.sky:
        scenario = msgspec.structs.replace(scenario, weather=dict(world.sky))
    if world.as_told:
        unsaid = dict.fromkeys(ruling.rules.models.keys() - scenario.propensity.keys())
        scenario = msgspec.structs.replace(scenario, propensity={**scenario.propensity, **unsaid})
    played = play(scenario, story.fixes, ruling)
    return not compare(scenario, played, ruling.rules).differences


def bring_about(
    workspace: Path,
    models: Path,
    world: World,
    stories: Sequence[Story],
    ruling: Ruling,
    folder: Path,
    dsn: str,
) -> list[Happened]:
    """Plays the scenarios on a server of their own, all at once."""
    rules = folder / "rules"
    shutil.copytree(workspace, rules)
    (folder / "models").mkdir()
    for file in (MODELS / "as_told.onnx", *models.glob("*.yaml"), *models.glob("*.onnx")):
        shutil.copy(file, folder / "models")
    if world.as_told:
        _tell_scores(rules / "workspace.yaml", folder / "models", ruling.rules.models)
    # Ids, and with them the groups of experiments, are those of `viewfinder test`.
    served.fetch(dsn, "INSERT INTO constants (name, value) VALUES ('identity_secret', $1)", SECRET)
    with ExitStack() as stack:
        pushes = stack.enter_context(served.push_service(folder))
        settings = {"CLOCK": "replay", **pushes.settings}
        if world.sky:
            sky = stack.enter_context(test_weather.stand_in())
            sky.current = {_OURS[name]: value for name, value in world.sky}
            settings["WEATHER_URL"] = sky.url
        server = stack.enter_context(served.serve(folder, dsn, **settings))
        run = _Run(server, pushes, world, ruling.rules)
        try:
            run.live([_cast(story, number, world, ruling.rules) for number, story in enumerate(stories)])
            return [run.ending(person) for person in run.people]
        finally:
            run.close()


def _tell_scores(settings: Path, models: Path, names: Mapping[str, Any]) -> None:
    """Has each model say what stands in a trait of the person."""
    said = "".join(f"  {TOLD}{name}: {{type: number}}\n" for name in names)
    text = settings.read_text("utf-8")
    if re.search(r"^traits:", text, re.MULTILINE):
        text, number = re.subn(r"^traits:[ \t]*(#.*)?\n", rf"\g<0>{said}", text, flags=re.MULTILINE)
        assert number == 1, f"{settings}: traits: in another form than expected"
    elif said:
        text += f"\ntraits:\n{said}"
    settings.write_text(text, "utf-8")
    for file in models.glob("*.yaml"):
        file.unlink()
    for name in names:
        card = (
            f"name: {name}\nversion: as-told\nmodel: as_told.onnx\n"
            f"inputs: [{{name: told, from: profile.{TOLD}{name}}}]\noutput: probabilities\n"
        )
        (models / f"{name}.yaml").write_text(card, "utf-8")


# Whom a scenario is about


class Person(NamedTuple):
    """A scenario with ids of its own. `whose` are those that its decisions are read by, `until` the
    moment after which what still comes is no longer part of it."""

    story: Story
    scenario: Scenario
    begins: datetime
    ends: datetime
    told: tuple[Call, ...]
    whose: tuple[tuple[str, str], ...]


def _cast(story: Story, number: int, world: World, rules: RuleSet) -> Person:
    scenario = story.scenario
    profile = scenario.profile
    namespace = "user_id" if profile.user_id is not None else "anonymous_id"
    own = cast(str, profile.user_id or profile.anonymous_id)
    names = {own: _alike(namespace, own, number, rules)}
    names |= {other: f"{other}-{number}" for other in _ids(scenario, rules) if other != own}
    traits = dict(profile.traits)
    if world.as_told:
        told = {f"{TOLD}{model}": score for model, score in scenario.propensity.items() if score is not None}
        traits |= told
    person = msgspec.structs.replace(
        profile,
        user_id=_renamed(profile.user_id, names),
        anonymous_id=_renamed(profile.anonymous_id, names),
        traits=_renamed(traits, names),
        device=_renamed(profile.device, names),
    )
    events = tuple(
        msgspec.structs.replace(event, body=_renamed(event.body, names)) for event in scenario.events
    )
    renamed = msgspec.structs.replace(scenario, profile=person, events=events)
    if _sky(scenario) and world.sky:
        renamed = msgspec.structs.replace(renamed, weather={})
    begins = begins_at(scenario, story.fixes)
    if renamed.phone is None:
        told = tuple(calls(renamed, story.fixes))
    else:  # what it watches hangs on what it was told before
        told = play(renamed, story.fixes, Ruling(rules, {})).calls
    ends = begins + scenario.until if scenario.until is not None else told[-1].sent_at if told else begins
    ids = dict.fromkeys(
        (space, str(item[word]))
        for call in (introduction(renamed, begins), *told)
        for item in (call.body, *call.body.get("batch", ()))
        for space, word in (("user_id", "userId"), ("anonymous_id", "anonymousId"))
        if item.get(word)
    )
    return Person(story, renamed, begins, ends, told, tuple(ids))


def _ids(scenario: Scenario, rules: RuleSet) -> Iterator[str]:
    """Everything in a scenario that says who somebody, or which phone or account, it is."""
    profile = scenario.profile
    sources = {
        path[1] for space in rules.workspace.namespaces for path in space.sources if path[0] == "traits"
    }
    found: list[Any] = [profile.user_id, profile.anonymous_id]
    found += [profile.traits.get(word) for word in sources]
    for word in ("id", "token"):
        found.append((profile.device or {}).get(word))
    for event in scenario.events:
        found += [event.body.get(word) for word in ("userId", "anonymousId", "previousId", "groupId")]
        device = event.body.get("context", {}).get("device", {})
        found += [device.get("id"), device.get("token")]
        stated = {**event.body.get("traits", {}), **event.body.get("context", {}).get("traits", {})}
        found += [stated.get(word) for word in sources]
    return (str(one) for one in dict.fromkeys(found) if isinstance(one, str) and one)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        return {word: _renamed(one, names) for word, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    return value


def _alike(namespace: str, value: str, number: int, rules: RuleSet) -> str:
    """Another id, whose bearer is in the same groups."""
    begins = datetime.fromisoformat("2026-01-01T00:00:00+00:00")

    def groups(identity: str) -> list[Any]:
        key = new_profile((namespace, identity), SECRET, begins).cohort_key
        found: list[Any] = [place(key, "holdout") < rules.workspace.holdout]
        for rule in rules.rules.values():
            arm = variant(rule, key) if rule.variants else None
            kept = bool(rule.holdout) and place(key, f"holdout:{rule.experiment or rule.id}") < rule.holdout
            found += [arm.name if arm is not None else None, is_rolled_out(rule, key), kept]
        return found

    wanted = groups(value)
    tried = (f"{value}-{number}" + (f"-{again}" if again else "") for again in range(100_000))
    return next(one for one in tried if groups(one) == wanted)


# Living through them


class _Run:
    def __init__(
        self, server: served.Served, pushes: served.PushService, world: World, rules: RuleSet
    ) -> None:
        self.people: list[Person] = []
        self._pushes = pushes
        self._world = world
        self._rules = rules
        self._app = server.client()
        self._server = server.client(served.SERVER_KEY)
        self._admin = server.admin()
        self._ticks = 0
        self._visited: set[int] = set()
        self._answered: dict[str, dict[str, Any]] = {}
        self._refused: dict[str, list[str]] = defaultdict(list)

    def close(self) -> None:
        for client in (self._app, self._server, self._admin):
            client.close()

    def live(self, people: Sequence[Person]) -> None:
        """Everything of everybody, in the order of time."""
        self.people = list(people)
        moments: list[tuple[datetime, int, Person, Call | None]] = []
        for person in people:
            moments.append((person.begins, 0, person, None))
            moments += [(call.sent_at, 1, person, call) for call in person.told]
            moments.append((person.ends, 2, person, None))
        for at, what, person, call in sorted(moments, key=lambda moment: moment[:2]):
            if what == 0:
                self._begin(person)
            elif call is not None:
                self._send(person, call)
            else:
                self._tick(at)

    def _tick(self, at: datetime, **fields: Any) -> None:
        """Somebody else's phone is heard of: time has passed."""
        self._ticks += 1
        stamp = at.isoformat().replace("+00:00", "Z")
        body = {
            **PASSER_BY, "messageId": f"tick-{self._ticks}", "event": "Time Passed",
            "timestamp": stamp, "sentAt": stamp, **fields,
        }  # fmt: skip
        self._app.post("/v1/track", json=body).raise_for_status()

    def _begin(self, person: Person) -> None:
        """Brings somebody into the state in which the story finds them: what they bought by an import,
        who they are and what they allow by their app."""
        self._tick(person.begins)
        if self._world.sky:
            self._know_the_sky(person)
        profile = person.scenario.profile
        namespace = "user_id" if profile.user_id is not None else "anonymous_id"
        own = profile.user_id or profile.anonymous_id
        try:
            told = past(profile, self._rules, person.begins)
        except ImpossiblePast as why:
            self._refused[person.scenario.name].append(f"no past leads there: {why}")
            told = []
        rows = [
            {namespace: own, "event": one.event, "time": one.at.isoformat(), **one.properties} for one in told
        ]
        if rows:
            lines = "\n".join(json.dumps(row) for row in rows)
            answer = self._admin.post(
                "/admin/import/interactions",
                content=lines.encode(),
                headers={"content-type": "application/x-ndjson"},
            )
            answer.raise_for_status()
            assert answer.json()["accepted"] == len(rows), answer.text
            self._is_as_stated(person, f"/admin/profiles/{namespace}/{quote(str(own), safe='')}")
        self._send(person, introduction(person.scenario, person.begins))

    def _is_as_stated(self, person: Person, path: str) -> None:
        answer = self._admin.get(path)
        answer.raise_for_status()
        counted = answer.json()["computed"]
        for name, value in person.scenario.profile.computed.items():
            read = counted.get(name)
            same = abs(read - value) < 1e-6 if isinstance(value, int | float) and read is not None else None
            if not (same if same is not None else read == value):
                self._refused[person.scenario.name].append(f"{name} is {read!r} instead of {value!r}")

    def _know_the_sky(self, person: Person) -> None:
        """Somebody was there before, so that the weather of the place is known."""
        places = {
            h3.latlng_to_cell(where["latitude"], where["longitude"], RESOLUTION): where
            for call in person.told
            for item in (call.body, *call.body.get("batch", ()))
            if (where := item.get("context", {}).get("location")) is not None
        }
        for cell, where in places.items():
            if cell in self._visited:
                continue
            self._visited.add(cell)
            located = {"location": {**where, "speed": None, "heading": None}}
            allowed = {"consent": {"location": "granted"}}
            self._tick(person.begins, event="Location Updated", context={**located, "traits": allowed})
        read = re.compile(r'^viewfinder_weather\w*\{[^}]*"read"[^}]*\} ([1-9]\S*)', re.MULTILINE)
        if places:
            served.until(lambda: read.search(self._app.get("/metrics").text), 20.0, "the weather", every=0.05)

    def _send(self, person: Person, call: Call) -> None:
        body = call.body
        for item in (body, *body.get("batch", ())):
            device = item.get("context", {}).get("device", {})
            if device.get("type") in ("ios", "web"):  # their app has Firebase's SDK
                item["context"].setdefault("pushProvider", "fcm")
        if body.get("event") in ("Offer Shown", "Offer Tapped"):
            of_what(body, reversed(self._decisions(person)))
        client = self._server if call.from_server else self._app
        answer = client.post(f"/v1/{call.call}", json=body)
        answer.raise_for_status()
        said = answer.json()
        self._refused[person.scenario.name] += [
            f"{one['code']}: {one['message']}" for one in said["rejected"]
        ]
        self._answered.update((one["id"], one) for one in said.get("decisions", ()))

    # What became of it

    def ending(self, person: Person) -> Happened:
        """A person's decisions beside what their scenario expects, as `viewfinder test` compares them."""
        made = [one for one in self._decisions(person) if one.decided_at <= person.ends]
        told = tuple(
            Told(event=cast(Any, None), now=one.decided_at, seen=None, verdict=None, decisions=(one,))
            for one in made
        )
        outcomes = compare(person.scenario, Played(began_at=person.begins, told=told), self._rules)
        faults = [*self._refused[person.scenario.name], *self._not_sent(made)]
        faults += [
            f"answered otherwise than it was decided: {one.rule}"
            for one in made
            if one.id in self._answered and self._answered[one.id]["outcome"] != one.outcome
        ]
        return Happened(person.story, outcomes, tuple(faults))

    def _decisions(self, person: Person) -> list[Decision]:
        """All that was decided on a person, and on who else is in their scenario, in order."""
        found: dict[str, Decision] = {}
        for namespace, value in person.whose:
            path = f"/admin/profiles/{namespace}/{quote(value, safe='')}/decisions"
            answer = self._admin.get(path, params={"limit": 1000})
            if answer.status_code == 404:
                continue
            answer.raise_for_status()
            for row in reversed(answer.json()["decisions"]):
                found[row["id"]] = msgspec.convert(row, Decision)
        return sorted(found.values(), key=lambda one: one.decided_at)

    def _not_sent(self, made: Sequence[Decision]) -> list[str]:
        """The pushes that did not reach the phone."""
        faults = []
        for one in made:
            if one.outcome is not Outcome.OFFERED or one.channel != "push":
                continue
            deadline = time.monotonic() + _HAVE_ARRIVED_SECONDS
            while (push := self._pushes.delivered().get(one.id)) is None and time.monotonic() < deadline:
                time.sleep(0.02)
            if push is None:
                faults.append(f"{one.offer} did not arrive at the phone")
            elif one.message is None or push["notification"]["title"] != one.message.title:
                faults.append(f"{one.offer} arrived with another title")
        return faults


def said(happened: Happened) -> str:
    """What went otherwise, a line each."""
    scenario = happened.story.scenario
    lines = [f"{scenario.file}:{scenario.line}: {scenario.name}"]
    for one in happened.outcomes.differences:
        lines.append(f"  expected: {one.expected}" if one.expected else f"  decided: {one.decided}")
        lines += [f"    {line}" for line in one.because]
    return "\n".join((*lines, *(f"  {fault}" for fault in happened.faults)))
