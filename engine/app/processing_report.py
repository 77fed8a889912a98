"""The records of processing (GDPR, article 30), as far as the workspace says them: what is known of
people, for which purposes, who gets it, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from engine.domain.offers.rules import RuleSet
from engine.domain.people.computed import HIDDEN
from engine.domain.people.sources import CORRECTION, PARTIES
from engine.domain.sharing.receivers import Receiver


class Datum(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is known of people. `purposes` are those that may read it."""

    name: str
    kind: str
    source: str
    label: str | None
    purposes: list[str]
    kept: str


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A purpose: on what basis, what silence means, which offers serve it and who is told."""

    purpose: str
    basis: str
    unknown: str
    offers: list[str]
    recipients: list[str]


class Processing(msgspec.Struct, frozen=True, kw_only=True):
    revision: str
    data: list[Datum]
    uses: list[Use]
    retention: dict[str, str]
    survivorship: list[str]
    """Whose word on a trait stands, the strongest first; of equals the newest."""
    after_erasure: str = msgspec.field(name="afterErasure")


def processing(rules: RuleSet, receivers: Sequence[Receiver] = ()) -> Processing:
    """The records that follow from a rule set, and from who is told of people."""
    workspace = rules.workspace
    everything = sorted(workspace.purposes)
    until_erased = "until it is overwritten or the person is erased"
    data = [
        Datum(
            name=trait.name,
            kind=f"stated, {trait.type}",
            source=trait.source,
            label=trait.label,
            purposes=_readers(rules, trait.name, everything),
            kept=until_erased,
        )
        for trait in workspace.traits.values()
    ]
    data += [
        Datum(
            name=trait.name,
            kind=f"computed, {trait.kind.value}",
            source="first_party",
            label=None,
            purposes=_readers(rules, trait.name, everything),
            kept=until_erased,
        )
        for trait in workspace.computed
        if not trait.name.startswith(HIDDEN)
    ]
    data += [
        Datum(
            name=namespace.name,
            kind="identity",
            source="first_party",
            label="personal",
            purposes=everything,
            kept=until_erased,
        )
        for namespace in workspace.namespaces
    ]
    data.append(
        Datum(
            name="position",
            kind="location",
            source="first_party",
            label="location",
            purposes=[p for p in everything if p == "location"] or everything,
            kept=_days(rules, "positions"),
        )
    )
    uses = [
        Use(
            purpose=purpose.name,
            basis=purpose.basis,
            unknown=purpose.unknown,
            offers=sorted(offer.id for offer in rules.offers.values() if offer.purpose == purpose.name),
            recipients=_recipients(rules, purpose.name, receivers),
        )
        for purpose in workspace.purposes.values()
    ]
    return Processing(
        revision=rules.revision,
        data=data,
        uses=uses,
        retention={what: _days(rules, what) for what in workspace.retention},
        survivorship=[CORRECTION, *reversed(PARTIES)],
        after_erasure="drop" if workspace.drops_erased else "unlinked",
    )


def _readers(rules: RuleSet, name: str, everything: Iterable[str]) -> list[str]:
    readers = rules.workspace.readers.get(name)
    return sorted(purpose.name for purpose in readers) if readers is not None else list(everything)


def _recipients(rules: RuleSet, purpose: str, receivers: Sequence[Receiver]) -> list[str]:
    """Who is told when something of that purpose is sent, and who is told of people for it."""
    pushes = any(offer.push is not None and offer.purpose == purpose for offer in rules.offers.values())
    hooks = {a.webhook.name for a in rules.actions.values() if a.purpose == purpose and a.webhook}
    return [
        *(["push services (FCM, APNs, Web Push)"] if pushes else []),
        *sorted(f"webhook {h}" for h in hooks),
        *sorted(_told(one) for one in receivers if one.topics and one.purpose == purpose),
    ]


def _told(receiver: Receiver) -> str:
    less = f", without {', '.join(receiver.without)}" if receiver.without else ""
    return f"{receiver.name} ({', '.join(receiver.topics)}{less})"


def _days(rules: RuleSet, what: str) -> str:
    span = rules.workspace.retention.get(what)
    return f"{span.days} days" if span is not None else "as long as the profile"


def markdown(found: Processing) -> str:
    """The records as a page for people."""
    lines = ["# Records of processing", "", f"Revision {found.revision}.", "", "## What is known", ""]
    lines += ["| | Kind | Source | Label | May be read for | Kept |", "|---|---|---|---|---|---|"]
    for datum in found.data:
        cells = (
            datum.name,
            datum.kind,
            datum.source,
            datum.label or "",
            ", ".join(datum.purposes),
            datum.kept,
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## What for", "", "| Purpose | Basis | Without an answer | Offers | Recipients |"]
    lines.append("|---|---|---|---|---|")
    for use in found.uses:
        basis = (use.purpose, use.basis, use.unknown, ", ".join(use.offers), ", ".join(use.recipients))
        lines.append("| " + " | ".join(basis) + " |")
    lines += ["", "## How long", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {span} |" for what, span in found.retention.items()]
    said = ", then ".join(word.replace("_", " ") for word in found.survivorship)
    lines += ["", f"Where sources differ on a trait: {said}; of equals the newest word stands."]
    lines += ["", f"Later events of somebody who was erased: {found.after_erasure}.", ""]
    return "\n".join(lines)
