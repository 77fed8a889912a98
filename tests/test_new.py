"""`viewfinder new`: every recipe passes `check` and `test` as it is written, alone and with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from engine.app.cli.new import Recipe
from tests.test_check import ROOT
from tests.test_check_cli import folder, viewfinder

__all__ = ["folder"]
RECIPES = get_args(Recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_sound_and_its_tests_reach_everything(folder: Path, recipe: str) -> None:
    made = viewfinder(folder, "new", recipe, "mine")
    assert (made.returncode, made.stderr) == (0, "")
    assert "next: viewfinder check mine && viewfinder test mine\n" in made.stdout
    checked = viewfinder(folder, "check", "mine", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["problems"]) == (0, [])
    beside_the_sample_model = viewfinder(folder, "check", "mine", "--models", str(ROOT / "models"))
    assert (beside_the_sample_model.returncode, beside_the_sample_model.stderr) == (0, "")
    tested = viewfinder(folder, "test", "mine", "--json")
    report = json.loads(tested.stdout)
    assert (tested.returncode, report["problems"], report["failed"]) == (0, [], 0)
    assert report["passed"] >= 2
    assert (report["coverage"]["unreached_rules"], report["coverage"]["unreached_offers"]) == ([], [])


def test_all_recipes_in_one_workspace(folder: Path) -> None:
    for recipe in RECIPES:
        assert viewfinder(folder, "new", recipe).returncode == 0
    tested = viewfinder(folder, "test", "--json")
    assert (tested.returncode, json.loads(tested.stdout)["failed"]) == (0, 0)


def test_nothing_that_is_there_is_written_over(folder: Path) -> None:
    rules = folder / "rules"
    rules.mkdir()
    (rules / "workspace.yaml").write_text("timezone: Asia/Tokyo\n")
    assert viewfinder(folder, "new", "welcome").returncode == 0
    assert (rules / "workspace.yaml").read_text() == "timezone: Asia/Tokyo\n"
    (rules / "welcome.yaml").write_text("rules: {}\n")
    again = viewfinder(folder, "new", "welcome")
    assert (again.returncode, again.stdout) == (1, "")
    assert "rules/welcome.yaml is there already: nothing was written" in again.stderr
    assert (rules / "welcome.yaml").read_text() == "rules: {}\n"


def test_an_unknown_recipe_is_wrong_usage(folder: Path) -> None:
    ended = viewfinder(folder, "new", "wellcome")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "abandoned-cart" in ended.stderr
    assert "Traceback" not in ended.stderr
