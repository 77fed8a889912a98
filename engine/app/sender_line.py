"""One provider's line: what waits for it, what is on its way to it, and whether it is well."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta
from typing import Protocol

import msgspec

from engine.app.breaker import Breaker
from engine.domain.offers.delivery import Send, Verdict


class Provider(Protocol):
    """An adapter of a push service."""

    async def deliver(self, send: Send, ttl: timedelta, jitter: float) -> Verdict:
        """Sends one push that is worth reading for `ttl`; `jitter` is in [0, 1)."""

    async def aclose(self) -> None:
        """Ends its connections."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How much at once, and how long. A lease must outlast its margin, and the margin a send's
    deadline and the question before it, or a push may go out that another engine has claimed."""

    in_flight: int = 50
    queued: int = 10_000
    claimed: int = 200
    settled: int = 500
    claim_every_seconds: float = 1.0
    lease_seconds: float = 30.0
    lease_margin_seconds: float = 12.0
    permits_seconds: float = 2.0
    deadline_seconds: float = 9.0
    faults_to_open: int = 10
    open_seconds: float = 10.0
    database_pause_seconds: float = 0.5


class Held(msgspec.Struct, frozen=True):
    """A send of ours, until the lease ends (seconds, monotonic)."""

    send: Send
    until: float


class Line:
    """What is on its way to one provider."""

    def __init__(self, provider: str, adapter: Provider, pace: Pace) -> None:
        self.provider = provider
        self.adapter = adapter
        self.queue: deque[Held] = deque()
        self.starting = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.breaker = Breaker(pace.faults_to_open, pace.open_seconds)
        self.changed = asyncio.Event()
        self.loop: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return bool(self.queue or self.starting or self.tasks)
