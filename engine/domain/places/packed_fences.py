"""Very many fences in little memory: encoded one after the other, decoded when they are asked for.

A million of them take some hundred megabytes, where objects would take a gigabyte. What is said of
them by their tags is looked up by their tags (`tagged`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.domain.places.fences import Fence

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Fence).decode
_INTEGERS: Final = range(-(2**63), 2**64)


class Sort(msgspec.Struct, frozen=True):
    """What many fences have in common: their tags, the names of their properties, and whether anybody
    said their hours."""

    tags: frozenset[str]
    words: tuple[str, ...]
    has_hours: bool


def sort_of(fence: Fence) -> Sort:
    return Sort(fence.tags, tuple(fence.properties), fence.opening is not None)


class SortedIds(Mapping[str, int]):
    """From an id to its place in a sorted list, without the memory of a dictionary."""

    __slots__ = ("_ids",)

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def __getitem__(self, fence_id: str) -> int:
        number = bisect_left(self._ids, fence_id)
        if number == len(self._ids) or self._ids[number] != fence_id:
            raise KeyError(fence_id)
        return number

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


class PackedFences(Mapping[str, Fence]):
    """Fences by id, in order of id. `starts` and `ends` are where each stands in `data`, `sort_numbers`
    which of the `sorts` each is of."""

    __slots__ = ("_numbers", "data", "ends", "ids", "sort_numbers", "sorts", "starts")

    def __init__(
        self,
        ids: list[str],
        data: bytes | bytearray,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        sort_numbers: NDArray[np.uint32],
        sorts: tuple[Sort, ...],
    ) -> None:
        self.ids = ids
        self.data = data
        self.starts = starts
        self.ends = ends
        self.sort_numbers = sort_numbers
        self.sorts = sorts
        self._numbers = SortedIds(ids)

    def __reduce__(self) -> tuple[object, ...]:
        return PackedFences, (self.ids, self.data, self.starts, self.ends, self.sort_numbers, self.sorts)

    def __getitem__(self, fence_id: str) -> Fence:
        number = self._numbers[fence_id]
        return _decode(memoryview(self.data)[self.starts[number] : self.ends[number]])

    def __contains__(self, fence_id: object) -> bool:
        return isinstance(fence_id, str) and fence_id in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def values(self) -> ValuesView[Fence]:
        """All of them in order, each decoded once."""
        return _InOrder(self)

    def items(self) -> ItemsView[str, Fence]:
        return _WithIds(self)

    def sort_at(self, fence_id: str) -> int:
        """The number of a fence's sort. KeyError for an unknown id."""
        return int(self.sort_numbers[self._numbers[fence_id]])

    def nbytes(self) -> int:
        """The memory that they take, without the ids."""
        return len(self.data) + self.starts.nbytes + self.ends.nbytes + self.sort_numbers.nbytes


class _InOrder(ValuesView[Fence]):
    _mapping: PackedFences

    def __iter__(self) -> Iterator[Fence]:
        packed = self._mapping
        view = memoryview(packed.data)
        for start, end in zip(memoryview(packed.starts.data), memoryview(packed.ends.data), strict=True):
            yield _decode(view[start:end])


class _WithIds(ItemsView[str, Fence]):
    _mapping: PackedFences

    def __iter__(self) -> Iterator[tuple[str, Fence]]:
        return zip(self._mapping.ids, self._mapping.values(), strict=True)


class Tagged(Set[str]):
    """The ids of all fences with a tag, in order."""

    __slots__ = ("_sorts", "fences", "tag")

    def __init__(self, fences: PackedFences, tag: str) -> None:
        self.fences = fences
        self.tag = tag
        self._sorts = frozenset(number for number, sort in enumerate(fences.sorts) if tag in sort.tags)

    def __reduce__(self) -> tuple[object, ...]:
        return Tagged, (self.fences, self.tag)

    def __contains__(self, fence_id: object) -> bool:
        return fence_id in self.fences and self.fences.sort_at(str(fence_id)) in self._sorts

    def __iter__(self) -> Iterator[str]:
        ids = self.fences.ids
        return (ids[number] for number in np.flatnonzero(self._are_of()).tolist())

    def __len__(self) -> int:
        return int(np.count_nonzero(self._are_of()))

    def __bool__(self) -> bool:
        return bool(self._sorts)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Tagged) and other.fences is self.fences:
            return other._sorts == self._sorts
        return isinstance(other, Set) and Set.__eq__(self, other)

    def __hash__(self) -> int:
        return hash(self._sorts)

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        if isinstance(other, Tagged) and other.fences is self.fences:
            return self._sorts.isdisjoint(other._sorts)
        return not any(fence_id in self for fence_id in other)

    def __repr__(self) -> str:
        return f"Tagged({self.tag!r})"

    def _are_of(self) -> NDArray[np.bool_]:
        return np.isin(self.fences.sort_numbers, list(self._sorts))


class Double(msgspec.Struct, frozen=True):
    """An id that stands twice, with the numbers of the earlier and the later fence."""

    id: str
    earlier: int
    later: int


class Packing:
    """Fences on their way into a package, numbered from 0 as they come."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._data = bytearray()
        self._ends = array("q")
        self._sort_numbers = array("I")
        self._sorts: dict[Sort, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, fence: Fence) -> None:
        try:
            self._data += _encode(fence)
        except OverflowError:
            narrowed = msgspec.structs.replace(fence, properties=_narrowed(fence.properties))
            self._data += _encode(narrowed)
        self._ids.append(fence.id)
        self._ends.append(len(self._data))
        self._sort_numbers.append(self._sorts.setdefault(sort_of(fence), len(self._sorts)))

    def packed(self) -> tuple[PackedFences, list[Double]]:
        """The fences, and those whose id stood twice, of which the last one stands."""
        ids = self._ids
        # By id, and of one id the latest first.
        order = np.array(sorted(range(len(ids) - 1, -1, -1), key=ids.__getitem__), np.uint32)
        ordered = [ids[number] for number in order.tolist()]
        is_first = np.ones(len(ordered), np.bool_)
        doubles: list[Double] = []
        for at in range(1, len(ordered)):
            if ordered[at] == ordered[at - 1]:
                is_first[at] = False
                doubles.append(Double(ordered[at], int(order[at]), int(order[at - 1])))
        if doubles:
            ordered = [fence_id for fence_id, keep in zip(ordered, is_first.tolist(), strict=True) if keep]
            order = order[is_first]
        ends = np.frombuffer(self._ends, np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
        found = PackedFences(
            ordered,
            self._data,
            starts[order],
            ends[order],
            np.frombuffer(self._sort_numbers, np.uint32)[order],
            tuple(self._sorts),
        )
        return found, doubles


def pack(fences: Iterable[Fence]) -> PackedFences:
    """The fences packed; of two with one id the later stands."""
    packing = Packing()
    for fence in fences:
        packing.add(fence)
    return packing.packed()[0]


def _narrowed(value: Any) -> Any:
    """The value with integers that no 64 bits hold as floats."""
    if isinstance(value, dict):
        return {word: _narrowed(one) for word, one in value.items()}
    if isinstance(value, list):
        return [_narrowed(one) for one in value]
    return float(value) if isinstance(value, int) and value not in _INTEGERS else value
