"""The commit statement by itself: what a unit promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import msgspec
import pytest

from engine.adapters.postgres.faults import Conflict
from engine.adapters.postgres.rows import Commit, EventRow, LinkRow, RungRow, TimerRow
from engine.adapters.postgres.store import Store, connect
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.profiles import bucket_of
from tests.lanes import NOW, fetch

OLD = "01000000-0000-8000-8000-000000000000"
OTHER = "02000000-0000-8000-8000-000000000000"


@pytest.fixture(params=["commit_plain", "commit"])
async def store(
    request: pytest.FixtureRequest, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    """With either statement where both would do."""
    if request.param == "commit":
        monkeypatch.setattr(Commit, "is_plain", False)
    store = await connect(postgres_dsn)
    yield store
    await store.close()


def profile_row(unit: int, profile_id: str, expected: int) -> tuple[int, int, str, int, bytes, None]:
    return (unit, bucket_of(profile_id), profile_id, expected, b"document %d" % expected, None)


def event_row(unit: int, profile_id: str, seq: int, message: str) -> EventRow:
    return EventRow(
        unit=unit,
        bucket=bucket_of(profile_id),
        profile_id=profile_id,
        seq=seq,
        received_at=NOW,
        occurred_at=NOW,
        sender=Sender.CLIENT,
        message_id=message,
        kind=Kind.TRACK,
        name="Open",
        body=Event(kind=Kind.TRACK, name="Open", message_id=message, timestamp=NOW, received_at=NOW),
        facts={},
        located=False,
    )


def link_row(key: tuple[int, str, str], profile_id: str, previous_id: str | None) -> LinkRow:
    bucket, namespace, value = key
    return LinkRow(
        unit=0,
        bucket=bucket,
        namespace=namespace,
        value=value,
        profile_id=profile_id,
        previous_id=previous_id,
    )


def rung_row(key: tuple[int, str, str], due_at: datetime | None) -> RungRow:
    return RungRow(unit=0, bucket=key[0], profile_id=key[1], id=key[2], due_at=due_at)


def timer_row(unit: int, profile_id: str, due_at: datetime = NOW, paced: bool = False) -> TimerRow:
    return TimerRow(
        unit=unit,
        bucket=bucket_of(profile_id),
        profile_id=profile_id,
        id="t",
        due_at=due_at,
        paced=paced,
        event=msgspec.Raw(b"{}"),
    )


async def commit(store: Store, **rows: object) -> tuple[set[int], list[tuple[str, int]]]:
    async with store.session() as session:
        lost = await session.commit(Commit(**rows))  # type: ignore[arg-type]
    return set(lost.units), [(hit.message_id, hit.seq) for hit in lost.hits]


async def versions(dsn: str) -> dict[str, int]:
    return {str(r["id"]): r["version"] for r in await fetch(dsn, "SELECT id, version FROM profiles")}


async def test_a_unit_is_written_where_its_version_is_the_expected_one(
    store: Store, postgres_dsn: str
) -> None:
    assert await commit(store, profiles=[profile_row(0, OLD, 0)]) == (set(), [])
    lost, _ = await commit(
        store,
        profiles=[profile_row(0, OLD, 0), profile_row(1, OTHER, 0)],
        events=[event_row(0, OLD, 1, "a"), event_row(1, OTHER, 1, "a")],
    )
    assert lost == {0}
    assert await versions(postgres_dsn) == {OLD: 1, OTHER: 1}
    assert len(await fetch(postgres_dsn, "SELECT FROM events")) == 1


async def test_a_message_seen_before_voids_its_unit_and_tells_what_is_stored(
    store: Store, postgres_dsn: str
) -> None:
    await commit(store, profiles=[profile_row(0, OLD, 0)], events=[event_row(0, OLD, 1, "a")])
    answer = await commit(
        store,
        profiles=[profile_row(7, OLD, 1)],
        events=[event_row(7, OLD, 2, "a"), event_row(7, OLD, 3, "b")],
    )
    assert answer == ({7}, [("a", 1)])
    assert await versions(postgres_dsn) == {OLD: 1}


async def test_an_identity_of_somebody_else_voids_the_write(store: Store, postgres_dsn: str) -> None:
    link = (9, "anonymous_id", "A")
    await commit(store, profiles=[profile_row(0, OLD, 0)], links=[link_row(link, OLD, None)])
    lost, _ = await commit(store, profiles=[profile_row(0, OTHER, 0)], links=[link_row(link, OTHER, None)])
    assert lost == {0}
    lost, _ = await commit(store, profiles=[profile_row(0, OTHER, 0)], links=[link_row(link, OTHER, OLD)])
    assert lost == set()  # taken over from the one that was named
    assert await versions(postgres_dsn) == {OLD: 1, OTHER: 1}


async def test_a_unit_of_two_profiles_is_never_written_by_half(store: Store, postgres_dsn: str) -> None:
    """The new one is created by another engine after ours looked: ours waits for it, loses, and
    must not have written the old one."""
    await commit(store, profiles=[profile_row(0, OLD, 0)])
    async with store.pool.acquire() as other, other.transaction():
        await other.execute(
            "INSERT INTO profiles (bucket, id, version, document) VALUES ($1, $2, 1, '')",
            bucket_of(OTHER),
            OTHER,
        )
        both = asyncio.create_task(commit(store, profiles=[profile_row(0, OLD, 1), profile_row(0, OTHER, 0)]))
        await asyncio.sleep(0.1)
    with pytest.raises(Conflict):
        await both
    assert await versions(postgres_dsn) == {OLD: 1, OTHER: 1}


async def test_a_connection_that_died_in_the_pool_is_replaced(store: Store, postgres_dsn: str) -> None:
    await commit(store, profiles=[profile_row(0, OLD, 0)])
    await fetch(
        postgres_dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'viewfinder' AND datname = current_database()",
    )
    answers = []
    for number in range(3):
        try:
            answers.append(await commit(store, profiles=[profile_row(0, OLD, 1 + len(answers))]))
        except Exception:
            assert number == 0  # at most once
    assert len(answers) >= 2


async def test_a_timer_is_set_moved_and_called_off_with_its_profile(store: Store, postgres_dsn: str) -> None:
    later = NOW + timedelta(hours=1)
    place = (bucket_of(OLD), OLD, "t")
    await commit(store, profiles=[profile_row(0, OLD, 0)], timers_set=[timer_row(0, OLD)])
    lost, _ = await commit(store, profiles=[profile_row(0, OLD, 0)], timers_set=[timer_row(0, OLD, later)])
    assert lost == {0}
    (claimed,) = await store.claim_timers(NOW, 10, timedelta(seconds=30))
    assert claimed.due_at == NOW

    await commit(store, profiles=[profile_row(0, OLD, 1)], timers_set=[timer_row(0, OLD, later)])
    # The event of the timer that was claimed before it was moved takes the moved one with it not.
    await commit(store, profiles=[profile_row(0, OLD, 2)], timers_done=[rung_row(place, NOW)])
    await store.fetch("delete_timer", *place, NOW)
    assert await store.claim_timers(later - timedelta(seconds=1), 10, timedelta(seconds=30)) == []
    assert [t.due_at for t in await store.claim_timers(later, 10, timedelta(seconds=30))] == [later]

    lost, _ = await commit(store, profiles=[profile_row(0, OLD, 1)], timers_done=[rung_row(place, None)])
    assert lost == {0}
    assert len(await fetch(postgres_dsn, "SELECT FROM timers")) == 1
    await commit(store, profiles=[profile_row(0, OLD, 3)], timers_done=[rung_row(place, None)])
    assert await fetch(postgres_dsn, "SELECT FROM timers") == []


async def test_paced_timers_are_claimed_apart(store: Store) -> None:
    await commit(
        store,
        profiles=[profile_row(0, OLD, 0), profile_row(1, OTHER, 0)],
        timers_set=[timer_row(0, OLD, paced=True), timer_row(1, OTHER)],
    )
    lease = timedelta(seconds=30)
    assert [t.profile_id for t in await store.claim_timers(NOW, 10, lease)] == [OTHER]
    assert [t.profile_id for t in await store.claim_timers(NOW, 10, lease, paced=True)] == [OLD]
