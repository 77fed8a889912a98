"""The embedded PostgreSQL: started when the first command needs it, shared while it runs.

Every command that uses a data folder holds a `Server`. Its keeper thread starts the server where
none runs, or joins the one that another command runs; when that one is gone, by a crash or because
its command ended, the next keeper starts it again. So no holder depends on another one's life, and
a killed server comes back by itself. A killed command takes its server along.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import structlog

from engine.adapters.postgres.cluster import (
    SOCKET_NAME,
    SOCKET_PATH_BYTES,
    Account,
    Binaries,
    EmbeddedPostgresError,
    ServerDidNotStartError,
    account_of,
    as_account,
    cluster_major,
    create_cluster,
    find_binaries,
    make_data_folder,
    own_folder,
    server_environment,
)

__all__ = ["EmbeddedPostgresError", "Server", "start"]

ELSEWHERE = Path("/var/lib/viewfinder")
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.25
AGAIN_SECONDS = 1.0

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    # Every commit waits while a new file of the log is filled with zeros: 50 ms, a second or two apart
    # under load, until the first checkpoints leave old files to use again.
    "wal_init_zero": "off",
    "jit": "off",
    # Statements and keys hold what people told us: neither belongs in a log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
HASTY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests whose data nobody will miss."""

log = structlog.get_logger()


