"""What waits for a tick: events on their way in, and the answer that they make up together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.candidates import NO_SLOTS, Slots
from engine.domain.offers.decisions import Decision
from engine.domain.people import identity
from engine.domain.people.counting import Recount
from engine.domain.people.events import Event, Location
from engine.domain.people.profiles import IdentityKey


class Overloaded(Exception):
    """The lane is full: the caller should come back later. Nothing was taken."""


class Interrupted(Exception):
    """The database went away while events were under way: some may be stored; send them again."""


class Reply(msgspec.Struct, eq=False):
    """The answer to one request, complete when each of its events is durable.

    `told` is called then, with the fault if there was one; where it is not given, `done` can be
    awaited instead.
    """

    outstanding: int
    told: Callable[[Reply, Exception | None], None] | None = None
    accepted: int = 0
    duplicates: int = 0
    _ended: bool = False
    _fault: Exception | None = None
    _done: asyncio.Future[None] | None = None
    _decisions: dict[int, Sequence[Decision]] | None = None

    @property
    def done(self) -> asyncio.Future[None]:
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
            if self._ended:
                self._settle()
        return self._done

    @property
    def is_plain(self) -> bool:
        """Whether all that there is to tell is that one event was accepted."""
        return self.accepted == 1 and not self.duplicates and self._decisions is None

    @property
    def decisions(self) -> list[Decision]:
        """All decisions, in the order of the request's events."""
        if not self._decisions:
            return []
        return [d for position in sorted(self._decisions) for d in self._decisions[position]]

    def settle(self, position: int, decisions: Sequence[Decision], *, duplicate: bool) -> None:
        if duplicate:
            self.duplicates += 1
        else:
            self.accepted += 1
        if decisions:
            self._decisions = self._decisions or {}
            self._decisions[position] = decisions
        self.outstanding -= 1
        if self.outstanding == 0:
            self._end(None)

    def fail(self, fault: Exception) -> None:
        self._end(fault)

    def _end(self, fault: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self.told is not None:
            self.told(self, fault)
            return
        self._fault = fault
        if self._done is not None:
            self._settle()

    def _settle(self) -> None:
        assert self._done is not None
        if self._done.done():
            return
        if self._fault is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(self._fault)


class Pending(msgspec.Struct, kw_only=True):
    """An event that waits to be decided.

    `ordered`: it keeps its place among its request's events, also those of other people. `newest` is the
    request's newest fix where that is not the event's own, `slots` what the app that
    sent it has room for, `timer` the row (bucket,
    profile, id, due) that the event comes from; `account` is what was known of its account when it was
    decided before, for an event of the past. `recount` is what to take into the profile first, and
    `recounted` whether it still fitted. `losses` counts the
    commits that it lost to another engine; `stored_seq` is set once the database said that it has
    the message, and `unsure` if that may have been by our own commit whose outcome got lost.
    `repeat_of` is the earlier event of the same tick that carries the same message. `dropped`: it is
    about somebody who was erased, and leaves nothing.
    """

    event: Event
    reply: Reply
    keys: tuple[IdentityKey, ...]
    position: int = 0
    ordered: bool = True
    newest: Location | None = None
    slots: Slots = NO_SLOTS
    timer: tuple[int, str, str, datetime] | None = None
    account: Mapping[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    recount: Recount | None = None
    recounted: bool = False
    losses: int = 0
    stored_seq: tuple[str, int] | None = None
    unsure: bool = False
    decisions: Sequence[Decision] = ()
    repeat_of: Pending | None = None
    dropped: bool = False
    _lookups: tuple[IdentityKey, ...] = ()

    @property
    def lookups(self) -> tuple[IdentityKey, ...]:
        """Everything that the index must be asked about for it."""
        if not self._lookups:
            self._lookups = identity.lookups(self.event, self.keys)
        return self._lookups

    def name(self, keys: tuple[IdentityKey, ...]) -> None:
        """From now on it is about these."""
        self.keys, self._lookups = keys, ()

    def __repr__(self) -> str:
        return f"Pending({self.event!r})"
