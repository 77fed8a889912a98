"""The embedded PostgreSQL as processes: started, shared, killed, started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engine.adapters.postgres import embedded
from engine.adapters.postgres.cluster import DataFolderError, reachable
from tests.conftest import open_folder
from tests.served import until

SECONDS = 30.0

HOLDER = """
import sys
from pathlib import Path
from engine.adapters.postgres import embedded
server = embedded.start(Path(sys.argv[1]))
print(server.dsn, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as found:
        yield found / "data"


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the server of a data folder; its first line is the DSN."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if process.poll() is None:
            process.wait(SECONDS)


def postmaster(folder: Path) -> int:
    return int((folder / "postgres" / "cluster" / "postmaster.pid").read_text().split("\n")[0])


def ask(dsn: str, sql: str) -> Any:
    async def fetch() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def answer(dsn: str, sql: str) -> Any:
    """The same, None while the server is away."""
    try:
        return ask(dsn, sql)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None


def test_what_was_stored_is_there_after_a_restart_and_nobody_else_listens(folder: Path) -> None:
    server = embedded.start(folder)
    try:
        ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        assert ask(server.dsn, "SHOW listen_addresses") == ""
        assert [ask(server.dsn, f"SHOW {name}") for name in ("fsync", "synchronous_commit")] == ["on", "on"]
        # As `psql -h DATA_FOLDER -U viewfinder` finds it.
        assert ask(f"postgresql://viewfinder@/viewfinder?host={folder}", "SELECT n FROM kept") == 7
    finally:
        server.stop()
    assert not (folder / "postgres" / "cluster" / "postmaster.pid").exists()
    again = embedded.start(folder)
    try:
        assert ask(again.dsn, "SELECT n FROM kept") == 7
    finally:
        again.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root turns into somebody else")
def test_root_runs_it_as_another_account_and_opens_nothing(folder: Path) -> None:
    server = embedded.start(folder)
    try:
        status = Path(f"/proc/{postmaster(folder)}/status").read_text()
        assert "Uid:\t0" not in status
    finally:
        server.stop()
    assert (folder / "postgres").stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o711


@pytest.mark.skipif(os.geteuid() != 0, reason="only root turns into somebody else")
def test_a_folder_that_lets_nobody_pass_stays_shut(folder: Path) -> None:
    """As in a clone under /root: the database then lives elsewhere."""
    shut = folder.parent / "shut"
    shut.mkdir(mode=0o700)
    elsewhere = folder.parent / "elsewhere"
    server = embedded.start(shut / "data", elsewhere=elsewhere)
    try:
        assert ask(server.dsn, "SELECT 1") == 1
    finally:
        server.stop()
    assert shut.stat().st_mode & 0o777 == 0o700
    assert (shut / "data" / "postgres").resolve().is_relative_to(elsewhere)


def test_a_second_command_joins_and_survives_the_first(folder: Path) -> None:
    with holder(folder) as first:
        assert first.stdout is not None
        dsn = first.stdout.readline().strip()
        one = postmaster(folder)
        ask(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        second = embedded.start(folder)
        try:
            assert postmaster(folder) == one
            assert ask(second.dsn, "SELECT n FROM kept") == 7
            first.kill()  # and its server goes along
            first.wait(SECONDS)
            until(
                lambda: answer(second.dsn, "SELECT n FROM kept") == 7, SECONDS, "the second one's own server"
            )
            until(lambda: postmaster(folder) != one, SECONDS, "another process")
        finally:
            second.stop()


def test_commands_that_start_together_share_one_server(folder: Path) -> None:
    with holder(folder) as one, holder(folder) as two, holder(folder) as three:
        dsns = {process.stdout.readline() for process in (one, two, three) if process.stdout is not None}
        assert len(dsns) == 1
        assert ask(dsns.pop().strip(), "SELECT count(*) FROM pg_database WHERE datname = 'viewfinder'") == 1


def test_a_killed_server_is_started_again(folder: Path) -> None:
    server = embedded.start(folder)
    try:
        ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        for _ in range(2):
            killed = postmaster(folder)
            os.kill(killed, signal.SIGKILL)
            until(lambda: answer(server.dsn, "SELECT n FROM kept") == 7, SECONDS, "it is back")
            assert postmaster(folder) != killed
    finally:
        server.stop()


def test_a_killed_command_takes_its_server_along_and_the_next_one_starts_at_once(folder: Path) -> None:
    for number in range(3):
        with holder(folder) as process:
            assert process.stdout is not None
            dsn = process.stdout.readline().strip()
            assert ask(dsn, "SELECT 1") == 1, number
            process.kill()
            process.wait(SECONDS)


def test_a_long_path_gets_a_short_socket(folder: Path) -> None:
    deep = folder.parent / ("d" * 60) / ("e" * 60)
    deep.parent.mkdir()
    server = embedded.start(deep, durable=False)
    try:
        assert ask(server.dsn, "SELECT 1") == 1
    finally:
        server.stop()


def test_a_folder_that_cannot_be_used_is_said_plainly(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(DataFolderError, match="Set VIEWFINDER_DATA"):
        embedded.start(folder)


def test_a_file_in_the_server_s_place_is_no_database(folder: Path) -> None:
    embedded.start(folder, durable=False).stop()
    (folder / "postgres" / "cluster" / "PG_VERSION").write_text("nine")
    with pytest.raises(DataFolderError, match="cannot be read"):
        embedded.start(folder)


def test_reachable_asks_every_folder_above(folder: Path) -> None:
    from engine.adapters.postgres.cluster import Account

    inside = folder / "a" / "b"
    inside.mkdir(parents=True)
    for part in (folder, folder / "a", inside):
        part.chmod(0o711)
    stranger = Account(65534, 65534)
    assert reachable(inside, stranger)
    (folder / "a").chmod(0o700)
    assert not reachable(inside, stranger)
    assert reachable(inside, None)


def test_a_number_that_is_another_process_s_by_now_is_no_server(folder: Path) -> None:
    """In a container, where numbers repeat: the files of a killed server name a process that lives."""
    server = embedded.start(folder, durable=False)
    ask(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    left = {
        file: file.read_bytes()
        for file in (
            folder / "postgres" / "cluster" / "postmaster.pid",
            folder / "postgres" / ".s.PGSQL.5432.lock",
        )
    }
    server.stop()
    for file, content in left.items():
        file.write_bytes(b"%d\n" % os.getpid() + content.split(b"\n", 1)[1])
    again = embedded.start(folder, durable=False)
    try:
        assert ask(again.dsn, "SELECT n FROM kept") == 7
    finally:
        again.stop()
