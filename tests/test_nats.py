"""NATS JetStream, on a real server: each message is kept once, also across a restart."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.adapters.addresses import NOTHING_ALLOWED, allowed
from engine.adapters.nats_jetstream import JetStream, StreamProblem, subject
from engine.adapters.postgres.receivers import new_secret
from engine.domain.offers.delivery import Delivered, Retry, Stop
from engine.domain.sharing.receivers import Letter, Receiver
from tests.streams import nats_server, needs_nats
from tests.test_sharing import subscribed

HERE = allowed(["127.0.0.1"])


def to(url: str, **others: Any) -> JetStream:
    receiver = Receiver(name="bus", url=url, secret=new_secret(), made_at=datetime.now(UTC))
    return JetStream(receiver, others.pop("may", HERE), timeout_seconds=2.0, **others)


def letter(number: int, **others: Any) -> Letter:
    said = {"id": f"m{number}", "topic": "profiles", "key": "007", "body": f'{{"n": {number}}}'.encode()}
    return Letter(**{**said, **others})


def test_subjects_hold_whatever_an_action_is_called() -> None:
    assert subject(letter(1)) == "viewfinder.profiles.007"
    assert subject(letter(1, topic="actions", key="tell.all >*")) == "viewfinder.actions.tell%2Eall%20%3E%2A"


@needs_nats
async def test_a_stream_keeps_each_message_once(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        one = to(server.url)
        assert await one.tell(letter(1), 0.0) == Stop(code="no_stream")
        with pytest.raises(StreamProblem, match="no stream for viewfinder"):
            await one.stream(create=False)
        assert await one.stream(create=True) == await one.stream(create=True) == "VIEWFINDER"
        for number in (1, 2, 1, 2):
            assert await one.tell(letter(number), 0.0) == Delivered()
        server.stop(signal.SIGKILL)
        away = await one.tell(letter(3), 0.0)
        assert isinstance(away, Retry)
        assert away.unwell
        server.start()
        for number in (2, 3):
            assert await one.tell(letter(number), 0.0) == Delivered()
        receiver = msgspec.structs.replace(one.receiver, name="other")
        other = JetStream(receiver, HERE)  # what one was told is news to another
        assert await other.tell(letter(3, body=b'{"n": 4}'), 0.0) == Delivered()
        await other.aclose()
        assert await asyncio.gather(*(one.tell(letter(n), 0.0) for n in range(10, 60))) == [Delivered()] * 50
        await one.aclose()
        kept = [body["n"] for _, _, body in await subscribed(server.url)]
        assert kept[:4] == [1, 2, 3, 4]
        assert sorted(kept[4:]) == list(range(10, 60))


@needs_nats
async def test_who_is_not_let_in(tmp_path: Path) -> None:
    with nats_server(tmp_path / "a") as server:
        refused = to(server.url, may=NOTHING_ALLOWED)
        assert await refused.tell(letter(1), 0.0) == Stop(code="refused_address")
        with pytest.raises(StreamProblem, match="inside"):
            await refused.stream(create=True)
        server.stop()
        server.start("--user", "me", "--pass", "word")
        verdict = await to(server.url).tell(letter(1), 0.0)
        assert isinstance(verdict, Stop | Retry)
        known = to(server.url.replace("//", "//me:word@"))
        await known.stream(create=True)
        assert await known.tell(letter(1), 0.0) == Delivered()
        await known.aclose()
