"""Commands beside engines that follow the database, and what they say of files that cannot be used."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests import served
from tests.served import write_workspace

SAMPLES = Path(__file__).parent.parent / "rules"


async def test_they_go_by_what_is_published(postgres_dsn: str, tmp_path: Path) -> None:
    await asyncio.to_thread(_by_what_is_published, tmp_path, postgres_dsn)


def _by_what_is_published(folder: Path, dsn: str) -> None:
    def run(*arguments: str, code: int = 0) -> Any:
        ended = served.command(folder, *arguments, dsn=dsn, RULES="db")
        assert ended.returncode == code, ended.stderr
        return ended.stdout if code == 0 else ended.stderr

    people = folder / "people.csv"
    people.write_text("user_id,email\nada,Ada@Example.com\n", "utf-8")
    assert run("import", "profiles", str(people), code=1).startswith("error: ")
    run("publish", str(write_workspace(folder / "set" / "rules", WORKSPACE)))
    assert json.loads(run("import", "profiles", str(people), "--json"))["accepted"] == 1
    shown = json.loads(run("identities", "show", "email", "ADA@example.com", "--json"))
    assert {one["namespace"] for one in shown["identities"]} == {"user_id", "email"}
    assert "ada@example.com" in run("export", "email", "ADA@example.com")
    assert "erased" in run("erase", "email", "ADA@example.com")
    assert "needs a folder" in run("check", code=2)


WORKSPACE = (
    served.WORKSPACE
    + b"\nidentities: [{namespace: user_id, one: true}, {namespace: email, from: [traits.email]}, "
    b"{namespace: anonymous_id}]\n"
)


async def test_a_workspace_inside_another_is_published_with_the_models_that_check_takes(
    postgres_dsn: str, tmp_path: Path
) -> None:
    ended = await asyncio.to_thread(
        served.command, tmp_path, "publish", str(SAMPLES / "insurance"), dsn=postgres_dsn
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("erase", "--replay", "FILE"), 1, "not a ledger"),
        (("contract", "FILE"), 2, "FILE: "),
        (
            ("backtest", "FOLDER", "--html", "FOLDER/nowhere/page.html"),
            2,
            "there is no folder FOLDER/nowhere",
        ),
        (("tokens", "make", "ada", "--role", "viewer", "--days", "9999999"), 2, "--days"),
        (("audiences", "lost", "--days", "9999999"), 2, "--days"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_cannot_be_used_is_told_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    file = tmp_path / "rubbish"
    file.write_text('{"hash": "xyz", "erasedAt": "2026-01-01T00:00:00Z"}\n', "utf-8")

    def placed(text: str) -> str:
        return text.replace("FILE", str(file)).replace("FOLDER", str(tmp_path))

    ended = served.command(tmp_path, *map(placed, arguments))
    assert (ended.returncode, ended.stderr.count("\n")) == (code, 1)
    assert placed(said) in ended.stderr
