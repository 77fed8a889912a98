"""`viewfinder check`: everything that is wrong with a workspace, at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.app import rulesets
from engine.app.cli.environment import fail, read_settings
from engine.app.rulesets import Checked
from engine.domain.offers.rules import RuleSet
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
    if models is not None and not models.is_dir():
        fail(f"there is no folder {models}", 2)
    if folder is None:
        checked = check_folders(Path(settings.rules), models or Path(settings.models))
    else:  # another workspace's models are beside it, as ours are
        checked = check_folders(folder, models or folder.absolute().parent / "models")
    if json:
        report = {
            "revision": checked.ruling.rules.revision if checked.ruling else None,
            "problems": checked.problems,
        }
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        print_problems(checked, Console())
        if checked.ruling is not None:
            Console().print(
                f"[green]✓[/green] {_contents(checked.ruling.rules)}", highlight=False, soft_wrap=True
            )
    return 0 if checked.ruling is not None else 1


def check_folders(rules: Path, models: Path) -> Checked:
    """The workspace as it was read and checked. Ends with exit code 2 where there is none, and 1 where
    a file of it cannot be read at all."""
    if not rules.is_dir():
        fail(f"there is no folder {rules}", 2)
    try:
        return rulesets.check(rules, models)
    except OSError as fault:
        fail(f"{fault.filename or rules}: {fault.strerror}", 1)
        raise


def print_problems(checked: Checked, console: Console) -> None:
    """Each problem with the line that it stands in, then how many there are."""
    if checked.problems:
        text = render_all(checked.problems, checked.sources)
        console.out(text, highlight=False)


def _contents(rules: RuleSet) -> str:
    counts = {"rule": rules.rules, "offer": rules.offers, "geofence": rules.fences, "model": rules.models}
    said = ", ".join(f"{len(of)} {what}{'' if len(of) == 1 else 's'}" for what, of in counts.items())
    return f"{said} · revision {rules.revision}"
