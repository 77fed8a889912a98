"""The FCM adapter against a server that speaks FCM v1's protocol, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path

import httpx
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.adapters.fcm import CredentialsProblem, Fcm, message, read_answer, read_credentials
from engine.adapters.fcm_credentials import GRANT_TYPE, SCOPE
from engine.app.demo import fcm_answers
from engine.app.demo.fcm_answers import Behaviour
from engine.app.demo.fcm_stand_in import StandIn, stand_in
from engine.domain.offers.delivery import Delivered, Failed, Push, Retry, Stop, Verdict
from tests.sends import TOKEN, a_send

SEND = a_send()
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def fcm() -> AsyncIterator[StandIn]:
    async with stand_in() as server:
        yield server


@asynccontextmanager
async def client(server: StandIn, tmp_path: Path, timeout_seconds: float = 2.0) -> AsyncIterator[Fcm]:
    account = read_credentials(server.credentials(tmp_path / "account.json"))
    adapter = Fcm(account, url=server.url, timeout_seconds=timeout_seconds)
    try:
        yield adapter
    finally:
        await adapter.aclose()


async def test_a_push_arrives_whole(fcm: StandIn, tmp_path: Path) -> None:
    rich = msgspec.structs.replace(
        SEND,
        payload=msgspec.structs.replace(SEND.payload, deeplink="app://latte", image="https://x.test/i.png"),
    )
    async with client(fcm, tmp_path) as adapter:
        before = int(time.time())
        assert await adapter.deliver(rich, timedelta(seconds=123.9), 0.0) == Delivered()
    (arrived,) = fcm.messages
    expiration = int(arrived["apns"]["headers"].pop("apns-expiration"))
    assert before + 123 <= expiration <= time.time() + 123
    assert arrived == {
        "token": TOKEN,
        "notification": {"title": "Latte?", "body": "On the house.", "image": "https://x.test/i.png"},
        "data": {"decision": SEND.id, "offer": "latte", "rule": "near", "deeplink": "app://latte"},
        "android": {
            "ttl": "123s",
            "collapse_key": SEND.id,
            "priority": "HIGH",
            "notification": {"tag": SEND.id},
        },
        "apns": {"headers": {"apns-collapse-id": SEND.id, "apns-priority": "10"}},
    }


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (fcm_answers.UNREGISTERED, Failed(code="UNREGISTERED", forget_token=True)),
        (fcm_answers.INVALID_TOKEN, Failed(code="INVALID_ARGUMENT", forget_token=True)),
        (fcm_answers.INVALID_TOKEN_FIELD, Failed(code="INVALID_ARGUMENT", forget_token=True)),
        (
            fcm_answers.invalid_payload("message.data[0].value", "Invalid value"),
            Failed(code="INVALID_ARGUMENT"),
        ),
        (fcm_answers.SENDER_ID_MISMATCH, Stop(code="SENDER_ID_MISMATCH")),
        (
            fcm_answers.quota_exceeded(23),
            Retry(code="QUOTA_EXCEEDED", after=timedelta(seconds=23)),
        ),
        (
            fcm_answers.UNAVAILABLE,
            Retry(code="UNAVAILABLE", after=timedelta(seconds=0.5), unwell=True),
        ),
        (fcm_answers.INTERNAL, Retry(code="INTERNAL", after=timedelta(seconds=0.5), unwell=True)),
        (fcm_answers.HTML_502, Retry(code="http_502", after=timedelta(seconds=0.5), unwell=True)),
        (
            fcm_answers.CLOSE,
            Retry(code="connection_lost", after=timedelta(seconds=0.5), unwell=True, ambiguous=True),
        ),
        (
            Behaviour(body=b"<html>Please log in to this network</html>"),
            Retry(code="not_fcm", after=timedelta(seconds=0.5), unwell=True, ambiguous=True),
        ),
    ],
    ids=lambda value: "" if isinstance(value, Behaviour) else repr(value),
)
async def test_what_fcm_answers_becomes_a_verdict(
    fcm: StandIn, tmp_path: Path, behaviour: Behaviour, expected: Verdict
) -> None:
    fcm.script(behaviour, token=TOKEN)
    async with client(fcm, tmp_path) as adapter:
        assert await adapter.deliver(SEND, MINUTE, 0.0) == expected
        assert not fcm.messages
        assert await adapter.deliver(SEND, MINUTE, 0.0) == Delivered()


async def test_an_http_date_in_retry_after_is_honoured(fcm: StandIn, tmp_path: Path) -> None:
    fcm.script(fcm_answers.quota_exceeded(formatdate(time.time() + 40, usegmt=True)))
    async with client(fcm, tmp_path) as adapter:
        verdict = await adapter.deliver(SEND, MINUTE, 0.0)
    assert isinstance(verdict, Retry)
    assert timedelta(seconds=37) < verdict.after <= timedelta(seconds=41)


async def test_a_provider_that_hangs_is_given_up(fcm: StandIn, tmp_path: Path) -> None:
    fcm.script(fcm_answers.HANG)
    async with client(fcm, tmp_path, timeout_seconds=0.1) as adapter:
        verdict = await adapter.deliver(SEND, MINUTE, 0.0)
    assert verdict == Retry(code="timeout", after=timedelta(seconds=0.5), unwell=True, ambiguous=True)


async def test_a_provider_that_is_not_there_took_nothing(fcm: StandIn, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    account = read_credentials(fcm.credentials(tmp_path / "account.json"))
    adapter = Fcm(msgspec.structs.replace(account, token_uri=f"http://127.0.0.1:{port}/token"), url=fcm.url)
    verdict = await adapter.deliver(SEND, MINUTE, 0.0)
    await adapter.aclose()
    assert verdict == Retry(code="unreachable", after=timedelta(seconds=0.5), unwell=True)


async def test_many_pushes_share_one_token_exchange(fcm: StandIn, tmp_path: Path) -> None:
    async with client(fcm, tmp_path) as adapter:
        verdicts = await asyncio.gather(*(adapter.deliver(SEND, MINUTE, 0.0) for _ in range(60)))
    assert set(map(type, verdicts)) == {Delivered}
    assert (fcm.exchanges, len(fcm.messages)) == (1, 60)


async def test_who_gives_up_waiting_for_a_token_does_not_take_it_from_the_others(
    fcm: StandIn, tmp_path: Path
) -> None:
    async with client(fcm, tmp_path) as adapter:
        hasty, patient = (asyncio.create_task(adapter.deliver(SEND, MINUTE, 0.0)) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        hasty.cancel()
        assert await patient == Delivered()
    assert (fcm.exchanges, len(fcm.messages)) == (1, 1)


async def test_a_token_is_renewed_before_it_ends(fcm: StandIn, tmp_path: Path) -> None:
    fcm.token_lifetime_seconds = 0
    async with client(fcm, tmp_path) as adapter:
        await adapter.deliver(SEND, MINUTE, 0.0)
        exchanges = fcm.exchanges
        fcm.token_lifetime_seconds = 3600
        await adapter.deliver(SEND, MINUTE, 0.0)
        await adapter.deliver(SEND, MINUTE, 0.0)
    assert fcm.exchanges == exchanges + 1
    assert len(fcm.messages) == 2


async def test_an_expired_access_token_is_renewed_and_the_push_still_goes_out(
    fcm: StandIn, tmp_path: Path
) -> None:
    async with client(fcm, tmp_path) as adapter:
        await adapter.deliver(SEND, MINUTE, 0.0)
        fcm.script(fcm_answers.EXPIRED_ACCESS_TOKEN)
        assert await adapter.deliver(SEND, MINUTE, 0.0) == Delivered()
    assert (fcm.exchanges, len(fcm.messages)) == (2, 2)


async def test_a_second_refusal_of_a_fresh_token_stops(fcm: StandIn, tmp_path: Path) -> None:
    fcm.always(fcm_answers.THIRD_PARTY_AUTH_ERROR)
    async with client(fcm, tmp_path) as adapter:
        assert await adapter.deliver(SEND, MINUTE, 0.0) == Stop(code="THIRD_PARTY_AUTH_ERROR")
    assert (fcm.asked, fcm.exchanges) == (2, 2)


async def test_the_key_of_somebody_else_gets_no_token(fcm: StandIn, tmp_path: Path) -> None:
    account = read_credentials(fcm.credentials(tmp_path / "account.json"))
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    adapter = Fcm(msgspec.structs.replace(account, private_key=stranger), url=fcm.url)
    assert await adapter.deliver(SEND, MINUTE, 0.0) == Stop(code="oauth_invalid_grant")
    await adapter.aclose()
    assert fcm.asked == 0


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"aud": "https://elsewhere.test/token"}, "invalid_grant"),
        ({"iat": 1_000_000, "exp": 1_003_600}, "invalid_grant"),
        ({"exp": 9_999_999_999}, "invalid_grant"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"),
    ],
)
async def test_the_stand_in_checks_the_assertion(
    fcm: StandIn, tmp_path: Path, claims: dict[str, object], error: str
) -> None:
    account = read_credentials(fcm.credentials(tmp_path / "account.json"))
    issued = int(time.time())
    good = {
        "iss": account.client_email,
        "aud": account.token_uri,
        "scope": SCOPE,
        "iat": issued,
        "exp": issued + 3600,
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        for changed, status in ((claims, 400), ({}, 200)):
            assertion = jwt.encode({**good, **changed}, account.private_key, algorithm="RS256")
            response = await http.post(
                account.token_uri, data={"grant_type": GRANT_TYPE, "assertion": assertion}
            )
            assert response.status_code == status
            if status == 400:
                assert response.json()["error"] == error


async def test_the_stand_in_refuses_what_fcm_refuses(fcm: StandIn, tmp_path: Path) -> None:
    good = SEND.payload
    async with client(fcm, tmp_path) as adapter:
        for payload in (
            msgspec.structs.replace(good, data={"from": "us"}),
            msgspec.structs.replace(good, body="x" * 5000),
            msgspec.structs.replace(good, token=""),
        ):
            verdict = await adapter.deliver(msgspec.structs.replace(SEND, payload=payload), MINUTE, 0.0)
            assert verdict == Failed(code="INVALID_ARGUMENT")
    assert not fcm.messages


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b'{"error": "nope"}',
        b'{"error": {"details": {"a": 1}, "status": 5}}',
        b'{"error": {"details": [null, {"@type": []}], "status": "x y\\r\\n"}}',
        b'\xff\xfe{"error": {}}',
    ],
)
def test_no_body_is_a_crash(body: bytes) -> None:
    assert read_answer(503, body).code is None


def test_a_push_that_ran_out_has_no_negative_ttl() -> None:
    push = Push(device_id="p", token="t", title="", body="", data={}, collapse_key="c")
    assert message(push, timedelta(seconds=-5), 1000.0)["android"]["ttl"] == "0s"
    assert message(push, timedelta(days=90), 1000.0)["android"]["ttl"] == "2419200s"


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"client_email": None}, "client_email"),
        ({"project_id": "a/../b"}, "project_id"),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, "token_uri"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LW1hdGVyaWFs\n"}, "private_key"),
        ({"private_key": _pem(ec.generate_private_key(ec.SECP256R1()))}, "private_key"),
        ({"type": "authorized_user"}, "type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_credentials_file_is_named_by_its_field_without_its_secrets(
    fcm: StandIn, tmp_path: Path, change: dict[str, str | None], field: str
) -> None:
    path = fcm.credentials(tmp_path / "account.json")
    content = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**content, **change}))
    with pytest.raises(CredentialsProblem, match=f"`{field}`") as caught:
        read_credentials(path)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_or_broken_credentials_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CredentialsProblem, match="No such file"):
        read_credentials(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("-----BEGIN")
    with pytest.raises(CredentialsProblem, match="not JSON"):
        read_credentials(broken)


async def test_the_access_token_never_travels_in_the_clear(fcm: StandIn, tmp_path: Path) -> None:
    account = read_credentials(fcm.credentials(tmp_path / "account.json"))
    with pytest.raises(CredentialsProblem, match="VIEWFINDER_FCM_URL"):
        Fcm(account, url="http://fcm.googleapis.com")
    assert "PRIVATE" not in repr(account)
