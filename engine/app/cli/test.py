"""`viewfinder test`: a workspace's scenarios, played without server and database."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from engine.app.cli.check import check_folders, models_of, print_problems
from engine.app.cli.environment import errors, fail, read_settings
from engine.app.rehearsal_outcome import Difference, Outcomes, compare
from engine.app.rehearsal_story import play
from engine.app.ruling import Ruling
from engine.domain.offers.decisions import Decision
from engine.formats.problems import Problem, render_all
from engine.formats.scenario_files import Stories, Story, read_stories

LONG_RUN = 100
"""Scenarios from which on a bar shows how far the run is."""


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario's result, as `--json` prints it."""

    file: str
    line: int
    name: str
    passed: bool
    differences: tuple[Difference, ...]
    problems: tuple[Problem, ...]
    decisions: tuple[Decision, ...]


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """The rules and offers (with actions) that no test reaches, of how many. A rule is reached where its
    conditions hold in some test, an offer where such a rule puts it forward."""

    rules: int
    offers: int
    unreached_rules: tuple[str, ...]
    unreached_offers: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The object that `--json` prints."""

    revision: str
    passed: int
    failed: int
    seconds: float
    tests: tuple[Tested, ...]
    coverage: Coverage
    problems: tuple[Problem, ...]


def test(
    folder: Path | None = None,
    /,
    *,
    models: Annotated[Path | None, Parameter(help="The models' folder.")] = None,
    match: Annotated[str, Parameter(help="Only tests whose name or file contains this.")] = "",
    json: Annotated[bool, Parameter(help="Print one JSON object.")] = False,
) -> int:
    """Play a workspace's scenario tests: no server, no database.

    Parameters
    ----------
    folder
        The rules' folder; VIEWFINDER_RULES where not given.
    """
    started = time.perf_counter()
    settings = read_settings()
    if models is not None and not models.is_dir():
        fail(f"there is no folder {models}", 2)
    rules = folder if folder is not None else Path(settings.rules)
    beside = models_of(folder) if folder is not None else Path(settings.models)
    checked = check_folders(rules, models or beside)
    if checked.ruling is None:
        print_problems(checked, errors)
        return 1
    try:
        found = read_stories(rules, checked.ruling.rules)
    except OSError as fault:
        fail(f"{fault.filename or rules}: {fault.strerror}", 1)
        raise
    wanted = [s for s in found.stories if match in s.scenario.name or match in s.scenario.file]
    tested, reached = _run(wanted, checked.ruling, quiet=json)
    failed = sum(not one.passed for one in tested)
    report = Report(
        revision=checked.ruling.rules.revision,
        passed=len(tested) - failed,
        failed=failed,
        seconds=round(time.perf_counter() - started, 3),
        tests=tuple(tested),
        coverage=_coverage(checked.ruling, reached),
        problems=found.problems,
    )
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print(report, found, Console(), partial=bool(match))
    wrong = any(problem.severity == "error" for problem in found.problems)
    return 1 if failed or wrong else 0


def _run(
    stories: list[Story], ruling: Ruling, *, quiet: bool
) -> tuple[list[Tested], tuple[set[str], set[str]]]:
    tested: list[Tested] = []
    rules: set[str] = set()
    offers: set[str] = set()
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal or len(stories) < LONG_RUN,
    )
    with progress:
        for story in progress.track(stories, description="testing"):
            scenario = story.scenario
            played = play(scenario, story.fixes, ruling)
            outcome: Outcomes = compare(scenario, played, ruling.rules)
            rules |= outcome.rules_reached
            offers |= outcome.offers_reached
            tested.append(
                Tested(
                    file=scenario.file,
                    line=scenario.line,
                    name=scenario.name,
                    passed=not outcome.differences and not played.problems,
                    differences=outcome.differences,
                    problems=played.problems,
                    decisions=outcome.decisions,
                )
            )
    return tested, (rules, offers)


def _coverage(ruling: Ruling, reached: tuple[set[str], set[str]]) -> Coverage:
    rules, offers = ruling.rules.rules, {**ruling.rules.offers, **ruling.rules.actions}
    return Coverage(
        rules=len(rules),
        offers=len(offers),
        unreached_rules=tuple(sorted(set(rules) - reached[0])),
        unreached_offers=tuple(sorted(set(offers) - reached[1])),
    )


def _print(report: Report, found: Stories, console: Console, *, partial: bool) -> None:
    file = ""
    for tested in report.tests:
        if tested.file != file:
            file = tested.file
            console.print(Text(file, "bold"))
        _print_test(tested, console)
    if found.problems:
        console.out(render_all(found.problems, found.sources), highlight=False)
    if not report.tests and not found.problems:
        console.print("no tests found: they stand under tests: in *.yaml of a folder tests", highlight=False)
        return
    _print_summary(report, console, partial=partial)


def _print_test(tested: Tested, console: Console) -> None:
    line = Text("  ✓ " if tested.passed else "  ✗ ", "green" if tested.passed else "red")
    line.append(tested.name, "" if tested.passed else "bold")
    console.print(line, soft_wrap=True)
    for problem in tested.problems:
        hint = f" ({problem.suggestion})" if problem.suggestion else ""
        console.print(Text(f"      {problem.file}:{problem.line}: {problem.message}{hint}"), soft_wrap=True)
    for difference in tested.differences:
        _print_difference(tested, difference, console)


def _print_difference(tested: Tested, difference: Difference, console: Console) -> None:
    if difference.expected is not None:
        line = Text("      expected, not decided: ", "red")
        line.append(difference.expected)
        line.append(f"  {tested.file}:{difference.line}", "dim")
    else:
        line = Text("      decided, not expected: ", "yellow")
        line.append(difference.decided or "")
    console.print(line, soft_wrap=True)
    for because in difference.because:
        console.print(Text(f"        {because}", "dim" if because.startswith(" ") else ""), soft_wrap=True)


def _print_summary(report: Report, console: Console, *, partial: bool) -> None:
    coverage = report.coverage
    for what, names, of in (
        ("rules", coverage.unreached_rules, coverage.rules),
        ("offers", coverage.unreached_offers, coverage.offers),
    ):
        if names and not partial:
            line = Text(f"no test reaches {len(names)} of {of} {what}: ", "yellow")
            line.append(", ".join(names))
            console.print(line, soft_wrap=True)
    line = Text(f"{report.passed} passed", "green" if report.passed and not report.failed else "")
    if report.failed:
        line.append(", ")
        line.append(f"{report.failed} failed", "red")
    line.append(f" in {report.seconds:.1f} s")
    console.print(line)
