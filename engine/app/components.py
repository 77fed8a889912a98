"""Which events of a tick concern the same people, and so must be decided and written together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.adapters.postgres.rows import Shared
from engine.app.replies import Pending
from engine.domain.people.events import Event
from engine.domain.people.profiles import DEVICE_NAMESPACE, IdentityKey, Profile


class Asked(msgspec.Struct, frozen=True):
    """A pending event with everything that the index is asked about it."""

    pending: Pending
    lookups: tuple[IdentityKey, ...]


def components(asked: Sequence[Asked], hints: Mapping[IdentityKey, str]) -> list[list[Asked]]:
    """Events by connected component of everything that they name; order of arrival is kept."""
    parent: dict[object, object] = {}

    def root(node: object) -> object:
        top = node
        while top in parent:
            top = parent[top]
        while node != top:
            parent[node], node = top, parent[node]
        return top

    places: list[object] = []
    for one in asked:
        # A key that has an owner stands for the owner: nearly always that is one node.
        place: object = None
        for key in one.lookups:
            node: object = hints.get(key, key)
            if place is None:
                place = node
            elif node != place and (other := root(node)) != (mine := root(place)):
                parent[other] = mine
        places.append(place)
    groups: dict[object, list[Asked]] = {}
    for one, place in zip(asked, places, strict=True):
        groups.setdefault(root(place) if parent else place, []).append(one)
    return list(groups.values())


def meetings(
    asked: Sequence[Asked], hints: Mapping[IdentityKey, str], profiles: Mapping[str, Profile]
) -> list[tuple[str, str]]:
    """The pairs of profiles that an event may show to be one person, the shorter one first."""
    met: set[tuple[str, str]] = set()
    for one in asked:
        if len(one.pending.keys) == 1 and one.pending.event.previous_id is None:
            continue
        owners = {hints[key] for key in one.lookups if key[0] != DEVICE_NAMESPACE and key in hints}
        if len(owners) > 1:
            known = sorted((profiles[i] for i in owners if i in profiles), key=lambda p: (p.seq, p.id))
            for position, shorter in enumerate(known):
                for longer in known[position + 1 :]:
                    met.update(
                        (a, b)
                        for a in (shorter.id, *(absorbed.id for absorbed in shorter.absorbed))
                        for b in (longer.id, *(absorbed.id for absorbed in longer.absorbed))
                    )
    return sorted(met)


def copies(shared: Sequence[Shared], ended: Profile, survivor: Profile) -> list[tuple[Event, Event | None]]:
    """The events of `ended` that `survivor` has, too, each once, with the survivor's own copy."""
    own = {ended.id, *(absorbed.id for absorbed in ended.absorbed)}
    others = {survivor.id, *(absorbed.id for absorbed in survivor.absorbed)}
    found: dict[tuple[str, str], tuple[Event, Event | None]] = {}
    for one in shared:
        if one.profile_id in own and one.other_id in others and one.event is not None:
            found[one.sender, one.message_id] = one.event, one.other_event
        elif one.other_id in own and one.profile_id in others and one.other_event is not None:
            found[one.sender, one.message_id] = one.other_event, one.event
    return list(found.values())
