"""GPX tracks, good ones and one fault a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.formats.gpx import MOST_BYTES, read_gpx

BUS = Path(__file__).parents[1] / "rules" / "tracks" / "bus-304.gpx"


def gpx(*points: str, namespace: str = 'xmlns="http://www.topografix.com/GPX/1/1"') -> bytes:
    inner = "\n".join(points)
    return f'<?xml version="1.0"?>\n<gpx {namespace}><trk><trkseg>\n{inner}\n</trkseg></trk></gpx>'.encode()


def test_the_bus_track() -> None:
    track = read_gpx(BUS.read_bytes(), "bus.gpx")
    assert track.problems == ()
    assert len(track.fixes) == 2144
    first = track.fixes[0]
    assert (first.latitude, first.longitude, first.elevation) == (52.629151, -8.661746, 19.5)
    assert first.time == datetime(2019, 2, 18, 7, 45, 50, tzinfo=UTC)
    gaps = [b.time - a.time for a, b in zip(track.fixes, track.fixes[1:], strict=False)]
    assert min(gaps) > timedelta(0)
    assert max(gaps) == timedelta(seconds=138)


def test_extensions_times_and_what_a_phone_does_not_know() -> None:
    extended = (
        '<trkpt lat="1" lon="2"><time>2026-01-02T03:04:05.5+01:00</time><extensions><t:TrackPointExtension '
        'xmlns:t="http://www.garmin.com/xmlschemas/TrackPointExtension/v2"><t:speed>1.5</t:speed>'
        "<t:course>90</t:course></t:TrackPointExtension><accuracy>8</accuracy></extensions></trkpt>"
    )
    plain = '<trkpt lat="1" lon="2"><ele>-3</ele><time>2026-01-02T03:04:05</time><speed>-1</speed></trkpt>'
    track = read_gpx(gpx(extended, plain), "f")
    assert track.problems == ()
    first, second = track.fixes
    assert first.time == datetime(2026, 1, 2, 2, 4, 5, 500_000, tzinfo=UTC)
    assert (first.speed, first.heading, first.accuracy_meters) == (1.5, 90, 8)
    assert (second.elevation, second.speed) == (-3, None)
    assert second.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_gpx_1_0_and_no_namespace_are_read() -> None:
    point = '<trkpt lat="1" lon="2"><time>2026-01-02T03:04:05Z</time><course>5</course></trkpt>'
    for namespace in ('xmlns="http://www.topografix.com/GPX/1/0"', ""):
        assert read_gpx(gpx(point, namespace=namespace), "f").fixes[0].heading == 5


GOOD = '<trkpt lat="1" lon="2"><time>2026-01-02T03:04:05Z</time></trkpt>'


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ('<trkpt lat="91" lon="2"><time>2026-01-02T03:04:05Z</time></trkpt>', "latitude 91 is not between"),
        (
            '<trkpt lat="1" lon="nan"><time>2026-01-02T03:04:05Z</time></trkpt>',
            "a track point needs lat and lon",
        ),
        ('<trkpt lon="2"><time>2026-01-02T03:04:05Z</time></trkpt>', "a track point needs lat and lon"),
        ('<trkpt lat="1" lon="2"></trkpt>', "the track point's time is missing"),
        ('<trkpt lat="1" lon="2"><time>noon</time></trkpt>', "the track point's time is not a date and time"),
        (GOOD.replace("</trkpt>", "<ele>high</ele></trkpt>"), "elevation is not a number"),
    ],
)
def test_faulty_points_are_told_with_their_line_and_left_out(point: str, message: str) -> None:
    track = read_gpx(gpx(GOOD, f"  {point}", GOOD), "walk.gpx")
    (problem,) = track.problems
    assert (problem.file, problem.line, problem.column) == ("walk.gpx", 4, 3)
    assert problem.message.startswith(message)
    assert len(track.fixes) == 2


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (gpx(GOOD)[:-3], 4, "not XML: unclosed token"),
        (b"", 1, "not XML: no element found"),
        (b'<?xml version="1.0" encoding="none"?><gpx/>', 1, "not XML: unknown encoding"),
        (b"<kml><trkpt/></kml>", 1, "not GPX: the document is <kml>"),
        (gpx(), 1, "there is no track point in it"),
        (b" " * (MOST_BYTES + 1), 1, "the file has 64,000,001 bytes"),
        (
            b'<?xml version="1.0"?>\n<!DOCTYPE gpx [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n'
            + gpx(GOOD)[22:],
            2,
            "a document type has no place in GPX",
        ),
        (
            '<!DOCTYPE gpx SYSTEM "file:///etc/passwd"><gpx/>'.encode("utf-16"),
            1,
            "a document type has no place in GPX",
        ),
    ],
)
def test_faults_of_the_whole_file(data: bytes, line: int, message: str) -> None:
    track = read_gpx(data, "f")
    assert track.fixes == () or message.startswith("not XML")
    (problem,) = track.problems
    assert problem.line == line
    assert problem.message.startswith(message)


def test_reprs_hide_positions() -> None:
    track = read_gpx(gpx(GOOD), "f")
    assert repr(track) == "GpxTrack(1 fixes, 0 problems)"
    assert repr(track.fixes[0]) == "TrackFix(…)"
