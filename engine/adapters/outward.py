"""HTTP out to addresses that people type in, by connections that are looked at first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from engine.adapters.addresses import Allowed, RefusedAddress, resolved


class _Guarded(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were looked at, and to nothing else."""

    def __init__(self, may: Allowed, *, inside_only: bool) -> None:
        self._may = may
        self._inside_only = inside_only
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await resolved(host, port, self._may, inside_only=self._inside_only)
        except TimeoutError as fault:
            raise httpcore.ConnectTimeout("the name was not resolved in time") from fault
        except OSError as fault:
            raise httpcore.ConnectError("the name is not known") from fault
        failed: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as fault:
                failed = fault
        raise failed or httpcore.ConnectError("the name has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise RefusedAddress("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class OutwardTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over connections that are looked at first. Of proxies it knows nothing: one
    would resolve names by itself. `inside_only`: for what goes unencrypted."""

    def __init__(self, may: Allowed, *, connections: int, inside_only: bool) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30.0,
            network_backend=_Guarded(may, inside_only=inside_only),
        )
