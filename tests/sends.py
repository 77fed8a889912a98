"""Sends for tests, in memory and as rows of the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from engine.domain.offers.decisions import decision_id
from engine.domain.offers.delivery import Push, Send

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""The pipeline's clock: far from the database's on purpose."""
TOKEN = "fcm-token-of-a-phone"
LEASE = "11111111-1111-4111-8111-111111111111"


def a_send(number: int = 0, *, token: str = TOKEN, provider: str = "fcm", lease: str = LEASE) -> Send:
    """The n-th send; each has its own id."""
    profile = str(UUID(int=number + 1))
    identifier = decision_id(profile, 0, number, 0, NOW)
    return Send(
        bucket=0,
        id=identifier,
        profile_id=profile,
        provider=provider,
        purpose="marketing",
        payload=Push(
            device_id="phone-1",
            token=token,
            title="Latte?",
            body="On the house.",
            data={"decision": identifier, "offer": "latte", "rule": "near"},
            collapse_key=identifier,
        ),
        expires_at=NOW + timedelta(minutes=10),
        attempts=0,
        lease=lease,
    )


async def commit(pool: asyncpg.Pool, sends: Sequence[Send], lease_seconds: float = 30.0) -> None:
    """What a tick's commit does for its sends; no lease where the send has none."""
    await pool.executemany(
        """INSERT INTO outbox (bucket, id, profile_id, provider, purpose, payload, expires_at, attempts,
                               lease, leased_until)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,
                   CASE WHEN $9::uuid IS NOT NULL THEN now() + $10::interval END)""",
        [
            (
                send.bucket,
                send.id,
                send.profile_id,
                send.provider,
                send.purpose,
                msgspec.json.encode(send.payload).decode(),
                send.expires_at,
                send.attempts,
                send.lease or None,
                timedelta(seconds=lease_seconds),
            )
            for send in sends
        ],
    )
