"""How PostgreSQL goes about the statements of a tick when it knows nothing of the tables yet."""

from __future__ import annotations

import re

import asyncpg
import pytest

from engine.adapters.postgres.store import QUERIES, connect


@pytest.mark.parametrize(
    "name",
    [
        "commit",
        "commit_plain",
        "owners",
        "documents",
        "documents_locked",
        "decisions_of_events",
        "shared_messages",
        "erased",
    ],
)
async def test_rows_are_found_by_key_also_while_the_tables_are_empty(postgres_dsn: str, name: str) -> None:
    """A plan is kept: one that reads whole tables, made on an empty database, would be slower with
    every row."""
    store = await connect(postgres_dsn)
    try:
        async with store.pool.acquire() as connection:
            plan = await explained(connection, name)
    finally:
        await store.close()
    assert re.search(r"Index (Only )?Scan|Bitmap Index Scan", plan)
    assert "Seq Scan" not in plan
    assert not re.search(r"Hash (Left |Anti )?Join[^\n]*\n[^\n]*\n[^\n]*Index Scan", plan)


async def explained(connection: asyncpg.Connection, name: str) -> str:
    statement = QUERIES[name]
    numbers = {int(number) for number in re.findall(r"\$(\d+)", statement)}
    await connection.execute(f"PREPARE planned AS {statement.rstrip(';')}")
    lists = {int(number) for number in re.findall(r"\$(\d+)::text::json", statement)}
    empty = ", ".join("'[]'" if n in lists else "'{}'" for n in sorted(numbers))  # arrays else
    rows = await connection.fetch(f"EXPLAIN EXECUTE planned ({empty})")
    return "\n".join(row[0] for row in rows)
