"""`starts:` and `ends:` of offers and rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, tzinfo

import msgspec

from engine.formats.located_yaml import AnyNode
from engine.formats.workspace_values import Problems, moment


class Dates(msgspec.Struct, frozen=True):
    """From `starts` on, and before `ends`, in UTC; None is open."""

    starts: datetime | None = None
    ends: datetime | None = None


def dates(found: Mapping[str, AnyNode], problems: Problems, zone: tzinfo) -> Dates:
    """The span; a day that is named as the end belongs to it."""
    starts = moment(found["starts"], problems, zone) if "starts" in found else None
    ends = moment(found["ends"], problems, zone, end=True) if "ends" in found else None
    if starts is not None and ends is not None and ends <= starts:
        problems.append(found["ends"].problem("it ends before it starts"))
    return Dates(starts, ends)
