"""A local server that speaks FCM v1's protocol over a real socket, for the demo and the tests.

It trades the assertion of a service account of its own for an access token as Google does, checks
the message's schema, keeps what it was sent, and misbehaves on demand.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httptools
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.app.demo import fcm_answers
from engine.app.demo.fcm_answers import Behaviour

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
KEPT_MESSAGES = 10_000


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Notification(_Strict):
    title: str | None = None
    body: str | None = None
    image: str | None = None


class _AndroidNotification(_Strict):
    tag: str | None = None


class _Android(_Strict):
    collapse_key: str | None = None
    priority: str | None = None
    ttl: str | None = None
    notification: _AndroidNotification | None = None


class _Apns(_Strict):
    headers: dict[str, str] = {}
    payload: dict[str, Any] = {}


class _Message(_Strict):
    token: str
    notification: _Notification | None = None
    data: dict[str, str] = {}
    android: _Android | None = None
    apns: _Apns | None = None


class _Request(_Strict):
    message: _Message
    validate_only: bool = False


class StandIn:
    """What it was sent, and what it is told to do. One project, one service account."""

    project = "viewfinder-demo"

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._email = f"push@{self.project}.iam.gserviceaccount.com"
        self._granted: dict[str, float] = {}
        self._scripts: dict[str | None, deque[Behaviour]] = {}
        self._always: dict[str | None, Behaviour] = {}
        self._arrived = asyncio.Condition()
        self._hold = asyncio.Event()
        self.url = ""
        self.messages: deque[dict[str, Any]] = deque(maxlen=KEPT_MESSAGES)
        """The messages that reached a phone, in order: `message` as FCM v1 defines it."""
        self.asked = 0
        """How often it was asked to send, whatever became of it."""
        self.exchanges = 0
        """How many access tokens it gave out."""
        self.token_lifetime_seconds = 3600

    @property
    def token_uri(self) -> str:
        return f"{self.url}/token"

    def credentials(self, path: Path) -> Path:
        """Writes the service account's key file, readable by its owner only."""
        path.touch(mode=0o600)
        path.write_bytes(
            msgspec.json.format(
                msgspec.json.encode(
                    {
                        "type": "service_account",
                        "project_id": self.project,
                        "private_key_id": "stand-in",
                        "private_key": self._key.private_bytes(
                            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                        ).decode(),
                        "client_email": self._email,
                        "token_uri": self.token_uri,
                    }
                )
            )
        )
        return path

    def script(self, *behaviours: Behaviour, token: str | None = None) -> None:
        """What to do with the next pushes, one after the other: those to `token`, or any."""
        self._scripts.setdefault(token, deque()).extend(behaviours)

    def always(self, behaviour: Behaviour | None, token: str | None = None) -> None:
        """What to do with every push to `token`, or any, that has no script; None: deliver."""
        if behaviour is None:
            self._always.pop(token, None)
        else:
            self._always[token] = behaviour

    def let_go(self) -> None:
        """Ends the wait of every request that hangs: what was taken is answered so, the rest closed."""
        self._hold.set()
        self._hold = asyncio.Event()

    async def held(self) -> None:
        """Hangs until `let_go`."""
        await self._hold.wait()

    async def arrived(self, count: int, seconds: float = 5.0) -> None:
        """Waits until `count` messages are there.

        Raises:
            TimeoutError: they were not, in that time.
        """
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(self.messages) >= count)

    async def answer(self, method: str, path: str, authorization: str, body: bytes) -> Behaviour:
        """What to do with one request."""
        if method == "POST" and path == "/token":
            return self._trade(body)
        if method == "POST" and path == f"/v1/projects/{self.project}/messages:send":
            return await self._send(authorization, body)
        return Behaviour(
            status=404, body=fcm_answers.status_body(404, "NOT_FOUND", "Requested entity was not found.")
        )

    def _trade(self, body: bytes) -> Behaviour:
        form = {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}
        if form.get("grant_type") != GRANT_TYPE:
            return fcm_answers.oauth_refusal("unsupported_grant_type", "Invalid grant_type")
        try:
            claims = jwt.decode(
                form.get("assertion", ""),
                self._key.public_key(),
                algorithms=["RS256"],
                audience=self.token_uri,
                issuer=self._email,
                options={"require": ["iss", "aud", "iat", "exp", "scope"]},
            )
        except jwt.InvalidTokenError as fault:
            return fcm_answers.oauth_refusal("invalid_grant", f"Invalid JWT: {type(fault).__name__}")
        if claims["exp"] - claims["iat"] > 3600:
            return fcm_answers.oauth_refusal("invalid_grant", "Invalid JWT: must be a short-lived token")
        if SCOPE not in str(claims["scope"]).split():
            return fcm_answers.oauth_refusal("invalid_scope", "Invalid OAuth scope or ID token audience.")
        token = f"ya29.{secrets.token_urlsafe(24)}"
        self._granted[token] = time.monotonic() + self.token_lifetime_seconds
        self.exchanges += 1
        grant = {"access_token": token, "expires_in": self.token_lifetime_seconds, "token_type": "Bearer"}
        return Behaviour(body=msgspec.json.encode(grant))

    async def _send(self, authorization: str, body: bytes) -> Behaviour:
        self.asked += 1
        granted = authorization.removeprefix("Bearer ")
        if self._granted.get(granted, 0.0) < time.monotonic():
            known = granted in self._granted
            return fcm_answers.unauthenticated("ACCESS_TOKEN_EXPIRED" if known else "CREDENTIALS_MISSING")
        try:
            request = msgspec.json.decode(body, type=_Request)
        except msgspec.DecodeError as fault:
            return fcm_answers.invalid_payload("message", str(fault))
        behaviour = _problem(request.message) or self._next(request.message.token)
        if behaviour.way == "revoke":
            self._granted[granted] = 0.0
            return fcm_answers.unauthenticated("ACCESS_TOKEN_EXPIRED")
        if not behaviour.takes:
            return behaviour
        async with self._arrived:
            self.messages.append(msgspec.json.decode(body)["message"])
            self._arrived.notify_all()
        name = f"projects/{self.project}/messages/0:{time.time_ns()}%{secrets.token_hex(8)}"
        return msgspec.structs.replace(behaviour, body=msgspec.json.encode({"name": name}))

    def _next(self, token: str) -> Behaviour:
        for key in (token, None):
            if script := self._scripts.get(key):
                return script.popleft()
        return self._always.get(token) or self._always.get(None) or fcm_answers.DELIVER


