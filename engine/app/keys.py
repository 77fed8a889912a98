"""Who may send: the keys of apps and of servers, and where a request carries its own."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from engine.app.responses import Refused


class Keys(msgspec.Struct, frozen=True):
    """Who may send: write keys stand in apps, server keys on the business's servers."""

    write: frozenset[str]
    server: frozenset[str]

    def __repr__(self) -> str:
        return "Keys(…)"

    def knows(self, key: str) -> bool:
        return key in self.write or key in self.server

    def trust(self, key: str | None) -> bool:
        """Whether the key is a server's.

        Raises:
            Refused: 401, nobody knows the key.
        """
        if key in self.server:
            return True
        if key in self.write:
            return False
        raise Refused(401, "unknown write key: send it by Basic auth, Bearer, or writeKey in the body")


def key_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that the Authorization header carries: the user of Basic, or a Bearer token."""
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip().decode("latin-1")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(credentials, validate=True).partition(b":")[0].decode("latin-1")
        except binascii.Error as fault:
            raise Refused(401, "the Authorization header is not Basic auth") from fault
    return None
