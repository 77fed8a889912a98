"""The rule set: everything that a workspace's files say, compiled and cross-checked.

Built by `engine.formats.workspace`, used whole by `engine.domain.decide`, swapped whole on reload.
Nothing in here is looked up by name at decision time that could be missing: the loader has
already proved that every name resolves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Literal

import msgspec

from engine.domain.offers.catalogue import (
    Budget,
    CalendarUnit,
    Converts,
    InAppMessage,
    Offer,
    PushMessage,
    Render,
    Variant,
    Webhook,
    Window,
)
from engine.domain.offers.expressions import Expression, Moment
from engine.domain.offers.patterns import (
    ON_A_TRIP,
    PLACED,
    Pattern,
    Schedule,
    Step,
    TriggerKind,
    Watched,
    audience_change,
    timed,
)
from engine.domain.offers.pauses import NOTHING_PAUSED, Paused
from engine.domain.offers.propensity import ModelCard
from engine.domain.places.fence_index import Fence, FenceIndex
from engine.domain.places.interest import NO_INTEREST, Interest

__all__ = [
    "ON_A_TRIP",
    "PLACED",
    "Audience",
    "Budget",
    "CalendarUnit",
    "Cap",
    "Channel",
    "Computed",
    "ComputedKind",
    "Converts",
    "Counted",
    "During",
    "InAppMessage",
    "LocationPrecision",
    "Namespace",
    "Offer",
    "Pattern",
    "Precision",
    "Purpose",
    "PushMessage",
    "QuietHours",
    "Render",
    "Rule",
    "RuleSet",
    "Schedule",
    "SendTime",
    "Step",
    "TraitDeclaration",
    "TraitType",
    "TriggerKind",
    "TripPlan",
    "Variant",
    "Watched",
    "Webhook",
    "Window",
    "Workspace",
    "audience_change",
    "timed",
]

Channel = Literal["push", "in_app"]
Counted = Literal["offered", "delivered", "shown"]


class Cap(msgspec.Struct, frozen=True, kw_only=True):
    """At most `times` offers per person and window. On a rule it counts that rule's offers, for each
    value of `by` apart, or `of_account` those to all members of the event's account together; in the
    workspace it counts all, or those of one channel or purpose. `count` says what an offer must have come
    to."""

    times: int
    per: Window
    channel: Channel | None = None
    purpose: str | None = None
    by: Expression | None = None
    of_account: bool = False
    count: Counted = "offered"


class Purpose(msgspec.Struct, frozen=True, kw_only=True):
    """A consent purpose. `names` are what consent tools call it. `contract` needs no opt-in."""

    name: str
    basis: Literal["consent", "contract"] = "consent"
    unknown: Literal["deny", "allow"] = "deny"
    names: frozenset[str] = frozenset()


class QuietHours(msgspec.Struct, frozen=True):
    """From `start` (inclusive) to `end` (exclusive), local time; may pass midnight. With `defer`, what
    falls into them waits for their end."""

    start: time
    end: time
    defer: bool = False


class SendTime(msgspec.Struct, frozen=True):
    """At which hour of the person's own day an offer is made, and how long after its trigger it may
    still be."""

    at: time
    expires: timedelta = timedelta(days=1)


class During(msgspec.Struct, frozen=True):
    """When a rule may fire, local time. Empty `days` means every day ("mon" to "sun")."""

    start: time = time(0)
    end: time = time(0)
    days: frozenset[str] = frozenset()


Precision = Literal["exact", "neighbourhood", "city", "none"]


class LocationPrecision(msgspec.Struct, frozen=True, kw_only=True):
    """How exactly a position may be kept and used, by the state of the `location` purpose."""

    granted: Precision = "exact"
    denied: Precision = "none"
    unknown: Precision = "city"


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of identity, strongest first in the workspace. `sources` are paths into the event,
    e.g. ("traits", "email"); user_id and anonymous_id come from the event's own fields. `normal` gives
    the one spelling of a value, None for what is none. `in_traits` follows from the others: nothing but
    traits can name it."""

    name: str
    one: bool = False
    on_change: Literal["move", "replace"] = "move"
    sources: tuple[tuple[str, ...], ...] = ()
    normal: Callable[[str], str | None] | None = None
    in_traits: bool = False

    def __post_init__(self) -> None:
        own = self.name in ("user_id", "anonymous_id")
        elsewhere = [path for path in self.sources if path[0] != "traits"]
        msgspec.structs.force_setattr(self, "in_traits", not own and not elsewhere)