def _problem(message: _Message) -> Behaviour | None:
    """What FCM finds wrong with a message whose JSON has the right form."""
    if not message.token:
        return fcm_answers.invalid_payload("message", "Recipient of the message is not set.")
    for key in message.data:
        if key in ("from", "gcm", "message_type") or key.startswith(("google.", "gcm.")):
            return fcm_answers.invalid_payload("message.data", f"Invalid data payload key: {key}")
    content = msgspec.json.encode([message.notification, message.data])
    if len(content) > 4096:
        return fcm_answers.invalid_payload("message", "Android message is too big")
    android = message.android
    if android is not None and android.ttl is not None:
        seconds = android.ttl.removesuffix("s")
        if not android.ttl.endswith("s") or not seconds.isdigit() or int(seconds) > 2_419_200:
            return fcm_answers.invalid_payload("message.android.ttl", "Invalid TTL")
    if android is not None and android.priority not in (None, "NORMAL", "HIGH"):
        return fcm_answers.invalid_payload("message.android.priority", "Invalid value (TYPE_ENUM)")
    return None


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, a request at a time: with its own transport in hand, a server can
    also hang and hang up."""

    def __init__(self, stand_in: StandIn, connections: set[_Connection]) -> None:
        self._stand_in = stand_in
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._url = self._body = b""
        self._authorization = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        for task in self._answers:
            task.cancel()
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._authorization = ""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._authorization = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("ascii")
        path = self._url.decode("latin-1").partition("?")[0]
        task = asyncio.get_running_loop().create_task(
            self._reply(method, path, self._authorization, self._body)
        )
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _reply(self, method: str, path: str, authorization: str, body: bytes) -> None:
        answer = await self._stand_in.answer(method, path, authorization, body)
        if answer.way == "hang":
            await self._stand_in.held()
        if self._transport is None:
            return
        if answer.way == "close" or not answer.body:
            self._transport.abort()
            return
        headers = {"content-type": "application/json; charset=UTF-8", **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"content-length: {len(answer.body)}", "", ""]
        self._transport.write("\r\n".join(lines).encode("latin-1") + answer.body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@asynccontextmanager
async def stand_in(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[StandIn]:
    """Serves FCM's protocol on loopback until the block ends."""
    fcm = StandIn()
    connections: set[_Connection] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(fcm, connections), host, port)
    fcm.url = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield fcm
    finally:
        server.close()
        for connection in list(connections):
            connection.close()
