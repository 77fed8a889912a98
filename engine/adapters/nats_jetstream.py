"""NATS JetStream: one message onto a subject, one acknowledgement back.

A message has its receiver and id as `Nats-Msg-Id`, by which the server drops what it has already within the
stream's window, and two receivers may share a stream. It is told when the server has it, not before. Subjects
are `viewfinder.TOPIC.KEY`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import StreamConfig

from engine.adapters.addresses import Allowed, RefusedAddress, resolved
from engine.domain.offers.delivery import Delivered, Retry, Stop, Verdict, backoff, unreachable
from engine.domain.sharing.receivers import Letter, Receiver

PORT = 4222
PREFIX = "viewfinder"
SUBJECTS = f"{PREFIX}.>"
STREAM = "VIEWFINDER"
TIMEOUT_SECONDS = 5.0
NO_STREAM = "no_stream"


class StreamProblem(Exception):
    """Why nothing can be published there; the message says what to do."""


def subject(letter: Letter) -> str:
    """Where a stream files it. Of a key only what a subject can hold."""
    return f"{PREFIX}.{letter.topic}.{quote(letter.key, safe='').replace('.', '%2E').replace('*', '%2A')}"


class JetStream:
    """A connection to one server, made when it is first wanted and again when it is lost. The address is
    looked at each time, and is the only one that is connected to."""

    def __init__(self, receiver: Receiver, may: Allowed, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Connects nowhere yet."""
        self.receiver = receiver
        self._may = may
        self._timeout_seconds = timeout_seconds
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def tell(self, letter: Letter, jitter: float) -> Verdict:
        """Publishes one message. Never raises for what the other side does; `jitter` is in [0, 1)."""
        attempts = letter.attempts
        try:
            client = await self._connected()
        except RefusedAddress:
            return Stop(code="refused_address")
        except nats.errors.AuthorizationError:
            return Stop(code="not_authorized")
        except (nats.errors.Error, OSError, TimeoutError, ValueError):
            return unreachable("unreachable", attempts, jitter, ambiguous=False)
        try:
            await client.jetstream(timeout=self._timeout_seconds).publish(
                subject(letter), letter.body, headers={"Nats-Msg-Id": f"{self.receiver.name}.{letter.id}"}
            )
        except nats.js.errors.NoStreamResponseError:
            return Stop(code=NO_STREAM)
        except nats.js.errors.APIError as fault:
            unwell = (fault.code or 0) >= 500
            code = f"jetstream_{fault.err_code or fault.code or 'refused'}"
            return Retry(code=code, after=backoff(attempts, jitter), unwell=unwell)
        except nats.errors.MaxPayloadError:
            return Retry(code="too_large", after=backoff(attempts, jitter))
        except (nats.errors.TimeoutError, TimeoutError):
            return unreachable("timeout", attempts, jitter, ambiguous=True)
        except (nats.errors.Error, OSError, ValueError):
            return unreachable("connection_lost", attempts, jitter, ambiguous=True)
        return Delivered()

    async def stream(self, *, create: bool) -> str:
        """The name of the stream that takes our subjects; one is made where there is none and `create`.

        Raises:
            StreamProblem: there is none, or nobody can be asked.
        """
        try:
            client = await self._connected()
            jetstream = client.jetstream(timeout=self._timeout_seconds)
            try:
                return str(await jetstream.find_stream_name_by_subject(f"{PREFIX}.profiles.000"))
            except nats.js.errors.NotFoundError:
                if not create:
                    raise StreamProblem(
                        f"the server has no stream for {SUBJECTS}: make one, or add --create-stream"
                    ) from None
            await jetstream.add_stream(StreamConfig(name=STREAM, subjects=[SUBJECTS]))
            return STREAM
        except RefusedAddress:
            raise StreamProblem("its address is of the inside, which is not allowed") from None
        except nats.js.errors.ServiceUnavailableError:
            raise StreamProblem("JetStream is not enabled on that server") from None
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as fault:
            raise StreamProblem(f"the server does not answer: {type(fault).__name__}") from None

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(nats.errors.Error, OSError, TimeoutError):
                await client.close()

    async def _connected(self) -> Client:
        async with self._connecting:
            client = self._client
            if client is not None and client.is_connected:
                return client
            await self.aclose()
            parts = urlsplit(self.receiver.url)
            host, port = parts.hostname or "", parts.port or PORT
            addresses = await resolved(host, port, self._may)
            login: dict[str, Any] = {"user": parts.username, "password": parts.password}
            if parts.password is None and parts.username is not None:
                login = {"token": parts.username}
            client = Client()
            try:
                # Not the client's own reconnection: it would go to addresses that the server names, and
                # hold back messages whose fate we then would not know.
                await asyncio.wait_for(
                    client.connect(
                        [f"nats://{_bracketed(address)}:{port}" for address in addresses],
                        allow_reconnect=False,
                        connect_timeout=max(1, int(self._timeout_seconds)),
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        tls_hostname=host,
                        error_cb=_nothing,
                        name="viewfinder",
                        **{name: value for name, value in login.items() if value is not None},
                    ),
                    self._timeout_seconds,
                )
            except BaseException:
                with suppress(nats.errors.Error, OSError, TimeoutError):
                    await client.close()
                raise
            self._client = client
            return client


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def _nothing(_: Exception) -> None:
    """What goes wrong is told by whoever publishes."""
