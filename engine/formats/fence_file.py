"""`.fences` files: what `viewfinder import geofences` makes of GeoJSON or CSV. One place a line.

They are part of the workspace like its YAML: checked, published, rolled back and named by the
revision with it. A first line with the digest of the others says that every place was examined; a
file that was changed since is refused, because to examine a million shapes again takes minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from engine.domain.places.fences import Fence
from engine.formats.problems import Problem

SUFFIX: Final = ".fences"
FORMAT: Final = 1

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Fence).decode


class Head(msgspec.Struct, frozen=True):
    """The first line: the format, how many places, and the SHA-256 of the lines below."""

    format: int
    fences: int
    sha256: str


def write_fences(out: BinaryIO, fences: Iterable[Fence]) -> int:
    """Writes places that were examined, and says how many. `out` can be sought in."""
    digest, count = hashlib.sha256(), 0
    out.write(_first_line(Head(FORMAT, 0, digest.hexdigest())))
    for fence in fences:
        line = _encode(fence) + b"\n"
        digest.update(line)
        out.write(line)
        count += 1
    out.seek(0)
    out.write(_first_line(Head(FORMAT, count, digest.hexdigest())))
    return count


def read_fences(data: bytes, file: str) -> Iterator[Fence] | Problem:
    """The places of a file, one after the other, or why it cannot be used."""
    end = data.find(b"\n") + 1
    first = data[:end]
    try:
        head = msgspec.json.decode(first, type=Head)
    except msgspec.DecodeError:
        return Problem(file, 1, 1, "not a file that viewfinder import geofences wrote")
    if head.format != FORMAT:
        return Problem(file, 1, 1, f"written in format {head.format}, which this version does not know")
    if hashlib.sha256(memoryview(data)[end:]).hexdigest() != head.sha256:
        hint = "import the places again: viewfinder import geofences"
        return Problem(file, 1, 1, "the file was changed after its places were examined", hint)
    return _fences(data, end)


def _fences(data: bytes, at: int) -> Iterator[Fence]:
    """Line by line: all lines at once would take as much memory again."""
    while (end := data.find(b"\n", at)) >= 0:
        yield _decode(data[at:end])
        at = end + 1


def _first_line(head: Head) -> bytes:
    """Always as long: it is written twice."""
    return _encode(head).ljust(127) + b"\n"
