"""An XDM individual profile to what somebody said of themselves, and a profile to such a record.

Each field of the record is a trait by its name, `xdm.loyalty`, undeclared and kept as it is; where the
workspace declares a trait of that meaning (`first_name`, `birthDate`, `loyalty_tier`), the value moves
there and rules can read it. A record of the same person later replaces the fields that it has.

What a profile has that XDM has no field for stands under `_viewfinder`. Of that only `traits` and
`consents` are read again: the rest follows from what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from engine.domain.offers.rules import TraitDeclaration, Workspace
from engine.domain.offers.scope import UNKNOWN
from engine.domain.people.profiles import Address, Profile
from engine.domain.people.traits import typed
from engine.formats import xdm_consents, xdm_identities
from engine.formats.segment_body import Item
from engine.formats.segment_event import identifier
from engine.formats.xdm_fields import Path, at, object_at, text_at, with_field, without_field
from engine.formats.xdm_names import OWN
from engine.formats.xdm_parts import KEPT, fields_of, traits_of

SPELLING: Final = "xdm"
"""The trait that says how the newest record's names were spelt."""
AUDIENCES: Final = "viewfinder"
"""Our namespace in `segmentMembership`."""
PUSH: Final = "pushNotificationDetails"
_MOVED: Final = "movedTo"
"""In place of a kept push token: the device that has it."""
_PLACES: Final[Mapping[str, Path]] = {
    "firstname": ("person", "name", "firstName"),
    "middlename": ("person", "name", "middleName"),
    "lastname": ("person", "name", "lastName"),
    "fullname": ("person", "name", "fullName"),
    "name": ("person", "name", "fullName"),
    "birthdate": ("person", "birthDate"),
    "birthday": ("person", "birthDate"),
    "birthyear": ("person", "birthYear"),
    "gender": ("person", "gender"),
    "nationality": ("person", "nationality"),
    "maritalstatus": ("person", "maritalStatus"),
    "email": ("personalEmail", "address"),
    "phone": ("mobilePhone", "number"),
    "mobilephone": ("mobilePhone", "number"),
    "homephone": ("homePhone", "number"),
    "city": ("homeAddress", "city"),
    "postalcode": ("homeAddress", "postalCode"),
    "country": ("homeAddress", "country"),
    "countrycode": ("homeAddress", "countryCode"),
    "loyaltytier": ("loyalty", "tier"),
    "loyaltypoints": ("loyalty", "points"),
    "loyaltyprogram": ("loyalty", "program"),
    "loyaltystatus": ("loyalty", "status"),
    "loyaltysince": ("loyalty", "joinDate"),
    "preferredlanguage": ("preferredLanguage",),
}
"""What traits mean, by their name without case and underscores."""
_ADDRESS: Final = {
    "street": "street1",
    "city": "city",
    "state": "state",
    "postalCode": "postalCode",
    "country": "country",
}
"""Segment's trait `address`, and the fields of `homeAddress`."""
_PLATFORMS: Final = {
    "apns": ("ios", "apns", None),
    "apnssandbox": ("ios", "apns", "sandbox"),
    "fcm": ("android", "fcm", None),
}


def read(
    record: dict[str, Any],
    who: xdm_identities.Named,
    workspace: Workspace,
    spelling: Mapping[str, Any],
) -> tuple[Item, dict[str, Any]]:
    """The item and the times of consent that a plain record states. Takes `record` over."""
    own = record.pop(OWN, None)
    traits: dict[str, Any] = dict(object_at(own, "traits"))
    consents = record.get("consents")
    consent, when = xdm_consents.statements(consents, workspace.purposes)
    others, others_when = xdm_consents.own_statements(object_at(own, "consents"))
    consent, when = consent | others, when | others_when
    share = xdm_consents.share_denied(consents)
    if share is not None:
        traits[xdm_consents.DO_NOT_SELL] = share
    ours = at(record, "segmentMembership", AUDIENCES)
    if ours is not None:
        record = without_field(record, ("segmentMembership", AUDIENCES))
    context: dict[str, Any] = {"library": {"name": "xdm"}}
    record = _take_token(record, who, context)
    for name, path in _moving(workspace.traits):
        value = at(record, *path)
        if value is not None and typed(value, workspace.traits[name]) is not UNKNOWN:
            traits[name] = value
            record = without_field(record, path)
    traits |= traits_of(record)
    traits[SPELLING] = dict(spelling) or {"names": "plain"}
    if consent:
        context["consent"] = {"categoryPreferences": consent}
    item = Item(user_id=who.user_id, anonymous_id=who.anonymous_id, traits=traits, context=context)
    return item, when


