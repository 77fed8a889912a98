"""Who an event is about: links, moves, replacements, and the devices that never join anybody.

Long because every kind of link is told with the same few ids.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.people.events import Event, Kind
from engine.domain.people.identity import keys_of
from engine.domain.people.profiles import Identity, Profile, bucket_of, new_profile
from tests.story import BEFORE, GIFT, NOON, SECRET, People, event, phone, rule_set, said, seconds

WORKSPACE = """
identities:
  - {namespace: user_id, one: true}
  - {namespace: loyalty_card, one: true, on_change: replace, from: [traits.loyalty_card, context.externalId]}
  - {namespace: email, from: [traits.email]}
  - {namespace: anonymous_id}
computed: {orders: {count: Order}}
"""
RULES = rule_set(GIFT, WORKSPACE)


def ids(
    user: str | None = None,
    app: str | None = None,
    *,
    card: object = None,
    email: str | None = None,
    at: float = 0,
    **fields: Any,
) -> Event:
    """An order by whoever these ids are, so many seconds after noon."""
    traits = {k: v for k, v in {"loyalty_card": card, "email": email}.items() if v is not None}
    known: dict[str, Any] = {"received_at": NOON + timedelta(days=1), "traits": traits}
    return event("Order", NOON + seconds(at), user_id=user, anonymous_id=app, **{**known, **fields})


def alias(user: str | None, previous: str, kind: Kind = Kind.ALIAS, **fields: Any) -> Event:
    return ids(user, kind=kind, previous_id=previous, **fields)


def orders(profile: Profile) -> int:
    return int(profile.computed.get("orders", 0))


# Resolving


def test_the_same_id_is_the_same_person_and_another_one_is_not() -> None:
    people = People(RULES)
    first, again = people.tell(ids("u1")), people.tell(ids("u1"))
    assert first == again != people.tell(ids("u2"))
    # An anonymous id that reads like a user's is another id.
    assert people.tell(ids(None, "u1")) != first
    assert orders(people.of("u1")) == 2


def test_signing_in_brings_the_past_along() -> None:
    people = People(RULES)
    visitor = people.tell(ids(None, "app"), ids(None, "app"))
    assert people.tell(ids("u1", "app")) == visitor == people.tell(ids("u1")) == people.tell(ids(None, "app"))
    assert people.ids("u1") == {("user_id", "u1"), ("anonymous_id", "app")}
    assert orders(people.of("u1")) == 5
    assert len(people.profiles) == 1


def test_a_person_uses_several_apps() -> None:
    people = People(RULES)
    people.tell(ids("u1", "phone-app"), ids("u1", "web"))
    assert people.tell(ids(None, "web")) == people.tell(ids(None, "phone-app")) == people.of("u1").id


def test_a_weaker_id_that_is_known_is_enough() -> None:
    people = People(RULES)
    ada = people.tell(ids("u1", email="ada@example.com"))
    assert people.tell(ids(None, "new-app", email="ada@example.com")) == ada
    assert people.tell(ids(None, "new-app")) == ada


def test_the_strongest_id_decides() -> None:
    people = People(RULES)
    one, two = people.tell(ids("u1", "a1", card="c1")), people.tell(ids("u2", "a2", card="c2"))
    assert people.tell(ids("u1", "a2")) == one
    assert people.tell(ids(None, "a1", card="c2")) == two


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_what_is_linked_does_not_depend_on_the_order(order: tuple[int, ...]) -> None:
    shared = "ada@example.com"
    events = [
        ids("u1", email=shared, at=1),
        ids(None, "a1", email=shared, at=2),
        ids(None, "a2", email=shared, at=3),
    ]
    people = People(RULES)
    people.tell(*(events[i] for i in order))
    assert len(people.profiles) == 1
    assert people.ids("u1") == {
        ("user_id", "u1"),
        ("email", shared),
        ("anonymous_id", "a1"),
        ("anonymous_id", "a2"),
    }
    assert orders(people.of("u1")) == 3


# Moving


def test_another_user_of_the_same_app_takes_it_over() -> None:
    people = People(RULES)
    mum = people.tell(ids("mum", "tablet", at=1), ids(None, "tablet", at=2))
    kid = people.tell(ids("kid", "tablet", at=3))
    assert kid != mum
    assert people.tell(ids(None, "tablet", at=4)) == kid
    assert (orders(people.of("mum")), orders(people.of("kid"))) == (2, 2)  # past counts stay
    assert people.ids("mum") == {("user_id", "mum")}
    assert people.tell(ids("mum", "tablet", at=5)) == mum
    assert people.ids("kid") == {("user_id", "kid")}


def test_a_shared_address_goes_to_whoever_used_it_last() -> None:
    people = People(RULES)
    people.tell(ids("u1", email="family@example.com", at=1), ids("u2", email="family@example.com", at=2))
    assert people.ids("u1") == {("user_id", "u1")}
    assert people.tell(ids(None, "a", email="family@example.com", at=3)) == people.of("u2").id


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
@pytest.mark.parametrize("shared", [{"app": "tablet"}, {"email": "family@example.com"}, {"card": "c1"}])
def test_a_move_goes_by_the_events_own_time(shared: dict[str, str], order: tuple[int, ...]) -> None:
    """Design 6.1. A phone that was offline tells late who had used the tablet before."""
    events = [ids("mum", at=1, **shared), ids("kid", at=2, **shared), ids("mum", at=3, **shared)]
    people = People(RULES)
    people.tell(*(events[i] for i in order))
    last = people.tell(
        ids(None, shared.get("app", "else"), at=4, **{k: v for k, v in shared.items() if k != "app"})
    )
    assert last == people.of("mum").id
    assert (orders(people.of("mum")), orders(people.of("kid"))) == (3, 1)


def test_a_late_event_still_belongs_to_who_it_names() -> None:
    people = People(RULES)
    people.tell(ids("mum", "tablet", at=1), ids("kid", "tablet", at=10))
    assert people.tell(ids("mum", "tablet", at=5)) == people.of("mum").id
    assert people.tell(ids(None, "tablet", at=11)) == people.of("kid").id


def test_two_profiles_that_turn_out_to_be_one_person_become_one() -> None:
    people = People(RULES)
    visitor = people.tell(ids(None, "app"), ids(None, "app"))
    people.tell(ids("u1"))
    user = people.tell(ids("u1", "app"))
    assert people.profiles[visitor].identities == ()
    assert people.profiles[visitor].succeeded_by == user
    assert people.tell(ids(None, "app")) == user
    assert orders(people.of("u1")) == 5  # the past of both
    assert people.of("u1").seq == 5


# Replacing


def test_a_reissued_card_replaces_the_old_one() -> None:
    people = People(RULES)
    ada = people.tell(ids("u1", card="c1", at=1))
    assert people.tell(ids("u1", card="c2", at=2)) == ada
    assert people.ids("u1") == {("user_id", "u1"), ("loyalty_card", "c2")}
    assert people.tell(ids(None, "till", card="c2", at=3)) == ada
    # The old card is nobody's now.
    assert people.tell(ids(None, "other-till", card="c1", at=4)) != ada


def test_a_card_reissued_late_does_not_come_back() -> None:
    people = People(RULES)
    people.tell(ids("u1", card="c1", at=1), ids("u1", card="c2", at=3), ids("u1", card="c1", at=2))
    assert people.ids("u1") == {("user_id", "u1"), ("loyalty_card", "c2")}


def test_a_person_without_an_account_gets_a_new_card() -> None:
    people = People(RULES)
    visitor = people.tell(ids(None, "app", card="c1", at=1))
    assert people.tell(ids(None, "app", card="c2", at=2)) == visitor
    assert people.whose("loyalty_card", "c1") is None


def test_somebody_elses_card_moves_and_never_makes_one_person_of_two() -> None:
    people = People(RULES)
    one, two = people.tell(ids("u1", card="c1", at=1)), people.tell(ids("u2", card="c2", at=2))
    assert people.tell(ids("u2", card="c1", at=3)) == two
    assert people.ids("u2") == {("user_id", "u2"), ("loyalty_card", "c1")}
    assert people.ids("u1") == {("user_id", "u1")}
    assert people.tell(ids("u1")) == one


# Alias and merge


@pytest.mark.parametrize("kind", [Kind.ALIAS, Kind.MERGE])
def test_an_alias_links_two_ids(kind: Kind) -> None:
    people = People(RULES)
    visitor = people.tell(ids(None, "app"))
    assert people.tell(alias("u1", "app", kind)) == visitor
    assert people.ids("u1") == {("user_id", "u1"), ("anonymous_id", "app")}
    assert people.notes == ()


def test_an_alias_of_nobody_known_is_kept_for_later() -> None:
    people = People(RULES)
    user = people.tell(alias("u1", "app"))
    assert people.tell(ids(None, "app")) == user


def test_an_alias_between_two_people_is_accepted_and_recorded() -> None:
    people = People(RULES)
    one, two = people.tell(ids("u1")), people.tell(ids("u2"))
    assert people.tell(alias("u1", "u2")) == one
    assert any(note.startswith("merge_refused") for note in people.notes)
    assert people.tell(ids("u2")) == two
    assert people.ids("u1") == {("user_id", "u1")}


def test_an_alias_looks_for_a_user_before_an_app() -> None:
    people = People(RULES)
    app, user = people.tell(ids(None, "same")), people.tell(ids("same"))
    people.tell(alias("u1", "same"))
    assert people.tell(ids(None, "same")) == app
    assert people.tell(ids("same")) == user


def test_a_merge_of_an_app_with_a_known_user_links_it() -> None:
    """Only two people are refused: an app without one is nobody else."""
    people = People(RULES)
    user = people.tell(ids("u1"))
    assert people.tell(ids(None, "app", kind=Kind.MERGE, previous_id="u1")) == user
    assert people.tell(ids(None, "app")) == user


def test_an_alias_of_oneself_changes_nothing() -> None:
    people = People(RULES)
    people.tell(ids("u1"))
    people.tell(alias("u1", "u1"))
    assert people.ids("u1") == {("user_id", "u1")}
    assert people.notes == ()


# Quarantine


def crowd(identities: int) -> People:
    """A public terminal's account, with so many apps and cards."""
    people = People(RULES)
    user = people.tell(ids("u1", consent={"marketing": True}, device=phone("terminal")))
    many = (Identity("anonymous_id", f"a{n}", BEFORE) for n in range(identities - 1))
    profile = people.profiles[user]
    people.profiles[user] = msgspec.structs.replace(profile, identities=(*profile.identities, *many))
    return people


