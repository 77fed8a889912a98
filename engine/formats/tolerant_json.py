"""JSON as devices make it, so that a fault becomes the verdict on the one event that holds it."""

from __future__ import annotations

import json
import math
from typing import Any


class Unreadable(ValueError):
    """Nothing of the body can be taken. `status` is 400 or 413; the message may be shown."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def loads(raw: bytes) -> Any:
    """JSON with what devices make of it: NaN and Infinity, surrogates, bytes that are no UTF-8 (which
    come out as surrogates). Raises Unreadable (400)."""
    try:
        return json.loads(raw.decode("utf-8", "surrogateescape"), parse_int=_integer)
    except RecursionError:
        raise nested() from None
    except ValueError:
        raise Unreadable(400, "the body is not JSON") from None


def dumps(value: Any) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise nested() from None
    return text.encode("utf-8", "surrogatepass")


def _integer(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:  # Python converts 4,300 digits at most, as does the strict parser.
        return math.inf


def nested() -> Unreadable:
    return Unreadable(400, "the body is nested too deeply")
