"""What operators have stopped for now: a rule, an offer, a channel, or everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

What = Literal["rule", "offer", "channel", "all"]
CHANNELS = ("push", "in_app", "webhook")


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """One stop. `name` is the rule's, offer's or channel's; empty for everything."""

    id: str
    what: What
    name: str = ""
    reason: str = ""
    since: datetime


class Paused(msgspec.Struct, frozen=True):
    """All stops that are in force. Empty it is false, and costs a candidate nothing."""

    pauses: tuple[Pause, ...] = ()
    by_name: Mapping[tuple[What, str], Pause] = {}

    def __bool__(self) -> bool:
        return bool(self.pauses)

    def stop(self, rule: str | None, offer: str | None, channel: str) -> Pause | None:
        """The stop that holds for an offer made by a rule over a channel."""
        if not self.pauses:
            return None
        names: tuple[tuple[What, str | None], ...] = (
            ("all", ""),
            ("channel", channel),
            ("rule", rule),
            ("offer", offer),
        )
        for what, name in names:
            if name is not None and (found := self.by_name.get((what, name))) is not None:
                return found
        return None

    def names(self, what: What) -> list[str]:
        return [pause.name for pause in self.pauses if pause.what == what]


NOTHING_PAUSED = Paused()


class Held(msgspec.Struct, frozen=True):
    """Offers put off that must stay so: all, or those of some rules."""

    everything: bool = False
    rules: tuple[str, ...] = ()


NOTHING_HELD = Held()


def held(stopped: Paused, offers: Mapping[str, Iterable[str]]) -> Held:
    """What is held of offers put off; `offers` are those that each rule may make."""
    if not stopped:
        return NOTHING_HELD
    if stopped.stop(None, None, "push") is not None:
        return Held(everything=True)
    named = {*stopped.names("offer")}
    rules = {*stopped.names("rule"), *(rule for rule, may in offers.items() if not named.isdisjoint(may))}
    return Held(rules=tuple(sorted(rules)))


def paused(pauses: Iterable[Pause]) -> Paused:
    """The stops together; of two for the same the first one is shown."""
    ordered = tuple(sorted(pauses, key=lambda pause: (pause.since, pause.id)))
    by_name: dict[tuple[What, str], Pause] = {}
    for pause in ordered:
        by_name.setdefault((pause.what, pause.name), pause)
    return Paused(ordered, by_name)


def numbers(pause: Pause) -> Mapping[str, Any]:
    """What a decision says of the stop that met it."""
    return {"what": pause.what, "name": pause.name, "because": pause.reason, "since": pause.since}
