"""One engine: load → decide → commit → answer, on a real database."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from engine.app.lane import PACED_EVENTS, QUEUE_EVENTS, TICK_EVENTS
from engine.app.replies import Interrupted, Overloaded, Pending, Reply
from engine.app.timers import Timers
from engine.domain import decide
from engine.domain.offers.decisions import Decision
from engine.domain.people.events import Device, Event, Kind, Location, Sender
from engine.domain.people.profiles import new_profile
from tests import lanes
from tests.lanes import CAFE, FAR, NOW, arrival, event, fetch, minutes, outcomes


async def test_an_answered_event_is_in_the_log_and_in_the_profile(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(
            arrival("ada"), event(name="Order Completed", user="ada", properties={"revenue": 12.5})
        )
        ada = await engine.profile("user_id", "ada")
    assert ada is not None
    assert ada.computed["orders"] == 1
    assert ada.computed["spend"] == 12.5
    rows = await fetch(postgres_dsn, "SELECT seq, kind, name FROM events ORDER BY seq")
    assert lanes.plain(rows) == [(1, "identify", ""), (2, "track", "Order Completed")]


async def test_a_repeated_message_counts_once_and_is_answered_as_before(postgres_dsn: str) -> None:
    enter = event(name="Location Updated", user="ada", location=CAFE, message="m1")
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(arrival("ada"))
        first = await engine.send(enter)
        again = await engine.send(enter, enter)
    async with lanes.engine(postgres_dsn) as restarted:
        later = await restarted.send(enter)
    assert outcomes(first) == [("cafe", "offered", None)]
    assert (again.accepted, again.duplicates) == (0, 2)
    assert {d.id for d in again.decisions} == {d.id for d in first.decisions}
    assert (later.accepted, later.duplicates) == (0, 1)
    assert later.decisions == first.decisions
    assert len(await fetch(postgres_dsn, "SELECT FROM outbox")) == 1


async def test_the_first_body_of_a_message_stands(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        for revenue in (5.0, 7.0):
            await engine.send(
                event(name="Order Completed", user="a", message="m", properties={"revenue": revenue})
            )
        a = await engine.profile("user_id", "a")
    assert a is not None
    assert a.computed["spend"] == 5.0


async def test_the_same_message_of_two_people_is_kept_twice(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        reply = await engine.send(
            event(name="Open", user="a", message="m"), event(name="Open", user="b", message="m")
        )
    assert (reply.accepted, reply.duplicates) == (2, 0)


async def test_links_inside_one_request_take_effect_in_order(postgres_dsn: str) -> None:
    """[track(A), identify(A→U), track(A)]: whose the third is depends on the second."""
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(
            event(name="Order Completed", anonymous="A"),
            event(Kind.IDENTIFY, anonymous="A", user="U"),
            event(name="Order Completed", anonymous="A"),
        )
        by_user, by_app = await engine.profile("user_id", "U"), await engine.profile("anonymous_id", "A")
    assert by_user is not None
    assert by_user == by_app
    assert by_user.computed["orders"] == 2


async def test_an_app_becomes_one_with_the_user_who_signs_in(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(name="Order Completed", user="U"))
        await engine.send(
            event(name="Order Completed", anonymous="A"),
            event(Kind.IDENTIFY, anonymous="A", user="U"),
            event(name="Order Completed", anonymous="A"),
        )
        user, app = await engine.profile("user_id", "U"), await engine.profile("anonymous_id", "A")
    assert user is not None
    assert user == app
    assert user.computed["orders"] == 3
    assert user.seq == 4
    # The rows of the one that ended stand under its own id until they are brought over.
    seqs = await fetch(postgres_dsn, "SELECT profile_id, array_agg(seq ORDER BY seq) FROM events GROUP BY 1")
    assert sorted(list(row[1]) for row in seqs) == [[1], [1, 3, 4]]


async def test_a_message_is_known_after_its_identity_moved(postgres_dsn: str) -> None:
    """The phone retries what it sent before its user signed in: it is stored under the old profile."""
    before = [event(name="Order Completed", anonymous="A", message=f"m{i}") for i in range(3)]
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(name="Open", user="U"), event(name="Open", user="V"))
        first = await engine.send(*before)
        await engine.send(event(Kind.IDENTIFY, anonymous="A", user="U"))
        again = await engine.send(*before, event(name="Order Completed", anonymous="A", message="m3"))
        await engine.send(event(Kind.IDENTIFY, anonymous="A", user="V"))
        later = await engine.send(*before, event(name="Order Completed", anonymous="A", message="m3"))
        u, v = await engine.profile("user_id", "U"), await engine.profile("user_id", "V")
    assert (first.accepted, first.duplicates) == (3, 0)
    assert (again.accepted, again.duplicates) == (1, 3)
    assert (later.accepted, later.duplicates) == (0, 4)
    assert u is not None
    assert v is not None
    assert (u.computed["orders"], v.computed.get("orders", 0)) == (4, 0)  # past counts stay
    rows = await fetch(postgres_dsn, "SELECT FROM events WHERE name = 'Order Completed'")
    assert len(rows) == 4


async def test_two_users_of_one_app_never_become_one(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(arrival("mum", device="tablet", anonymous="A"))
        await engine.send(event(Kind.IDENTIFY, user="kid", anonymous="A", device=Device(id="tablet")))
        mum, kid = await engine.profile("user_id", "mum"), await engine.profile("user_id", "kid")
        app = await engine.profile("anonymous_id", "A")
    assert mum is not None
    assert kid is not None
    assert mum.id != kid.id
    assert app == kid
    assert mum.devices == {}
    assert kid.devices["tablet"].token == "token-mum"  # the address goes along


async def test_logging_out_stops_pushes_until_the_user_is_named_again(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(arrival("ada", anonymous="A"))
        phone = Device(id="ada-phone")
        await engine.send(event(name="Logged Out", anonymous="A", device=phone))
        out = await engine.send(event(name="Thank Me", anonymous="A", device=phone))
        back = await engine.send(event(name="Thank Me", user="ada", device=phone))
    assert outcomes(out) == [("thanks", "suppressed", "no_device")]
    assert outcomes(back) == [("thanks", "offered", None)]


async def test_alias_links_an_unknown_id_and_refuses_to_merge_two_users(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(name="Open", user="u1"), event(name="Open", user="u2"))
        await engine.send(event(Kind.ALIAS, user="u1", previous_id="anon1"))
        await engine.send(event(Kind.ALIAS, user="u1", previous_id="u2"))
        u1, u2 = await engine.profile("user_id", "u1"), await engine.profile("user_id", "u2")
        anon = await engine.profile("anonymous_id", "anon1")
    assert u1 is not None
    assert u2 is not None
    assert anon == u1
    assert u1.id != u2.id
    (row,) = await fetch(postgres_dsn, "SELECT facts FROM events WHERE kind = 'alias' AND seq = 3")
    assert any("merge_refused" in note for note in lanes.decoded(row["facts"])["notes"])


async def test_an_enter_that_no_longer_holds_at_the_batchs_newest_fix_offers_nothing(
    postgres_dsn: str,
) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(arrival("ada"))
        inside = event(name="Location Updated", user="ada", location=CAFE)
        answer = Reply(1)  # as ingest does for a late batch
        engine.lane.submit([Pending(event=inside, reply=answer, keys=(("user_id", "ada"),), newest=FAR)])
        await answer.done
    assert outcomes(answer) == [("cafe", "suppressed", "stale_event")]


async def test_positions_are_kept_as_exactly_as_was_allowed(postgres_dsn: str) -> None:
    workspace = lanes.WORKSPACE + (
        b"consent: {purposes: {marketing: {basis: consent, unknown: deny},"
        b" location: {basis: consent, unknown: deny}}}\n"
    )
    rules = lanes.rule_set(workspace=workspace)
    spot = Location(latitude=52.660123, longitude=-8.620456, accuracy=5.0, speed=1.0)
    async with lanes.engine(postgres_dsn, rules) as engine:
        await engine.send(event(name="Location Updated", user="silent", location=spot))
        await engine.send(
            event(name="Location Updated", user="shy", location=spot, consent={"location": False})
        )
        await engine.send(
            event(name="Location Updated", user="open", location=spot, consent={"location": True})
        )
    rows = await fetch(postgres_dsn, "SELECT body FROM events")
    documents = await fetch(postgres_dsn, "SELECT document FROM profiles")
    kept = {(body := lanes.decoded(r["body"]))["user_id"]: body.get("location") for r in rows}
    assert kept["shy"] is None
    assert kept["open"]["latitude"] == 52.660123
    assert kept["silent"]["accuracy"] > 5000
    assert abs(kept["silent"]["latitude"] - 52.660123) > 0.0005
    assert sum(b"\xcb@JT" in bytes(r["document"]) for r in documents) <= 1  # 52.66…, as a double


async def test_a_log_replays_to_the_same_decisions_and_the_same_document(postgres_dsn: str) -> None:
    rules = lanes.rule_set()
    async with lanes.engine(postgres_dsn, rules) as engine:
        await engine.send(arrival("ada", traits={"first_name": "Ada"}))
        for number in range(12):
            engine.now = NOW + minutes(number * 7)
            where = CAFE if number % 4 == 2 else FAR
            await engine.send(
                event(name="Location Updated", user="ada", location=where, at=engine.now),
                event(name="Thank Me", user="ada", at=engine.now),
                event(name="Order Completed", user="ada", at=engine.now, properties={"revenue": 0.1}),
            )
        stored = await engine.profile("user_id", "ada")
    assert stored is not None
    rows = await fetch(postgres_dsn, "SELECT body, facts FROM events ORDER BY seq")
    recorded = [
        msgspec.json.decode(r["document"], type=Decision)
        for r in await fetch(postgres_dsn, "SELECT document FROM decisions ORDER BY seq, id")
    ]
    profile = msgspec.structs.replace(
        new_profile(("user_id", "ada"), b"", NOW),
        id=stored.id,
        identities=stored.identities,
    )
    replayed: list[Decision] = []
    for row in rows:
        facts = msgspec.json.decode(row["facts"])
        now = msgspec.convert(facts["now"], type(NOW))
        seen = decide.observe(rules, profile, msgspec.json.decode(row["body"], type=Event), now)
        verdict = decide.judge(rules, seen, now, scores=facts.get("propensity", {}))
        profile = verdict.profile
        replayed += verdict.decisions
    without_message = [msgspec.structs.replace(d, message=None) for d in recorded]
    encode = msgspec.json.encode
    assert [encode(d) for d in replayed] == [encode(d) for d in without_message]
    assert len(replayed) >= 12
    assert msgspec.structs.replace(profile, version=stored.version, created_at=stored.created_at) == stored


class Scores:
    """A model that remembers how it was asked."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def predict(self, rows: list[tuple[float, ...]]) -> list[float | None]:
        self.runs.append(len(rows))
        return [None if row[0] > 1 else 0.5 for row in rows]


