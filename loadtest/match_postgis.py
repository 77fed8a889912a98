"""The same fences and points in PostGIS: Debian's `postgresql-15-postgis-3`, where it is installed.

A PostgreSQL of its own for the time of a run, a GiST index, and `ST_Intersects` on geometries, which is
what STRtree answers, too. All points in one query are the database at its best; point by point with a
prepared statement is how fixes come.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import numpy as np
import shapely
from numpy.typing import NDArray

from engine.adapters.postgres import embedded
from engine.adapters.postgres.cluster import (
    Binaries,
    account_of,
    create_cluster,
    make_data_folder,
    own_folder,
)

BINARIES: Final = Path("/usr/lib/postgresql/15/bin")
LIBRARY: Final = Path("/usr/lib/postgresql/15/lib/postgis-3.so")
SINGLY: Final = 2_000
"""So many points are asked one by one."""
_CHUNK: Final = 10_000
_SRID: Final = 4326
_SETTINGS: Final = ("SET jit = off", "SET max_parallel_workers_per_gather = 0", "SET work_mem = '256MB'")

Points = Sequence[tuple[float, float]]


class Postgis(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds a point: processor time of the database for all `points` in one query; with
    `singly` of them asked one by one that of the database, and what passes until each answer."""

    version: str
    points: int
    found: int
    batch_microseconds: float
    singly: int
    singly_microseconds: float
    singly_wall_microseconds: float


def is_installed() -> bool:
    return LIBRARY.is_file() and (BINARIES / "postgres").is_file()


def measure(geometries: NDArray[np.object_], points: Points) -> Postgis | None:
    """PostGIS on shapes and points (latitude, longitude); None where it is not installed.

    Raises:
        EmbeddedPostgresError: it is there and does not start.
    """
    if not is_installed():
        return None
    # Below /tmp itself: the server runs as another account where we are root.
    with tempfile.TemporaryDirectory(prefix="postgis-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        root.chmod(0o711)
        folder = make_data_folder(root / "data")
        folder.chmod(0o711)
        account = account_of(folder)
        own = own_folder(folder, account, root / "elsewhere")
        create_cluster(own, Binaries(BINARIES, 15, "15"), account, durable=False)
        server = embedded.start(folder, durable=False, elsewhere=root / "elsewhere")
        try:
            # The extension needs a superuser.
            dsn = server.dsn.replace("viewfinder@", "postgres@", 1)
            return asyncio.run(_measured(dsn, geometries, points))
        finally:
            server.stop()


async def _measured(dsn: str, geometries: NDArray[np.object_], points: Points) -> Postgis:
    connection = await asyncpg.connect(dsn, timeout=60)
    try:
        await connection.execute("CREATE EXTENSION postgis")
        version = await connection.fetchval("SELECT postgis_lib_version()")
        await connection.execute(f"CREATE TABLE fences (shape geometry(Polygon, {_SRID}))")
        await connection.copy_to_table("fences", source=_rows(geometries), format="text")
        await connection.execute("CREATE INDEX ON fences USING gist (shape)")
        await connection.execute("VACUUM ANALYZE fences")
        for setting in _SETTINGS:
            await connection.execute(setting)
        pid = connection.get_server_pid()
        together = await connection.prepare(
            "SELECT count(*) FROM unnest($1::float8[], $2::float8[]) AS point (latitude, longitude)"
            f" JOIN fences ON ST_Intersects(shape, ST_Point(longitude, latitude, {_SRID}))"
        )
        alone = await connection.prepare(
            f"SELECT count(*) FROM fences WHERE ST_Intersects(shape, ST_Point($2, $1, {_SRID}))"
        )
        columns = [point[0] for point in points], [point[1] for point in points]
        await together.fetchval(*columns)  # once to have it all in memory
        spent = _processor_seconds(pid)
        found = await together.fetchval(*columns)
        batch = _processor_seconds(pid) - spent
        some = points[:SINGLY]
        started, spent = time.perf_counter(), _processor_seconds(pid)
        for point in some:
            await alone.fetchval(*point)
        passed, spent = time.perf_counter() - started, _processor_seconds(pid) - spent
    finally:
        await connection.close()
    return Postgis(
        version=version,
        points=len(points),
        found=found,
        batch_microseconds=batch / len(points) * 1e6,
        singly=len(some),
        singly_microseconds=spent / len(some) * 1e6,
        singly_wall_microseconds=passed / len(some) * 1e6,
    )


async def _rows(geometries: NDArray[np.object_]) -> AsyncIterator[bytes]:
    """Rows of COPY: a geometry is written as its hexadecimal EWKB."""
    for start in range(0, len(geometries), _CHUNK):
        some = shapely.set_srid(geometries[start : start + _CHUNK], _SRID)
        yield ("\n".join(shapely.to_wkb(some, hex=True, include_srid=True)) + "\n").encode()


def _processor_seconds(pid: int) -> float:
    """What a process has used of the processor so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
