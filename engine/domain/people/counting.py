"""Which computed traits a profile's state is whole for.

A profile carries the digests of the definitions that it was counted by. A trait that is declared, or
declared anew, afterwards is unknown of that person, and nothing is added to it, until the event log
was counted once: a number that only began today must not pass for the number of ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.domain.offers.rules import Computed, ComputedKind, RuleSet, Workspace
from engine.domain.people.profiles import Membership, Profile

DIGEST_BYTES = 4
DERIVED = (ComputedKind.STEPS, ComputedKind.RATIO)


class Recount(msgspec.Struct, frozen=True):
    """What the traits that a profile lacked come to over its first `seq` events."""

    seq: int
    states: Mapping[str, Any]
    of_accounts: Mapping[str, Mapping[str, Any]] = {}
    """What the roll-ups that they were not handed on for come to, by account and digest."""

    def __repr__(self) -> str:
        return f"Recount({self.seq})"


def stamp_of(computed: tuple[Computed, ...]) -> bytes:
    """The digests of all definitions, one after the other."""
    return b"".join(sorted(trait.digest for trait in computed if trait.digest))


def digests(stamp: bytes) -> frozenset[bytes]:
    return frozenset(stamp[at : at + DIGEST_BYTES] for at in range(0, len(stamp), DIGEST_BYTES))


def is_whole(profile: Profile, workspace: Workspace) -> bool:
    """Whether everything is counted, as it is of somebody whom nothing has happened to."""
    return profile.counted == workspace.counted_stamp or not profile.seq


def whole(profile: Profile, workspace: Workspace) -> tuple[Computed, ...]:
    """The traits that may be read, and are counted on."""
    if is_whole(profile, workspace):
        return workspace.computed
    known = digests(profile.counted)
    names = {trait.name for trait in workspace.computed if trait.digest in known}
    for kind in (ComputedKind.RATIO, ComputedKind.STEPS):
        names.update(
            trait.name
            for trait in workspace.computed
            if trait.kind is kind and trait.of in names and (not trait.over or trait.over in names)
        )
    return tuple(trait for trait in workspace.computed if trait.name in names)


def lacking(profile: Profile, workspace: Workspace) -> tuple[Computed, ...]:
    """The traits that are still to be counted from the log."""
    if is_whole(profile, workspace):
        return ()
    known = digests(profile.counted)
    return tuple(trait for trait in workspace.computed if trait.digest and trait.digest not in known)


def rollups_of(rules: RuleSet) -> bytes:
    """The digests of all that is counted of accounts."""
    return rules.of_accounts.workspace.counted_stamp if rules.of_accounts is not None else b""


def stamped(profile: Profile, workspace: Workspace) -> bytes:
    """The profile's stamp from now on: definitions that are gone are let go."""
    if profile.counted == workspace.counted_stamp:
        return profile.counted
    if is_whole(profile, workspace):
        return workspace.counted_stamp
    return b"".join(sorted(digests(profile.counted) & digests(workspace.counted_stamp)))


def recounted(profile: Profile, recount: Recount, rules: RuleSet) -> Profile | None:
    """The profile with what it lacked, None where something has happened to it since. Its audiences
    that rest on that are looked at as if they had just been declared: nobody enters one by it."""
    workspace = rules.workspace
    missing = lacking(profile, workspace)
    if recount.seq != profile.seq or not {trait.name for trait in missing} <= recount.states.keys():
        return None
    kept = {trait.name for trait in workspace.computed} - recount.states.keys()
    states = {name: state for name, state in profile.computed.items() if name in kept}
    states.update((name, state) for name, state in recount.states.items() if state is not None)
    return msgspec.structs.replace(
        profile,
        computed=states,
        counted=workspace.counted_stamp,
        handed_on=rollups_of(rules) if profile.accounts else b"",
        audiences=_undeclared(profile.audiences, recount, rules),
    )


def _undeclared(kept: Membership, recount: Recount, rules: RuleSet) -> Membership:
    new: dict[str, bytes] = {}
    for audience in rules.audiences:
        reads = audience.condition.reads
        if any(trait.name in recount.states for trait in audience.shifting) or any(
            f"profile.audiences.{name}" in reads for name in new
        ):
            new[audience.name] = audience.digest
    left = digests(kept.stamp) - set(new.values())
    return msgspec.structs.replace(kept, stamp=b"".join(sorted(left)))
