"""The `viewfinder` command: one file a subcommand.

Exit codes: 0 fine, 1 the user's files or data are at fault, 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

from cyclopts import App, CycloptsError
from rich.console import Console

from engine.app.cli.check import check
from engine.app.cli.contract import contract
from engine.app.cli.demo import demo
from engine.app.cli.migrate import migrate
from engine.app.cli.serve import serve
from engine.app.settings import table

app = App(
    name="viewfinder",
    help="Real-time mobile and location personalization engine.",
    version=version("viewfinder"),
)
app.command(serve, help_epilogue="Settings (environment variables):\n\n" + table())
app.command(demo)
app.command(check)
app.command(migrate)
app.command(contract)


def main() -> None:
    """Entry point of the console script."""
    try:
        result = app(exit_on_error=False, print_error=False)
    except CycloptsError as fault:
        Console(stderr=True).print(f"[red]error:[/red] {fault}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)
