"""Webhooks: signed as Standard Webhooks says, and never to an address of the inside."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import msgspec
import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from engine.adapters.addresses import (
    NOTHING_ALLOWED,
    Allowed,
    RefusedAddress,
    allowed,
    is_outside,
    resolved,
)
from engine.adapters.postgres.receivers import new_secret
from engine.adapters.webhook import Webhook, headers
from engine.domain.offers.delivery import Delivered, Failed, Retry, Stop
from engine.domain.sharing.answers import webhook_verdict
from engine.domain.sharing.receivers import Letter, Receiver
from tests.hooks import Answer, Heard, is_signed_by, receiving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HERE = allowed(["127.0.0.1"])
LETTER = Letter(id="msg_1", topic="actions", key="tell", body=b'{"order": "\xc3\xa97"}')


def a_receiver(url: str, **others: object) -> Receiver:
    return Receiver(name="kitchen", url=url, secret=new_secret(), made_at=NOW, **others)  # type: ignore[arg-type]


# signatures


def test_the_published_vector() -> None:
    made = headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        b'{"test": 2432232314}',
    )
    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_two_secrets_sign_while_one_is_exchanged_for_the_other() -> None:
    old, new = new_secret(), new_secret()
    receiver = a_receiver("https://x.example")
    receiver = msgspec.structs.replace(
        receiver, secret=new, earlier=old, earlier_until=NOW + timedelta(hours=24)
    )
    assert receiver.secrets(NOW) == (new, old)
    assert receiver.secrets(NOW + timedelta(hours=24)) == (new,)
    now = datetime.now(UTC)
    made = headers((new, old), "m", now, b"{}")
    for secret in (old, new):
        Verifier(secret).verify(b"{}", made)
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(b"{}", made)


# answers


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Delivered()),
        (204, Delivered()),
        (299, Delivered()),
        (301, Retry(code="redirected", after=timedelta(seconds=2), unwell=True)),
        (400, Retry(code="http_400", after=timedelta(seconds=2))),
        (401, Retry(code="http_401", after=timedelta(seconds=2), unwell=True)),
        (410, Failed(code="gone")),
        (429, Retry(code="http_429", after=timedelta(seconds=2))),
        (500, Retry(code="http_500", after=timedelta(seconds=2), unwell=True)),
    ],
)
def test_what_an_answer_means(status: int, verdict: object) -> None:
    assert webhook_verdict(status, None, 1, 0.5) == verdict


def test_nothing_before_retry_after() -> None:
    said = webhook_verdict(503, timedelta(seconds=40), 0, 1.0)
    assert isinstance(said, Retry)
    assert said.after == timedelta(seconds=44)


# over a socket


async def test_a_message_is_signed_and_taken() -> None:
    async with receiving() as one:
        receiver = a_receiver(one.url)
        way = Webhook(receiver, HERE)
        assert [await way.tell(LETTER, 0.0) for _ in range(3)] == [Delivered()] * 3
        await way.aclose()
    heard = one.heard[0]
    assert (heard.path, heard.body, heard.id) == ("/hook?for=test", LETTER.body, "msg_1")
    assert heard.headers["content-type"] == "application/json"
    assert is_signed_by(heard, receiver.secret)
    assert not is_signed_by(heard, new_secret())
    Verifier(receiver.secret).verify(heard.body, heard.headers)
    assert one.connections == 1  # kept


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as one, receiving() as inside:
        one.answers = lambda _: Answer(302, f"location: {inside.url}\r\n")
        way = Webhook(a_receiver(one.url), HERE)
        verdict = await way.tell(LETTER, 0.0)
        await way.aclose()
    assert isinstance(verdict, Retry)
    assert verdict.code == "redirected"
    assert not inside.heard


async def test_a_receiver_that_hangs_or_never_stops_talking() -> None:
    async with receiving() as one:
        way = Webhook(a_receiver(one.url), HERE, timeout_seconds=0.3)
        one.answers = lambda _: Answer(delay_seconds=5.0)
        hung = await way.tell(LETTER, 0.0)
        assert isinstance(hung, Retry)
        assert (hung.code, hung.ambiguous, hung.unwell) == ("timeout", True, True)
        one.answers = lambda _: Answer(200, body=b"x" * 5_000_000)
        assert await way.tell(LETTER, 0.0) == Delivered()
        await way.aclose()


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        way = Webhook(a_receiver(f"http://127.0.0.1:{taken.getsockname()[1]}/"), HERE)
        verdict = await way.tell(LETTER, 0.0)
        await way.aclose()
    assert isinstance(verdict, Retry)
    assert (verdict.code, verdict.ambiguous) == ("unreachable", False)


# the inside

INSIDE = [
    *("127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.0.0.8"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1", "fc00::1", "fd12::1"),
    *("fec0::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::"),
    *("2001:db8::1", "2001::1", "100::1", "2002:a9fe:a9fe::"),
]


@pytest.mark.parametrize("text", INSIDE)
def test_what_is_inside(text: str) -> None:
    assert not is_outside(ip_address(text))


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_what_is_outside(text: str) -> None:
    assert is_outside(ip_address(text))


SPELLINGS = [
    *("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0x7f.1", "localhost", "127.0.0.1"),
    *(
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[::]",
        "[64:ff9b::7f00:1]",
    ),
    *("3232235777", "169.254.169.254", "0xa9fea9fe", "[fe80::1%25lo]"),
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_however_it_is_spelt_nothing_goes_inside(host: str) -> None:
    """Abuse case 32, through the whole of the HTTP client, with something listening there."""
    async with receiving() as one:
        way = Webhook(a_receiver(f"https://{host}:{one.port}/"), NOTHING_ALLOWED)
        verdict = await way.tell(LETTER, 0.0)
        await way.aclose()
    if host == "[fe80::1%25lo]":  # not every machine has that link
        assert isinstance(verdict, Stop | Retry)
    else:
        code = "invalid_url" if host == "0177.0.0.1" else "refused_address"
        assert verdict == Stop(code=code, pause=timedelta(seconds=60))
    assert one.connections == 0


async def test_a_name_is_looked_at_by_the_address_that_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that answers with an outer address first and an inner one next (rebinding) is resolved
    once a connection, and exactly what was looked at is connected to."""
    answers = iter([["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "127.0.0.1"]])
    loop = asyncio.get_running_loop()

    async def name_server(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "rebinds.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in next(answers)]

    monkeypatch.setattr(loop, "getaddrinfo", name_server)
    assert await resolved("rebinds.example", 443, NOTHING_ALLOWED) == ["8.8.8.8"]
    for _ in range(2):  # also where one of several is inside
        with pytest.raises(RefusedAddress):
            await resolved("rebinds.example", 443, NOTHING_ALLOWED)


async def test_what_an_operator_allows() -> None:
    may = allowed(["10.2.0.0/16", "127.0.0.1", "crm.example"])
    assert may == Allowed(frozenset({"crm.example"}), may.networks)
    assert may.names_host("CRM.example.")
    assert await resolved("127.0.0.1", 80, may, inside_only=True) == ["127.0.0.1"]
    assert await resolved("::ffff:127.0.0.1", 80, may) == ["::ffff:127.0.0.1"]
    with pytest.raises(RefusedAddress):
        await resolved("127.0.0.2", 80, may)
    with pytest.raises(RefusedAddress):  # unencrypted only where it is allowed by name
        await resolved("8.8.8.8", 80, may, inside_only=True)
    for wrong in ("10.0.0.1/8", "2130706433", "a b", "http://x"):
        with pytest.raises(ValueError, match=r"no address|no host"):
            allowed([wrong])


async def test_no_socket_of_the_machine_itself() -> None:
    verdict = await Webhook(a_receiver("https://192.168.0.1/"), NOTHING_ALLOWED).tell(LETTER, 0.0)
    assert isinstance(verdict, Stop)


def test_nothing_secret_is_shown() -> None:
    receiver = a_receiver("nats://me:secret@stream.example:4222")
    assert "secret" not in repr(receiver).replace("secrets", "")
    assert receiver.secret not in repr(receiver)
    assert receiver.shown_url == "nats://…@stream.example:4222"
    assert "order" not in repr(LETTER) + repr(Heard("/", {}, b"order").path)
