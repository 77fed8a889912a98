"""What rules say of places one by one, and of all with a tag.

With a million places an entry for each would take more memory than the places: what is said of a tag
is kept once, and put together for a place when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, overload

from engine.domain.places.packed_fences import PackedFences, Tagged

V = TypeVar("V")
D = TypeVar("D")

_MOST_KNOWN: Final = 100_000

Said = tuple[str | Tagged, int, V]
"""Of one place by its id, or of all with a tag: at which place in the order, and what."""


class SaidOfPlaces(Mapping[str, tuple[V, ...]], Generic[V]):
    """By a place's id what is said of it, in order, each once."""

    __slots__ = ("_fences", "_known", "_named", "_tagged")

    def __init__(self, said: Iterable[Said[V]]) -> None:
        self._named: dict[str, dict[int, V]] = {}
        self._tagged: dict[str, dict[int, V]] = {}
        self._known: dict[str, tuple[V, ...]] = {}
        self._fences: PackedFences | None = None
        for place, rank, value in said:
            if isinstance(place, Tagged):
                self._fences = place.fences
                self._tagged.setdefault(place.tag, {})[rank] = value
            else:
                self._named.setdefault(place, {})[rank] = value

    @overload
    def get(self, fence_id: str, /) -> tuple[V, ...] | None: ...
    @overload
    def get(self, fence_id: str, /, default: tuple[V, ...] | D) -> tuple[V, ...] | D: ...
    def get(self, fence_id: str, /, default: Any = None) -> Any:
        found = self._known.get(fence_id)
        if found is None:
            found = self._put_together(fence_id)
        return found or default

    def __getitem__(self, fence_id: str) -> tuple[V, ...]:
        found = self.get(fence_id, ())
        if not found:
            raise KeyError(fence_id)
        return found

    def __contains__(self, fence_id: object) -> bool:
        return isinstance(fence_id, str) and bool(self.get(fence_id, ()))

    def __iter__(self) -> Iterator[str]:
        yield from (fence_id for fence_id in self._named if fence_id in self)
        if self._fences is not None:
            tagged = {
                number
                for number, sort in enumerate(self._fences.sorts)
                if not sort.tags.isdisjoint(self._tagged)
            }
            for fence_id, number in zip(
                self._fences.ids, memoryview(self._fences.sort_numbers.data), strict=True
            ):
                if number in tagged and fence_id not in self._named:
                    yield fence_id

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._named or self._tagged)

    def every(self) -> set[V]:
        """All that is said of any place."""
        both = (*self._named.values(), *self._tagged.values())
        return {value for ranked in both for value in ranked.values()}

    def _put_together(self, fence_id: str) -> tuple[V, ...]:
        ranked = dict(self._named.get(fence_id, ()))
        if self._fences is not None and fence_id in self._fences:
            for tag in self._fences.sorts[self._fences.sort_at(fence_id)].tags:
                ranked.update(self._tagged.get(tag, ()))
        found = tuple(ranked[rank] for rank in sorted(ranked))
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[fence_id] = found
        return found
