"""The tick's two meetings with PostgreSQL: load, and commit in one statement.

SQL stands in queries.sql, by name. Everything here is columns in, values out; what a commit means
is decided by the caller.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

import asyncpg
import msgspec

from engine.adapters.postgres.faults import Conflict, Unavailable, faults
from engine.adapters.postgres.rows import ChangeRow, Commit, Shared
from engine.domain.offers.pauses import NOTHING_HELD, Held
from engine.domain.people.events import Event
from engine.domain.people.profiles import (
    IdentityKey,
    Profile,
    bucket_of,
    decode_profile,
    identity_bucket,
)

COMMAND_TIMEOUT_SECONDS = 15.0


def named_queries(text: str) -> dict[str, str]:
    """The statements of a file in which `-- name: NAME` starts each."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


CHANGES = named_queries(resources.files(__package__).joinpath("changes.sql").read_text("utf-8"))
QUERIES = named_queries(resources.files(__package__).joinpath("queries.sql").read_text("utf-8"))
QUERIES["commit_plain"] = re.sub(
    r"^ *-- rest\n.*?^ *-- end\n", "", QUERIES["commit"], flags=re.MULTILINE | re.DOTALL
)


class Hit(msgspec.Struct, frozen=True):
    """A message that the profile has already: its number in the profile's log."""

    unit: int
    profile_id: str
    sender: str
    message_id: str
    seq: int


class Lost(msgspec.Struct, frozen=True):
    """What a commit did not write: units with messages seen before, and units that lost."""

    units: frozenset[int]
    hits: tuple[Hit, ...]


class DueTimer(msgspec.Struct, frozen=True):
    bucket: int
    profile_id: str
    id: str
    due_at: datetime
    event: bytes

    def __repr__(self) -> str:
        return f"DueTimer({self.id!r})"


_json = msgspec.json.Encoder().encode
_event = msgspec.json.Decoder(Event).decode


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> Iterable[Sequence[Any]]:
    return zip(*rows, strict=True) if rows else ((),) * width


def _recordset(rows: Sequence[msgspec.Struct]) -> str:
    """Rows as PostgreSQL's json_to_recordset takes them. Most ticks have no rows of most kinds: of the
    driver's arrays even the empty ones cost some microseconds each."""
    return _json(rows).decode() if rows else "[]"


class Session:
    """One connection's view of the store. `locked` loads profiles FOR UPDATE: only inside
    `Store.exclusive`."""

    def __init__(self, connection: asyncpg.Connection, *, locked: bool = False) -> None:
        self._connection = connection
        self._documents = QUERIES["documents_locked" if locked else "documents"]

    async def owners(self, keys: Sequence[IdentityKey]) -> dict[IdentityKey, str]:
        """Which profile the index names for each key; keys that it does not know are left out."""
        rows = await self._fetch(
            QUERIES["owners"],
            [identity_bucket(key) for key in keys],
            [key[0] for key in keys],
            [key[1] for key in keys],
        )
        return {(row[0], row[1]): str(row[2]) for row in rows}

    async def profiles(self, ids: Sequence[str]) -> list[tuple[Profile, bytes]]:
        """The stored profiles among `ids`, each with its encoded document."""
        ordered = sorted(ids)
        rows = await self._fetch(self._documents, [bucket_of(i) for i in ordered], ordered)
        return [(msgspec.structs.replace(decode_profile(row[1]), version=row[0]), row[1]) for row in rows]

    async def erased(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Which of some hashed identities were erased."""
        return [bytes(row[0]) for row in await self._fetch(QUERIES["erased"], list(hashes))]

    async def shared(self, pairs: Sequence[tuple[str, str]]) -> list[Shared]:
        """The messages that both profiles of a pair have, the shorter one first."""
        rows = await self._fetch(QUERIES["shared_messages"], [a for a, _ in pairs], [b for _, b in pairs])
        events = [[_event(body) if body is not None else None for body in row[4:6]] for row in rows]
        return [
            Shared(str(row[0]), str(row[1]), row[2], row[3], *copies)
            for row, copies in zip(rows, events, strict=True)
        ]

    async def standing(self, ids: Sequence[str]) -> dict[str, Profile]:
        """By each of `ids` the profile that stands for it now: its own, or the one that it became
        part of."""
        found = {profile.id: profile for profile, _ in await self.profiles(ids)}
        heirs = {i: p.ended.into for i, p in found.items() if p.ended is not None}
        if heirs:
            further = await self.standing(sorted(set(heirs.values())))
            found |= {i: further[heir] for i, heir in heirs.items() if heir in further}
        return found

    async def commit(self, commit: Commit) -> Lost:
        """Writes the tick, and where receivers are told of it what they are told.

        Raises:
            Conflict: nothing was written; decide everything again.
            Unavailable: the connection was lost; what was written is not known.
        """
        if not commit.changes:
            return await self._commit(commit)
        with faults():
            async with self._connection.transaction():
                lost = await self._commit(commit)
                told = [change for change in commit.changes if change.unit not in lost.units]
                if told:
                    await put_changes(self._connection, told)
        return lost

    async def _commit(self, commit: Commit) -> Lost:
        plain = *_columns(commit.profiles, 6), _recordset(commit.events), _recordset(commit.decisions)
        if commit.is_plain:
            return _lost(await self._fetch(QUERIES["commit_plain"], *plain))
        rows = await self._fetch(
            QUERIES["commit"],
            *plain,
            _recordset(commit.sends),
            _recordset(commit.links),
            _recordset(commit.probes),
            _recordset(commit.timers_done),
            _recordset(commit.timers_set),
            _recordset(commit.members),
        )
        return _lost(rows)

    async def decisions_of_events(
        self, events: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], list[bytes]]:
        """The stored decisions (JSON) of events named by profile and number."""
        rows = await self._fetch(
            QUERIES["decisions_of_events"],
            [bucket_of(profile) for profile, _ in events],
            [profile for profile, _ in events],
            [seq for _, seq in events],
        )
        found: dict[tuple[str, int], list[bytes]] = {}
        for row in rows:
            found.setdefault((str(row[0]), row[1]), []).append(row[2].encode())
        return found

    async def _fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        with faults():
            return await self._connection.fetch(sql, *arguments)  # type: ignore[no-any-return]


def _lost(rows: Sequence[asyncpg.Record]) -> Lost:
    return Lost(
        frozenset([row[0] for row in rows]),
        tuple([Hit(row[0], str(row[1]), row[2], row[3], row[4]) for row in rows if row[1] is not None]),
    )


async def put_changes(connection: asyncpg.Connection, rows: Sequence[ChangeRow]) -> None:
    """Keeps what receivers are told, in the transaction of what it tells of."""
    await connection.execute(CHANGES["put"], _json(rows).decode())


class Kept:
    """A connection that stays with its owner from one `async with` to the next, which spares the
    pool's turns. One that fails is given up, and the next one is new."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._connection: Any = None
        self._session: Session | None = None

    async def __aenter__(self) -> Session:
        if self._session is None or self._is_lost():
            await self.close()
            with faults():
                self._connection = await self._pool.acquire(timeout=COMMAND_TIMEOUT_SECONDS)
            self._session = Session(self._connection)
        return self._session

    def _is_lost(self) -> bool:
        try:
            return bool(self._connection.is_closed())
        except asyncpg.InterfaceError:  # the pool took it back when the server cut it
            return True

    async def __aexit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: Any) -> None:
        if isinstance(fault, Unavailable):
            await self._pool.expire_connections()
        if fault is not None and not isinstance(fault, Conflict):
            await self.close()

    async def close(self) -> None:
        """Gives the connection back."""
        connection, self._connection, self._session = self._connection, None, None
        if connection is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await self._pool.release(connection, timeout=COMMAND_TIMEOUT_SECONDS)


