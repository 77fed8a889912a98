"""Whatever patterns set off, filed under what sets it off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, overload

from engine.domain.offers.patterns import PLACED, Pattern, TriggerKey, span_text, split_timed
from engine.domain.places.packed_fences import Tagged
from engine.domain.places.said_of_places import Said, SaidOfPlaces

T = TypeVar("T")
D = TypeVar("D")
Filed = Mapping[TriggerKey, tuple[T, ...]]

_MOST_KNOWN: Final = 100_000


class FiledByTag(Mapping[TriggerKey, tuple[T, ...]], Generic[T]):
    """By trigger, where some patterns name the tag of packed fences: what happens at a place is looked
    up by its id and its tags."""

    __slots__ = ("_known", "_placed", "_plain")

    def __init__(
        self, plain: Mapping[TriggerKey, tuple[T, ...]], placed: Mapping[TriggerKey, SaidOfPlaces[T]]
    ) -> None:
        self._plain = plain
        self._placed = placed
        self._known: dict[TriggerKey, tuple[T, ...]] = {}

    @overload
    def get(self, trigger: TriggerKey, /) -> tuple[T, ...] | None: ...
    @overload
    def get(self, trigger: TriggerKey, /, default: tuple[T, ...] | D) -> tuple[T, ...] | D: ...
    def get(self, trigger: TriggerKey, /, default: Any = None) -> Any:
        found = self._known.get(trigger)
        if found is None:
            found = self._found(trigger)
        return found or default

    def __getitem__(self, trigger: TriggerKey) -> tuple[T, ...]:
        found = self.get(trigger, ())
        if not found:
            raise KeyError(trigger)
        return found

    def __contains__(self, trigger: object) -> bool:
        return isinstance(trigger, tuple) and bool(self.get(trigger, ()))

    def __iter__(self) -> Iterator[TriggerKey]:
        yield from self._plain
        for (kind, span), said in self._placed.items():
            for fence_id in said:
                yield kind, f"{fence_id}\n{span}" if span else fence_id

    def __len__(self) -> int:
        return len(self._plain) + sum(map(len, self._placed.values()))

    def __bool__(self) -> bool:
        return bool(self._plain or self._placed)

    def _found(self, trigger: TriggerKey) -> tuple[T, ...]:
        kind, name = trigger
        found: tuple[T, ...] = self._plain.get(trigger, ())
        if not found and kind in PLACED:
            fence_id, span = split_timed(name)
            said = self._placed.get((kind, span))
            found = said.get(fence_id, ()) if said is not None else ()
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[trigger] = found
        return found


def filed_by_trigger(
    pairs: Iterable[tuple[Pattern, T]], more: Mapping[TriggerKey, tuple[T, ...]] | None = None
) -> Filed[T]:
    """What each pattern sets off, in the order of `pairs`, each once; and `more` as it is."""
    pairs = list(pairs)
    by_tag = {
        (pattern.kind, span_text(pattern.span)) for pattern, _ in pairs if isinstance(pattern.fences, Tagged)
    }
    plain: dict[TriggerKey, list[T]] = {}
    placed: dict[TriggerKey, list[Said[T]]] = {}
    ranks: dict[int, int] = {}
    for pattern, item in pairs:
        key = pattern.kind, span_text(pattern.span)
        if key in by_tag:
            rank = ranks.setdefault(id(item), len(ranks))
            fences = (pattern.fences,) if isinstance(pattern.fences, Tagged) else pattern.fences
            placed.setdefault(key, []).extend((fence, rank, item) for fence in fences)
            continue
        for trigger in pattern.triggers:
            several = plain.setdefault(trigger, [])
            if not several or several[-1] is not item:
                several.append(item)
    filed = {**{trigger: tuple(several) for trigger, several in plain.items()}, **(more or {})}
    if not placed:
        return filed
    return FiledByTag(filed, {key: SaidOfPlaces(said) for key, said in placed.items()})
