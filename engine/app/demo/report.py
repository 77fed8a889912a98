"""What the ride shows on the terminal: each decision as it falls, and a summary."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


class Summary(msgspec.Struct, kw_only=True):
    """The last line of `--json`."""

    events: int = 0
    decisions: int = 0
    offered: int = 0
    suppressed: int = 0
    pushes_delivered: int = 0
    seconds: float = 0.0


class Report:
    """Lines for people, or JSON lines for programs."""

    def __init__(self, *, as_json: bool, total: int) -> None:
        self.summary = Summary()
        self._as_json = as_json
        self.console = Console(stderr=as_json)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=as_json and not self.console.is_terminal,
        )
        self._task = self.progress.add_task("riding the 304", total=total)

    def sent(self) -> None:
        self.summary.events += 1
        self.progress.advance(self._task)

    def decision(self, at: datetime, decision: dict[str, Any]) -> None:
        summary = self.summary
        summary.decisions += 1
        if decision["outcome"] == "offered":
            summary.offered += 1
        elif decision["outcome"] == "suppressed":
            summary.suppressed += 1
        if self._as_json:
            line = msgspec.json.encode({"at": at, **decision}).decode()
            sys.stdout.write(line + "\n")
        else:
            self.progress.console.print(_line(at, decision), soft_wrap=True)

    def finish(self, problems: list[str], served_at: str | None) -> None:
        """The summary, and everything in which the ride did not agree with what was expected."""
        if self._as_json:
            for problem in problems:
                self.console.print(f"not as expected: {problem}", markup=False, highlight=False)
            sys.stdout.write(msgspec.json.encode(self.summary).decode() + "\n")
            sys.stdout.flush()
            return
        s = self.summary
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_row("events sent", f"{s.events:,}")
        table.add_row("decisions", f"{s.decisions}  ({s.offered} offered, {s.suppressed} suppressed)")
        table.add_row("pushes delivered", f"{s.pushes_delivered}")
        table.add_row("time", f"{s.seconds:.1f} s")
        self.console.print()
        self.console.print(table)
        for problem in problems:
            self.console.print(Text(f"not as expected: {problem}", "red"))
        if not problems:
            self.console.print(Text("everything as the workspace expects", "green"))
        if served_at is not None:
            self.console.print(f"\nstill serving at {served_at}; Ctrl-C ends it", highlight=False)


def _line(at: datetime, decision: dict[str, Any]) -> Text:
    offered = decision["outcome"] == "offered"
    place = decision["geofence"] or "—"
    line = Text(f"{at:%H:%M:%S} ")
    line.append("● " if offered else "○ ", "green" if offered else "yellow")
    line.append(f"{decision['trigger']:<6} {place:<20.20} {decision['rule']:<20.20} ")
    line.append(f"{decision['offer']:<18.18} ", "bold" if offered else "")
    if decision["propensity"] is not None:
        line.append(f"p={decision['propensity']:.2f} ")
    if decision["expectedValue"] is not None:
        line.append(f"value {decision['expectedValue']:+.2f} ")
    if offered:
        message = decision["message"]
        line.append(f"“{message['title']}”" if message else "", "green")
    else:
        line.append(decision["reason"], "yellow")
        line.append(_numbers(decision), "dim")
    return line


def _numbers(decision: dict[str, Any]) -> str:
    """By how much the leading candidate fell short, as its gate measured it."""
    leading: dict[str, Any] = next(
        (c for c in decision.get("candidates", ()) if c["rule"] == decision["rule"] and c.get("numbers")), {}
    )
    numbers = leading.get("numbers", {})
    if decision["reason"] == "capped":
        return f"  {numbers['count']} of {numbers['times']} per {numbers['per']}, cap of {numbers['of']}"
    shown = (
        f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in numbers.items()
    )
    return "  " + ", ".join(shown)
