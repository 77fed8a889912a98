"""What is measured: a durable PostgreSQL, the engine and the echo, each its own process, on cores
of their own where there are any."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from engine.adapters.postgres import embedded
from loadtest.results import LoadtestError
from loadtest.traffic import WRITE_KEY

ROOT = Path(__file__).resolve().parents[1]
RULES, MODELS = ROOT / "rules", ROOT / "models"
READY_SECONDS = 60.0
STOP_SECONDS = 30.0

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Cores(msgspec.Struct, frozen=True):
    """Which cores the engine and the echo run on, in turn, and which everything else."""

    servers: frozenset[int]
    rest: frozenset[int]

    def __str__(self) -> str:
        if self.servers == self.rest:
            return "nothing is pinned: there is one core, or this system cannot pin"
        first, rest = (",".join(map(str, sorted(cores))) for cores in (self.servers, self.rest))
        return f"engine and echo each on core {first}; PostgreSQL and the clients on core {rest}"


class Process(msgspec.Struct, frozen=True):
    """A server that said it is ready."""

    pid: int
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """All that runs during a measurement; `folder` is for temporary files and goes with them."""

    folder: Path
    dsn: str
    engine: Process
    echo: Process
    cores: Cores


@contextmanager
def running() -> Iterator[Servers]:
    """Starts everything, pins this process to the clients' cores, and ends and removes it all.

    Raises:
        LoadtestError, EmbeddedPostgresError: something did not start.
    """
    cores = _cores()
    with tempfile.TemporaryDirectory(prefix="viewfinder-load-") as name, _pinned(cores.rest):
        folder = Path(name)
        folder.chmod(0o711)  # as root, PostgreSQL runs as another account
        postgres = embedded.start(folder / "data")
        try:
            settings = {
                "VIEWFINDER_DATABASE_URL": postgres.dsn,
                "VIEWFINDER_DATA": str(folder / "data"),
                "VIEWFINDER_RULES": str(RULES),
                "VIEWFINDER_MODELS": str(MODELS),
                "VIEWFINDER_PORT": "0",
                "VIEWFINDER_WRITE_KEYS": WRITE_KEY,
                "VIEWFINDER_SERVER_KEYS": "load-server",
                "VIEWFINDER_ADMIN_TOKEN": "load-admin",
            }
            with (
                _started(["engine", "serve"], settings, folder, cores) as engine,
                _started(["loadtest.echo"], {}, folder, cores) as echo,
            ):
                yield Servers(folder=folder, dsn=postgres.dsn, engine=engine, echo=echo, cores=cores)
        finally:
            postgres.stop()


@contextmanager
def _started(
    module: Sequence[str], settings: Mapping[str, str], folder: Path, cores: Cores
) -> Iterator[Process]:
    out, err = folder / f"{module[0]}.out", folder / f"{module[0]}.err"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIEWFINDER_")}
    with out.open("wb") as stdout, err.open("wb") as stderr, _pinned(cores.servers):
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env={**kept, **settings},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        yield Process(process.pid, _announced(process, module[0], out, err))
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        if process.returncode is None:
            process.kill()
            process.wait()


def _announced(process: subprocess.Popen[bytes], name: str, out: Path, err: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in out.read_text("utf-8", "replace").splitlines(keepends=True):
            if line.startswith("ready ") and line.endswith("\n"):
                return line.split()[1]
        time.sleep(0.02)
    raise LoadtestError(f"{name} did not start. It said:\n{err.read_text('utf-8', 'replace')[-4000:]}")


def _cores() -> Cores:
    if not hasattr(os, "sched_getaffinity"):
        return Cores(frozenset(), frozenset())
    mine = os.sched_getaffinity(0)
    first = frozenset({min(mine)})
    return Cores(first, frozenset(mine - first) or first)


@contextmanager
def _pinned(cores: frozenset[int]) -> Iterator[None]:
    """This thread, and what is started in here, which inherits it, on these cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pids: Sequence[int]) -> float:
    """What these processes have used of the CPU so far; 0 for those that are gone, and without /proc."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            # The name, in parentheses, may hold spaces; user and system time are fields 14 and 15.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_SECOND


def family_cpu_seconds(pid: int) -> float:
    """What a process and its children have used so far, those that have ended and been waited for
    included; 0 without /proc."""
    ticks, living = 0, [pid]
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[13]) + int(fields[14])
        living += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return cpu_seconds(living) + ticks / _TICKS_PER_SECOND


def machine_cpu_seconds() -> float:
    """What everything on this machine has used so far; 0 without /proc."""
    with suppress(OSError):
        first = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, _idle, _wait, hard, soft = map(int, first.split()[1:8])
        return (user + nice + system + hard + soft) / _TICKS_PER_SECOND
    return 0.0
