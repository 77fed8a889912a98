"""The files of a workspace as one: which section stands where, and what is said twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

import msgspec

from engine.formats.located_yaml import Entry, MapNode, Scalar
from engine.formats.problems import Problem, did_you_mean
from engine.formats.workspace_memory import Memory
from engine.formats.workspace_settings import FIELDS
from engine.formats.workspace_values import shown

SETTINGS_FILE: Final = "workspace.yaml"
_SUFFIXES: Final = (".yaml", ".yml")
_SECTIONS: Final = frozenset(("geofences", "audiences", "offers", "actions", "rules", "trips"))
_TESTS: Final = "tests"
_EVERYWHERE: Final = _SECTIONS | {_TESTS}


class Sections(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of each section by their name, from all files together. `settings` are the
    fields of workspace.yaml. `complete` is false where some file could not be read."""

    settings: Mapping[str, Entry]
    geofences: tuple[Entry, ...]
    audiences: Mapping[str, Entry]
    offers: Mapping[str, Entry]
    actions: Mapping[str, Entry]
    rules: Mapping[str, Entry]
    trips: Mapping[str, Entry]
    complete: bool


def is_rule_file(file: str) -> bool:
    """Whether a file of the folder belongs to the workspace's rules: scenario tests and hidden
    files do not."""
    path = PurePosixPath(file)
    ordinary = not any(part == _TESTS or part.startswith(".") for part in path.parts[:-1])
    return ordinary and path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def sections(files: Mapping[str, bytes], problems: list[Problem], memory: Memory) -> Sections:
    """Reads every rule file that `memory` does not know."""
    settings: dict[str, Entry] = {}
    geofences: list[Entry] = []
    named: dict[str, dict[str, Entry]] = {
        "audiences": {},
        "offers": {},
        "actions": {},
        "rules": {},
        "trips": {},
    }
    complete = True
    for file in sorted(filter(is_rule_file, files)):
        root = memory.file(file, files[file], problems)
        if not isinstance(root, MapNode):
            if root is not None:
                problems.append(root.problem(f"expected sections such as rules:, found {shown(root)}"))
            complete = False
            continue
        for word, entry in root.entries.items():
            if word in _SECTIONS:
                entries = _entries(entry, problems)
                if entries is None:
                    complete = False
                elif word == "geofences":
                    geofences.extend(entries.values())
                else:
                    _merge(named[word], entries, word.removesuffix("s"), problems)
            elif file == SETTINGS_FILE and word in FIELDS:
                settings[word] = entry
            elif word != _TESTS:
                problems.append(_misplaced(file, entry.key))
    return Sections(
        settings=settings,
        geofences=tuple(geofences),
        audiences=named["audiences"],
        offers=named["offers"],
        actions=named["actions"],
        rules=named["rules"],
        trips=named["trips"],
        complete=complete,
    )


def _entries(section: Entry, problems: list[Problem]) -> Mapping[str, Entry] | None:
    node = section.node
    if isinstance(node, MapNode):
        return node.entries
    if isinstance(node, Scalar) and node.value is None:
        return {}
    message = f'"{section.key.text}" holds names with their fields, found {shown(node)}'
    problems.append(node.problem(message))
    return None


def _merge(known: dict[str, Entry], entries: Mapping[str, Entry], what: str, problems: list[Problem]) -> None:
    for word, entry in entries.items():
        first = known.get(word)
        if first is None:
            known[word] = entry
            continue
        place = f"{first.key.source.file} line {first.key.line}"
        problems.append(entry.key.problem(f'the {what} "{word}" stands twice, first in {place}'))


def _misplaced(file: str, key: Scalar) -> Problem:
    word = key.text
    if word in FIELDS:
        return key.problem(f'"{word}" belongs in {SETTINGS_FILE}, at the top of the folder')
    known = _EVERYWHERE | (FIELDS if file == SETTINGS_FILE else frozenset())
    return key.problem(f'unknown section "{word}"', did_you_mean(word, known))
