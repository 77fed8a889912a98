"""Results for people."""

from __future__ import annotations

from typing import Final

from rich import box
from rich.table import Table

from loadtest.results import Compared, Report, Side

QUIET_CORES: Final = 0.2
"""What the kernel itself takes for the loopback stays below."""


def table(report: Report) -> Table:
    """A line for each scenario and server."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("durable events")
    grid.add_column("server")
    for heading in ("events/s", "p50 ms", "p99 ms", "CPU µs", "PG µs", "ratio"):
        grid.add_column(heading, justify="right")
    for scenario in report.scenarios:
        ratio = f"{scenario.ratio:.2f}" if scenario.rate is None else ""
        grid.add_row(scenario.name, "engine", *_numbers(scenario.engine), ratio)
        grid.add_row("", "echo", *_numbers(scenario.echo)[:4], "", "", end_section=True)
    return grid


def _numbers(one: Side) -> tuple[str, ...]:
    return (
        f"{one.events_per_second:,.0f}",
        f"{one.p50_ms:.2f}",
        f"{one.p99_ms:.2f}",
        f"{one.cpu_microseconds:.0f}",
        f"{one.postgres_cpu_microseconds:.0f}",
    )


def notes(report: Report) -> str:
    """How the numbers came about."""
    clients = "; ".join(f"{s.name}: {_client(s)}" for s in report.scenarios)
    lines = [
        f"Medians of {report.rounds} rounds of {report.seconds} s over {report.connections} connections, "
        f"of batches over {report.batch_connections}.",
        f"{report.cores}.",
        f"Clients: {clients}.",
        f"Batches: {report.batch_of_single_echo:.2f} of the echo's single events/s.",
        f"{report.answered_events:,} events answered, {report.stored_events:,} stored, "
        f"{report.missing_events} missing. {report.took_seconds:.0f} s.",
    ]
    if report.other_cores > QUIET_CORES:
        lines.append(
            f"Other programs took {report.other_cores:.1f} cores meanwhile: trust CPU µs more than events/s."
        )
    return "\n".join(lines)


def _client(scenario: Compared) -> str:
    if scenario.rate is None:
        return f"{scenario.client}, as fast as answers come"
    return f"{scenario.client}, {scenario.rate:,.0f} requests/s"