TraitType = Literal["string", "number", "boolean", "timestamp", "list"]


class TraitDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: TraitType
    source: str = "first_party"
    label: str | None = None


class TripPlan(msgspec.Struct, frozen=True, kw_only=True):
    """From which event on somebody is on the way, `to` which geofence (by its id or its property
    `store_id`), told apart `by` a value, and until when. `ahead`: how many seconds before they are
    there some rule wants to be told, the longest first."""

    name: str
    starts: Pattern
    to: Expression
    by: Expression | None = None
    ends: tuple[Pattern, ...] = ()
    expires: timedelta = timedelta(hours=2)
    ahead: tuple[int, ...] = ()


class ComputedKind(StrEnum):
    COUNT = "count"
    SUM = "sum"
    AVERAGE = "average"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    DISTINCT = "distinct"
    MOST_OFTEN = "most_often"
    DAYS_SINCE = "days_since"
    STEPS = "steps"
    RATIO = "ratio"


class Computed(msgspec.Struct, frozen=True, kw_only=True):
    """A computed trait. `value` is what is summed, kept or counted; `within` how far back it looks,
    None for ever. `steps` climb with the trait `of`, lowest threshold first; a ratio is `of` over
    `over`; a sum with an `of` reads those two in its expressions, as `profile.since` and `profile.until`.
    `most_often` values were seen `at_least` times; with `top` it is a list of so many. Money
    is in the workspace's currency."""

    name: str
    kind: ComputedKind
    pattern: Pattern | None = None
    value: Expression | None = None
    within: timedelta | None = None
    at_least: int = 1
    top: int | None = None
    of: str = ""
    over: str = ""
    steps: tuple[tuple[float, str], ...] = ()
    digest: bytes = b""
    """Tells this definition from any other (4 bytes); of steps and ratios, which keep nothing, none."""


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """People of whom `condition` is true. `moments` are the comparisons in it that time can turn,
    `ticking` the computed traits in them that grow steadily, `shifting` those that change by themselves
    at some moment; `models` are those whose scores it reads. `digest` (4 bytes) tells this definition,
    with all that it rests on, from any other."""

    name: str
    condition: Expression
    digest: bytes
    moments: tuple[Moment, ...] = ()
    ticking: tuple[Computed, ...] = ()
    shifting: tuple[Computed, ...] = ()
    models: frozenset[str] = frozenset()


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When, for whom, what. `fresh` is how old the event may be, None for any age. `audience` holds
    names, each with whether one must be in it. `rollout` is the share of people that the rule is for;
    `holdout` the share that it only says what it would have offered to; `experiment` is the salt of
    who gets which of the `variants`, which stand in the place of `offers`."""

    id: str
    when: Pattern
    offers: tuple[str, ...]
    action: str | None = None
    after: tuple[Step, ...] = ()
    unless: tuple[Step, ...] = ()
    condition: Expression | None = None
    audience: tuple[tuple[str, bool], ...] = ()
    rollout: float = 1.0
    experiment: str | None = None
    holdout: float = 0.0
    variants: tuple[Variant, ...] = ()
    during: During | None = None
    caps: tuple[Cap, ...] = ()
    fresh: timedelta | None = None
    send: SendTime | None = None
    quiet: Literal["defer", "drop"] | None = None
    placement: str | None = None
    priority: float = 0.0
    lever: float = 0.0
    tags: frozenset[str] = frozenset()
    starts: datetime | None = None
    ends: datetime | None = None
    file: str = ""


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    timezone: str = "UTC"
    currency: str = "EUR"
    rates: Mapping[str, float] = {}
    quiet_hours: QuietHours | None = None
    caps: tuple[Cap, ...] = ()
    holdout: float = 0.0
    """The share of people who get no offers that need consent at all."""
    purposes: Mapping[str, Purpose] = {}
    location_precision: LocationPrecision = LocationPrecision()
    labels: Mapping[str, frozenset[str]] = {}
    """Of traits: the purposes that may read those so labelled."""
    readers: Mapping[str, tuple[Purpose, ...]] = {}
    """Of traits with a label, stated and computed: the purposes of which one must be allowed."""
    namespaces: tuple[Namespace, ...] = ()
    server_only: frozenset[str] = frozenset()
    traits: Mapping[str, TraitDeclaration] = {}
    computed: tuple[Computed, ...] = ()
    counted_stamp: bytes = b""
    """The digests of the computed traits, one after the other."""
    account_computed: tuple[Computed, ...] = ()
    """Of accounts, over what all their members do."""
    retention: Mapping[str, timedelta] = {}
    drops_erased: bool = False
    """Whether later events of an identity that was erased are dropped, rather than a new person's."""


