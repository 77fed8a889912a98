"""The rows of a file of places: GeoJSON, GeoJSON one feature a line, or CSV of circles.

Each is examined by itself, so that one bad row of a million is told with its place and left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from engine.domain.offers.scope import is_number
from engine.domain.places.fences import Fence
from engine.domain.places.shape_check import examine
from engine.domain.places.shapes import Circle
from engine.formats.geojson import GeoFeature, Sizes, feature_at
from engine.formats.workspace_values import LONGEST_NAME

MOST_FENCES: Final = 1_000_000
_LATITUDE: Final = ("latitude", "lat")
_LONGITUDE: Final = ("longitude", "lng", "lon")
_RADIUS: Final = ("radius", "radius_meters", "radius_m")
_TAGS: Final = "tags"
_LINES: Final = (".geojsonl", ".ndjson", ".geojsonseq", ".jsonl")
_RESERVED: Final = frozenset(("id", "open"))


class Unreadable(ValueError):
    """The file as a whole is not what its name says."""


class FenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row: its number from 1, the line that it begins in; the place, or what is wrong; what was
    mended; and the row itself."""

    number: int
    line: int
    fence: Fence | None
    problems: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    raw: Any = None

    def __repr__(self) -> str:
        return f"FenceRow({self.number}, …)"


def fence_rows(data: bytes, name: str, id_path: str, sizes: Sizes) -> Iterator[FenceRow]:
    """The rows of a file. `id_path` says where a feature's id stands, `id` or `properties.…`; a CSV has
    columns id, latitude, longitude and radius, perhaps tags, and others, which become properties.

    Raises:
        Unreadable: there are no places in it.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        data.decode()
    except UnicodeDecodeError as fault:
        raise Unreadable(f"byte {fault.start + 1:,} is not UTF-8 text") from fault
    ending = name.lower()
    if ending.endswith(".csv"):
        found = _csv_rows(data, sizes)
    elif ending.endswith(_LINES):
        lines = ((n, n, line) for n, line in enumerate(data.splitlines(), 1) if line.strip(b" \t\x1e"))
        found = (_json_row(n, line, raw.strip(b" \t\x1e"), id_path, sizes) for n, line, raw in lines)
    else:
        found = _geojson_rows(data, id_path, sizes)
    return _each_once(found)


def _each_once(rows: Iterator[FenceRow]) -> Iterator[FenceRow]:
    """The rows, a second one of the same id refused."""
    first: dict[str, int] = {}
    for row in rows:
        fence = row.fence
        if fence is None:
            yield row
        elif fence.id in first:
            message = f'the id "{fence.id}" stands twice, first in row {first[fence.id]:,}'
            yield msgspec.structs.replace(row, fence=None, problems=(message,))
        elif len(first) >= MOST_FENCES:
            message = f"more than {MOST_FENCES:,} places"
            yield msgspec.structs.replace(row, fence=None, problems=(message,))
        else:
            first[fence.id] = row.number
            yield row


class _Collection(msgspec.Struct):
    type: str
    features: list[msgspec.Raw]


def _geojson_rows(data: bytes, id_path: str, sizes: Sizes) -> Iterator[FenceRow]:
    try:
        collection = msgspec.json.decode(data, type=_Collection)
    except (msgspec.DecodeError, RecursionError) as fault:
        raise Unreadable(f"not a FeatureCollection of GeoJSON: {fault}") from fault
    at, line = 0, 1
    for number, raw in enumerate(collection.features, 1):
        text = bytes(raw)
        found = data.find(text, at)
        line += data.count(b"\n", at, found)
        yield _json_row(number, line, text, id_path, sizes)
        line += text.count(b"\n")
        at = found + len(text)


def _json_row(number: int, line: int, text: bytes, id_path: str, sizes: Sizes) -> FenceRow:
    try:
        feature = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as fault:
        raw = text[:1000].decode(errors="replace")
        return FenceRow(number=number, line=line, fence=None, problems=(f"not JSON: {fault}",), raw=raw)
    good, errors, mended = feature_at(feature, number - 1, (line, 1), _sizes_of(feature, sizes))
    fence = None
    if good is not None:
        fence_id = identifier(good, id_path)
        if fence_id is None:
            errors = [f'no text or number at "{id_path}"']
        else:
            properties = {word: value for word, value in good.properties.items() if word not in _RESERVED}
            fence = Fence(fence_id, good.shape, frozenset(), properties)
    return FenceRow(
        number=number,
        line=line,
        fence=fence,
        problems=tuple(errors),
        mended=tuple(mended),
        raw=feature if fence is None else None,
    )


def _sizes_of(feature: Any, sizes: Sizes) -> Sizes:
    """The sizes that the feature's own properties state, before those given for all."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return sizes
    radius, width = properties.get("radius"), properties.get("width")
    return Sizes(
        float(radius) if is_number(radius) else sizes.radius_meters,
        float(width) if is_number(width) else sizes.width_meters,
    )