def written(
    profile: Profile, workspace: Workspace, view: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The plain record of a profile, and how its names are to be spelt. `view` is the profile as it
    reads now: what it holds beside traits and consent goes along under `_viewfinder`."""
    record = fields_of(profile.traits)
    traits = {name: trait.value for name, trait in profile.traits.items() if not name.startswith(KEPT)}
    spelling = traits.pop(SPELLING, None)
    for name, path in _moving(workspace.traits):
        if name in traits:
            record = _with_trait(record, path, traits.pop(name))
    for name in list(traits):
        place = _PLACES.get(_meaning(name))
        if place is not None and at(record, *place) is None and isinstance(traits[name], str | int | float):
            record = _with_trait(record, place, traits.pop(name))
    if isinstance(traits.get("address"), Mapping) and "homeAddress" not in record:
        record = _with_address(record, traits)
    keys = [identity.key for identity in profile.identities]
    sent = record.pop("identityMap", None)
    record["identityMap"] = xdm_identities.written(keys, sent, workspace.namespaces)
    stated = record.pop("consents", None)
    consents, rest = xdm_consents.written(
        stated,
        profile.consent,
        workspace.purposes,
        traits.pop(xdm_consents.DO_NOT_SELL, None),
    )
    if consents or stated is not None:
        record["consents"] = consents or stated
    record = _with_tokens(record, profile.devices)
    if profile.audiences.since:
        ours = {
            name: {"status": "realized", "lastQualificationTime": since.isoformat()}
            for name, since in sorted(profile.audiences.since.items())
        }
        record = with_field(record, ("segmentMembership", AUDIENCES), ours)
    own = {name: view[name] for name in view if name not in ("identities", "traits", "consent", "audiences")}
    own |= {"traits": traits} if traits else {}
    own |= {"consents": rest} if rest else {}
    record[OWN] = own
    return record, spelling if isinstance(spelling, Mapping) else {}


def _meaning(name: str) -> str:
    return name.replace("_", "").casefold()


def _moving(declared: Mapping[str, TraitDeclaration]) -> Iterator[tuple[str, Path]]:
    """The declared traits that a record's fields move to, one for each field."""
    taken: set[Path] = set()
    for name in declared:
        path = _PLACES.get(_meaning(name))
        if path is not None and path not in taken:
            taken.add(path)
            yield name, path


def _with_trait(record: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The record with a trait in its place; one that was taken away is taken away there, too."""
    return without_field(record, path) if value is None else with_field(record, path, value)


def _with_address(record: dict[str, Any], traits: dict[str, Any]) -> dict[str, Any]:
    address = traits["address"]
    said = [name for name in _ADDRESS if text_at(address, name)]
    rest = {name: value for name, value in address.items() if name not in said}
    home = {_ADDRESS[name]: address[name] for name in said}
    if rest:
        traits["address"] = rest
    else:
        del traits["address"]
    return {**record, "homeAddress": home} if home else record


def _take_token(record: dict[str, Any], who: xdm_identities.Named, context: dict[str, Any]) -> dict[str, Any]:
    """The record without the first push token that may be used, which becomes the person's device's."""
    entries = record.get(PUSH)
    if not isinstance(entries, list):
        return record
    for position, entry in enumerate(entries):
        platform = _PLATFORMS.get((text_at(entry, "platform") or "").casefold())
        token = text_at(entry, "token")
        if platform is None or token is None or entry.get("denylisted") is True or _MOVED in entry:
            continue
        kind, provider, environment = platform
        owner = identifier(at(entry, "identity", "id")) or who.anonymous_id or who.user_id
        if owner is None:
            continue
        # As a token without a device's id is kept elsewhere: by the installation that it belongs to.
        device = f"anonymous:{owner}"
        context["device"] = {"id": device, "type": kind, "token": token}
        context["pushProvider"] = provider
        if environment is not None:
            context["pushEnvironment"] = environment
        if (app := identifier(entry.get("appID"))) is not None:
            context["app"] = {"namespace": app}
        left = {name: value for name, value in entry.items() if name != "token"}
        return {**record, PUSH: [*entries[:position], {**left, _MOVED: device}, *entries[position + 1 :]]}
    return record


def _with_tokens(record: dict[str, Any], devices: Mapping[str, Address]) -> dict[str, Any]:
    """The record with the tokens that pushes go to now."""
    entries: list[Any] = []
    told: set[str] = set()
    kept = record.get(PUSH)
    for entry in kept if isinstance(kept, list) else []:
        moved = entry.get(_MOVED) if isinstance(entry, Mapping) else None
        if moved is None:
            entries.append(entry)
            continue
        told.add(moved)
        address = devices.get(moved)
        if address is not None and address.token is not None:
            left = {name: value for name, value in entry.items() if name != _MOVED}
            entries.append({**left, "token": address.token})
    for device, address in devices.items():
        if device not in told and address.token is not None:
            entries.append(_entry(device, address))
    if entries:
        return {**record, PUSH: entries}
    return without_field(record, (PUSH,)) if told else record


def _entry(device: str, address: Address) -> dict[str, Any]:
    provider = address.provider or ("apns" if address.type == "ios" else "fcm")
    platform = "apnsSandbox" if (provider, address.environment) == ("apns", "sandbox") else provider
    entry: dict[str, Any] = {"token": address.token, "platform": platform, "denylisted": False}
    if address.app is not None:
        entry["appID"] = address.app
    if device.startswith("anonymous:"):
        owner = device.removeprefix("anonymous:")
        entry["identity"] = {"namespace": {"code": "ECID"}, "id": owner}
    return entry