class RuleSet(msgspec.Struct, frozen=True, kw_only=True):
    """A revision, ready to decide with.

    `by_trigger` maps (kind, event name) and (enter/exit, fence id) to the rules that they can set
    off, in order of rule id (a dwell's and an approach's key is `timed`); `computed_by_trigger` the
    same for computed traits, `waits_by_trigger` for the rules that wait first, `watched_by_trigger`
    for what profiles must remember. `interest` is what they ask of presence beyond enter and exit.
    """

    revision: str
    workspace: Workspace
    fences: Mapping[str, Fence]
    index: FenceIndex
    offers: Mapping[str, Offer]
    actions: Mapping[str, Offer] = {}
    rules: Mapping[str, Rule]
    models: Mapping[str, ModelCard]
    by_trigger: Mapping[tuple[TriggerKind, str], tuple[Rule, ...]]
    computed_by_trigger: Mapping[tuple[TriggerKind, str], tuple[Computed, ...]]
    placed: Mapping[str, tuple[Rule, ...]] = {}
    """The rules that something at a geofence can set off, by its id."""
    counts_by_clock: bool = False
    """Whether a computed trait reads `local`."""
    audiences: tuple[Audience, ...] = ()
    """Each after those that it rests on."""
    audience_stamp: bytes = b""
    """The digests of all audiences, one after the other: what a profile was checked against."""
    audiences_read_all: bool = False
    """Whether one of them reads what any event may change, such as when the person was last seen."""
    of_accounts: RuleSet | None = None
    """What goes for the profiles of accounts: their roll-ups, as computed traits, and their audiences."""
    account_reads: frozenset[str] = frozenset()
    """The names below `account` that anything reads, `audiences` among them where a rule asks for one."""
    account_audiences: frozenset[str] = frozenset()
    uses_accounts: bool = False
    """Whether anything may look at `account` or `member`."""
    caps_accounts: bool = False
    """Whether a cap counts the offers to all members of an account."""
    timestamps: frozenset[str] = frozenset()
    """Of `of_accounts`: the names that read as a time."""
    waits_by_trigger: Mapping[tuple[TriggerKind, str], tuple[Rule, ...]] = {}
    watched_by_trigger: Mapping[tuple[TriggerKind, str], tuple[Watched, ...]] = {}
    scheduled: tuple[Rule, ...] = ()
    """The rules that have a schedule."""
    converts_by_trigger: Mapping[tuple[TriggerKind, str], tuple[Offer, ...]] = {}
    follows_outcomes: bool = False
    """Whether anything looks at what becomes of offers, those under a contract among them."""
    expires: bool = False
    """Whether anything wants to know that an offer expired."""
    watched: frozenset[str] = frozenset()
    """The keys of everything that profiles must remember."""
    trips: Mapping[str, TripPlan] = {}
    trips_by_trigger: Mapping[tuple[TriggerKind, str], tuple[TripPlan, ...]] = {}
    stores: Mapping[str, str] = {}
    """The property `store_id` of geofences → their id, where there are trips."""
    interest: Interest = NO_INTEREST
    reads_weather: bool = False
    """Whether any rule, message or model may ask for the weather."""
    silence: timedelta = timedelta(minutes=30)
    """How long after a fix presence is known."""
    paused: Paused = NOTHING_PAUSED
    """What operators have stopped: not of the files, but swapped as they are."""
    contact_horizon: timedelta = timedelta(days=400)
    """How far back any cap looks: offers made before are forgotten."""

    @property
    def reads_accounts(self) -> bool:
        """Whether a decision may hang on the document of the event's account."""
        return bool(self.account_reads) or self.caps_accounts

    def __repr__(self) -> str:
        return f"RuleSet({self.revision!r}, {len(self.rules)} rules)"
