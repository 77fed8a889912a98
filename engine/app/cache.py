"""Profiles in memory, bounded in bytes: encoded documents, with a small layer of decoded ones.

100,000 decoded profiles would cost 3.6 KB each and half a second of garbage collection, so most
are kept as the bytes they are stored as. Links from identities live and die with their profile.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.domain.people.profiles import PROFILE_NAMESPACE, IdentityKey, Profile, decode_profile

_OVERHEAD_BYTES = 400
_LINK_BYTES = 250
_DECODED = 4096
_DECODED_BYTES = 16_384
"""Documents above this are decoded anew each time."""


class _Entry(msgspec.Struct, gc=False):
    document: bytes
    version: int
    keys: tuple[IdentityKey, ...]
    size: int


class _Links(dict[IdentityKey, str]):
    """Which profile lists a key; a key that names its profile itself needs no entry."""

    def __missing__(self, key: IdentityKey) -> str | None:
        return key[1] if key[0] == PROFILE_NAMESPACE else None


class ProfileCache:
    """Least recently used out first. What it holds is a hint: commits check versions."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: dict[str, _Entry] = {}
        self._links = _Links()
        self.owner: Callable[[IdentityKey], str | None] = self._links.__getitem__
        """The profile that a key belongs to, as far as is known here."""
        self._decoded: dict[str, Profile] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held_bytes(self) -> int:
        """What the cache holds, estimated."""
        return self._bytes

    def get(self, profile_id: str) -> Profile | None:
        entry = self._entries.pop(profile_id, None)
        if entry is None:
            return None
        self._entries[profile_id] = entry
        profile = self._decoded.get(profile_id)
        if profile is not None:
            return profile
        profile = msgspec.structs.replace(decode_profile(entry.document), version=entry.version)
        self._remember_decoded(profile, len(entry.document))
        return profile

    def put(self, profile: Profile, document: bytes) -> None:
        """Keeps a profile as it was committed or loaded. One that has ended is not kept: nothing that
        is done under its id would show that it stands by itself again."""
        if profile.ended is not None:
            self.evict(profile.id)
            return
        profile_id, keys = profile.id, profile.keys
        size = len(document) + _OVERHEAD_BYTES + _LINK_BYTES * len(keys)
        entry = self._entries.pop(profile_id, None)
        if entry is None:
            entry = _Entry(document, profile.version, (), 0)
        if entry.keys != keys:
            self._unlink(profile_id, entry.keys)
            self._links.update(dict.fromkeys(keys, profile_id))
            entry.keys = keys
        self._bytes += size - entry.size
        entry.document, entry.version, entry.size = document, profile.version, size
        self._entries[profile_id] = entry
        self._remember_decoded(profile, len(document))
        while self._bytes > self._max_bytes and self._entries:
            self.evict(next(iter(self._entries)))

    def evict(self, profile_id: str) -> None:
        self._decoded.pop(profile_id, None)
        entry = self._entries.pop(profile_id, None)
        if entry is not None:
            self._bytes -= entry.size
            self._unlink(profile_id, entry.keys)

    def _unlink(self, profile_id: str, keys: tuple[IdentityKey, ...]) -> None:
        for key in keys:
            if self._links.get(key) == profile_id:
                del self._links[key]

    def _remember_decoded(self, profile: Profile, size: int) -> None:
        self._decoded.pop(profile.id, None)
        if size > _DECODED_BYTES:
            return
        self._decoded[profile.id] = profile
        if len(self._decoded) > _DECODED:
            del self._decoded[next(iter(self._decoded))]
