"""Keeps a provider that fails or hangs from being asked again and again.

Closed, everybody may ask. After so many faults in a row, or when told to stop, it is open: nobody
may. When its time is over, one may ask, the probe; its success closes the breaker.
"""

from __future__ import annotations

from enum import Enum


class Pass(Enum):
    """How somebody got through; to be handed back with the result."""

    ORDINARY = "ordinary"
    PROBE = "probe"


class Breaker:
    """`now` is in seconds of any clock that never goes back."""

    def __init__(self, faults_to_open: int, open_seconds: float) -> None:
        self._faults_to_open = faults_to_open
        self._open_seconds = open_seconds
        self._faults = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    def wait_seconds(self, now: float) -> float:
        """How long nobody may ask; 0 where somebody may. While a probe is out, a short while."""
        if self._open_until is None:
            return 0.0
        if self._probing:
            return max(self._open_until - now, self._open_seconds / 4)
        return max(self._open_until - now, 0.0)

    def admit(self, now: float) -> Pass | None:
        """Lets the caller ask, or not. Who got through must report back."""
        if self._open_until is None:
            return Pass.ORDINARY
        if self.wait_seconds(now) > 0:
            return None
        self._probing = True
        return Pass.PROBE

    def answered(self, by: Pass) -> None:
        """The provider answered as one that is well."""
        self._faults = 0
        if by is Pass.PROBE:
            self._open_until = None
            self._probing = False

    def failed(self, by: Pass, now: float) -> bool:
        """The provider did not answer, or as one that is not well. True where that opened it."""
        self._faults += 1
        if by is Pass.PROBE:
            self._probing = False
        elif self.is_open or self._faults < self._faults_to_open:
            # What was under way when it opened says nothing new.
            return False
        was_open = self.is_open
        self._open_until = now + self._open_seconds
        return not was_open

    def stop(self, by: Pass, now: float, seconds: float) -> bool:
        """The provider refused us as a whole. True where that opened it."""
        if by is Pass.PROBE:
            self._probing = False
        was_open = self.is_open
        self._open_until = max(self._open_until or 0.0, now + seconds)
        return not was_open
