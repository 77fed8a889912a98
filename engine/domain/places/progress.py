"""How far a long build has come, for whoever wants to hear it."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str, int, int], None]
"""Hears what is done, how many of it are done, and how many there are."""


def say_nothing(_what: str, _done: int, _of: int) -> None:
    """For whoever does not."""
