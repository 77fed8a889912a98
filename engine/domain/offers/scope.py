"""What an expression may look at: the roots of the rule language, bound for one moment."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

import msgspec


class Unknown:
    """The third truth value: a trait nobody has told us, a weather nobody has measured."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "unknown"

    def __reduce__(self) -> str:
        return "UNKNOWN"  # there is only one, also after it went through a pickle

    def __bool__(self) -> bool:
        raise TypeError("unknown is neither true nor false: compare with `is UNKNOWN`")


UNKNOWN: Final = Unknown()

NOTHING: Final[Mapping[str, Any]] = {}


class Scope(msgspec.Struct, gc=False, kw_only=True):
    """The values of the roots. A key that is absent, or present as None, is unknown.

    Timestamps are aware UTC datetimes, durations timedeltas. `local` holds hour, weekday ("mon"),
    date and time of the person's own clock. `propensity` holds scores in [0, 1] by model name.
    """

    event: Mapping[str, Any] = NOTHING
    profile: Mapping[str, Any] = NOTHING
    account: Mapping[str, Any] = NOTHING
    member: Mapping[str, Any] = NOTHING
    geofence: Mapping[str, Any] = NOTHING
    weather: Mapping[str, Any] = NOTHING
    device: Mapping[str, Any] = NOTHING
    trip: Mapping[str, Any] = NOTHING
    offer: Mapping[str, Any] = NOTHING
    propensity: Mapping[str, Any] = NOTHING
    local: Mapping[str, Any] = NOTHING
    now: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def __repr__(self) -> str:
        return "Scope(…)"


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a finite number that a double can hold; true and false are none."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -sys.float_info.max <= value <= sys.float_info.max
    )
