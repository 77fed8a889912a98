"""What a receiver's answer means: told, later, or never."""

from __future__ import annotations

from datetime import timedelta

from engine.domain.offers.delivery import Delivered, Failed, Retry, Verdict, not_before

GONE = "gone"
"""A receiver that says so wants nothing more (Standard Webhooks: 410)."""
_WHOLE = frozenset((401, 403, 404, 405, 407, 408, 425))
"""Answers of somebody who would say the same to any message."""


def webhook_verdict(status: int, retry_after: timedelta | None, attempts: int, jitter: float) -> Verdict:
    """What a webhook's status means for a message that was tried `attempts` times before.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: only
    2xx is success, a redirect is none and is not followed, and 410 ends it.
    """
    if 200 <= status < 300:
        return Delivered()
    if status == 410:
        return Failed(code=GONE)
    unwell = status >= 500 or status < 400 or status in _WHOLE
    code = "redirected" if 300 <= status < 400 else f"http_{status}"
    return Retry(code=code, after=not_before(retry_after, attempts, jitter), unwell=unwell)
