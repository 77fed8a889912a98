"""`viewfinder check` as authors and CI run it, and `serve`, which does not start on what it finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import served
from tests.conftest import open_folder

ROOT = Path(__file__).parents[1]
DEFECTS = Path(__file__).parent / "data" / "defects"
WRONG = DEFECTS / "folders" / "everything-at-once"
EXPECTED = (WRONG / "expected.txt").read_text("utf-8").splitlines()
PLACES = [line for line in EXPECTED if not line.startswith("    ")]
SUGGESTIONS = [line for line in EXPECTED if line.startswith("    ")]
_WARNINGS = sum(": warning: " in place for place in PLACES)
COUNTS = f"{len(PLACES) - _WARNINGS} errors" + (f", {_WARNINGS} warning" if _WARNINGS else "")
NO_KEYS = {"WRITE_KEYS": "", "SERVER_KEYS": "", "ADMIN_TOKEN": ""}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where commands run: its `rules` and `models` are the settings' folders."""
    with open_folder() as found:
        yield found


def viewfinder(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in a narrow terminal's width, which no line may be broken for."""
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        cwd=folder,
        env=served.environment(folder, None, {}) | {"COLUMNS": "40", "NO_COLOR": "1"} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def wrote(folder: Path, rules: str) -> Path:
    """The rules' folder, with this file."""
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "rules" / "rules.yaml").write_text(rules, "utf-8")
    return folder / "rules"


def said(problem: str, output: str) -> list[str]:
    """The lines that follow a problem, up to the next one."""
    lines = output.splitlines()
    rest = lines[lines.index(problem) + 1 :]
    return rest[: next((n for n, line in enumerate(rest) if not line.startswith("    ")), len(rest))]


# What is said.


def test_all_problems_come_at_once_in_order_with_their_lines(folder: Path) -> None:
    assert len(PLACES) >= 11
    assert len({place.partition(":")[0] for place in PLACES}) == 6
    ended = viewfinder(folder, "check", str(WRONG / "rules"), "--models", str(WRONG / "models"))
    assert ended.returncode == 1
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert [line for line in lines if not line.startswith("    ")] == [*PLACES, COUNTS]
    assert [line for line in lines if line in SUGGESTIONS] == SUGGESTIONS
    marked = ["valeu", "1.20 EUR", "frist_name", "teir", "late", "biscuit", "Europe/Dubin", "9pm", "-6"]
    carets = [said(place, ended.stdout)[:2] for place in PLACES if not place.startswith("models/")]
    assert all(caret.strip() == "^" for _, caret in carets)
    pointed_at = [line[caret.index("^") :] for line, caret in carets]
    assert all(any(text.startswith(word) for text in pointed_at) for word in marked)


def test_as_json_for_editors_and_ci(folder: Path) -> None:
    ended = viewfinder(folder, "check", str(WRONG / "rules"), "--models", str(WRONG / "models"), "--json")
    assert ended.returncode == 1
    assert ended.stderr == ""
    report = json.loads(ended.stdout)
    assert report["revision"] is None
    places = [place.replace(": warning: ", ": ") for place in PLACES]
    assert [f"{p['file']}:{p['line']}:{p['column']}: {p['message']}" for p in report["problems"]] == places
    suggestions = [p["suggestion"] for p in report["problems"] if p["suggestion"] is not None]
    assert suggestions == [line.strip() for line in SUGGESTIONS]
    assert [p["severity"] for p in report["problems"]].count("error") == len(PLACES) - _WARNINGS


def test_a_sound_workspace(folder: Path) -> None:
    wrote(folder, "offers:\n  a: {purpose: marketing, message: {push: {title: T, body: B}}}\n")
    text, as_json = viewfinder(folder, "check"), viewfinder(folder, "check", "--json")
    assert (text.returncode, as_json.returncode) == (0, 0)
    assert (text.stderr, as_json.stderr) == ("", "")
    report = json.loads(as_json.stdout)
    assert report["problems"] == []
    assert report["revision"] in text.stdout
    assert "0 rules, 1 offer, 0 geofences, 0 models" in text.stdout
    assert not (folder / "data").exists()


