"""An import, as the command does it: the CDNOW purchases into an empty database.

CPU seconds are told beside the time: on a machine that does other things they say more.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.table import Table

from engine.adapters.postgres import embedded
from loadtest.results import LoadtestError
from loadtest.servers import ROOT, family_cpu_seconds

PURCHASES = ROOT / "models" / "data" / "cdnow-purchases.txt"
MAPPING = """
separator: whitespace
time: {column: date, format: "%Y%m%d"}
ids: {user_id: customer_id}
properties: {revenue: dollar_value, cds: number_of_cds}
"""
WORKSPACE = """
timezone: America/New_York
currency: USD
computed:
  orders: {count: Order Completed}
  lifetime_value: {sum: event.properties.revenue, of: Order Completed}
  tier: {steps: lifetime_value, from: {bronze: 0, silver: 100, gold: 500}}
"""


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`rows_per_second` is as the command tells it; the CPU seconds include its start."""

    rows: int
    rows_per_second: float
    seconds: float
    engine_cpu_seconds: float
    postgres_cpu_seconds: float

    @property
    def rows_per_engine_second(self) -> float:
        return self.rows / self.engine_cpu_seconds

    @property
    def rows_per_postgres_second(self) -> float:
        return self.rows / self.postgres_cpu_seconds


def measure() -> Report:
    """Brings the file in.

    Raises:
        LoadtestError: the command failed.
    """
    with tempfile.TemporaryDirectory(prefix="viewfinder-import-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another account
        (folder / "rules").mkdir()
        (folder / "rules" / "workspace.yaml").write_text(WORKSPACE)
        (folder / "mapping.yaml").write_text(MAPPING)
        server = embedded.start(folder / "data")
        try:
            (lock,) = folder.glob("data/**/postmaster.pid")
            return _measure(folder, server.dsn, int(lock.read_text().split()[0]))
        finally:
            server.stop()


def _measure(folder: Path, dsn: str, postgres: int) -> Report:
    kept = {word: value for word, value in os.environ.items() if not word.startswith("VIEWFINDER_")}
    settings = {
        "VIEWFINDER_DATABASE_URL": dsn,
        "VIEWFINDER_DATA": str(folder / "data"),
        "VIEWFINDER_RULES": str(folder / "rules"),
        "VIEWFINDER_MODELS": str(folder / "models"),
    }
    asked = ["import", "purchases", str(PURCHASES), "--mapping", str(folder / "mapping.yaml"), "--json"]
    before, theirs, began = _children_cpu(), family_cpu_seconds(postgres), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "engine", *asked],
        cwd=ROOT,
        env={**kept, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise LoadtestError(f"the import failed: {done.stderr}")
    told = msgspec.json.decode(done.stdout)
    return Report(
        rows=told["rows"],
        rows_per_second=told["rowsPerSecond"],
        seconds=round(seconds, 2),
        engine_cpu_seconds=round(_children_cpu() - before, 2),
        postgres_cpu_seconds=round(family_cpu_seconds(postgres) - theirs, 2),
    )


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(report: Report) -> Table:
    """For a terminal."""
    found = Table("", "rows", "rows/s", "engine CPU s", "PostgreSQL CPU s", "rows per CPU s of each")
    found.add_row(
        "CDNOW purchases",
        f"{report.rows:,}",
        f"{report.rows_per_second:,.0f}",
        f"{report.engine_cpu_seconds:.1f}",
        f"{report.postgres_cpu_seconds:.1f}",
        f"{report.rows_per_engine_second:,.0f}, {report.rows_per_postgres_second:,.0f}",
    )
    return found
