"""What an app sends to `POST /v1/decide`: an event, and what it has room for."""

from __future__ import annotations

from typing import Annotated

import msgspec

from engine.formats.tolerant_json import Unreadable

PLACEMENTS_MAX = 20


class Ask(msgspec.Struct, frozen=True, rename="camel"):
    """An event as its bytes, with its own `type`; placements in the order in which they are filled."""

    event: msgspec.Raw
    placements: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...],
        msgspec.Meta(max_length=PLACEMENTS_MAX),
    ] = ()
    limit: Annotated[int, msgspec.Meta(ge=1, le=PLACEMENTS_MAX)] = PLACEMENTS_MAX

    @property
    def as_batch(self) -> bytes:
        """The same event as ingest takes it."""
        return b'{"batch":[' + bytes(self.event) + b"]}"

    def __repr__(self) -> str:
        return f"Ask({len(self.placements)} placements)"


_decode = msgspec.json.Decoder(Ask).decode


def read_ask(body: bytes) -> Ask:
    """The body, read. Raises Unreadable for one that is not as described."""
    try:
        return _decode(body)
    except msgspec.ValidationError as fault:
        raise Unreadable(400, str(fault)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable(400, "the body is not JSON") from None
