"""The receivers of this engine: those of the table, each with its way out, as they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
import structlog

from engine.adapters.addresses import Allowed
from engine.adapters.nats_jetstream import JetStream
from engine.adapters.postgres import receivers as stored
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.store import Pool
from engine.adapters.webhook import Webhook
from engine.app.clock import Clock
from engine.app.sender import Sender
from engine.app.sharing import Sharing
from engine.domain.offers.delivery import Call, Failed, Send, Verdict
from engine.domain.offers.rules import RuleSet
from engine.domain.sharing.answers import GONE
from engine.domain.sharing.readers import Reader, Told
from engine.domain.sharing.receivers import Letter, Receiver
from engine.formats.workspace_sharing import readable

log = structlog.get_logger()
_json = msgspec.json.Encoder().encode


class Way(Protocol):
    """An adapter of a kind of receiver."""

    receiver: Receiver

    async def tell(self, letter: Letter, jitter: float) -> Verdict:
        """Sends one message; `jitter` is in [0, 1)."""

    async def aclose(self) -> None:
        """Ends its connections."""


def way_to(receiver: Receiver, may: Allowed) -> Way:
    """The way out to a receiver."""
    return JetStream(receiver, may) if receiver.kind == "nats" else Webhook(receiver, may)


def letter_of(send: Send) -> Letter:
    """An action's call. The body is exactly what the rule's author wrote."""
    call = send.payload
    assert isinstance(call, Call)
    return Letter(id=send.id, topic="actions", key=call.action, body=_json(call.body), attempts=send.attempts)


class Recipient:
    """A receiver as the outbox's sender sees it. `gone` is called when it says that it wants nothing
    more."""

    def __init__(self, way: Way, gone: Callable[[str], None]) -> None:
        self.way = way
        self._gone = gone

    async def deliver(self, send: Send, ttl: timedelta, jitter: float) -> Verdict:
        return await self.tell(letter_of(send), jitter)

    async def tell(self, letter: Letter, jitter: float) -> Verdict:
        verdict = await self.way.tell(letter, jitter)
        if isinstance(verdict, Failed) and verdict.code == GONE:
            self._gone(self.way.receiver.name)
        return verdict

    async def aclose(self) -> None:
        await self.way.aclose()


class Receivers:
    """Follows the table. `look` when told, and now and then. All of them are told of actions by `sender`,
    those with topics also of people by `sharing`, each by a way of its own."""

    def __init__(
        self,
        pool: Pool,
        sender: Sender,
        sharing: Sharing,
        may: Allowed,
        clock: Clock,
        known: Callable[[frozenset[str]], None],
    ) -> None:
        """`known` is told the providers that this engine sends to, whenever they change."""
        self._pool = pool
        self._sender = sender
        self._sharing = sharing
        self._may = may
        self._clock = clock
        self._known = known
        self._ways: dict[str, list[Way]] = {}
        self._told: tuple[RuleSet, Told | None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.all: dict[str, Receiver] = {}
        """By name, also those that are disabled."""

    async def look(self) -> None:
        """Brings the ways out to what the table says."""
        found = {receiver.name: receiver for receiver in await stored.all_of(self._pool)}
        if found == self.all:
            return
        self.all, self._told = found, None
        wanted = {name: one for name, one in found.items() if one.disabled_at is None}
        for name, ways in list(self._ways.items()):
            receiver, known = wanted.get(name), ways[0].receiver
            if receiver is not None and (receiver.url, receiver.topics) == (known.url, known.topics):
                for way in ways:
                    way.receiver = receiver  # its secret may be another
                continue
            del self._ways[name]
            self._sender.close(known.provider)
            if known.topics:
                self._sharing.close(name)
        for name in wanted.keys() - self._ways.keys():
            self._open(wanted[name])
        self._known(frozenset(wanted[name].provider for name in self._ways))

    def _open(self, receiver: Receiver) -> None:
        ways = self._ways[receiver.name] = [way_to(receiver, self._may)]
        self._sender.open(receiver.provider, Recipient(ways[0], self._disable))
        if receiver.topics:
            ways.append(way_to(receiver, self._may))
            self._sharing.open(receiver.name, Recipient(ways[1], self._disable))

    def told(self, rules: RuleSet) -> Told | None:
        """Who is told what of people by these rules; None where nobody is told anything."""
        if self._told is None or self._told[0] is not rules:
            self._told = (rules, _told(self.all.values(), rules))
        return self._told[1]

    def _disable(self, name: str) -> None:
        task = asyncio.create_task(self._gone(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _gone(self, name: str) -> None:
        log.warning("receiver_gone", receiver=name)
        try:
            await stored.disable(self._pool, name, "it answered 410 Gone", self._clock())
            await self.look()
        except StoreError as fault:
            log.warning("receiver_not_disabled", receiver=name, fault=type(fault).__name__)


def _told(receivers: Iterable[Receiver], rules: RuleSet) -> Told | None:
    readers = []
    for one in receivers:
        if not one.topics or one.disabled_at is not None:
            continue
        purpose = rules.workspace.purposes.get(one.purpose or "")
        if purpose is None:
            log.warning("receiver_without_purpose", receiver=one.name, purpose=one.purpose)
            continue
        may = readable(rules, purpose.name, one.without)
        readers.append(Reader(receiver=one.name, topics=frozenset(one.topics), purpose=purpose, may=may))
    if not readers:
        return None
    topics = frozenset(topic for reader in readers for topic in reader.topics)
    return Told(readers=tuple(readers), topics=topics, workspace=rules.workspace)


def trial(message_id: str, now: datetime) -> Letter:
    """A message that says nothing but that messages arrive."""
    body = _json({"type": "test", "id": message_id, "at": now})
    return Letter(id=message_id, topic="test", key="test", body=body)
