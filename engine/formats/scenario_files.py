"""The scenarios of a workspace's folder, with the tracks that they are played on."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from engine.domain.offers.rules import RuleSet
from engine.formats.gpx import MOST_BYTES, TrackFix, read_gpx
from engine.formats.located_yaml import LARGEST_FILE_BYTES
from engine.formats.problems import Problem, did_you_mean, in_order
from engine.formats.scenario import Scenario, holds_scenarios, read_scenarios
from engine.formats.workspace import workspaces_below

_YAML: Final = (".yaml", ".yml")
TESTS: Final = "tests"


class Story(msgspec.Struct, frozen=True):
    """A scenario, and the fixes of its track."""

    scenario: Scenario
    fixes: tuple[TrackFix, ...] = ()


class Stories(msgspec.Struct, frozen=True):
    """The sound scenarios of a folder, all that is wrong with the others, and the files read."""

    stories: tuple[Story, ...]
    problems: tuple[Problem, ...]
    sources: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Stories({len(self.stories)}, {len(self.problems)} problems)"


def read_stories(root: Path, rules: RuleSet, only: str | None = None) -> Stories:
    """Every scenario below `root`, in order of file and place; those of one file with `only`.

    Raises:
        OSError: a file cannot be read.
    """
    problems: list[Problem] = []
    sources: dict[str, bytes] = {}
    stories: list[Story] = []
    tracks = _Tracks(root)
    others = workspaces_below(root)
    for path in sorted(found for found in root.rglob("*") if found.suffix.lower() in _YAML):
        file = path.relative_to(root).as_posix()
        parts = file.split("/")
        if not path.is_file() or any(part.startswith(".") for part in parts) or only not in (None, file):
            continue
        if not others.isdisjoint(path.parents):
            continue
        with path.open("rb") as opened:
            data = opened.read(LARGEST_FILE_BYTES + 1)
        own = TESTS in parts[:-1]
        if not own and not holds_scenarios(data):
            continue
        sources[file] = data
        scenarios, wrong = read_scenarios(file, data, rules, others=not own)
        problems += wrong
        for scenario in scenarios:
            fixes = tracks.of(scenario, problems)
            if fixes is not None:
                stories.append(Story(scenario, fixes))
    return Stories(tuple(stories), in_order(problems), sources)


class _Tracks:
    """GPX files, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[str, tuple[TrackFix, ...] | None] = {}

    def of(self, scenario: Scenario, problems: list[Problem]) -> tuple[TrackFix, ...] | None:
        """The fixes of the scenario's track; None where they cannot be had."""
        if scenario.track is None:
            return ()
        at = Problem(scenario.file, scenario.track_line, scenario.track_column, "")
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(scenario.file), scenario.track))
        from_root = posixpath.normpath(scenario.track)
        for file in (beside, from_root):
            if file.startswith(("/", "..")):
                continue
            if file not in self._read and (self._root / file).is_file():
                self._read[file] = self._fixes(file, problems)
            if file in self._read:
                return self._read[file]
        there = frozenset(path.relative_to(self._root).as_posix() for path in self._root.rglob("*.gpx"))
        message = f'there is no track "{scenario.track}", neither beside this file nor in the workspace'
        problems.append(
            msgspec.structs.replace(at, message=message, suggestion=did_you_mean(scenario.track, there))
        )
        return None

    def _fixes(self, file: str, problems: list[Problem]) -> tuple[TrackFix, ...] | None:
        with (self._root / file).open("rb") as opened:
            track = read_gpx(opened.read(MOST_BYTES + 1), file)
        problems += track.problems
        if not track.fixes and not track.problems:
            problems.append(Problem(file, 1, 1, "the track has no points"))
        if any(problem.severity == "error" for problem in track.problems) or not track.fixes:
            return None
        return tuple(sorted(track.fixes, key=lambda fix: fix.time))
