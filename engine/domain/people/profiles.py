"""The golden record of a person: one frozen document, replaced whole by every event.

The document is the authority: it lists its own identities and devices, and the tables that index
them are checked against it. `version` counts commits and guards them; `seq` counts the events
folded in. Documents are stored as MessagePack; `format` says how to read an old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

import msgspec

from engine.domain.places.presence import Presence
from engine.domain.places.trips import Trips

FORMAT = 1
BUCKETS = 256
DEVICE_NAMESPACE = "$device"
"""In the identity index, the namespace of device ids: addresses, which never join people."""
PROFILE_NAMESPACE = "$profile"
"""The key of an event that names its profile by id: a timer's, or a delivery's outcome."""
ACCOUNT_NAMESPACE = "$account"
"""In the identity index, the namespace of accounts: businesses, which are nobody and never join people."""

IdentityKey = tuple[str, str]
"""Namespace and value."""


class Identity(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One of the names that a person is known by, with when it was linked and by which message.

    `used_at` is the newest event that named this person by it, None where that is the linking one;
    `earlier` are the profiles that it belonged to before: a message sent under it may be stored
    there, and must not count again here.
    """

    namespace: str
    value: str
    linked_at: datetime
    message_id: str = ""
    earlier: tuple[str, ...] = ()
    used_at: datetime | None = None

    @property
    def key(self) -> IdentityKey:
        return (self.namespace, self.value)

    @property
    def newest(self) -> datetime:
        """When the person was last known by it."""
        return self.used_at or self.linked_at

    def __repr__(self) -> str:
        return f"Identity({self.namespace!r}, …)"


