"""The cache of profiles: bounded, least recently used out first, links gone with their profile."""

from __future__ import annotations

import random

import msgspec

from engine.app.cache import ProfileCache
from engine.domain.people.profiles import Address, Identity, Profile, Trait, encode_profile
from tests.story import BEFORE, someone

MUCH = 64 * 1024 * 1024


def person(name: str, size: int = 0, version: int = 1, devices: tuple[str, ...] = ()) -> Profile:
    return someone(
        version=version,
        identities=(Identity("user_id", name, BEFORE),),
        devices={d: Address(token="t", seen_at=BEFORE) for d in devices},
        traits={"filling": Trait("x" * size, BEFORE)} if size else {},
    )


def put(cache: ProfileCache, name: str, size: int = 0, **fields: int) -> Profile:
    profile = msgspec.structs.replace(person(name, size, **fields), id=name)
    cache.put(profile, encode_profile(profile))
    return profile


def held(cache: ProfileCache, names: str) -> str:
    """Which of them it holds, without asking for any of them."""
    return "".join(name for name in names if cache.owner(("user_id", name)) == name)


def room_for(count: int, size: int = 0) -> ProfileCache:
    """A cache into which so many profiles of that size go, and not one more."""
    measured = ProfileCache(MUCH)
    put(measured, "a", size)
    return ProfileCache(count * measured.held_bytes)


def test_what_was_put_is_found_by_id_and_by_identity() -> None:
    cache = ProfileCache(MUCH)
    ada = msgspec.structs.replace(person("ada", devices=("phone",)), id="p1")
    cache.put(ada, encode_profile(ada))
    assert cache.get("p1") == ada
    assert cache.owner(("user_id", "ada")) == "p1"
    assert cache.owner(("$device", "phone")) == "p1"
    assert cache.owner(("user_id", "phone")) is None
    assert cache.get("p2") is None
    assert len(cache) == 1


def test_a_version_that_the_bytes_do_not_have_is_kept() -> None:
    """The document is encoded before the commit that counts it up."""
    cache = ProfileCache(MUCH)
    ada = msgspec.structs.replace(person("ada"), id="p1", version=1)
    cache.put(msgspec.structs.replace(ada, version=2), encode_profile(ada))
    for number in range(5000):  # pushes it out of the decoded layer
        put(cache, f"other{number}")
    found = cache.get("p1")
    assert found == msgspec.structs.replace(ada, version=2)


def test_the_oldest_goes_first() -> None:
    cache = room_for(3)
    for name in "abc":
        put(cache, name)
    assert held(cache, "abc") == "abc"
    put(cache, "d")
    assert held(cache, "abcd") == "bcd"
    put(cache, "b")
    put(cache, "e")
    assert held(cache, "abcde") == "bde"


def test_reading_keeps_a_profile_in() -> None:
    cache = room_for(3)
    for name in "abc":
        put(cache, name)
    assert cache.get("a") is not None
    put(cache, "d")
    assert held(cache, "abcd") == "acd"


def test_a_profile_takes_along_its_links() -> None:
    cache = room_for(2)
    for name in "abc":
        put(cache, name)
    assert cache.owner(("user_id", "a")) is None
    assert cache.get("a") is None
    cache.evict("b")
    assert cache.owner(("user_id", "b")) is None
    assert cache.get("b") is None
    assert cache.get("c") is not None
    cache.evict("b")
    cache.evict("c")
    assert (len(cache), cache.held_bytes) == (0, 0)


def test_a_link_that_moved_is_not_taken_along_by_the_one_who_lost_it() -> None:
    cache = ProfileCache(MUCH)
    mum = msgspec.structs.replace(person("mum", devices=("tablet",)), id="mum")
    kid = msgspec.structs.replace(person("kid"), id="kid")
    for profile in (mum, kid):
        cache.put(profile, encode_profile(profile))
    got = msgspec.structs.replace(kid, devices=mum.devices)
    lost = msgspec.structs.replace(mum, devices={})
    for profile in (got, lost):  # the winner may come first
        cache.put(profile, encode_profile(profile))
    assert cache.owner(("$device", "tablet")) == "kid"
    cache.evict("mum")
    assert cache.owner(("$device", "tablet")) == "kid"
    cache.evict("kid")
    assert cache.owner(("$device", "tablet")) is None


def test_an_identity_that_a_profile_lost_is_no_link_to_it() -> None:
    cache = ProfileCache(MUCH)
    ada = msgspec.structs.replace(person("ada", devices=("phone",)), id="p1")
    cache.put(ada, encode_profile(ada))
    without = msgspec.structs.replace(ada, devices={})
    cache.put(without, encode_profile(without))
    assert cache.owner(("$device", "phone")) is None
    assert cache.owner(("user_id", "ada")) == "p1"


def test_a_document_larger_than_the_cache_is_not_kept() -> None:
    cache = room_for(2)
    put(cache, "a")
    put(cache, "b", 100_000)
    assert held(cache, "ab") == ""
    assert (len(cache), cache.held_bytes) == (0, 0)
    assert cache.get("b") is None


def test_one_that_grows_pushes_others_out() -> None:
    cache = room_for(4, 1000)
    for name in "abcd":
        put(cache, name, 1000)
    put(cache, "d", 3500)
    assert held(cache, "abcd") == "cd"


def test_it_never_holds_more_than_it_may() -> None:
    """Over thousands of random steps: the bound, the account of bytes, and links only to what is in."""
    chance = random.Random(5)
    cache = ProfileCache(200_000)
    names = [f"p{n}" for n in range(300)]
    versions = dict.fromkeys(names, 0)
    for _ in range(5000):
        name = chance.choice(names)
        match chance.randrange(4):
            case 0:
                cache.evict(name)
            case 1:
                found = cache.get(name)
                assert found is None or found.version == versions[name]
            case _:
                versions[name] += 1
                put(cache, name, chance.choice([0, 10, 500, 20_000]), version=versions[name])
        assert cache.held_bytes <= 200_000
    linked = {name for name in names if cache.owner(("user_id", name)) == name}
    inside = {name for name in names if cache.get(name) is not None}
    assert linked == inside
    assert len(cache) == len(inside) > 5
    for name in names:
        cache.evict(name)
    assert (len(cache), cache.held_bytes) == (0, 0)