def test_up_to_a_thousand_identities_are_linked_and_one_more() -> None:
    for identities in (998, 999, 1000):
        people = crowd(identities)
        assert people.tell(ids("u1", "next")) == people.tell(ids(None, "next")) == people.of("u1").id
        assert len(people.of("u1").identities) == identities + 1


def test_beyond_a_thousand_nothing_is_linked_and_nothing_offered() -> None:
    people = crowd(1001)
    user = people.of("u1").id
    other = people.tell(ids("u2", "theirs"))
    assert people.tell(ids("u1", "next")) == user  # kept
    assert people.tell(ids("u1", "theirs")) == user
    assert orders(people.of("u1")) == 3
    assert len(people.of("u1").identities) == 1001
    assert people.tell(ids(None, "theirs")) == other
    assert people.tell(ids(None, "next")) not in (user, other)
    people.tell(event("Wish", user_id="u1"))
    assert [said(d) for d in people.decisions] == ["quarantined"]


# Devices


def test_a_device_never_joins_people() -> None:
    people = People(RULES)
    owners = [
        people.tell(ids(user, app, at=n, device=phone("tablet")))
        for n, (user, app) in enumerate(
            [("mum", "a1"), ("kid", "a2"), (None, "a3"), (None, "a4"), ("mum", "a1")]
        )
    ]
    assert len(set(owners[:4])) == 4
    assert owners[4] == owners[0]
    assert [sorted(p.devices) for p in people.profiles.values()] == [["tablet"], [], [], []]