def identifier(feature: GeoFeature, id_path: str) -> str | None:
    """The text or number at a path of a feature, None where there is none that can be a name."""
    value: Any = feature.id
    if id_path != "id":
        value = feature.properties
        for word in id_path.split(".")[1:]:
            value = value.get(word) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    word = str(value).strip()
    return word if word and len(word) <= LONGEST_NAME else None


def _csv_rows(data: bytes, sizes: Sizes) -> Iterator[FenceRow]:
    reader = csv.reader(io.StringIO(data.decode(), newline=""))
    header = [column.strip() for column in next(reader, [])]
    columns = {column.lower(): number for number, column in enumerate(header)}
    places = [next((columns[n] for n in names if n in columns), None) for names in (_LATITUDE, _LONGITUDE)]
    if "id" not in columns or None in places:
        raise Unreadable("a CSV of places has the columns id, latitude, longitude and radius")
    radius = next((columns[n] for n in _RADIUS if n in columns), None)
    if radius is None and sizes.radius_meters is None:
        raise Unreadable("there is no column radius: say --radius for all of them")
    own = {columns["id"], *places, radius, columns.get(_TAGS)}
    before = reader.line_num
    for number, cells in enumerate(reader, 1):
        line, before = before + 1, reader.line_num
        if not cells:
            continue
        if len(cells) != len(header):
            message = f"{len(cells)} values for {len(header)} columns"
            yield FenceRow(number=number, line=line, fence=None, problems=(message,), raw=cells)
            continue
        wrong: list[str] = []
        latitude, longitude = (_number(cells[at or 0], header[at or 0], wrong) for at in places)
        meters = sizes.radius_meters
        if radius is not None and cells[radius].strip():
            meters = _number(cells[radius], header[radius], wrong)
        fence_id = cells[columns["id"]].strip()
        if not fence_id or len(fence_id) > LONGEST_NAME:
            wrong.append("no id")
        if meters is None and not wrong:
            wrong.append("no radius")
        fence = None
        if not wrong and latitude is not None and longitude is not None and meters is not None:
            shape, flaws = examine(Circle(latitude, longitude, meters))
            wrong += [flaw.message for flaw in flaws]
            tags = cells[columns[_TAGS]].replace(";", " ").split() if _TAGS in columns else ()
            rest = {
                header[at]: cell
                for at, cell in enumerate(cells)
                if at not in own and cell and header[at].lower() not in _RESERVED
            }
            fence = Fence(fence_id, shape, frozenset(tags), rest) if not wrong else None
        raw = None if fence is not None else dict(zip(header, cells, strict=True))
        yield FenceRow(number=number, line=line, fence=fence, problems=tuple(wrong), raw=raw)


def _number(text: str, column: str, wrong: list[str]) -> float | None:
    try:
        return float(text)
    except ValueError:
        wrong.append(f'{column} is not a number: "{text[:40]}"')
        return None