async def test_a_round_asks_each_model_once_and_a_failed_score_offers_nothing(postgres_dsn: str) -> None:
    rules = lanes.rule_set_with_model()
    scores = Scores()
    async with lanes.engine(postgres_dsn, rules, {"redeem": scores}) as engine:
        people = [f"p{i}" for i in range(20)]
        await engine.send(*(arrival(p) for p in people))
        await engine.send(*(event(name="Order Completed", user=p) for p in people[:1] * 2))
        reply = await engine.send(*(event(name="Thank Me", user=p) for p in people))
    assert scores.runs == [20]
    assert outcomes(reply)[0] == ("thanks", "suppressed", "model_failed")
    assert outcomes(reply)[1:] == [("thanks", "offered", None)] * 19


async def test_a_full_lane_takes_nothing_of_a_request(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        with pytest.raises(Overloaded):
            engine.submit(*(event(name="Open", user="a") for _ in range(QUEUE_EVENTS + 1)))
        assert len(engine.lane) == 0


async def test_a_connection_lost_in_the_middle_of_a_tick_loses_and_doubles_nothing(
    postgres_dsn: str,
) -> None:
    """The database cuts every connection again and again while orders come in, without retries by
    the sender: whatever is answered is counted once."""
    people = [f"p{i}" for i in range(8)]
    answered = dict.fromkeys(people, 0)
    async with lanes.engine(postgres_dsn) as engine:
        done = False

        async def cut() -> None:
            while not done:
                await asyncio.sleep(0.03)
                await fetch(
                    postgres_dsn,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'viewfinder' AND datname = current_database()",
                )

        async def shop(person: str) -> None:
            for _ in range(60):
                try:
                    await engine.send(event(name="Order Completed", user=person))
                except Interrupted:
                    await asyncio.sleep(0.01)
                else:
                    answered[person] += 1

        cutting = asyncio.create_task(cut())
        await asyncio.gather(*(shop(p) for p in people))
        done = True
        await cutting
    async with lanes.engine(postgres_dsn) as reader:
        counted = {p: (await reader.profile("user_id", p)) for p in people}
    logged = await fetch(postgres_dsn, "SELECT body FROM events")
    for person, profile in counted.items():
        assert profile is not None
        rows = sum(lanes.decoded(r["body"])["user_id"] == person for r in logged)
        assert answered[person] <= profile.computed["orders"] == profile.seq == rows <= 60


async def test_without_a_database_callers_are_told_to_come_back(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.store.close()
        with pytest.raises(Interrupted):
            await engine.send(event(name="Open", user="a"))


async def test_an_outcome_of_a_gone_profile_is_dropped(postgres_dsn: str) -> None:
    await fetch(
        postgres_dsn,
        "INSERT INTO timers (bucket, profile_id, id, due_at, event) VALUES "
        "(1, '01000000-0000-8000-8000-000000000000', 't', $1, $2)",
        NOW,
        msgspec.json.encode(event(name="Offer Delivered", sender="engine")).decode(),
    )
    async with lanes.engine(postgres_dsn) as engine:
        fired = await Timers(engine.store, engine.lane, lambda: NOW + timedelta(seconds=1)).fire_due()
    assert fired == 1
    assert await fetch(postgres_dsn, "SELECT FROM timers") == []
    assert await fetch(postgres_dsn, "SELECT FROM profiles") == []


async def test_a_timer_of_a_profile_that_ended_reaches_its_successor(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(name="Open", anonymous="phone"))
        ended = await engine.profile("anonymous_id", "phone")
        await engine.send(event(name="Open", user="ada"))
        await engine.send(event(Kind.IDENTIFY, user="ada", anonymous="phone"))
        ada = await engine.profile("anonymous_id", "phone")
        assert ended is not None
        assert ada is not None
        assert ada.id != ended.id
        due = event(name="Order Completed", message="due", sender=Sender.ENGINE)
        await fetch(
            postgres_dsn,
            "INSERT INTO timers (bucket, profile_id, id, due_at, event) VALUES ($1, $2, 't', $3, $4)",
            int(ended.id[:2], 16),
            ended.id,
            NOW,
            lanes.event_text(due),
        )
        timers = Timers(engine.store, engine.lane, lambda: NOW)
        assert await timers.fire_due() == 1
        after = await engine.profile("user_id", "ada")
        assert after is not None
        assert after.computed["orders"] == 1
    assert await fetch(postgres_dsn, "SELECT FROM timers") == []


async def test_what_nobody_waits_for_lets_others_go_first(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        paced = [
            Pending(event=event(name="Open", user=f"p{i}"), reply=Reply(1), keys=(("user_id", f"p{i}"),))
            for i in range(10 * PACED_EVENTS)
        ]
        engine.lane.submit(paced, paced=True)
        for number in range(TICK_EVENTS):
            engine.submit(event(name="Open", user=f"u{number}"))
        first = engine.lane._next()  # before the lane's own tasks had a turn
        assert first.events[TICK_EVENTS:] == paced[:PACED_EVENTS]
        engine.lane._carried.extend(first.events)
        await asyncio.gather(*(p.reply.done for p in paced))
