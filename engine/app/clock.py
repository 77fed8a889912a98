"""The pipeline's clock: the machine's, or one that follows the events that are replayed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    return datetime.now(UTC)


class ReplayClock:
    """Stands at the newest `sentAt` seen. Never goes back; starts at the epoch."""

    def __init__(self) -> None:
        self._now = datetime(1970, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self._now

    def advance(self, to: datetime) -> bool:
        """Moves on to `to`. False where that is no later than now, or off the calendar."""
        if to <= self._now:
            return False
        try:
            self._now = to.astimezone(UTC)
        except OverflowError:
            return False
        return True
