"""Every scenario of every sample workspace, and of the ten stories, end to end over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.app.cli.check import check_folders, models_of
from engine.formats.scenario_files import read_stories
from tests import served, worlds
from tests.conftest import open_folder

ROOT = Path(__file__).parent.parent
SAMPLES = sorted(file.parent for file in (ROOT / "rules").rglob("workspace.yaml"))
DATA = Path(__file__).parent / "data"
WORKSPACES = [*SAMPLES, DATA / "ten_stories" / "rules", DATA / "language" / "rules"]

NOT_OVER_HTTP: dict[str, str] = {}
"""Scenarios that cannot be brought about over HTTP, by their name, and why."""


@pytest.mark.parametrize(
    "workspace",
    WORKSPACES,
    ids=lambda folder: folder.parent.name if folder.parent.parent == DATA else folder.name,
)
def test_every_scenario_comes_out_over_http(workspace: Path, postgres: str) -> None:
    models = models_of(workspace)
    checked = check_folders(workspace, models)
    assert checked.ruling is not None, checked.problems
    found = read_stories(workspace, checked.ruling.rules)
    assert not found.problems
    assert found.stories
    stories = [story for story in found.stories if story.scenario.name not in NOT_OVER_HTTP]
    wrong: list[str] = []
    for number, (world, there) in enumerate(worlds.worlds(stories, checked.ruling).items()):
        name = f"world_{WORKSPACES.index(workspace)}_{workspace.name}_{number}"
        with open_folder() as folder, served.database(postgres, name) as dsn:
            happened = worlds.bring_about(workspace, models, world, there, checked.ruling, folder, dsn)
        assert len(happened) == len(there)
        wrong += [worlds.said(one) for one in happened if one.outcomes.differences or one.faults]
    assert not wrong, "\n".join(wrong)


def test_none_is_left_out() -> None:
    assert not NOT_OVER_HTTP
