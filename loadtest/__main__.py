"""`python -m loadtest`: the engine beside a bare echo. `python -m loadtest decide`: the pure core.
`python -m loadtest approach`: how well approaches are told ahead.
`python -m loadtest expressions`: one condition in our engine and in three others.

Exit codes: 0 fine, 1 the engine lost events, answered anything but 200, or nothing could be
measured; 2 wrong usage.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import msgspec
from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.adapters.postgres.embedded import EmbeddedPostgresError
from loadtest import approach as approaches
from loadtest import core, scenarios
from loadtest import history as histories
from loadtest import imports as importing
from loadtest import match as matching
from loadtest import match_workspace as workspaces
from loadtest import regions as watched
from loadtest import way as ways
from loadtest.results import LoadtestError
from loadtest.table import notes, table

app = App(name="loadtest", help="Measure the engine.", version_flags=[])
errors = Console(stderr=True)

Json = Annotated[bool, Parameter(help="Print one JSON object.")]


@app.default
def load(
    *,
    seconds: Annotated[int, Parameter(help="Of each measurement.", validator=Number(gte=1, lte=600))] = 4,
    connections: Annotated[int, Parameter(help="Open at once.", validator=Number(gte=1, lte=1000))] = 256,
    rounds: Annotated[int, Parameter(help="Turns of each server.", validator=Number(gte=1, lte=100))] = 3,
    json: Json = False,
) -> None:
    """Drive the engine and a bare echo in turn and compare them."""
    options = scenarios.Options(seconds=seconds, connections=connections, rounds=rounds)
    # Drawn between measurements only: a thread that draws would take from the clients' core.
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        auto_refresh=False,
        transient=True,
    )
    task = progress.add_task("starting", total=rounds * scenarios.MEASUREMENTS_PER_ROUND + 2)
    steps = iter(range(sys.maxsize))

    def advance(what: str) -> None:
        progress.update(task, completed=next(steps), description=what, refresh=True)

    with progress:
        report = scenarios.run(options, advance)
    if json:
        print(msgspec.json.encode(report).decode())
        return
    console = Console()
    console.print(table(report))
    console.print(notes(report), highlight=False, soft_wrap=True)


@app.command
def decide(*, json: Json = False) -> None:
    """Time the pure core: a decision on a location fix, and the geofence match alone."""
    report = core.measure()
    if json:
        print(msgspec.json.encode(report).decode())
        return
    console = Console()
    console.print(core.table(report))
    console.print(core.notes(report), highlight=False, soft_wrap=True)


@app.command
def way(*, json: Json = False) -> None:
    """Time the engine's own work on an event, from body to answer, without sockets and database."""
    report = ways.measure()
    if json:
        print(msgspec.json.encode(report).decode())
        return
    Console().print(ways.table(report))


@app.command
def expressions(*, json: Json = False) -> None:
    """Time one compiled condition beside CEL's own implementation and two other engines."""
    from loadtest import expressions as conditions  # its peers are there for development only

    report = conditions.measure()
    if json:
        print(msgspec.json.encode(report).decode())
        return
    Console().print(conditions.table(report))


@app.command
def approach(*, json: Json = False) -> None:
    """Tell approaches to geofences ahead, on a real bus and of people who go steadily."""
    found = approaches.measure()
    if json:
        print(msgspec.json.encode(found).decode())
        return
    Console().print(approaches.table(found))


@app.command
def match(
    *,
    million: bool = False,
    workspace: Annotated[int | None, Parameter(validator=Number(gte=1, lte=1_000_000))] = None,
    json: Json = False,
) -> None:
    """Time the geofence match alone, beside shapely's index and, where it is installed, PostGIS.

    Parameters
    ----------
    million
        A million fences over the world, built in another process; takes some minutes and 4 GB.
    workspace
        So many imported circles: what `viewfinder import geofences`, `check` and `serve` take.
    """
    if workspace is not None:
        took = workspaces.measure(workspace, lambda what: errors.print(f"{what} …"))
        if json:
            print(msgspec.json.encode(took).decode())
        else:
            Console().print(workspaces.table(took))
        return
    report = matching.measure_world() if million else matching.measure_city()
    if json:
        print(msgspec.json.encode(report).decode())
        return
    console = Console()
    console.print(matching.table(report))
    console.print(matching.notes(report), highlight=False, soft_wrap=True)


@app.command
def history(
    *, events: Annotated[int, Parameter(validator=Number(gte=1_000))] = 100_000, json: Json = False
) -> None:
    """Try the active rules on a recorded past: is every decision made again, and how fast?"""
    report = histories.measure(events, lambda what: errors.print(f"{what} …"))
    if json:
        print(msgspec.json.encode(report).decode())
        return
    Console().print(histories.table(report))


@app.command
def imports(*, json: Json = False) -> None:
    """Bring the CDNOW purchases in by the command, and tell what that costs the engine and PostgreSQL."""
    report = importing.measure()
    if json:
        print(msgspec.json.encode(report).decode())
        return
    Console().print(importing.table(report))


@app.command
def regions(*, people: int = watched.PEOPLE, json: Json = False) -> None:
    """Simulate what phones watch: are the places that people enter in their lists?"""
    report = watched.simulate(people)
    if json:
        print(msgspec.json.encode(report).decode())
        return
    Console().print(watched.table(report))


def main() -> None:
    # So that what was started is ended on SIGTERM, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as fault:
        errors.print(f"error: {fault}", markup=False, highlight=False)
        sys.exit(2)
    except (LoadtestError, EmbeddedPostgresError) as fault:
        errors.print(f"error: {fault}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


main()