def test_an_event_with_nothing_but_a_known_device_is_not_its_owners() -> None:
    people = People(RULES)
    mum = people.tell(ids("mum", device=phone("tablet")))
    assert people.tell(ids(None, "new", device=phone("tablet"))) != mum


def pushed(people: People, **who: Any) -> list[tuple[str, str]]:
    """What becomes of a wish, and whose device it would go to."""
    owner = people.tell(event("Wish", who.pop("at"), consent={"marketing": True}, **who))
    return [(said(d), owner) for d in people.decisions]


def test_the_address_follows_whoever_signs_in() -> None:
    people = People(RULES)
    mum = people.tell(ids("mum", "a", at=1, device=phone("tablet", "token-1")))
    kid = people.tell(
        ids("kid", "a", at=2, device=phone("tablet", msgspec.UNSET))
    )  # says nothing of its token
    assert people.profiles[kid].devices["tablet"].token == "token-1"
    assert people.profiles[mum].devices == {}
    assert pushed(people, user_id="mum", at=NOON + seconds(3)) == [("no_device", mum)]
    assert pushed(people, user_id="kid", at=NOON + seconds(4)) == [("offered", kid)]
    people.tell(ids("mum", "a", at=5, device=phone("tablet", msgspec.UNSET)))
    assert pushed(people, user_id="kid", at=NOON + seconds(6)) == [("no_device", kid)]
    assert pushed(people, user_id="mum", at=NOON + seconds(7)) == [("offered", mum)]


