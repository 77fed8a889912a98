"""GPX 1.0 and 1.1 tracks to fixes, with every problem of the file at once.

Read as a stream. A document type is refused before anything in it is looked at, so that there are
no entities to expand or to fetch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Final
from xml.parsers import expat

import msgspec

from engine.domain.places.shape_check import position_problem
from engine.formats.problems import Problem

MOST_BYTES: Final = 64_000_000
MOST_PROBLEMS: Final = 200

# By local name, wherever below the point: GPX 1.0 has speed and course as its own, 1.1 keeps them
# in extensions (Garmin's TrackPointExtension v2), where apps also put the accuracy in metres.
_FIELDS: Final = {
    "time": "time",
    "ele": "elevation",
    "speed": "speed",
    "course": "heading",
    "heading": "heading",
    "bearing": "heading",
    "accuracy": "accuracy_meters",
    "hacc": "accuracy_meters",
}
_NOT_NEGATIVE: Final = frozenset({"speed", "heading", "accuracy_meters"})


class TrackFix(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a track. WGS 84 degrees, metres, metres per second, degrees clockwise from north;
    None where the file does not tell."""

    latitude: float
    longitude: float
    time: datetime
    elevation: float | None = None
    accuracy_meters: float | None = None
    speed: float | None = None
    heading: float | None = None

    def __repr__(self) -> str:
        return "TrackFix(…)"


class GpxTrack(msgspec.Struct, frozen=True):
    """All track points in the file's order, tracks and segments one after another, and all problems.
    A point with a problem is not among the fixes."""

    fixes: tuple[TrackFix, ...]
    problems: tuple[Problem, ...]

    def __repr__(self) -> str:
        return f"GpxTrack({len(self.fixes)} fixes, {len(self.problems)} problems)"


class _UnreadableError(Exception):
    """What follows is not worth reading; the problem is noted."""


def read_gpx(data: bytes, file: str) -> GpxTrack:
    """The track points of a GPX file; `file` names it in problems. Each needs a time. Never raises."""
    if len(data) > MOST_BYTES:
        message = f"the file has {len(data):,} bytes: at most {MOST_BYTES:,}"
        return GpxTrack((), (Problem(file, 1, 1, message),))
    reader = _Reader(file)
    try:
        reader.parser.Parse(data, True)
    except _UnreadableError:
        pass
    except expat.ExpatError as error:
        message = f"not XML: {expat.errors.messages.get(error.code, str(error))}"
        reader.problems.append(Problem(file, error.lineno, error.offset + 1, message))
    except (LookupError, ValueError):
        # An encoding that Python does not know, or one that is not a text encoding of single bytes.
        reader.problems.append(Problem(file, 1, 1, "not XML: unknown encoding"))
    if not reader.fixes and not reader.problems:
        reader.problems.append(Problem(file, 1, 1, "there is no track point in it"))
    return GpxTrack(tuple(reader.fixes), tuple(reader.problems))


class _Reader:
    """The parser and what it is in the midst of: the point, and the text of an element in it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.fixes: list[TrackFix] = []
        self.problems: list[Problem] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self._in_gpx = False
        self._point: dict[str, str] | None = None
        self._place = (1, 1)
        self._text: list[str] | None = None

    def _note(self, message: str, place: tuple[int, int]) -> None:
        self.problems.append(Problem(self.file, *place, message))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _UnreadableError

    def _here(self) -> tuple[int, int]:
        return self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1

    def _doctype(self, *_: object) -> None:
        self._note("a document type has no place in GPX", self._here())
        raise _UnreadableError

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        if not self._in_gpx:
            if local != "gpx":
                self._note(f"not GPX: the document is <{local[:40]}>", self._here())
                raise _UnreadableError
            self._in_gpx = True
        if local == "trkpt":
            self._point, self._place = dict(attributes), self._here()
        elif self._point is not None and local in _FIELDS:
            self._text = []

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, name: str) -> None:
        local = name.rpartition(" ")[2]
        if self._point is not None and local == "trkpt":
            self._finish(self._point)
            self._point = None
        elif self._point is not None and self._text is not None and local in _FIELDS:
            self._point.setdefault(_FIELDS[local], "".join(self._text).strip())
            self._text = None

    def _finish(self, point: dict[str, str]) -> None:
        wrong = []
        latitude, longitude = _number(point.get("lat", "")), _number(point.get("lon", ""))
        if latitude is None or longitude is None:
            wrong.append("a track point needs lat and lon as numbers")
        elif problem := position_problem(latitude, longitude):
            wrong.append(problem)
        time = _utc(point.get("time", ""))
        if time is None:
            what = (
                "is not a date and time such as 2026-01-31T08:00:00Z" if point.get("time") else "is missing"
            )
            wrong.append(f"the track point's time {what}")
        details: dict[str, float] = {}
        for field in set(_FIELDS.values()) - {"time"}:
            text = point.get(field)
            if not text:
                continue
            number = _number(text)
            if number is None:
                wrong.append(f"{field} is not a number")
            elif number >= 0 or field not in _NOT_NEGATIVE:
                # Phones write -1 for what they do not know.
                details[field] = number
        for message in sorted(wrong):
            self._note(message, self._place)
        if not wrong and latitude is not None and longitude is not None and time is not None:
            self.fixes.append(TrackFix(latitude=latitude, longitude=longitude, time=time, **details))


def _number(text: str) -> float | None:
    """The finite number that `text` is. Underscores are Python's, not GPX's."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and "_" not in text else None


def _utc(text: str) -> datetime | None:
    """An ISO 8601 date and time as UTC, which GPX means where no zone is given."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
