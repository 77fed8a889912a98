"""Times on the wire: their forms, a device's clock, and the bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.people.events import Location
from engine.formats.segment_location import read_location
from engine.formats.segment_time import EventTime, event_time, parse_time
from engine.formats.segment_verdicts import Refusal

RECEIVED_AT = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
RETENTION = timedelta(days=395)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (RECEIVED_AT + DAY - SECOND, RECEIVED_AT + DAY - SECOND),
        (RECEIVED_AT + DAY, RECEIVED_AT + DAY),
        (RECEIVED_AT + DAY + SECOND, RECEIVED_AT + DAY),
        (RECEIVED_AT - RETENTION + SECOND, RECEIVED_AT - RETENTION + SECOND),
        (RECEIVED_AT - RETENTION, RECEIVED_AT - RETENTION),
        (RECEIVED_AT - RETENTION - SECOND, RECEIVED_AT - RETENTION),
    ],
)
@pytest.mark.parametrize("behind", [None, timedelta(0), timedelta(days=3652), -timedelta(days=3652)])
def test_times_are_clamped_after_their_correction(
    stated: datetime, expected: datetime, behind: timedelta | None
) -> None:
    """A clock that is off by `behind` changes nothing once `sentAt` tells."""
    off = behind or timedelta(0)
    sent_at = None if behind is None else RECEIVED_AT - off
    time = event_time((stated - off).isoformat(), None, sent_at, RECEIVED_AT, RETENTION)
    assert isinstance(time, EventTime)
    assert time.at == expected
    assert time.stated == stated - off
    assert time.text == (stated - off).isoformat()


EDGES = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "9999-12-31T23:59:60Z",
    "1970-01-01T00:00:00Z",
    0,
    -1e300,
    253402300799,
]


@given(
    timestamp=st.one_of(
        st.sampled_from(EDGES), st.text(), st.integers(), st.floats(), st.datetimes().map(str)
    ),
    original=st.one_of(st.none(), st.sampled_from(EDGES), st.datetimes().map(datetime.isoformat)),
    sent_at=st.one_of(st.sampled_from(EDGES), st.datetimes().map(str)),
)
def test_any_time_is_within_its_bounds_or_refused(timestamp: Any, original: Any, sent_at: Any) -> None:
    time = event_time(timestamp, original, parse_time(sent_at), RECEIVED_AT, RETENTION)
    if isinstance(time, Refusal):
        assert time.code == "invalid_timestamp"
    else:
        assert RECEIVED_AT - RETENTION <= time.at <= RECEIVED_AT + DAY
        assert time.at.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24",
        "20261124T100000Z",
        "2026-W48-2T10:00:00",
        "2026-11-24T10:00",
        "2026-11-24T25:00:00Z",
        "now",
        " ",
    ],
)
def test_what_is_no_rfc_3339_is_no_time(text: str) -> None:
    assert parse_time(text) is None


def test_a_leap_second_is_the_next_second() -> None:
    assert parse_time("2016-12-31T23:59:60Z") == datetime(2017, 1, 1, tzinfo=UTC)
    assert parse_time("2016-12-31T23:58:60Z") is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_that_python_writes_is_read_back(moment: datetime) -> None:
    assert parse_time(moment.isoformat()) == moment
    assert parse_time(moment.isoformat(sep=" ").replace("+00:00", "")) == moment
    assert parse_time(moment.isoformat().replace("+00:00", "z")) == moment


def test_the_times_of_fixes_can_be_reckoned_with() -> None:
    """A phone may say that it is the year 1 or 9999: fixes are compared, and windows added to them."""
    for said in EDGES:
        location = read_location({"latitude": 0, "longitude": 0, "timestamp": said}, None)
        if isinstance(location, Location):
            assert location.at is not None
            assert location.at - RETENTION < location.at < location.at + RETENTION
