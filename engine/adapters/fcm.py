"""Firebase Cloud Messaging, HTTP v1: one push out, one verdict back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import msgspec

from engine.adapters.fcm_credentials import (
    AccessTokens,
    Credentials,
    CredentialsProblem,
    OAuthRefused,
    is_loopback,
    is_secure,
    read_credentials,
    retry_after,
)
from engine.domain.offers.delivery import (
    FcmAnswer,
    Push,
    Send,
    Verdict,
    fcm_verdict,
    oauth_verdict,
    unreachable,
)

__all__ = ["Credentials", "CredentialsProblem", "Fcm", "message", "read_answer", "read_credentials"]

URL = "https://fcm.googleapis.com"
LONGEST_TTL = timedelta(weeks=4)
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_APNS_ERROR = "type.googleapis.com/google.firebase.fcm.v1.ApnsError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_CODE = re.compile(r"[A-Z][A-Z_]{0,63}")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Fcm:
    """A pool of connections to FCM, and the access token that opens it."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        url: str = URL,
        timeout_seconds: float = 8.0,
        connections: int = 50,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Connects nowhere yet.

        Raises:
            CredentialsProblem: `url` would carry the access token unencrypted.
        """
        if not is_secure(url):
            raise CredentialsProblem("VIEWFINDER_FCM_URL must be an https URL")
        self._url = f"{url.rstrip('/')}/v1/projects/{credentials.project_id}/messages:send"
        self._wall = wall
        self._client = httpx.AsyncClient(
            http2=True,
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, 5.0)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            # A proxy of the environment is for the way out, not for a server on this machine.
            trust_env=not is_loopback(url),
        )
        self._tokens = AccessTokens(credentials, self._client, wall)

    async def deliver(self, send: Send, ttl: timedelta, jitter: float) -> Verdict:
        """Sends one push that is worth reading for `ttl`. Never raises for what the other side
        does; an access token that FCM does not take is renewed once."""
        assert isinstance(send.payload, Push)
        body = _encode({"message": message(send.payload, ttl, self._wall())})
        try:
            answer = await self._post(body)
        except OAuthRefused as refused:
            return oauth_verdict(refused.status, refused.error, refused.retry_after, send.attempts, jitter)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError):
            return unreachable("unreachable", send.attempts, jitter, ambiguous=False)
        except httpx.TimeoutException:
            return unreachable("timeout", send.attempts, jitter, ambiguous=True)
        except (httpx.HTTPError, httpx.StreamError):
            return unreachable("connection_lost", send.attempts, jitter, ambiguous=True)
        return fcm_verdict(answer, send.attempts, jitter)

    async def aclose(self) -> None:
        await self._tokens.aclose()
        await self._client.aclose()

    async def _post(self, body: bytes) -> FcmAnswer:
        token = await self._tokens.current()
        answer = await self._ask(body, token)
        if answer.status == 401:
            self._tokens.reject(token)
            answer = await self._ask(body, await self._tokens.current())
        return answer

    async def _ask(self, body: bytes, token: str) -> FcmAnswer:
        response = await self._client.post(
            self._url,
            content=body,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        return read_answer(response.status_code, response.content, retry_after(response, self._wall()))


def message(push: Push, ttl: timedelta, wall: float) -> dict[str, Any]:
    """The `Message` of FCM v1. The collapse key is the same for every attempt, so that a phone
    shows a push that was sent twice once."""
    seconds = max(0, int(min(ttl, LONGEST_TTL).total_seconds()))
    notification = {"title": push.title, "body": push.body}
    if push.image is not None:
        notification["image"] = push.image
    data = dict(push.data)
    if push.deeplink is not None:
        data["deeplink"] = push.deeplink
    return {
        "token": push.token,
        "notification": notification,
        "data": data,
        "android": {
            "ttl": f"{seconds}s",
            "collapse_key": push.collapse_key,
            "priority": "HIGH",
            "notification": {"tag": push.collapse_key},
        },
        "apns": {
            "headers": {
                "apns-collapse-id": push.collapse_key,
                "apns-expiration": str(int(wall) + seconds),
                "apns-priority": "10",
            }
        },
    }


def read_answer(status: int, body: bytes, after: timedelta | None = None) -> FcmAnswer:
    """What FCM said, whoever really said it: a proxy's HTML gives an answer without a code, a 200
    that names no message the code `not_fcm`."""
    try:
        content = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = None
    content = content if isinstance(content, dict) else {}
    if status == 200:
        named = isinstance(content.get("name"), str)
        return FcmAnswer(status=status, code=None if named else "not_fcm", retry_after=after)
    error = content.get("error")
    error = error if isinstance(error, dict) else {}
    details = error.get("details")
    details = [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []
    by_type = {d.get("@type"): d for d in details if isinstance(d.get("@type"), str)}
    violations = by_type.get(_BAD_REQUEST, {}).get("fieldViolations")
    text, apns_reason = error.get("message"), by_type.get(_APNS_ERROR, {}).get("reason")
    return FcmAnswer(
        status=status,
        code=_code(by_type.get(_FCM_ERROR, {}).get("errorCode")) or _code(error.get("status")),
        message=text if isinstance(text, str) else "",
        fields=tuple(
            v["field"]
            for v in (violations if isinstance(violations, list) else ())
            if isinstance(v, dict) and isinstance(v.get("field"), str)
        ),
        apns_reason=apns_reason if isinstance(apns_reason, str) else None,
        retry_after=after,
    )


def _code(value: Any) -> str | None:
    """Only what looks like a code: it ends up in metrics and logs."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else None
