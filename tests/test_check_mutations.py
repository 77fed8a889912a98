"""Sound workspaces, damaged at random: `check` tells what is wrong and never breaks; what it lets pass,
an engine takes, and decides with."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.app.rehearsal import Rehearsal
from engine.app.rehearsal_story import Score, play
from engine.app.ruling import Ruling
from engine.domain.offers.cel_late import is_compiled, packed
from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Event, Kind, Location
from engine.formats.advice import advice
from engine.formats.messages import Template
from engine.formats.problems import render_all
from engine.formats.scenario import read_scenarios
from engine.formats.workspace import load, read_folder
from engine.formats.workspace_memory import Memory
from tests.test_check import DEFECTS, ROOT

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
FOLDERS = (
    DEFECTS / "built" / "rules",
    DEFECTS / "sound",
    *sorted(found.parent for found in (ROOT / "rules").glob("*/workspace.yaml")),
)
SPARE = (
    "", "{", "}", "[", "]", ":", ",", "- ", "'", '"', "#", "&a", "*a", "!x", "|", ">", "\t", "null", "true",
    "NO", "0", "-1", "1e999", "7d", "day", "21:00", "2026-02-30", "if: false", "{{ profile.x }}",
    "{% if %}", "profile", "geofence", "event.properties.x", "&&", "||", "!", "==", "in", "has(a.b)",
    "x.matches('(a+)+')", "\u0000", "\ufeff", "é", "😀", "a" * 300, "  ", "\n", "rules:", "offers:", "~",
)  # fmt: skip


@cache
def files(folder: Path) -> dict[str, bytes]:
    return read_folder(folder)


@cache
def models(folder: Path) -> dict[str, bytes]:
    beside = folder.parent / "models" if folder.name == "rules" else ROOT / "models"
    found = read_folder(beside) if beside.is_dir() else {}
    # A card whose ONNX file is only laid beside it by other tests.
    return {**{name.replace(".yaml", ".onnx"): b"" for name in found}, **found}


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Path, dict[str, bytes]]:
    """A workspace with one to three changes to its texts."""
    folder = draw(st.sampled_from(FOLDERS))
    changed = dict(files(folder))
    names = sorted(name for name in changed if name.endswith(".yaml"))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(names))
        changed[name] = draw(damage(changed[name].decode(errors="replace"))).encode()
    return folder, changed


def damage(text: str) -> st.SearchStrategy[str]:
    lines = text.split("\n")
    at = st.integers(0, max(len(lines) - 1, 0))
    place = st.integers(0, len(text))
    spare = st.sampled_from(SPARE)

    def cut(start: int, length: int) -> str:
        return text[:start] + text[start + length :]

    def put(start: int, what: str) -> str:
        return text[:start] + what + text[start:]

    def moved(one: int, other: int) -> str:
        rest = [*lines[:one], *lines[one + 1 :]]
        return "\n".join([*rest[:other], lines[one], *rest[other:]])

    def indented(one: int, blanks: int) -> str:
        return "\n".join([*lines[:one], " " * blanks + lines[one].lstrip(), *lines[one + 1 :]])

    def word(start: int, what: str) -> str:
        end = start
        while end < len(text) and (text[end].isalnum() or text[end] == "_"):
            end += 1
        return text[:start] + what + text[end:]

    return st.one_of(
        st.builds(lambda one: "\n".join([*lines[:one], *lines[one + 1 :]]), at),
        st.builds(moved, at, at),
        st.builds(cut, place, st.integers(1, 12)),
        st.builds(put, place, spare),
        st.builds(word, place, spare),
        st.builds(lambda one, what: "\n".join([*lines[:one], what, *lines[one:]]), at, spare),
        st.builds(indented, at, st.integers(0, 8)),
    )


@settings(deadline=None, max_examples=150)
@given(damaged())
def test_damage_is_told_and_never_breaks_anything(broken: tuple[Path, dict[str, bytes]]) -> None:
    folder, changed = broken
    loaded = load(changed, models(folder))
    errors = [problem for problem in loaded.problems if problem.severity == "error"]
    assert (loaded.rule_set is None) is bool(errors)
    for problem in loaded.problems:
        source = loaded.sources.get(problem.file)
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.message
        if source is not None and b"\0" not in source:
            assert problem.line <= source.count(b"\n") + source.count(b"\r") + 2
    assert bool(render_all(loaded.problems, loaded.sources)) is bool(loaded.problems)
    if loaded.rule_set is not None:
        advice(loaded.said, loaded.rule_set, NOW)
        live_with(loaded.rule_set)


MEMORIES: dict[Path, Memory] = {}


@settings(deadline=None, max_examples=50)
@given(damaged())
def test_what_was_taken_over_is_what_would_be_read_anew(broken: tuple[Path, dict[str, bytes]]) -> None:
    """One memory through all the damage: every reading says and makes what a first one would."""
    folder, changed = broken
    memory = MEMORIES.setdefault(folder, Memory())
    for said in (changed, files(folder)):
        anew, again = load(said, models(folder)), load(said, models(folder), memory)
        assert again.problems == anew.problems
        assert plain(again.rule_set) == plain(anew.rule_set)


def plain(thing: Any) -> Any:
    """A rule set as values that can be compared: structs, functions and templates too."""
    if isinstance(thing, msgspec.Struct):
        return type(thing), {name: plain(getattr(thing, name)) for name in thing.__struct_fields__}
    if isinstance(thing, FunctionType) and is_compiled(thing):
        code, constants = packed(thing)
        return code, plain(constants)
    if isinstance(thing, Template):
        return thing.text
    if isinstance(thing, Mapping):
        return {key: plain(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [plain(one) for one in thing]
    if isinstance(thing, str | int | float | bytes | None | frozenset | datetime | time | timedelta | date):
        return thing
    return pickle.dumps(thing)


def live_with(rules: RuleSet) -> None:
    """A week with these rules: whatever they ask for happens."""
    scores = {name: Score(0.5) for name in rules.models}
    rehearsal = Rehearsal(Ruling(rules, scores))
    at = NOW
    for kind, name in [key for key in rules.by_trigger if key[0].value in ("event", "page", "screen")]:
        at += timedelta(minutes=1)
        call = Kind.TRACK if kind.value == "event" else Kind(kind.value)
        rehearsal.tell([happening(call, name, at)], at)
    for fence in list(rules.fences.values())[:5]:
        at += timedelta(hours=1)
        outline = rules.index.outlines[fence.id]
        place = Location(latitude=outline.latitude, longitude=outline.longitude, accuracy=5.0)
        rehearsal.tell([happening(Kind.TRACK, "Location Updated", at, location=place)], at)
    rehearsal.advance(at + timedelta(days=7))


def happening(kind: Kind, name: str, at: datetime, location: Location | None = None) -> Event:
    return Event(
        kind=kind,
        name=name,
        message_id=f"{name}{at}",
        received_at=at,
        timestamp=at,
        user_id="ada",
        properties={"revenue": 10.0, "model": "x", "cart_id": "c"},
        consent=dict.fromkeys(("marketing", "location"), True),
        location=location,
        trusted=True,
    )


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_damaged_scenarios_are_told_and_never_break_anything(data: st.DataObject) -> None:
    folder = ROOT / "rules" / data.draw(st.sampled_from(("airport", "cafes", "cars", "retail")))
    rules = load(files(folder), models(folder)).rule_set
    assert rules is not None
    [file] = (folder / "tests").glob("*.yaml")
    text = data.draw(damage(file.read_text("utf-8")))
    scenarios, problems = read_scenarios("tests/a.yaml", text.encode(), rules)
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)
    for scenario in scenarios[:2]:
        if scenario.track is None:
            play(scenario, (), Ruling(rules, {name: Score(0.5) for name in rules.models}))