class Server:
    """A PostgreSQL on a data folder, ours or joined. `stop` it when it is needed no longer."""

    def __init__(self, folder: Path, elsewhere: Path, *, durable: bool) -> None:
        self._folder = folder
        self._elsewhere = elsewhere
        self._durable = durable
        self._account = account_of(folder)
        self._own = own_folder(folder, self._account, elsewhere)
        self._sockets = _socket_folder(self._own, self._account)
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._fault: EmbeddedPostgresError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # The kernel takes the thread that starts the server for its parent, so it must live on.
        self._keeper = threading.Thread(target=self._keep, name="postgres", daemon=True)
        self._keeper.start()
        self._settled.wait()
        if self._fault is not None:
            raise self._fault

    @property
    def dsn(self) -> str:
        return f"postgresql://viewfinder@/viewfinder?host={quote(str(self._sockets))}"

    def stop(self) -> None:
        """Ends the server where it is ours: open transactions are rolled back, the rest is kept."""
        self._stopping.set()
        for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process = self._process
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(how)
            self._keeper.join(STOP_SECONDS)
            if not self._keeper.is_alive():
                return

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                self._process = self._start_or_join()
            except (EmbeddedPostgresError, OSError) as fault:
                if not self._settled.is_set():
                    self._fault = (
                        fault
                        if isinstance(fault, EmbeddedPostgresError)
                        else ServerDidNotStartError(str(fault))
                    )
                    self._settled.set()
                    return
                log.error("postgres_not_started", fault=type(fault).__name__)
                self._stopping.wait(AGAIN_SECONDS)
                continue
            self._settled.set()
            if self._process is None:
                while _answers(self._own, self._sockets) and not self._stopping.wait(LOOK_SECONDS):
                    pass
                continue
            if self._stopping.is_set():  # stop() may have looked before there was a process
                self._process.send_signal(signal.SIGINT)
            code = self._process.wait()
            self._process = None
            if not self._stopping.is_set():
                log.error("postgres_ended", exit_code=code, consequence="it is started again")

    def _start_or_join(self) -> subprocess.Popen[bytes] | None:
        """The server that we started; None where another command runs one."""
        deadline = time.monotonic() + START_SECONDS
        with _locked(self._folder / "postgres.lock", deadline):
            cluster = self._own / "cluster"
            while _is_served(cluster) and time.monotonic() < deadline:
                if _answers(self._own, self._sockets):
                    return None
                time.sleep(0.02)  # it is on its way up or down
            if not _is_served(cluster):
                # Left behind by a crash; the number in them may be another process's by now.
                for lock in (cluster / "postmaster.pid", self._sockets / f"{SOCKET_NAME}.lock"):
                    lock.unlink(missing_ok=True)
            binaries = find_binaries(cluster_major(cluster), self._account, self._elsewhere)
            if not cluster.exists():
                create_cluster(self._own, binaries, self._account, durable=self._durable)
            deadline = time.monotonic() + START_SECONDS
            while True:
                process = self._launch(binaries)
                if self._comes_up(process):
                    self._link()
                    return process
                said = _end_of(self._folder / "postgres.log")
                # What a killed server or its children still hold is free again in a moment.
                is_held = "still in use" in said or "already exists" in said
                if not is_held or time.monotonic() > deadline:
                    raise ServerDidNotStartError(
                        f"PostgreSQL did not start on {self._own} (exit code {process.returncode}). "
                        f"It said:\n{said}"
                    )
                time.sleep(0.2)

    def _launch(self, binaries: Binaries) -> subprocess.Popen[bytes]:
        settings = SETTINGS | {"unix_socket_directories": str(self._sockets)}
        if not self._durable:
            settings |= HASTY
        command = [str(binaries.folder / "postgres"), "-D", str(self._own / "cluster")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        file = self._folder / "postgres.log"
        with contextlib.suppress(FileNotFoundError):
            file.replace(file.with_suffix(".log.1"))
        with file.open("wb") as output:
            return subprocess.Popen(
                as_account(command, self._account, signal.SIGINT),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._own,
                env=server_environment(),
                start_new_session=True,  # Ctrl-C is for us: what is under way still needs the server
            )

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        """Recovery after a crash takes as long as it takes: cut off, it would begin anew."""
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None:
            status = _status(self._own / "cluster")
            if status == "ready" and _answers(self._own, self._sockets):
                return True
            if status != "starting" and time.monotonic() > deadline:
                process.kill()
                process.wait()
                return False
            time.sleep(0.01)
        return False

    def _link(self) -> None:
        """`psql -h DATA_FOLDER -U viewfinder` finds the socket by this link."""
        link = self._folder / SOCKET_NAME
        target = self._sockets / SOCKET_NAME
        if not (link.is_symlink() and link.readlink() == target):
            link.unlink(missing_ok=True)
            link.symlink_to(target)


def start(folder: Path, *, durable: bool = True, elsewhere: Path = ELSEWHERE) -> Server:
    """A PostgreSQL on the data folder, which is made where it is missing. Blocks until it answers.

    `durable=False` is for data that nobody will miss. `elsewhere`: see `cluster`.

    Raises:
        EmbeddedPostgresError: with what to do about it.
    """
    return Server(make_data_folder(folder), elsewhere, durable=durable)


def _socket_folder(own: Path, account: Account | None) -> Path:
    """The server's own folder, or a short one where the socket's path would not do."""
    # PostgreSQL and its clients take a comma for the next of several folders.
    if len(os.fsencode(own / SOCKET_NAME)) <= SOCKET_PATH_BYTES and "," not in str(own):
        return own
    name = hashlib.sha256(os.fsencode(own)).hexdigest()[:12]
    short = Path("/tmp") / f"viewfinder-{name}"
    with contextlib.suppress(FileExistsError):
        short.mkdir(mode=0o700)
        if account is not None:
            os.chown(short, account.uid, account.gid)
    owner = account.uid if account is not None else os.geteuid()
    about = short.lstat()
    if about.st_uid != owner or not short.is_dir() or short.is_symlink():
        raise ServerDidNotStartError(
            f"{short} is needed for the database's socket and belongs to somebody else (uid {about.st_uid}). "
            f"Set VIEWFINDER_DATA to a shorter path."
        )
    return short


@contextlib.contextmanager
def _locked(file: Path, deadline: float) -> Iterator[None]:
    """Only one process at a time starts a server or decides that it need not."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServerDidNotStartError(
                        f"Another process has been starting PostgreSQL for over {START_SECONDS:.0f} s "
                        f"and holds {file}. See postgres.log beside it."
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _lines(cluster: Path) -> list[str]:
    try:
        return (cluster / "postmaster.pid").read_text().split("\n")
    except OSError:
        return []


def _status(cluster: Path) -> str:
    """What the server says of itself: starting, ready, stopping, or nothing yet."""
    lines = _lines(cluster)
    return lines[7].strip() if len(lines) > 7 else ""


def _is_served(cluster: Path) -> bool:
    """Whether the process that its file names serves this cluster. A number alone proves nothing: a
    server works in its cluster's folder."""
    try:
        pid = int(_lines(cluster)[0])
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, ValueError, IndexError):
        return False
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", cluster)
    except OSError:
        return True  # it is just ending, or this system cannot tell


def _answers(own: Path, sockets: Path) -> bool:
    """Whether a server is up and takes connections."""
    if _status(own / "cluster") != "ready":
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(sockets / SOCKET_NAME))
        except OSError:
            return False
    return True


def _end_of(file: Path) -> str:
    try:
        return "\n".join(file.read_text("utf-8", "replace").splitlines()[-12:])
    except OSError:
        return ""
