"""What unmodified SDKs really sent, replayed over a raw socket: every event under its person, once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import served
from tests.served import Heard, Served, fetch

CAPTURES = sorted((Path(__file__).parent / "captures").glob("*.json"))
COMPACT = {"segment-node"}
OF_PEOPLE = "WHERE NOT starts_with(message_id, '$')"
"""Of rows those that an SDK sent: what groups are told is events of accounts."""
"""JavaScript writes no spaces between the parts of JSON, Python does."""


class Captured(msgspec.Struct):
    """One request as it was recorded: its head, and its body parsed."""

    method: str
    path: str
    http_version: str
    headers: list[tuple[str, str]]
    wire_bytes: int
    gzip: bool
    body: dict[str, Any]

    def wire(self, compact: bool) -> bytes:
        """The bytes that the SDK sent. JSON keeps the order of its fields, so that parsing loses
        nothing but the spaces: the recorded length says that it is all there. How many bytes gzip
        makes of it depends on the zlib at hand."""
        body = json.dumps(self.body, separators=(",", ":") if compact else (", ", ": ")).encode()
        if self.gzip:
            body = gzip.compress(body)
        else:
            assert len(body) == self.wire_bytes
        lines = [f"{self.method} {self.path} {self.http_version}"]
        for name, value in self.headers:
            lines.append(f"{name}: {len(body) if name.lower() == 'content-length' else value}")
        return "\r\n".join([*lines, "", ""]).encode() + body


def recorded(file: Path) -> list[tuple[Captured, bytes]]:
    requests = msgspec.json.decode(file.read_bytes(), type=list[Captured])
    assert requests
    return [(request, request.wire(file.stem in COMPACT)) for request in requests]


class House:
    """An engine on a database of its own; `taken` are the captures that it was sent, in order."""

    def __init__(self, engine: Served, dsn: str) -> None:
        self.engine, self.dsn = engine, dsn
        self.taken: tuple[Path, ...] = ()

    def replay(self, file: Path, *, trickle: bool = False) -> list[dict[str, Any]]:
        """The answers to a capture's requests, all on one connection."""
        answers: list[dict[str, Any]] = []
        with served.connect(self.engine) as connection:
            for request, wire in recorded(file):
                for piece in (wire[i : i + 1] for i in range(len(wire))) if trickle else (wire,):
                    connection.sendall(piece)
                heard: Heard = served.hear(connection)
                assert heard.status == 200, heard
                answers.append(json.loads(heard.body))
                taken = answers[-1]["accepted"] + answers[-1]["duplicates"]
                assert taken == len(request.body["batch"])
                assert answers[-1]["rejected"] == []
        if file not in self.taken:
            self.taken = (*self.taken, file)
        return answers

    def log(self) -> dict[str, list[str]]:
        """The messages in the event log, by the id of their person's profile, in order."""
        rows = fetch(self.dsn, f"SELECT profile_id, message_id FROM events {OF_PEOPLE} ORDER BY 1, seq")
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(str(row["profile_id"]), []).append(row["message_id"])
        return found

    def seen(self) -> list[tuple[str, str]]:
        rows = fetch(self.dsn, f"SELECT profile_id::text, message_id FROM seen {OF_PEOPLE} ORDER BY 1, 2")
        return [(row[0], row[1]) for row in rows]

    def profile(self, namespace: str, value: str) -> dict[str, Any]:
        with self.engine.admin() as admin:
            response = admin.get(f"/admin/profiles/{namespace}/{value}")
        assert response.status_code == 200
        return dict(response.json())

    def shown(self, path: str) -> list[str]:
        with self.engine.admin() as admin:
            events = admin.get(f"/admin/profiles/{path}/events", params={"limit": 1000}).json()["events"]
        return [event["messageId"] for event in events]


@pytest.fixture(scope="module")
def house(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("captures")
    with served.database(postgres, "test_captures") as dsn, served.serve(folder, dsn) as engine:
        yield House(engine, dsn)


def is_as_after(house: House, files: Sequence[Path]) -> None:
    """The database and what it shows are as after each of these captures once."""
    items = [item for file in files for request, _ in recorded(file) for item in request.body["batch"]]
    known, unknown = house.profile("user_id", "u1"), house.profile("anonymous_id", "anon9")
    expected = {
        known["id"]: [item["messageId"] for item in items if item.get("userId")],
        unknown["id"]: [item["messageId"] for item in items if not item.get("userId")],
    }
    assert house.log() == expected
    assert house.seen() == sorted((person, message) for person in expected for message in expected[person])

    names = [(identity["namespace"], identity["value"]) for identity in known["identities"]]
    assert names == [("user_id", "u1"), ("anonymous_id", "anon1")]
    assert known["traits"]["email"] == "a@b.c"
    assert [device["id"] for device in known["devices"]] == ["dev1"]
    assert known["computed"] == {"orders": len(files), "spend": 12.5 * len(files)}
    assert unknown["identities"] == [{"namespace": "anonymous_id", "value": "anon9"}]
    assert unknown["computed"] == {"orders": 0, "spend": 0}
    shown = {message for path in ("user_id/u1", "anonymous_id/anon9") for message in house.shown(path)}
    assert shown == {item["messageId"] for item in items}


@pytest.mark.parametrize("file", CAPTURES, ids=lambda file: file.stem)
def test_a_recorded_request_is_taken_once(house: House, file: Path) -> None:
    """Although those before it are about the same people; at once, and a byte at a time."""
    before = house.taken
    (answer,) = house.replay(file)
    assert (answer["accepted"], answer["duplicates"]) == ((7, 0) if file not in before else (0, 7))
    is_as_after(house, house.taken)
    for trickle in (False, True):
        (answer,) = house.replay(file, trickle=trickle)
        assert (answer["accepted"], answer["duplicates"]) == (0, 7)
        is_as_after(house, house.taken)


def test_all_of_them_in_turn_and_twice(house: House) -> None:
    for turn in range(2):
        for number, file in enumerate(CAPTURES):
            before = house.taken
            (answer,) = house.replay(file, trickle=turn == number == 0)
            assert answer["accepted"] == (7 if file not in before else 0)
            is_as_after(house, house.taken)
    assert set(house.taken) == set(CAPTURES)