def test_warnings_are_shown_and_do_not_fail(folder: Path) -> None:
    rules = wrote(folder, "geofences:\n  shops: {file: shops.geojson, id: properties.name}\n")
    ring = [[-8.63, 52.66], [-8.62, 52.66], [-8.62, 52.67]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    shop = {"type": "Feature", "properties": {"name": "A"}, "geometry": shape}
    (rules / "shops.geojson").write_text(json.dumps(shop))
    ended = viewfinder(folder, "check")
    assert ended.returncode == 0
    assert "shops.geojson:1:1: warning: feature 1: ring 1 was not closed: closed it\n" in ended.stdout
    [problem] = json.loads(viewfinder(folder, "check", "--json").stdout)["problems"]
    assert problem["severity"] == "warning"


def test_the_place_is_said_as_it_is(folder: Path) -> None:
    """Numbers and names between colons are no emoji, and brackets no colours."""
    comments = "#\n" * 99
    wrote(folder, f"{comments}shops: {{}}   # :smile: [red]not red[/red] [/]\n")
    ended = viewfinder(folder, "check")
    assert ended.stdout == (
        'rules.yaml:100:1: unknown section "shops"\n'
        "    shops: {}   # :smile: [red]not red[/red] [/]\n"
        "    ^\n"
        "1 error\n"
    )


def test_the_excerpt_of_a_binary_file_is_left_out(folder: Path) -> None:
    wrote(folder, "rules: {}\n")
    (folder / "models").mkdir()
    shutil.copy(DEFECTS.parent / "models" / "linear.onnx", folder / "models")
    card = 'name: buys\nversion: "1"\nmodel: linear.onnx\ninputs: [{name: hour, from: local.hour}]\n'
    (folder / "models" / "buys.yaml").write_text(card)
    ended = viewfinder(folder, "check")
    assert ended.returncode == 1
    assert ended.stdout == ("models/linear.onnx:1:1: linear.onnx takes 2 inputs, its card lists 1\n1 error\n")


def test_the_readme_shows_what_is_said(folder: Path) -> None:
    rules = shutil.copytree(ROOT / "rules", folder / "rules") / "rules.yaml"
    wrong = rules.read_text("utf-8").replace("if: profile.tier in", "if: profile.teir in", 1)
    rules.write_text(wrong, "utf-8")
    ended = viewfinder(folder, "check", "--models", str(ROOT / "models"))
    [problem, *rest] = ended.stdout.splitlines()[:4]
    shown = (ROOT / "README.md").read_text("utf-8")
    assert "\n".join([problem, *rest]) in shown


# Exit codes.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "nowhere"], "there is no folder nowhere"),
        (["check", "rules/rules.yaml"], "there is no folder rules/rules.yaml"),
        (["check", "a[b]c"], "there is no folder a[b]c"),
        (["check", "a[/b]c"], "there is no folder a[/b]c"),
        (["check", "rules", "--models", "nowhere"], "there is no folder nowhere"),
        (["check", "--strict"], "--strict"),
        (["check", "--strict[/x]"], "--strict[/x]"),
        (["check", "rules", "more"], "more"),
        (["chekc"], "chekc"),
        (["serve", "--port", "80"], "--port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(folder: Path, arguments: list[str], message: str) -> None:
    wrote(folder, "rules: {}\n")
    ended = viewfinder(folder, *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_wrong_settings_are_wrong_usage(folder: Path) -> None:
    wrote(folder, "rules: {}\n")
    ended = viewfinder(folder, "check", VIEWFINDER_PRT="80")
    assert ended.returncode == 2
    assert "VIEWFINDER_PRT: there is no such setting; did you mean VIEWFINDER_PORT?" in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that even root cannot read")
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_file_that_cannot_be_read_is_named(folder: Path, command: str) -> None:
    rules = wrote(folder, "rules: {}\n")
    (rules / "offers.yaml").symlink_to("/proc/self/mem")
    ended = viewfinder(folder, command)
    assert ended.returncode in (1, 2)
    assert "offers.yaml" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_output_that_cannot_hold_every_character(folder: Path) -> None:
    """A terminal or a pipe of another encoding than UTF-8 gets what it can show."""
    wrote(folder, "rules:\n  a: {when: Café, ofer: ☕}\n")
    wrong = viewfinder(folder, "check", PYTHONIOENCODING="ascii")
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr
    assert "rules.yaml:2:19: unknown field" in wrong.stdout
    wrote(folder, "rules: {}\n")
    sound = viewfinder(folder, "check", PYTHONIOENCODING="ascii")
    assert (sound.returncode, sound.stderr) == (0, "")


# `serve` and `demo` on the same workspace.


def faulty(folder: Path) -> Path:
    shutil.copytree(WRONG / "rules", folder / "rules")
    shutil.copytree(WRONG / "models", folder / "models")
    return folder


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_nothing_starts_on_a_faulty_workspace(folder: Path, command: str) -> None:
    faulty(folder)
    before = sorted(os.listdir(folder))
    checked = viewfinder(folder, "check")
    ended = served.command(folder, command, **NO_KEYS)
    assert ended.returncode == 1
    assert ended.stderr == checked.stdout
    assert ended.stdout == ""
    assert sorted(os.listdir(folder)) == before  # no keys, no embedded database


def test_serve_leaves_a_given_database_alone(folder: Path, postgres: str) -> None:
    with served.database(postgres, "check_faulty", empty=True) as dsn:
        ended = served.command(faulty(folder), "serve", dsn=dsn)
        assert ended.returncode == 1
        tables = served.fetch(dsn, "SELECT relname FROM pg_stat_user_tables")
        schemas = served.fetch(
            dsn, "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$|^public$'"
        )
        assert (tables, schemas) == ([], [])


def test_serve_refuses_a_model_that_cannot_be_loaded(folder: Path) -> None:
    wrote(folder, "rules: {}\n")
    (folder / "models").mkdir()
    shutil.copy(DEFECTS.parent / "models" / "external_elsewhere.onnx", folder / "models")
    card = 'name: buys\nversion: "1"\nmodel: external_elsewhere.onnx\ninputs: [{name: a, from: local.hour}]\n'
    (folder / "models" / "buys.yaml").write_text(card)
    ended = served.command(folder, "serve", **NO_KEYS)
    assert ended.returncode == 1
    assert "models/external_elsewhere.onnx:1:1: " in ended.stderr
    assert "keeps weights in another file (external data)" in ended.stderr
    assert not (folder / "data").exists()


@pytest.mark.parametrize("rules", ["nowhere", "db"])
def test_serve_does_not_start_without_its_rules(folder: Path, rules: str, postgres_dsn: str) -> None:
    """An engine without rules would take every event and offer nothing, and nobody would know why."""
    wrote(folder, "rules: {}\n")
    engine = served.start(folder, postgres_dsn, RULES=str(folder / rules) if rules != "db" else rules)
    try:
        with pytest.raises(served.NotReadyError):
            engine.wait_until_ready()
        assert engine.process.returncode in (1, 2)
        assert rules in engine.stderr
        assert "Traceback" not in engine.stderr
    finally:
        served.end(engine)


# Advice.

HARDLY_MEANT = """\
offers:
  gift: {purpose: marketing, ends: 2019-02-28, message: {push: {title: T, body: "100%, 2:1"}}}
rules:
  r: {when: Visit, if: 'local.hour > 23', offer: gift}
"""


def test_advice_is_given_and_does_not_fail(folder: Path) -> None:
    wrote(folder, HARDLY_MEANT)
    ended = viewfinder(folder, "check")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(
        "rules.yaml:2:36: warning: the offer has ended: nobody gets it any more\n"
        '      gift: {purpose: marketing, ends: 2019-02-28, message: {push: {title: T, body: "100%, 2:1"}}}\n'
        "                                       ^\n"
        "rules.yaml:4:25: warning: the rule never fires: `local.hour > 23` is never true\n"
    )
    assert "2 warnings\n" in ended.stdout


def test_annotations_for_github(folder: Path) -> None:
    wrote(folder, HARDLY_MEANT.replace("local.hour > 23", "local.huor > 100% ,"))
    ended = viewfinder(folder, "check", "--github")
    assert (ended.returncode, ended.stderr) == (1, "")
    wrote(folder, HARDLY_MEANT + "  s: {when: Visit, ofer: gift}\n")
    ended = viewfinder(folder, "check", "--github")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.splitlines() == [
        '::error file=rules/rules.yaml,line=5,col=20::unknown field "ofer"%0Adid you mean "offer"?',
    ]


def test_annotations_name_files_from_where_the_command_runs(folder: Path) -> None:
    rules = wrote(folder, HARDLY_MEANT)
    rules.rename(folder / "a, b")
    ended = viewfinder(folder, "check", "a, b", "--github")
    assert ended.returncode == 0
    assert ended.stdout.startswith("::warning file=a%2C b/rules.yaml,line=2,col=36::the offer has ended")


def test_json_or_github_not_both(folder: Path) -> None:
    wrote(folder, HARDLY_MEANT)
    ended = viewfinder(folder, "check", "--github", "--json")
    assert (ended.returncode, ended.stdout) == (2, "")
