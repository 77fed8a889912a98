"""The `viewfinder` command: one file a subcommand.

Exit codes: 0 fine, 1 the user's files or data are at fault, 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from io import TextIOWrapper
from keyword import iskeyword

from cyclopts import App, CycloptsError, Parameter

from engine.app.settings import table

app = App(
    name="viewfinder",
    help="Real-time mobile and location personalization engine.",
    version=version("viewfinder"),
    default_parameter=Parameter(negative=()),
)
COMMANDS = {
    "serve": "Run the engine. Prints `ready http://HOST:PORT` once it takes events.",
    "demo": "Replay a real bus ride through the engine, on an embedded database of its own.",
    "test": "Play a workspace's scenario tests: no server, no database.",
    "check": "Check a workspace: every problem with its file, line and column.",
    "schema": "Write JSON Schemas of all files, so that editors complete and explain.",
    "new": "Write a recipe to start from: rules with tests.",
    "identities": "Who a person is and why; and two people who were taken for one.",
    "import": "Bring in a file of profiles, purchases, consents, accounts, interactions or geofences.",
    "tokens": "Who may use /admin, by name and role.",
    "receivers": "Systems that are told what happens: webhooks and streams, with their secrets.",
    "privacy": "The records of processing, and the audit log.",
    "export": "Everything about one person, as JSON or as a page to read.",
    "erase": "Erase one person everywhere; the ledger that keeps backups from bringing them back.",
    "map": "Draw a track with the geofences along it, and what it set off, as a page.",
    "audiences": "How many people are in which audience, how many they were, and who.",
    "backtest": "Try new rules on what people really did, side by side with what is active.",
    "explain": "One decision as a person would tell it: what came in, each candidate, what stopped it.",
    "why-not": "Why a rule makes somebody no offer now, and when its trigger last came.",
    "reach": "How many people a rule could reach now, and how many each gate takes away.",
    "send": "Send one rule's message to one's own phone, through the real outbox.",
    "publish": "Make a workspace the active one for engines that follow the database; history, rollback.",
    "pause": "Stop a rule, an offer, a channel or everything, on every engine.",
    "resume": "Let what was stopped go on.",
    "phone": "Show what a phone would really deliver of a track: fewer fixes, and later.",
    "migrate": "Bring the database's schema up to date; serve does so when it starts.",
    "contract": "Write the OpenAPI document and the JSON Schemas for SDK authors into a folder.",
}
for name, text in COMMANDS.items():
    # Named, not imported: a command loads what it needs and nothing of the others.
    own = f"{name}_" if iskeyword(name) else name.replace("-", "_")
    app.command(
        f"engine.app.cli.{own}:{own}",
        name=name,
        help=text,
        help_epilogue="Settings (environment variables):\n\n" + table() if name == "serve" else None,
    )


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal of another encoding gets what it can show
            stream.reconfigure(errors="replace")
    try:
        result = app(exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as fault:
        sys.stderr.write(f"error: {fault}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read it has enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
