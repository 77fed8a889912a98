"""What can be offered or done: items of the catalogue, what they say, and what they are limited by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from engine.domain.offers.expressions import Expression
from engine.domain.offers.patterns import Pattern

Render = Callable[[Mapping[str, Any]], str]
"""A compiled message template: variables by root name to text. Never raises on missing values."""
CalendarUnit = Literal["day", "week", "month"]


class Window(msgspec.Struct, frozen=True):
    """A span to count in: a rolling duration, or a calendar unit of the person's local time."""

    rolling: timedelta | None = None
    calendar: CalendarUnit | None = None
    text: str = ""


class PushMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Title and body by language tag, the first one being the default; compiled templates."""

    title: Mapping[str, Render]
    body: Mapping[str, Render]
    deeplink: Render | None = None
    image: Render | None = None
    time_to_live: timedelta = timedelta(hours=4)

    def __repr__(self) -> str:
        return "PushMessage(…)"


class InAppMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What waits at a place inside the app; texts by language tag as in a push."""

    placement: str
    title: Mapping[str, Render]
    body: Mapping[str, Render] = {}
    deeplink: Render | None = None
    image: Render | None = None

    def __repr__(self) -> str:
        return f"InAppMessage({self.placement!r}, …)"


class Converts(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as a conversion of an offer: an event `within` that time after the offer was made."""

    pattern: Pattern
    within: timedelta


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """At most `times` of an offer per window, over all people."""

    times: int
    per: Window


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """What an action sends: to the webhook of that name, a JSON object of these compiled templates."""

    name: str
    body: Mapping[str, Render] = {}


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue item, or an action, which has a `webhook`. Money in the workspace's currency;
    `propensity` is a model's name or a plain prior; `baseline` a model of buying without the offer.
    `again_after` is how long after a conversion the offer may be made again, None for never. A unit of
    the `budget`, or a voucher code of the `pool`, is held for `hold`."""

    id: str
    purpose: str
    value: Expression | None = None
    cost: float = 0.0
    send_cost: float = 0.0
    model: str | None = None
    prior: float | None = None
    at_least: float = 0.0
    baseline: str | None = None
    tags: frozenset[str] = frozenset()
    starts: datetime | None = None
    ends: datetime | None = None
    converts: Converts | None = None
    again_after: timedelta | None = None
    budget: Budget | None = None
    hold: timedelta | None = None
    pool: str | None = None
    webhook: Webhook | None = None
    push: PushMessage | None = None
    in_app: InAppMessage | None = None
    file: str = ""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of an experiment: a share of people in (0, 1], and what they are offered."""

    name: str
    share: float
    offer: Offer
