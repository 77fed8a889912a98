"""`viewfinder demo` as a newcomer runs it: the real track, an embedded database, pushes that arrive."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import open_folder
from tests.served import command, environment, until

ROOT = Path(__file__).parent.parent
SECONDS = 180.0


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place like a fresh clone: the sample workspace and its model, and no database yet."""
    with open_folder() as found:
        shutil.copytree(ROOT / "rules", found / "rules")
        (found / "models").mkdir()
        for file in (ROOT / "models").iterdir():
            if file.suffix in (".yaml", ".onnx"):
                shutil.copy(file, found / "models")
        yield found


def short(folder: Path, fixes: int) -> None:
    """The ride's beginning only, for tests that need no more."""
    track = folder / "rules" / "tracks" / "bus-304.gpx"
    text = track.read_text("utf-8")
    points = list(re.finditer(r"<trkpt.*?</trkpt>", text, re.DOTALL))
    assert len(points) > fixes
    track.write_text(text[: points[fixes].start()] + text[points[-1].end() :], "utf-8")


def ride(folder: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    done = command(folder, "demo", "--once", "--json", *options, seconds=SECONDS)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_whole_ride_is_as_the_workspace_expects(folder: Path) -> None:
    code, lines, said = ride(folder)
    assert (code, said) == (0, "")
    *decisions, summary = lines
    assert summary.keys() == {"events", "decisions", "offered", "suppressed", "pushes_delivered", "seconds"}
    assert summary["events"] > 2100
    assert summary["decisions"] == len(decisions) == summary["offered"] + summary["suppressed"]
    assert summary["pushes_delivered"] == summary["offered"] >= 1
    reasons = {d["reason"] for d in decisions if d["outcome"] == "suppressed"}
    assert {"capped", "no_consent", "not_worth_it", "low_propensity", "condition_unknown"} <= reasons
    scored = [d for d in decisions if d["offer"] == "free-latte" and d["outcome"] == "offered"]
    assert all(0 < d["propensity"] < 1 and d["expectedValue"] > 0 for d in scored)
    assert scored
    # The track's own time, whatever the hour is here.
    assert {d["at"][:10] for d in decisions} == {"2019-02-18"}


def test_what_does_not_agree_with_the_expectation_is_told_and_fails(folder: Path, tmp_path: Path) -> None:
    with open_folder() as other:
        shutil.copytree(folder / "rules", other / "rules")
        shutil.copytree(folder / "models", other / "models")
        short(other, 200)
        scenario = other / "rules" / "tests" / "bus-304.yaml"
        scenario.write_text(scenario.read_text("utf-8").replace("rule: rainy-day", "rule: menu", 1), "utf-8")
        code, lines, said = ride(other)
    assert code == 1
    assert "decided but not expected: offered rainy-day menu-tip" in said
    assert "expected but not decided: offered menu menu-tip" in said
    assert lines[-1]["offered"] >= 1


def test_without_once_it_keeps_serving_until_it_is_told_to_stop(folder: Path) -> None:
    with open_folder() as other:
        shutil.copytree(folder / "rules", other / "rules")
        shutil.copytree(folder / "models", other / "models")
        short(other, 30)
        scenario = other / "rules" / "tests" / "bus-304.yaml"
        text = re.sub(r" *strict:.*", "    expect: []", scenario.read_text("utf-8"), flags=re.DOTALL)
        scenario.write_text(re.sub(r" *- \{at: \+\d+m.*\n", "", text), "utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", "demo"],
            env=environment(other, None, {}) | {"COLUMNS": "200", "NO_COLOR": "1"},
            stdout=(other / "out").open("wb"),
        )
        try:
            address = r"still serving at (http://\S+);"
            found = until(lambda: re.search(address, (other / "out").read_text()), SECONDS, "serving")
            assert httpx.get(f"{found[1]}/readyz").status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(60.0) == 0
        finally:
            if process.poll() is None:
                process.kill()
    assert "everything as the workspace expects" in found.string


def test_without_the_sample_workspace_it_says_what_is_missing(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "workspace.yaml").write_text("timezone: Europe/Dublin\n")
    done = command(tmp_path, "demo", "--once")
    assert done.returncode == 1
    assert "bus-304.yaml is missing" in done.stderr
    assert "Traceback" not in done.stderr
