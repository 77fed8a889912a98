"""What a person allowed, by purpose: granted, denied, or unknown, which is neither."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from engine.domain.offers.rules import Precision, Purpose, Workspace
from engine.domain.people.events import Event
from engine.domain.people.profiles import Address, Consent, Profile, Stated

LOCATION = "location"
MOST_STATEMENTS = 100
"""Of a person, the newest: what was said before stands in the event log, for as long as that is kept."""
State = Literal["granted", "denied", "unknown"]


def state_of(consent: Mapping[str, Consent], purpose: str) -> State:
    statement = consent.get(purpose)
    if statement is None:
        return "unknown"
    return "granted" if statement.granted else "denied"


def permits(consent: Mapping[str, Consent], purpose: Purpose) -> bool:
    """Whether the purpose may be acted on. A contract purpose needs no consent."""
    if purpose.basis == "contract":
        return True
    state = state_of(consent, purpose.name)
    return state == "granted" or (state == "unknown" and purpose.unknown == "allow")


def location_precision(
    consent: Mapping[str, Consent], device: Address | None, workspace: Workspace
) -> Precision:
    """How exactly a position may be kept: by what was said on the device that reports it, else by
    what the person said."""
    if LOCATION not in workspace.purposes:
        return "exact"
    if device is not None and device.location is not None:
        consent = {LOCATION: device.location}
    return getattr(workspace.location_precision, state_of(consent, LOCATION))  # type: ignore[no-any-return]


def stated(event: Event, purpose: Purpose) -> Consent | None:
    """What the event says of a purpose, under its own name or one that consent tools use. Where it
    says both, it is denied."""
    found = {
        name: granted
        for name, granted in event.consent.items()
        if name == purpose.name or name in purpose.names
    }
    if not found:
        return None
    source = next((name for name, granted in found.items() if not granted), next(iter(found)))
    at = event.known_at
    if event.consent_at:
        at = min(event.consent_at.get(source, at), event.received_at)
    return Consent(found[source], at, source)


def history(profile: Profile, consent: Mapping[str, Consent]) -> tuple[Stated, ...]:
    """Each change of mind until now, oldest first, with those that `consent` has anew. SDKs repeat with
    every event what was said once: that is none."""
    news = [
        Stated(purpose, said.granted, said.at, said.source)
        for purpose, said in consent.items()
        if (known := profile.consent.get(purpose)) is None or known.granted != said.granted
    ]
    return united_history(profile.consent_history, tuple(news)) if news else profile.consent_history


def united_history(one: tuple[Stated, ...], other: tuple[Stated, ...]) -> tuple[Stated, ...]:
    """What is in either, once, the newest of it."""
    together = sorted({*one, *other}, key=lambda said: (said.at, said.purpose, said.granted, said.source))
    return tuple(together[-MOST_STATEMENTS:])


def sharing(known: Consent | None, event: Event) -> Consent | None:
    """Whether what is known may be given to others, after the event: Global Privacy Control says no, the
    trait `do_not_sell` says either. The newest word stands; of two at once the no."""
    if not event.traits and "gpc" not in event.context:
        return known
    said = known
    stated_trait = event.traits.get("do_not_sell")
    if isinstance(stated_trait, bool):
        said = Consent(not stated_trait, event.known_at, "do_not_sell")
    if event.context.get("gpc") is True:
        said = Consent(False, event.known_at, "gpc")
    if said is None or known is None or said.at >= known.at:
        return said
    return known


def with_statements(consent: dict[str, Consent], event: Event, workspace: Workspace) -> dict[str, Consent]:
    """The consent after what the event states; the newest statement of a purpose stands. Names that
    nobody declared are left out."""
    if not event.consent:
        return consent
    changed = dict(consent)
    for purpose in workspace.purposes.values():
        statement = stated(event, purpose)
        known = changed.get(purpose.name)
        if statement is not None and (known is None or known.at <= statement.at):
            changed[purpose.name] = statement
    return changed
