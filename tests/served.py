"""`viewfinder serve` as its own process, the way it runs in earnest: started, asked over HTTP,
stopped or killed by its own process id, and always cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests import lanes

WRITE_KEY, SERVER_KEY, ADMIN_TOKEN = "WK123", "server-key-456", "admin-token-789"
READY_SECONDS = 60.0
STOP_SECONDS = 30.0

WORKSPACE = lanes.WORKSPACE + b"events:\n  Order Paid: {from: server}\n"

_T = TypeVar("_T")


class NotReadyError(AssertionError):
    """The process ended, or took too long, before it said that it is ready."""


class Served:
    """A running engine. What it prints goes to files, so that nothing it says is lost or blocks it."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self.url = ""
        self._out = out
        self._err = err

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def stdout(self) -> str:
        return self._out.read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text("utf-8", "replace")

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        def announced() -> str | None:
            if self.process.poll() is not None:
                raise NotReadyError(f"serve ended with {self.process.returncode}:\n{self.stderr}")
            lines = (line for line in self.stdout.splitlines(keepends=True) if line.startswith("ready "))
            line = next(lines, "")
            return line.split()[1] if line.endswith("\n") else None

        self.url = until(announced, seconds, "ready")

    def client(self, key: str | None = WRITE_KEY, **options: Any) -> httpx.Client:
        """Over HTTP with a key by Basic auth, as SDKs send it."""
        auth = (key, "") if key is not None else None
        return httpx.Client(base_url=self.url, auth=auth, timeout=30.0, **options)

    def admin(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, and nothing else."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.terminate()
        return self.process.wait(STOP_SECONDS)


def write_workspace(folder: Path, workspace: bytes = WORKSPACE, rules: bytes = lanes.RULES) -> Path:
    """The folder as VIEWFINDER_RULES takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workspace.yaml").write_bytes(workspace)
    (folder / "rules.yaml").write_bytes(rules)
    return folder


def environment(folder: Path, dsn: str | None, settings: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the surroundings but what programs need. A setting of "" is left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIEWFINDER_")}
    ours = {
        "VIEWFINDER_DATA": str(folder / "data"),
        "VIEWFINDER_RULES": str(folder / "rules"),
        "VIEWFINDER_MODELS": str(folder / "models"),
        "VIEWFINDER_PORT": "0",
        "VIEWFINDER_WRITE_KEYS": WRITE_KEY,
        "VIEWFINDER_SERVER_KEYS": SERVER_KEY,
        "VIEWFINDER_ADMIN_TOKEN": ADMIN_TOKEN,
    }
    if dsn is not None:
        ours["VIEWFINDER_DATABASE_URL"] = dsn
    return kept | {name: value for name, value in (ours | dict(settings)).items() if value}


def start(folder: Path, dsn: str | None, **settings: str) -> Served:
    """Starts `serve` without waiting. `settings` are VIEWFINDER_… variables, without the prefix."""
    if not (folder / "rules").exists():
        write_workspace(folder / "rules")
    number = len(list(folder.glob("serve-*.out")))
    out, err = folder / f"serve-{number}.out", folder / f"serve-{number}.err"
    variables = environment(folder, dsn, {f"VIEWFINDER_{name}": value for name, value in settings.items()})
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", "serve"],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    return Served(process, out, err)


@contextmanager
def serve(folder: Path, dsn: str | None, **settings: str) -> Iterator[Served]:
    """A ready engine, gone at the end whatever happened."""
    served = start(folder, dsn, **settings)
    try:
        served.wait_until_ready()
        yield served
    finally:
        end(served)


def end(served: Served) -> None:
    """An orderly end where one is to be had."""
    if served.process.poll() is None:
        served.terminate()
        with suppress(subprocess.TimeoutExpired):
            served.process.wait(10.0)
    if served.process.poll() is None:
        served.kill()


def command(
    folder: Path, *arguments: str, dsn: str | None = None, seconds: float = 60.0, **settings: str
) -> subprocess.CompletedProcess[str]:
    """A `viewfinder` command that ends by itself."""
    variables = environment(folder, dsn, {f"VIEWFINDER_{name}": value for name, value in settings.items()})
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        env=variables | {"COLUMNS": "200", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def until(ask: Callable[[], _T | None], seconds: float, what: str, every: float = 0.02) -> _T:
    """What `ask` answers once it is something true, asked again and again."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(every)
    return answer
