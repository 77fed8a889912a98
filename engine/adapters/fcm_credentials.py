"""The service account that FCM knows us by: its file, and the OAuth 2 token that it is traded for.

CredentialsProblem   the file is at fault; says which field, never what is in it
OAuthRefused         the token endpoint answered, with something else than a token
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS = 3600
REFRESH_AHEAD_SECONDS = 300
"""A token is traded in this long before it ends, or at a tenth of a shorter life."""


class CredentialsProblem(ValueError):
    """The service account's file is unusable."""


class OAuthRefused(Exception):
    """The token endpoint gave no token. `error` is OAuth's own code, where it gave one."""

    def __init__(self, status: int, error: str | None, retry_after: timedelta | None) -> None:
        super().__init__(f"{status} {error}")
        self.status = status
        self.error = error
        self.retry_after = retry_after


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A Google service account, checked."""

    project_id: str
    client_email: str
    token_uri: str
    private_key: RSAPrivateKey
    private_key_id: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(project_id={self.project_id!r}, …)"


def read_credentials(path: Path) -> Credentials:
    """Reads a service account's JSON file.

    Raises:
        CredentialsProblem: it cannot be read, or a field is missing or wrong.
    """
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError as fault:
        raise CredentialsProblem(f"{path}: {fault.strerror}") from None
    except msgspec.DecodeError:
        raise CredentialsProblem(f"{path}: not JSON; expected a service account key file") from None
    if not isinstance(content, dict):
        raise CredentialsProblem(f"{path}: expected a JSON object, a service account key file")
    if content.get("type", "service_account") != "service_account":
        raise CredentialsProblem(f"{path}: `type` must be service_account")
    fields: dict[str, Any] = {}
    for name in ("project_id", "client_email", "token_uri", "private_key"):
        value = content.get(name)
        if not isinstance(value, str) or not value:
            raise CredentialsProblem(f"{path}: `{name}` is missing or not a text")
        fields[name] = value
    if not fields["project_id"].replace("-", "").replace(":", "").replace(".", "").isalnum():
        raise CredentialsProblem(f"{path}: `project_id` is not the id of a project")
    if not is_secure(fields["token_uri"]):
        raise CredentialsProblem(f"{path}: `token_uri` must be an https URL")
    fields["private_key"] = _read_key(fields["private_key"], path)
    key_id = content.get("private_key_id")
    return Credentials(**fields, private_key_id=key_id if isinstance(key_id, str) else None)


def _read_key(pem: str, path: Path) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is left out on purpose: it may quote the key.
        raise CredentialsProblem(f"{path}: `private_key` is not an unencrypted PEM private key") from None
    if not isinstance(key, RSAPrivateKey):
        raise CredentialsProblem(f"{path}: `private_key` must be an RSA key")
    return key


def is_secure(url: str) -> bool:
    """https, or http to this very machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)))


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AccessTokens:
    """The current OAuth 2 access token: one exchange at a time, renewed before it ends."""

    def __init__(
        self, account: Credentials, client: httpx.AsyncClient, wall: Callable[[], float] = time.time
    ) -> None:
        self._account = account
        self._client = client
        self._wall = wall
        self._token: str | None = None
        self._renew_at = 0.0
        self._exchange: asyncio.Task[str] | None = None

    async def current(self) -> str:
        """A token that is good for a while.

        Raises:
            OAuthRefused, httpx.TransportError: none could be had.
        """
        if self._token is not None and time.monotonic() < self._renew_at:
            return self._token
        if self._exchange is None or self._exchange.done():
            self._exchange = asyncio.create_task(self._trade())
            self._exchange.add_done_callback(_seen)
        # One caller's deadline must not take the exchange away from the others.
        return await asyncio.shield(self._exchange)

    def reject(self, token: str) -> None:
        """FCM did not take `token`: the next caller gets another one."""
        if token == self._token:
            self._token = None

    async def aclose(self) -> None:
        if self._exchange is not None:
            self._exchange.cancel()

    async def _trade(self) -> str:
        started = time.monotonic()
        response = await self._client.post(
            self._account.token_uri, data={"grant_type": GRANT_TYPE, "assertion": self._assertion()}
        )
        try:
            content = response.json()
        except ValueError:
            content = None
        body = content if isinstance(content, dict) else {}
        token = body.get("access_token")
        if response.status_code != 200 or not isinstance(token, str) or not token:
            error = body.get("error")
            raise OAuthRefused(
                response.status_code,
                error if isinstance(error, str) and error.isidentifier() else None,
                retry_after(response, self._wall()),
            )
        lifetime = body.get("expires_in")
        seconds = float(lifetime) if isinstance(lifetime, int | float) else float(ASSERTION_SECONDS)
        self._token = token
        self._renew_at = started + seconds - min(REFRESH_AHEAD_SECONDS, seconds / 10)
        return token

    def _assertion(self) -> str:
        issued = int(self._wall())
        account = self._account
        return jwt.encode(
            {
                "iss": account.client_email,
                "scope": SCOPE,
                "aud": account.token_uri,
                "iat": issued,
                "exp": issued + ASSERTION_SECONDS,
            },
            account.private_key,
            algorithm="RS256",
            headers={"kid": account.private_key_id} if account.private_key_id else None,
        )


def _seen(exchange: asyncio.Task[str]) -> None:
    """Everybody who waited may have gone; a failed exchange is then nobody's unseen exception."""
    if not exchange.cancelled():
        exchange.exception()


def retry_after(response: httpx.Response, wall: float) -> timedelta | None:
    """Retry-After in either form (RFC 9110, 10.2.3); None where absent or not understood."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), 10**8))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    return max(at - datetime.fromtimestamp(wall, UTC), timedelta())