def test_two_users_of_one_device_keep_their_own_consent_and_caps() -> None:
    people = People(
        rule_set(GIFT.replace("offer: gift}", "offer: gift, cap: {times: 1, per: 1d}}"), WORKSPACE)
    )
    tablet = phone("tablet")
    mum = people.tell(ids("mum", at=1, device=tablet, consent={"marketing": True}))
    kid = people.tell(ids("kid", at=2, device=tablet, consent={"marketing": False}))

    def wish(user: str, at: float) -> str:
        people.tell(event("Wish", NOON + seconds(at), user_id=user, device=tablet))
        return said(people.decisions[0])

    assert [wish("mum", 3), wish("mum", 4), wish("kid", 5)] == ["offered", "capped", "no_consent"]
    assert mum != kid


def test_logging_out_stops_pushes_until_the_user_is_named_again() -> None:
    people = People(RULES)
    tablet = phone("tablet", msgspec.UNSET)
    mum = people.tell(ids("mum", "a", at=1, device=phone("tablet")))
    people.tell(event("Logged Out", NOON + seconds(2), anonymous_id="a", device=tablet))
    assert pushed(people, anonymous_id="a", at=NOON + seconds(3), device=tablet) == [("no_device", mum)]
    assert pushed(people, user_id="mum", at=NOON + seconds(4)) == [("no_device", mum)]  # from elsewhere
    assert pushed(people, user_id="mum", at=NOON + seconds(5), device=tablet) == [("offered", mum)]


def test_logging_out_of_one_device_leaves_the_others() -> None:
    people = People(RULES)
    mum = people.tell(ids("mum", at=1, device=phone("tablet")), ids("mum", at=2, device=phone("phone")))
    people.tell(event("Logged Out", NOON + seconds(3), user_id="mum", device=phone("phone", msgspec.UNSET)))
    assert pushed(people, user_id="mum", at=NOON + seconds(4)) == [("offered", mum)]
    assert people.profiles[mum].devices["phone"].logged_out


def test_what_happened_before_a_logout_and_comes_after_it_does_not_undo_it() -> None:
    people = People(RULES)
    tablet = phone("tablet", msgspec.UNSET)
    mum = people.tell(ids("mum", "a", at=1, device=phone("tablet")))
    people.tell(event("Logged Out", NOON + seconds(10), anonymous_id="a", device=tablet))
    people.tell(ids("mum", "a", at=5, device=tablet))
    assert pushed(people, user_id="mum", at=NOON + seconds(11)) == [("no_device", mum)]


def test_a_late_event_does_not_take_the_device_back() -> None:
    people = People(RULES)
    tablet = phone("tablet")
    people.tell(ids("mum", "a1", at=1, device=tablet))
    kid = people.tell(ids("kid", "a2", at=10, device=tablet))
    people.tell(ids("mum", "a1", at=5, device=tablet))
    assert [p.id for p in people.profiles.values() if p.lists(("$device", "tablet"))] == [kid]


TOKENS = [
    ids("mum", at=1, device=phone(token="first", permissions={"push": "granted"})),
    ids("mum", at=2, device=phone(token="second", permissions={"push": "denied"})),
    ids("mum", at=3, device=phone(token=msgspec.UNSET)),
]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_newest_word_of_a_device_stands(order: tuple[int, ...]) -> None:
    people = People(RULES)
    people.tell(*(TOKENS[i] for i in order))
    address = people.of("mum").devices["phone"]
    assert address.token == "second"
    assert address.permissions == {"push": "denied"}
    assert address.seen_at == NOON + seconds(3)


def test_a_token_that_was_taken_away_is_no_address() -> None:
    people = People(RULES)
    mum = people.tell(ids("mum", at=1, device=phone()), ids("mum", at=2, device=phone(token=None)))
    assert pushed(people, user_id="mum", at=NOON + seconds(3)) == [("no_device", mum)]


# The keys that an event carries

NAMESPACES = RULES.workspace.namespaces


def test_the_keys_of_an_event_stand_strongest_first() -> None:
    told = ids("u1", "app", card="c1", email="ada@example.com")
    assert keys_of(told, NAMESPACES) == (
        ("user_id", "u1"),
        ("loyalty_card", "c1"),
        ("email", "ada@example.com"),
        ("anonymous_id", "app"),
    )


