"""Receivers: the business's other systems, which are told what happens. Rules know them by name only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

Topic = Literal["profiles", "audiences", "decisions", "deliveries"]
TOPICS: tuple[Topic, ...] = ("profiles", "audiences", "decisions", "deliveries")
PREFIX = "receiver:"
"""Before a receiver's name, in the outbox: who an action's rows are for."""


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """One of them. Without `topics` it gets the actions that name it, and nothing else.

    What it is told of people is told for one `purpose`; `without` are labels of traits that it does not
    get though the purpose might read them. The `earlier` secret signs as well until its time is over.
    """

    name: str
    url: str
    topics: tuple[Topic, ...] = ()
    purpose: str | None = None
    without: tuple[str, ...] = ()
    secret: str
    earlier: str | None = None
    earlier_until: datetime | None = None
    made_at: datetime
    disabled_at: datetime | None = None
    disabled_because: str | None = None

    @property
    def kind(self) -> Literal["webhook", "nats"]:
        return "nats" if self.url.startswith("nats:") else "webhook"

    @property
    def provider(self) -> str:
        """What its rows in the outbox are marked with."""
        return PREFIX + self.name

    @property
    def shown_url(self) -> str:
        """The address without a password."""
        parts = urlsplit(self.url)
        if parts.username is None and parts.password is None:
            return self.url
        return parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}").geturl()

    def secrets(self, now: datetime) -> tuple[str, ...]:
        """Those that a message is signed with, the newest first."""
        if self.earlier is None or self.earlier_until is None or self.earlier_until <= now:
            return (self.secret,)
        return (self.secret, self.earlier)

    def __repr__(self) -> str:
        return f"Receiver({self.name!r}, kind={self.kind!r})"


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What one receiver is told once. `id` stays the same however often it is tried; `topic` and `key`
    say where a stream files it."""

    id: str
    topic: str
    key: str
    body: bytes
    attempts: int = 0

    def __repr__(self) -> str:
        return f"Letter({self.id}, topic={self.topic!r})"
