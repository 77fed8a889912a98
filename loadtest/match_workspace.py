"""A workspace of very many imported circles: what importing, checking and serving it takes.

The real commands, each a process of its own. Rules name all circles by their tag: enter, approach and
dwell.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from rich.table import Table

from loadtest.match import world
from loadtest.results import LoadtestError

READY_SECONDS: Final = 1_200.0
WORKSPACE: Final = "timezone: Europe/Dublin\ncurrency: EUR\n"
RULES: Final = """
offers:
  hello:
    purpose: marketing
    propensity: 0.5
    message: {push: {title: {en: "{{ geofence.name }}"}, body: {en: Hello}}}
rules:
  enter: {when: {enter: {tag: shops}}, offer: hello}
  ahead: {when: {approach: {tag: shops}, within: 5m}, offer: hello}
  stay: {when: {dwell: {tag: shops}, for: 5m}, if: geofence.town != "", offer: hello}
"""


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """One command: seconds, of the processor too, and the most memory that its process had."""

    command: str
    seconds: float
    processor_seconds: float
    peak_megabytes: float


class WorkspaceReport(msgspec.Struct, frozen=True, kw_only=True):
    """`serving_megabytes`: what the engine has once it is ready, after its peak."""

    fences: int
    file_megabytes: float
    took: tuple[Took, ...]
    serving_megabytes: float


def measure(fences: int, tell: Callable[[str], object]) -> WorkspaceReport:
    """Imports, checks and serves so many circles.

    Raises:
        LoadtestError: a command did not end as it should.
    """
    with tempfile.TemporaryDirectory(prefix="viewfinder-places-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another account
        rules = folder / "rules"
        rules.mkdir()
        (rules / "workspace.yaml").write_text(WORKSPACE)
        (rules / "rules.yaml").write_text(RULES)
        tell(f"writing {fences:,} circles")
        _write(folder / "shops.csv", fences)
        tell("import geofences")
        imported = _ran(folder, "import", "geofences", str(folder / "shops.csv"))
        tell("check")
        checked = _ran(folder, "check", str(rules))
        tell("serve")
        served, serving = _served(folder)
        size = (rules / "places" / "shops.fences").stat().st_size
        return WorkspaceReport(
            fences=fences,
            file_megabytes=size / 1e6,
            took=(imported, checked, served),
            serving_megabytes=serving,
        )


def _write(file: Path, fences: int) -> None:
    with file.open("w") as out:
        out.write("id,latitude,longitude,radius,name,town\n")
        for number, place in enumerate(world(random.Random(7), fences)):
            at = f"{place.latitude:.6f},{place.longitude:.6f},{place.radius_meters:.0f}"
            out.write(f"shop-{number},{at},Shop {number},Town {number % 5_000}\n")


def _command(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIEWFINDER_")}
    settings = {"RULES": "rules", "DATA": "data", "MODELS": "models", "PORT": "0"}
    ours = {
        f"VIEWFINDER_{word}": value if word == "PORT" else str(folder / value)
        for word, value in settings.items()
    }
    return [sys.executable, "-m", "engine", *arguments], kept | ours


def _ran(folder: Path, *arguments: str) -> Took:
    command, environment = _command(folder, *arguments)
    started = time.perf_counter()
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LoadtestError(f"viewfinder {arguments[0]}: {(folder / 'said').read_text()[-2000:]}")
    return Took(
        command=" ".join(arguments[:2]) if arguments[0] == "import" else arguments[0],
        seconds=time.perf_counter() - started,
        processor_seconds=usage.ru_utime + usage.ru_stime,
        peak_megabytes=usage.ru_maxrss / 1e3,
    )


def _served(folder: Path) -> tuple[Took, float]:
    """Until it says that it is ready, and what it then has."""
    command, environment = _command(folder, "serve")
    started = time.perf_counter()
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said)
    late = threading.Timer(READY_SECONDS, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        if not any(line.startswith(b"ready ") for line in process.stdout):
            raise LoadtestError(f"viewfinder serve: {(folder / 'said').read_text()[-2000:]}")
        seconds = time.perf_counter() - started
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        kilobytes = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Vm")}
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        took = Took(
            command="serve, until ready",
            seconds=seconds,
            processor_seconds=(int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"),
            peak_megabytes=int(kilobytes["VmHWM"]) / 1e3,
        )
        return took, int(kilobytes["VmRSS"]) / 1e3
    finally:
        late.cancel()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def table(report: WorkspaceReport) -> Table:
    grid = Table(
        title=f"a workspace of {report.fences:,} imported circles, {report.file_megabytes:,.0f} MB",
        title_justify="left",
    )
    grid.add_column("command")
    for heading in ("s", "processor s", "peak MB"):
        grid.add_column(heading, justify="right")
    for took in report.took:
        grid.add_row(
            took.command,
            f"{took.seconds:.0f}",
            f"{took.processor_seconds:.0f}",
            f"{took.peak_megabytes:,.0f}",
        )
    grid.add_row("serve, afterwards", "", "", f"{report.serving_megabytes:,.0f}")
    return grid
