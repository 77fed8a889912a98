"""Webhooks by the Standard Webhooks specification: one signed message out, one verdict back.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx
from standardwebhooks import Webhook as Signer

from engine.adapters.addresses import Allowed, RefusedAddress
from engine.adapters.fcm_credentials import retry_after
from engine.adapters.outward import OutwardTransport
from engine.domain.offers.delivery import Stop, Verdict, unreachable
from engine.domain.sharing.answers import webhook_verdict
from engine.domain.sharing.receivers import Letter, Receiver

TIMEOUT_SECONDS = 8.0
READ_AT_MOST = 64 * 1024
"""Of an answer's body, which says nothing to us: read, so that the connection can be used again."""
REFUSED = timedelta(seconds=60)


def headers(secrets: Iterable[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The specification's headers, with a signature by each secret. `at` is aware and UTC."""
    text = body.decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Signer(secret).sign(message_id, at, text) for secret in secrets),
    }


class Webhook:
    """A pool of connections to one receiver. Its secrets may be exchanged meanwhile (`receiver`)."""

    def __init__(
        self,
        receiver: Receiver,
        may: Allowed,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        connections: int = 50,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Connects nowhere yet."""
        self.receiver = receiver
        self._wall = wall
        self._client = httpx.AsyncClient(
            transport=OutwardTransport(
                may, connections=connections, inside_only=receiver.url.startswith("http:")
            ),
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, 5.0)),
            follow_redirects=False,
            trust_env=False,
            headers={"user-agent": "Viewfinder", "content-type": "application/json"},
        )

    async def tell(self, letter: Letter, jitter: float) -> Verdict:
        """Sends one message. Never raises for what the other side does; `jitter` is in [0, 1)."""
        now = self._wall()
        signed = headers(self.receiver.secrets(now), letter.id, now, letter.body)
        try:
            async with self._client.stream(
                "POST", self.receiver.url, content=letter.body, headers=signed
            ) as response:
                verdict = webhook_verdict(
                    response.status_code,
                    retry_after(response, now.timestamp()),
                    letter.attempts,
                    jitter,
                )
                await _drained(response)
                return verdict
        except RefusedAddress:
            return Stop(code="refused_address", pause=REFUSED)
        except httpx.InvalidURL:
            return Stop(code="invalid_url", pause=REFUSED)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            return unreachable("unreachable", letter.attempts, jitter, ambiguous=False)
        except httpx.TimeoutException:
            return unreachable("timeout", letter.attempts, jitter, ambiguous=True)
        except (httpx.HTTPError, httpx.StreamError):
            return unreachable("connection_lost", letter.attempts, jitter, ambiguous=True)

    async def aclose(self) -> None:
        await self._client.aclose()


async def _drained(response: httpx.Response) -> None:
    """Reads what little there is of a body, and no more; the verdict stands already."""
    read = 0
    with suppress(httpx.HTTPError, httpx.StreamError, TimeoutError):
        async with asyncio.timeout(1.0):
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > READ_AT_MOST:
                    return
