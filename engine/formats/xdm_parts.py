"""Fields of a profile's record as traits, and back.

A trait may have 4 KB, a field of XDM more: a person is in hundreds of segments. So a large object is
kept in parts, traits of their own beside the first: `xdm.segmentMembership` has the first entries,
`xdm.segmentMembership#1` the next; an entry too large itself stands as `xdm.segmentMembership/ups`. Parts
belong together by the time at which they were said: those of an older, larger object count no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from engine.domain.people.profiles import Trait
from engine.formats.xdm_fields import object_at, with_field

KEPT: Final = "xdm."
"""Before the name of a record's field, the trait that it is kept as."""
PART_BYTES: Final = 3_500
"""Of a part, encoded as profiles are: a trait's name and its time come on top."""

_encode = msgspec.msgpack.Encoder().encode


def traits_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record's fields as traits."""
    return dict(part for name, value in record.items() for part in _parts(KEPT + _escaped(name), value))


def fields_of(traits: Mapping[str, Trait]) -> dict[str, Any]:
    """The record whose fields are kept among the traits; what was taken away is not in it."""
    record: dict[str, Any] = {}
    for name in sorted(name for name in traits if name.startswith(KEPT) and len(name) > len(KEPT)):
        trait = traits[name]
        path = tuple(_unescaped(step.partition("#")[0]) for step in name[len(KEPT) :].split("/"))
        head = name.split("/", 1)[0].partition("#")[0]
        if trait.value is None or (name != head and _is_stale(trait, traits.get(head))):
            continue
        if name != head and isinstance(trait.value, Mapping):
            record = with_field(record, path, {**object_at(record, *path), **trait.value})
        else:
            record = with_field(record, path, trait.value)
    return record


def _is_stale(part: Trait, head: Trait | None) -> bool:
    return head is None or head.at != part.at


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or len(_encode(value)) <= PART_BYTES:
        yield name, value
        return
    part: dict[str, Any] = {}
    number, size = 0, 0
    for key, inner in value.items():
        length = len(_encode((key, inner)))
        if length > PART_BYTES:
            yield from _parts(f"{name}/{_escaped(key)}", inner)
            continue
        if size + length > PART_BYTES:
            yield _numbered(name, number), part
            part, number, size = {}, number + 1, 0
        part[key] = inner
        size += length
    yield _numbered(name, number), part


def _numbered(name: str, number: int) -> str:
    return f"{name}#{number}" if number else name


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1").replace("#", "~2")


def _unescaped(step: str) -> str:
    return step.replace("~2", "#").replace("~1", "/").replace("~0", "~")
