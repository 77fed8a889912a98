"""`viewfinder check`: everything that is wrong with a workspace, at once."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from engine.app import rulesets
from engine.app.cli.environment import database_at_hand, fail, read_settings
from engine.app.cli.progress import telling
from engine.app.rulesets import Checked
from engine.app.settings import PUBLISHED, Settings
from engine.domain.offers.rules import RuleSet
from engine.formats.problems import Problem, render_all
from engine.formats.workspace import MODELS_PREFIX
from engine.formats.workspace_sections import SETTINGS_FILE


def check(
    folder: Path | None = None,
    /,
    *,
    models: Annotated[Path | None, Parameter(help="The models' folder.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
    github: Annotated[bool, Parameter(help="Print annotations for GitHub Actions.")] = False,
) -> int:
    """Check a workspace: every problem with its file, line and column.

    Parameters
    ----------
    folder
        The rules' folder; VIEWFINDER_RULES where not given.
    """
    gc.disable()  # a command that ends soon, and makes much that stays: a fifth of its time otherwise
    settings = read_settings()
    if models is not None and not models.is_dir():
        fail(f"there is no folder {models}", 2)
    if json and github:
        fail("--json and --github exclude each other", 2)
    rules = folder or Path(settings.rules)
    beside = Path(settings.models) if folder is None else models_of(folder)
    checked = check_folders(rules, models or beside, datetime.now(UTC), lambda: known_receivers(settings))
    if github:
        for problem in checked.problems:
            sys.stdout.write(annotation(problem, rules, models or beside) + "\n")
    elif json:
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


def models_of(rules: Path) -> Path:
    """Another workspace's models are beside it, as ours are, or beside the workspace that it lies in."""
    above = rules.absolute().parent
    beside = above / "models"
    if not beside.is_dir() and (above / SETTINGS_FILE).is_file():
        return above.parent / "models"
    return beside


def check_folders(
    rules: Path,
    models: Path,
    now: datetime | None = None,
    receivers: Callable[[], frozenset[str] | None] = lambda: None,
) -> Checked:
    """The workspace as it was read and checked, with advice where `now` is given, also on `receivers`
    that do not exist. Ends with exit code 2 where there is none, and 1 where a file of it cannot be read
    at all."""
    if not rules.is_dir():
        published = "; VIEWFINDER_RULES=db is what was published, this needs a folder"
        fail(f"there is no folder {rules}{published if str(rules) == PUBLISHED else ''}", 2)
    try:
        with telling() as tell:
            return rulesets.check(rules, models, now, tell, receivers)
    except OSError as fault:
        fail(f"{fault.filename or rules}: {fault.strerror}", 1)
        raise


def known_receivers(settings: Settings) -> frozenset[str] | None:
    """The receivers' names, where a database is at hand: a check starts none, and does not wait."""
    dsn = database_at_hand(settings)
    if dsn is None:
        return None
    from engine.app.cli.receiver_names import names  # its libraries cost time that most checks can save

    return names(dsn)


def annotation(problem: Problem, rules: Path, models: Path) -> str:
    """A workflow command of GitHub Actions, which shows the problem beside its line. Paths are as the
    folders were given: from the repository's top, where workflows run."""
    inside = problem.file.removeprefix(MODELS_PREFIX)
    file = models / inside if inside != problem.file else rules / inside
    with suppress(ValueError):
        file = file.absolute().relative_to(Path.cwd())
    told = problem.message if problem.suggestion is None else f"{problem.message}\n{problem.suggestion}"
    place = f"file={_property(file.as_posix())},line={problem.line},col={problem.column}"
    return f"::{problem.severity} {place}::{_data(told)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def print_problems(checked: Checked, console: Console) -> None:
    """Each problem with the line that it stands in, then how many there are."""
    if checked.problems:
        text = render_all(checked.problems, checked.sources)
        console.out(text, highlight=False)


def _contents(rules: RuleSet) -> str:
    counts = {"rule": rules.rules, "offer": rules.offers, "geofence": rules.fences, "model": rules.models}
    said = ", ".join(f"{len(of)} {what}{'' if len(of) == 1 else 's'}" for what, of in counts.items())
    return f"{said} · revision {rules.revision}"