class Trait(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A value somebody stated, when, and who: see `engine.domain.people.sources`."""

    value: Any
    at: datetime
    source: int = 0

    def __repr__(self) -> str:
        return "Trait(…)"


class Consent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An explicit statement for one purpose. Its absence is unknown, not denied."""

    granted: bool
    at: datetime
    source: str = ""


class Stated(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What was once said of a purpose: kept after it was said otherwise."""

    purpose: str
    granted: bool
    at: datetime
    source: str = ""


class Address(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A device of this person, and where a push to it goes. `token_at`, `permissions_at` and
    `signed_at` (in or out) are the events that said so last; `location` is what was said there of
    being located."""

    type: str | None = None
    token: str | None = None
    provider: str | None = None
    environment: str | None = None
    app: str | None = None
    permissions: Mapping[str, Any] = {}
    logged_out: bool = False
    seen_at: datetime
    token_at: datetime | None = None
    permissions_at: datetime | None = None
    signed_at: datetime | None = None
    location: Consent | None = None

    def __repr__(self) -> str:
        return f"Address(type={self.type!r}, …)"

    @property
    def reachable(self) -> bool:
        """Whether personal pushes may go there, as far as the address itself is concerned."""
        return self.token is not None and not self.logged_out

    @property
    def denies_push(self) -> bool:
        return self.permissions.get("push") == "denied"


class Contact(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An offer that was made: what frequency caps count, and what outcomes are attributed to. `by` holds
    the values that caps count apart, by path; what was due under a contract is `uncounted`."""

    at: datetime
    offer: str
    rule: str
    channel: str
    purpose: str
    decision: str
    delivered: bool = False
    shown: bool = False
    converted: bool = False
    by: dict[str, str] = {}
    uncounted: bool = False


class Membership(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """The audiences that a person is in. `since` is by name; `stamp` says which definitions they were
    checked against; `due` is when time alone can change them next, None for never, and `armed` when
    the timer fires that has them looked at then, which may be earlier."""

    since: dict[str, datetime] = {}
    stamp: bytes = b""
    due: datetime | None = None
    armed: datetime | None = None

    def unchecked(self, now: datetime) -> Membership:
        """To be looked at again at the next event, whatever that changes: after a merge, say."""
        return msgspec.structs.replace(self, due=now)


Past = dict[str, dict[str, tuple[int, ...]]]
"""What is remembered of events that rules look back at, by pattern and value of its `by`: when they
happened, microseconds since 1970. See `engine.domain.people.memory`."""
Waiting = dict[str, dict[str, tuple[int, bool]]]
"""For rules that wait, by rule and value of `by`: the last event, microseconds since 1970, and whether
the waiting still goes on."""


class Seat(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A person's membership of an account: since when, by which message, and what was stated of them as
    a member, `role` among it."""

    since: datetime
    message_id: str = ""
    traits: dict[str, Trait] = {}


class Client(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """For which account somebody acts on one app, site or server, None for themselves; when that was
    said; and whether it names accounts with its events, so that one without is private."""

    account: str | None
    at: datetime
    names: bool = False


class Absorbed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A profile that became one with this one, while its rows stand under its own id yet. `offset` is
    what their numbers become greater by when they are brought over."""

    id: str
    offset: int


class Ended(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What stands in the place of a profile that became one with the profile `into`: when, by which
    message, with which `offset` for the numbers of its events; both documents as they were before,
    for as long as the merge can be taken back."""

    into: str
    at: datetime
    message_id: str
    offset: int
    itself: bytes = b""
    survivor: bytes = b""

    def __repr__(self) -> str:
        return f"Ended(into={self.into}, …)"


class Profile(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Everything known of one person. `version` 0 means not stored yet. `ended`: it is no person of
    its own any more."""

    id: str
    format: int = FORMAT
    version: int = 0
    seq: int = 0
    created_at: datetime
    last_seen: datetime
    identities: tuple[Identity, ...] = ()
    traits: dict[str, Trait] = {}
    computed: dict[str, Any] = {}
    counted: bytes = b""
    """The definitions that `computed` is whole for."""
    consent: dict[str, Consent] = {}
    consent_history: tuple[Stated, ...] = ()
    sharing: Consent | None = None
    """Whether what is known may be given to others: Global Privacy Control, or do not sell."""
    devices: dict[str, Address] = {}
    presence: Presence = Presence()
    trips: Trips = {}
    past: Past = {}
    waiting: Waiting = {}
    contacts: tuple[Contact, ...] = ()
    converted: dict[str, datetime] = {}
    """When each offer that the person took up was taken up last."""
    audiences: Membership = Membership()
    timezone: str | None = None
    locale: str | None = None
    accounts: dict[str, Seat] = {}
    """The accounts that the person is a member of."""
    clients: dict[str, Client] = {}
    handed_on: bytes = b""
    """The definitions of accounts' roll-ups that everything was handed on for which the person did as a
    member."""
    account: str = ""
    """Of the profile of an account, which is no person, its id."""
    cohort: str = ""
    """What holdouts and experiments know the person by, where that is not the id: the id of the oldest
    profile that was merged into this one."""
    absorbed: tuple[Absorbed, ...] = ()
    ended: Ended | None = None
    apart: tuple[str, ...] = ()
    """Profiles that an operator said are somebody else: never made one with this again."""
    restricted: bool = False
    """Stored, and not used: the person asked for it."""
    erased: bool = False

    @property
    def succeeded_by(self) -> str | None:
        """The profile that stands for this one now."""
        return self.ended.into if self.ended is not None else None

    @property
    def zone(self) -> str | None:
        """The person's time zone: as the phone says, else where they are."""
        return self.timezone or self.presence.zone or None

    def __repr__(self) -> str:
        return f"Profile({self.id}, version={self.version}, …)"

    @property
    def cohort_key(self) -> str:
        return self.cohort or self.id

    @property
    def keys(self) -> tuple[IdentityKey, ...]:
        """Everything that the identity index should point here with."""
        keys = []
        for identity in self.identities:
            keys.append((identity.namespace, identity.value))
        for device in self.devices:
            keys.append((DEVICE_NAMESPACE, device))
        return tuple(keys)

    def earlier_owners(self, key: IdentityKey) -> tuple[str, ...]:
        """The profiles, other than this one, that `key` belonged to before."""
        found = next((i for i in self.identities if i.key == key), None)
        return tuple(owner for owner in found.earlier if owner != self.id) if found is not None else ()

    def lists(self, key: IdentityKey) -> bool:
        namespace, value = key
        if namespace == DEVICE_NAMESPACE:
            return value in self.devices
        if namespace == PROFILE_NAMESPACE:
            return value == self.id and not self.erased
        for identity in self.identities:  # few; with every event
            if identity.value == value and identity.namespace == namespace:
                return True
        return False


def new_profile(key: IdentityKey, secret: bytes, now: datetime, generation: int = 0) -> Profile:
    """The profile that `key` creates. Its id derives from the key, so that two engines that meet
    the same new person at once race for one row instead of making two people."""
    account = key[1] if key[0] == ACCOUNT_NAMESPACE else ""
    return Profile(id=profile_id_of(key, secret, generation), created_at=now, last_seen=now, account=account)


def profile_id_of(key: IdentityKey, secret: bytes, generation: int = 0) -> str:
    """The id of the profile that `key` creates; of an account's profile always the first one."""
    digest = blake2b(f"{generation}\0{key[0]}\0{key[1]}".encode(), key=secret[:64], digest_size=16).digest()
    return str(custom_uuid(digest))


def members_of(account: str) -> str:
    """Under which name the index of audiences holds the members of an account."""
    return f"{ACCOUNT_NAMESPACE}:{account}"


def custom_uuid(raw: bytes) -> UUID:
    """16 bytes as a UUID of version 8 (RFC 9562: custom), which Python 3.11 cannot make itself."""
    return UUID(bytes=bytes((*raw[:6], 0x80 | raw[6] & 0x0F, raw[7], 0x80 | raw[8] & 0x3F, *raw[9:])))


_BUCKETS = {f"{number:02x}": number for number in range(256)}


def bucket_of(profile_id: str) -> int:
    """0 to 255: which bucket the profile's rows are in."""
    found = _BUCKETS.get(profile_id[:2])
    return int(profile_id[:2], 16) if found is None else found


def identity_bucket(key: IdentityKey) -> int:
    """0 to 255: which bucket the identity's index row is in."""
    return blake2b(f"{key[0]}\0{key[1]}".encode(), digest_size=1).digest()[0]


def token_digest(token: str) -> str:
    """What stands for a push token where the token itself must not: 16 hex digits of SHA-256."""
    return sha256(token.encode()).hexdigest()[:16]


encode_profile = msgspec.msgpack.Encoder().encode
decode_profile = msgspec.msgpack.Decoder(Profile).decode