@pytest.mark.parametrize(
    ("trait", "external", "expected"),
    [
        ("c1", "x1", "c1"),
        (None, "x1", "x1"),
        ("", "x1", "x1"),  # an empty id is absent
        (None, "", None),
        (4711, None, "4711"),
        (True, None, None),
        ([], None, None),
        ({"id": 1}, None, None),
        ("c" * 512, None, "c" * 512),
        ("c" * 513, None, None),
        (None, [{"type": "email", "id": "e1"}, {"type": "loyalty_card", "id": "x1"}], "x1"),
        (None, [{"type": "loyalty_card", "id": 7.0}, "loyalty_card", None], "7"),
        ([{"type": "email", "id": "e1"}], "x1", "x1"),
        (None, [{"type": ["loyalty_card"], "id": "x1"}], None),
    ],
)
def test_an_id_is_read_from_the_first_place_that_has_one(
    trait: object, external: object, expected: str | None
) -> None:
    told = ids("u1", traits={"loyalty_card": trait}, context={"externalId": external})
    assert dict(keys_of(told, NAMESPACES)).get("loyalty_card") == expected


def test_a_number_is_the_same_id_however_it_is_written() -> None:
    """JavaScript has one kind of number."""
    whole, fraction = (keys_of(ids("u1", card=n), NAMESPACES) for n in (7, 7.0))
    assert whole == fraction


def test_a_new_profiles_id_follows_from_what_made_it() -> None:
    key = ("user_id", "u1")
    one = new_profile(key, SECRET, NOON)
    assert new_profile(key, SECRET, NOON + seconds(9)).id == one.id
    others = [
        new_profile(("anonymous_id", "u1"), SECRET, NOON),
        new_profile(key, b"another secret", NOON),
        new_profile(key, SECRET, NOON, 1),
        new_profile(("user_id\0u", "1"), SECRET, NOON),
    ]
    assert len({one.id, *(p.id for p in others)}) == 5
    assert len({bucket_of(new_profile(("user_id", f"u{n}"), SECRET, NOON).id) for n in range(2000)}) > 250


# Any history

histories = st.lists(
    st.tuples(
        st.sampled_from([None, "u1", "u2", "u3"]),
        st.sampled_from([None, "a1", "a2", "a3"]),
        st.sampled_from([None, None, "c1", "c2"]),
        st.sampled_from([None, None, "e1", "e2"]),
        st.sampled_from([None, "d1", "d2"]),
        st.sampled_from([None, None, None, "a1", "a2", "u1", "u2"]),
    ).filter(lambda told: any(told[:2])),
    max_size=14,
)


def lived(history: list[tuple[str | None, ...]], *, devices: bool = True) -> tuple[People, list[str]]:
    """Everybody after a history, and whose each event was."""
    people, owners = People(RULES), []
    for number, (user, app, card, email, device, previous) in enumerate(history):
        told = ids(
            user,
            app,
            card=card,
            email=email,
            at=number,
            device=phone(device) if device and devices else None,
            previous_id=previous,
            kind=Kind.ALIAS if previous else Kind.TRACK,
        )
        owners.append(people.tell(told))
    return people, owners


@settings(max_examples=150, deadline=None)
@given(histories)
def test_nobody_is_two_people(history: list[tuple[str | None, ...]]) -> None:
    people, owners = lived(history)
    held = [key for profile in people.profiles.values() for key in profile.keys]
    assert len(held) == len(set(held))
    for profile in people.profiles.values():
        for namespace in ("user_id", "loyalty_card"):
            assert [i.namespace for i in profile.identities].count(namespace) <= 1
    for owner, (user, *_) in zip(owners, history, strict=True):
        if user is not None:
            assert people.of(user).id == owner
    tracked = sum(previous is None for *_, previous in history)
    assert sum(orders(p) for p in people.profiles.values()) == tracked  # nothing lost, nothing twice
    assert sum(p.seq for p in people.profiles.values()) == len(history)


@settings(max_examples=100, deadline=None)
@given(histories)
def test_who_is_who_does_not_depend_on_devices(history: list[tuple[str | None, ...]]) -> None:
    with_devices, without = lived(history), lived(history, devices=False)
    assert with_devices[1] == without[1]

    def partition(people: People) -> set[frozenset[Identity]]:
        return {frozenset(p.identities) for p in people.profiles.values()}

    assert {frozenset(i.key for i in group) for group in partition(with_devices[0])} == {
        frozenset(i.key for i in group) for group in partition(without[0])
    }


@settings(max_examples=60, deadline=None)
@given(histories)
def test_the_same_history_makes_the_same_people(history: list[tuple[str | None, ...]]) -> None:
    first, again = lived(history), lived(history)
    assert first[1] == again[1]
    assert first[0].profiles.keys() == again[0].profiles.keys()