class Pool:
    """asyncpg's, as far as it is used, with its faults as ours."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        with faults():
            return await self._pool.fetch(sql, *arguments)  # type: ignore[no-any-return]

    async def fetchrow(self, sql: str, *arguments: Any) -> asyncpg.Record | None:
        with faults():
            return await self._pool.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        with faults():
            return await self._pool.fetchval(sql, *arguments)

    async def execute(self, sql: str, *arguments: Any) -> str:
        with faults():
            return str(await self._pool.execute(sql, *arguments))

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        with faults():
            async with self._pool.acquire(timeout=COMMAND_TIMEOUT_SECONDS) as connection:
                yield connection


class Store:
    """A pool of connections. Stale ones are thrown away by the pool when they fail."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """For statements beside the tick's."""
        return Pool(self._pool)

    async def close(self) -> None:
        """Ends all connections; those that the server has cut meanwhile are gone anyway."""
        try:
            await self._pool.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self._pool.terminate()

    @asynccontextmanager
    async def _trusted(self) -> AsyncIterator[None]:
        """One connection that fails puts all in doubt: each is made anew when it is next wanted."""
        try:
            with faults():
                yield
        except Unavailable:
            await self._pool.expire_connections()
            raise

    def kept(self) -> Kept:
        """A session for somebody who needs one all the time."""
        return Kept(self._pool)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        async with self._trusted(), self._pool.acquire(timeout=COMMAND_TIMEOUT_SECONDS) as connection:
            yield Session(connection)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[Session]:
        """A transaction in which loaded profiles stay locked: for a profile that lost twice."""
        async with (
            self._trusted(),
            self._pool.acquire(timeout=COMMAND_TIMEOUT_SECONDS) as connection,
            connection.transaction(),
        ):
            yield Session(connection, locked=True)

    async def fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a named statement."""
        async with self._trusted():
            return await self._pool.fetch(QUERIES[name], *arguments)  # type: ignore[no-any-return]

    async def secret(self, proposed: bytes) -> bytes:
        """The key that profile ids derive from: the first engine's proposal stands for all."""
        await self.fetch("secret", proposed)
        (row,) = await self.fetch("read_secret")
        return bytes(row[0])

    async def claim_timers(
        self,
        now: datetime,
        limit: int,
        lease: timedelta,
        *,
        paced: bool = False,
        held: Held = NOTHING_HELD,
    ) -> list[DueTimer]:
        """Due timers, leased to this engine: the paced ones, or the others, without the offers put off
        that are `held`. A timer comes again if its event is not committed."""
        rows = await self.fetch("claim_timers", now, limit, lease, paced, held.everything, held.rules)
        due = [DueTimer(r[0], str(r[1]), r[2], r[3], r[4].encode()) for r in rows]
        return sorted(due, key=lambda timer: timer.due_at)


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """No statement of ours leaves anything behind on a connection: asking would cost each tick a
    round trip."""


async def connect(dsn: str, *, size: int = 8) -> Store:
    """Opens the pool.

    Raises:
        Unavailable: no PostgreSQL answers at `dsn`.
    """
    with faults():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            command_timeout=COMMAND_TIMEOUT_SECONDS,
            timeout=COMMAND_TIMEOUT_SECONDS,
            reset=_nothing_to_reset,
            server_settings={
                "application_name": "viewfinder",
                "jit": "off",
                # The commit is planned once: planning it costs more than running it.
                "plan_cache_mode": "force_generic_plan",
                # Every statement finds its rows by key, also while the planner believes that there
                # are hardly any.
                "enable_seqscan": "off",
                "timezone": "UTC",
            },
        )
    return Store(pool)
