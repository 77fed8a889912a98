"""`viewfinder check`: everything that is wrong with a workspace, at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.app.cli.environment import check_folders, fail, read_settings
from engine.app.rulesets import Checked
from engine.formats.problems import render_all


def check(
    folder: Path | None = None,
    /,
    *,
    models: Annotated[Path | None, Parameter(help="The models' folder.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Check a workspace: every problem with its file, line and column.

    Parameters
    ----------
    folder
        The rules' folder; VIEWFINDER_RULES where not given.
    """
    settings = read_settings()
    folder = folder or Path(settings.rules)
    for asked in (folder, models):
        if asked is not None and not asked.is_dir():
            fail(f"there is no folder {asked}", 2)
    checked = check_folders(folder, models or Path(settings.models))
    if json:
        report = {
            "revision": checked.ruling.rules.revision if checked.ruling else None,
            "problems": checked.problems,
        }
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        print_problems(checked, Console())
        if checked.ruling is not None:
            rules = checked.ruling.rules
            counts = f"{len(rules.rules)} rules, {len(rules.offers)} offers, {len(rules.fences)} geofences, "
            Console().print(
                f"[green]✓[/green] {counts}{len(rules.models)} models · revision {rules.revision}",
                highlight=False,
                soft_wrap=True,
            )
    return 0 if checked.ruling is not None else 1


def print_problems(checked: Checked, console: Console) -> None:
    """Each problem with the line that it stands in, then how many there are."""
    if checked.problems:
        text = render_all(checked.problems, checked.sources)
        console.out(text, highlight=False)
