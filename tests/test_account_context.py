"""Which account an event is of, as timelines: memberships, and the context that decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.domain.people import accounts
from engine.domain.people.events import Device, Event, Kind, Sender
from engine.domain.people.profiles import Profile
from tests.story import NOON, Story, event, rule_set, someone

MINUTE = timedelta(minutes=1)
RULES = rule_set()


def group(account: str | None, minute: int, client: str | None = "app", **traits: Any) -> Event:
    return event(
        "",
        NOON + minute * MINUTE,
        kind=Kind.GROUP,
        user_id="ada",
        anonymous_id=client,
        group_id=account,
        properties=traits,
    )


def does(minute: int, client: str | None = "app", name: str = "Wish", **context: Any) -> Event:
    return event(name, NOON + minute * MINUTE, user_id="ada", anonymous_id=client, context=context)


def of(*events: Event) -> list[str | None]:
    """The accounts that events turn out to be of, one after the other."""
    story = Story(RULES)
    found = []
    for told in events:
        story.tell(told)
        assert story.seen is not None
        found.append(story.seen.event.group_id)
    return found


def profile_after(*events: Event) -> Profile:
    story = Story(RULES)
    for told in events:
        story.tell(told)
    return story.profile


def test_until_another_group_call_or_logged_out_there() -> None:
    told = [
        does(0),
        group("acme", 1),
        does(2),
        group("apex", 3),
        does(4),
        does(5, name="Logged Out"),
        does(6),
        group("acme", 7),
        does(8),
    ]
    assert of(*told) == [None, "acme", "acme", "apex", "apex", None, None, "acme", "acme"]


def test_each_client_is_for_itself() -> None:
    told = [
        group("acme", 0, "office"),
        does(1, "home"),
        does(2, "office"),
        does(3, None),
        group("apex", 4, None),
        does(5, None),
        does(6, "office"),
        does(7, "home", name="Logged Out"),
        does(8, "office"),
    ]
    assert of(*told) == ["acme", None, "acme", None, "apex", "apex", "acme", None, "acme"]


def test_what_an_event_says_itself_counts_and_its_silence_then_means_private() -> None:
    told = [
        group("acme", 0),
        group("apex", 1),
        does(2),
        does(3, groupId="acme"),
        does(4),  # it names accounts now: this one is private
        does(5, groupId="apex"),
        does(6, groupId=None),
        does(7, groupId=""),
        group("acme", 8),
        does(9),
        does(10, "other", groupId="acme"),
        does(11, "other"),
    ]
    said = ["acme", "apex", "apex", "acme", None, "apex", None, None, "acme", None, "acme", None]
    assert of(*told) == said


def test_null_and_empty_name_no_account_and_are_no_naming() -> None:
    assert of(group("acme", 0), does(1, groupId=None), does(2, groupId=""), does(3)) == ["acme"] * 4


def test_only_members_act_for_an_account() -> None:
    assert of(does(0, groupId="acme"), group("acme", 1), does(2), does(3, groupId="acme")) == [
        None,
        "acme",
        None,  # this client has named accounts before
        "acme",
    ]
    assert of(group("apex", 0), does(1, groupId="acme")) == ["apex", None]


def test_a_group_call_without_a_group_changes_nothing() -> None:
    assert of(group("acme", 0), group(None, 1), does(2)) == ["acme", None, "acme"]


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_a_number_is_an_id(value: object) -> None:
    assert of(group("7", 0), does(1, "other", groupId=value)) == ["7", "7"]


@pytest.mark.parametrize("value", [True, [], {}, "x" * 513])
def test_what_is_no_id_names_nothing(value: object) -> None:
    assert of(group("acme", 0), does(1, groupId=value)) == ["acme", "acme"]


def test_an_older_group_call_does_not_undo_a_newer_one() -> None:
    assert of(group("apex", 5), group("acme", 1), does(6)) == ["apex", "acme", "apex"]


def test_a_device_stands_for_a_client_without_an_anonymous_id() -> None:
    here = Device(id="phone")
    told = [
        event("", NOON, kind=Kind.GROUP, user_id="ada", group_id="acme", device=here),
        event("Wish", NOON + MINUTE, user_id="ada", device=here),
        event("Wish", NOON + 2 * MINUTE, user_id="ada"),
    ]
    assert of(*told) == ["acme", "acme", None]


def test_what_the_engine_says_itself_is_of_no_client() -> None:
    told = event("Offer Delivered", NOON + MINUTE, sender=Sender.ENGINE, properties={"decision": "x"})
    assert of(group("acme", 0, None), told) == ["acme", None]


def test_a_membership_has_its_own_traits_and_the_rest_is_the_accounts() -> None:
    call = group("acme", 3, role="buyer", member={"department": "it"}, name="Acme Ltd", employees=40)
    later, earlier = group("acme", 5, role="director"), group("acme", 1, role="intern", member={"desk": 7})
    assert accounts.group_traits(call) == {"name": "Acme Ltd", "employees": 40}
    for order in ((call, later, earlier), (earlier, call, later), (later, earlier, call)):
        seat = profile_after(*order).accounts["acme"]
        assert seat.since == NOON + MINUTE
        assert seat.message_id == earlier.message_id
        assert {name: trait.value for name, trait in seat.traits.items()} == {
            "role": "director",
            "department": "it",
            "desk": 7,
        }


def test_a_file_is_no_client() -> None:
    joined = event("", NOON, kind=Kind.GROUP, user_id="ada", group_id="acme", sender=Sender.IMPORT)
    bought = event("Order", NOON + MINUTE, user_id="ada", sender=Sender.IMPORT)
    for_them = event("Order", NOON + MINUTE, user_id="ada", sender=Sender.IMPORT, context={"groupId": "acme"})
    assert of(joined, bought, for_them, does(2, None), group("acme", 3, None), does(4, None)) == [
        "acme",
        None,
        "acme",
        None,
        "acme",
        "acme",
    ]


def test_an_operator_says_who_is_no_member_any_more() -> None:
    gone = event(
        "", NOON + MINUTE, kind=Kind.GROUP, sender=Sender.ENGINE, group_id="acme", properties={"left": True}
    )
    strange = event("", NOON, kind=Kind.GROUP, sender=Sender.ENGINE, group_id="apex", properties={})
    assert of(group("acme", 0), strange, gone, does(2), does(3, groupId="acme")) == [
        "acme",
        None,
        None,
        None,
        None,
    ]
    assert profile_after(group("acme", 0), strange, gone).accounts == {}


def test_a_client_that_somebody_else_uses_now_is_forgotten() -> None:
    person = profile_after(group("acme", 0))
    assert accounts.without_clients(person, [("anonymous_id", "app")]).clients == {}
    assert accounts.without_clients(person, [("anonymous_id", "other")]) is person


def test_no_more_than_there_is_room_for() -> None:
    people = profile_after(*(group(f"g{n}", n, f"c{n}") for n in range(accounts.MOST_ACCOUNTS + 5)))
    assert len(people.accounts) == accounts.MOST_ACCOUNTS
    assert len(people.clients) == accounts.MOST_CLIENTS


def test_people_without_accounts_carry_nothing_of_it() -> None:
    one = Story(RULES, someone())
    one.tell(does(0))
    assert one.profile.accounts == one.profile.clients == {}
    assert one.profile.handed_on == b""
