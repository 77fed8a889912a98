"""Files come in as events: exactly once, however often killed, with a reason for each row left out."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.profiles import Profile, decode_profile
from engine.formats.import_events import Reader
from engine.formats.import_mapping import ImportMapping, by_names, mapping, unknown_columns
from engine.formats.import_rows import Format, Unreadable, table
from engine.formats.problems import Problem
from engine.formats.segment_verdicts import Refusal
from tests import lanes, served
from tests.lanes import fetch
from tests.served import SERVER_KEY, write_workspace

PURCHASES = Path(__file__).parent.parent / "models" / "data" / "cdnow-purchases.txt"
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

WORKSPACE = b"""
timezone: America/New_York
currency: USD
consent: {purposes: {service: {basis: contract}, marketing: {}}}
identities:
  - {namespace: user_id, one: true}
  - {namespace: loyalty_card, one: true, from: [traits.loyalty_card]}
  - {namespace: email, from: [traits.email]}
  - {namespace: anonymous_id}
events:
  Order Completed: {from: server}
computed:
  orders: {count: Order Completed}
  lifetime_value: {sum: event.properties.revenue, of: Order Completed}
  tier: {steps: lifetime_value, from: {bronze: 0, silver: 100, gold: 500}}
"""
RULES = b"""
offers:
  gold-gift: {purpose: service, message: {push: {title: "Gold", body: "Thank you"}}}
rules:
  gold: {when: Order Completed, if: profile.tier == "gold", offer: gold-gift}
"""
CDNOW = b"""
separator: whitespace
time: {column: date, format: "%Y%m%d"}
ids: {user_id: customer_id}
properties: {revenue: dollar_value, cds: number_of_cds}
"""


def said(text: str) -> ImportMapping:
    problems: list[Problem] = []
    found = mapping("mapping.yaml", text.encode(), problems)
    assert found is not None, problems
    return found


def events(
    content: bytes, kind: str = "purchases", form: Format = "csv", text: str = ""
) -> list[Event | Refusal]:
    rules = lanes.rule_set(RULES, WORKSPACE)
    given = said(text)
    if given.is_by_names:
        columns = table(io.BytesIO(content), form, given).columns
        given = by_names(kind, columns, [n.name for n in rules.workspace.namespaces], given)  # type: ignore[arg-type]
    read = Reader(kind, given, rules.workspace, NOW)  # type: ignore[arg-type]
    return [read.event(row) for row in table(io.BytesIO(content), form, given).rows]


def event(content: bytes, **how: Any) -> Event:
    (one,) = events(content, **how)
    assert isinstance(one, Event), one
    return one


def code(content: bytes, **how: Any) -> str:
    (one,) = events(content, **how)
    assert isinstance(one, Refusal), one
    return one.code


# Rows to events


def test_names_of_columns_say_what_they_are() -> None:
    one = event(b"user_id,timestamp,revenue,store\n007,2026-03-02T10:00:00Z,12.50,s1\n")
    assert (one.kind, one.name, one.user_id) == (Kind.TRACK, "Order Completed", "007")
    assert one.properties == {"revenue": 12.5, "store": "s1"}
    assert one.timestamp == datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert (one.sender, one.trusted, one.history) == (Sender.IMPORT, True, False)


def test_what_happened_long_ago_is_history() -> None:
    assert event(b"user_id,date\nu,1997-01-01\n").history
    # A date is midnight on the workspace's clock.
    assert event(b"user_id,date\nu,1997-01-01\n").timestamp == datetime(1997, 1, 1, 5, tzinfo=UTC)


def test_a_profile_has_traits_and_identities() -> None:
    one = event(b"email,loyalty_card,first_name,zip\nAda@x.org,0042,Ada,01234\n", kind="profiles")
    assert one.kind is Kind.IDENTIFY
    assert one.traits == {"email": "Ada@x.org", "loyalty_card": "0042", "first_name": "Ada", "zip": "01234"}


def test_a_mapping_may_say_that_the_file_is_a_partners() -> None:
    given = "ids: {user_id: who}\ntraits: {score: n}\nsource: second_party\n"
    assert event(b"who,n\nu,7\n", kind="profiles", text=given).party == "second_party"
    problems: list[Problem] = []
    assert mapping("m.yaml", b"source: second\n", problems) is None
    assert [(p.line, p.column) for p in problems] == [(1, 9)]


def test_a_consent_names_purposes() -> None:
    one = event(b"user_id,marketing,service\nu,yes,\n", kind="consents")
    assert one.consent == {"marketing": True}
    assert event(b"user_id,marketing\nu,Opt_Out\n", kind="consents").consent == {"marketing": False}
    assert code(b"user_id,marketing\nu,perhaps\n", kind="consents") == "no_statement"


def test_an_interaction_has_its_own_event() -> None:
    one = event(b"user_id,event,fair\nu,Trade Fair Visited,Hannover\n", kind="interactions")
    assert (one.name, one.properties) == ("Trade Fair Visited", {"fair": "Hannover"})
    given = "event: Direct Mail Sent\nids: {user_id: who}\n"
    assert event(b"who\nu\n", kind="interactions", text=given).name == "Direct Mail Sent"
    given = "event: {column: what}\nids: {user_id: who}\n"
    assert code(b"who,what\nu,\n", kind="interactions", text=given) == "missing_event"


def test_an_account_is_joined_by_its_people() -> None:
    one = event(b"account_id,user_id,industry\nacme,u,steel\n", kind="accounts")
    assert (one.kind, one.group_id, one.user_id) == (Kind.GROUP, "acme", "u")
    assert one.properties == {"industry": "steel"}
    one = event(b"account_id,user_id,role,member.desk\nacme,u,buyer,7\n", kind="accounts")
    assert one.properties == {"role": "buyer", "member": {"desk": 7}}
    one = event(b"user_id,account_id,revenue\nu,acme,5\n", kind="purchases")
    assert (one.group_id, one.context, one.properties) == (None, {"groupId": "acme"}, {"revenue": 5})
    assert code(b"account_id,user_id\n,u\n", kind="accounts") == "missing_account"


@pytest.mark.parametrize(
    ("given", "line", "properties"),
    [
        ("", "1.5", {"x": 1.5}),
        ("", "-3", {"x": -3}),
        ("", "007", {"x": "007"}),
        ("", "1,5", {"x": "1,5"}),
        ("", " ", {}),
        ('decimal: ","', "1.234;5", {"x": "1.234;5"}),
        ('decimal: ","', "1.234,56", {"x": 1234.56}),
    ],
)
def test_digits_are_numbers(given: str, line: str, properties: Mapping[str, Any]) -> None:
    text = f'separator: "|"\nids: {{user_id: who}}\nproperties: {{x: x}}\n{given}\n'
    assert event(f"who|x\nu|{line}\n".encode(), text=text).properties == properties


def test_digits_stay_text_where_they_are_to() -> None:
    text = "ids: {user_id: who}\nproperties: {x: {column: x, as: text}, currency: {value: USD}}\n"
    assert event(b"who,x\nu,1.5\n", text=text).properties == {"x": "1.5", "currency": "USD"}


def test_a_row_is_told_from_another_by_its_number_and_content_or_by_its_id() -> None:
    rows = b"user_id,date,revenue\nu,2026-03-01,5\nu,2026-03-01,5\n"
    first, second = events(rows)
    again = events(rows)
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert first.message_id != second.message_id  # two purchases that look alike
    assert [e.message_id for e in again if isinstance(e, Event)] == [first.message_id, second.message_id]
    assert event(b"user_id,no\nu,7\n", text="id: no").message_id == "purchases:7"
    assert code(b"user_id,no\nu,\n", text="id: no") == "missing_id"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"user_id,date\nu,yesterday\n", "invalid_timestamp"),
        (b"user_id,date\nu\n", "unreadable_row"),
        (b"user_id,note\nu," + b"x" * 40_000 + b"\n", "unreadable_row"),
        (b"user_id,note\nu,\xff\n", "unreadable_row"),
    ],
)
def test_a_row_that_is_not_taken_says_why(content: bytes, reason: str) -> None:
    assert code(content) == reason


def test_json_lines_and_parquet_are_the_same_rows(tmp_path: Path) -> None:
    rows = [{"user_id": "u1", "revenue": 1.5, "n": 2}, {"user_id": "u2", "revenue": 3.0, "n": None}]
    lines = b"\n".join(json.dumps(row).encode() for row in rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    packed = (tmp_path / "x.parquet").read_bytes()
    from_lines, from_packed = events(lines, form="jsonl"), events(packed, form="parquet")
    assert [e.properties for e in from_lines if isinstance(e, Event)] == [
        {"revenue": 1.5, "n": 2},
        {"revenue": 3.0},
    ]
    assert [e.user_id for e in from_packed if isinstance(e, Event)] == ["u1", "u2"]
    assert [e.properties["revenue"] for e in from_packed if isinstance(e, Event)] == [1.5, 3.0]
    assert code(b'{"user_id": 1\n', form="jsonl") == "unreadable_row"


def test_a_file_that_is_no_table_is_refused() -> None:
    for content in (b"", b"a,a\n1,2\n"):
        with pytest.raises(Unreadable):
            table(io.BytesIO(content), "csv", ImportMapping())
    with pytest.raises(Unreadable):
        table(io.BytesIO(b"not parquet"), "parquet", ImportMapping())


def test_a_mapping_says_what_is_wrong_with_it() -> None:
    problems: list[Problem] = []
    assert mapping("m.yaml", b"idz: {user_id: x}\nseparator: ';;'\ndecimal: '!'\n", problems) is None
    assert [(p.line, p.column) for p in problems] == [(1, 1), (2, 12), (3, 10)]
    assert problems[0].suggestion == 'did you mean "id"?'
    given = said("ids: {user_id: custmer}")
    assert unknown_columns(given, ["customer"]) == [
        'the file has no column "custmer": did you mean "customer"?'
    ]


# By the command


@contextmanager
def workspace_of(folder: Path) -> Iterator[Path]:
    write_workspace(folder / "rules", WORKSPACE, RULES)
    (folder / "cdnow.yaml").write_bytes(CDNOW)
    yield folder


async def command(folder: Path, dsn: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine", "import", *arguments),
        env=served.environment(folder, dsn, {}),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 300)
    return process.returncode or 0, out.decode(), err.decode()


async def people(connection: asyncpg.Connection) -> list[Profile]:
    rows = await connection.fetch("SELECT document FROM profiles")
    return [decode_profile(row[0]) for row in rows]


def _with_wrong_rows(folder: Path) -> tuple[Path, list[int]]:
    """The purchases with a row now and then that cannot be taken, and the numbers of these."""
    lines = PURCHASES.read_text().splitlines(keepends=True)
    wrong = list(range(1000, len(lines), 3000))
    for number in reversed(wrong):
        lines.insert(number, " 99999 19971301 1 1.00\n")
    file = folder / "cdnow.txt"
    file.write_text("".join(lines))
    return file, [number + before for before, number in enumerate(wrong)]


async def test_cdnow_killed_three_times_and_a_purchase_at_the_till(postgres_dsn: str, tmp_path: Path) -> None:
    """All of it, to the cent, and the tiers that follow; each row that is wrong is told once; then one
    purchase moves a tier."""
    spent: dict[str, float] = {}
    with PURCHASES.open() as file:
        next(file)
        for customer, _, _, dollars in csv.reader(file, delimiter=" ", skipinitialspace=True):
            spent[customer] = round(spent.get(customer, 0) + float(dollars), 2)
    connection = await asyncpg.connect(postgres_dsn)
    try:
        with workspace_of(tmp_path) as folder:
            file, wrong = _with_wrong_rows(folder)
            arguments = ("purchases", str(file), "--mapping", "cdnow.yaml", "--json")
            for part in (1, 2, 3):
                process = await command(folder, postgres_dsn, *arguments)
                async with asyncio.timeout(300):
                    while await connection.fetchval("SELECT count(*) FROM events") < part * 12_000:
                        assert process.returncode is None
                        await asyncio.sleep(0.02)
                process.send_signal(signal.SIGKILL)
                await process.wait()
            code_, out, err = await ended(await command(folder, postgres_dsn, *arguments))
            assert code_ == 1, err
            told = file.with_name(file.name + ".rejected.jsonl").read_text().splitlines()
            assert [json.loads(line)["row"] for line in told] == wrong
            found = await people(connection)
            assert len(found) == len(spent) == 23_570
            assert sum(p.computed["orders"] for p in found) == 69_659
            assert await connection.fetchval("SELECT count(*) FROM events") == 69_659
            cents = sum(round(p.computed["lifetime_value"] * 100) for p in found)
            assert cents == round(sum(spent.values()) * 100)
            by_user = {p.identities[0].value: p for p in found}
            assert {u: p.computed["lifetime_value"] for u, p in by_user.items()} == spent
            assert await connection.fetchval("SELECT count(*) FROM decisions") == 0  # history wakes nobody

            code_, out, err = await ended(await command(folder, postgres_dsn, *arguments[:-1]))
            assert code_ == 0, err
            assert "was brought in before" in out
    finally:
        await connection.close()
    silver = next(user for user, dollars in spent.items() if 400 < dollars < 500)
    await asyncio.to_thread(_buy_at_the_till, tmp_path, postgres_dsn, silver)


def _buy_at_the_till(folder: Path, dsn: str, user: str) -> None:
    with served.serve(folder, dsn) as engine, engine.client(SERVER_KEY) as till, engine.admin() as admin:
        assert admin.get(f"/admin/profiles/user_id/{user}").json()["computed"]["tier"] == "silver"
        till.post(
            "/v1/identify",
            json={"userId": user, "context": {"device": {"id": "p", "type": "android", "token": "t"}}},
        )
        bought = {"event": "Order Completed", "userId": user, "properties": {"revenue": 200}}
        began = time.perf_counter()
        answer = till.post("/v1/track", json=bought).json()
        milliseconds = (time.perf_counter() - began) * 1000
        assert [(d["rule"], d["outcome"]) for d in answer["decisions"]] == [("gold", "offered")]
        assert admin.get(f"/admin/profiles/user_id/{user}").json()["computed"]["tier"] == "gold"
        assert milliseconds < 1000  # 100 on a machine that does nothing else


async def test_rejected_rows_stand_in_a_file_with_their_reasons(postgres_dsn: str, tmp_path: Path) -> None:
    with workspace_of(tmp_path) as folder:
        (folder / "x.csv").write_text("user_id,date,revenue\nu,2026-03-01,5\n,2026-03-01,5\nv,soon,5\n")
        code_, out, err = await ended(await command(folder, postgres_dsn, "purchases", "x.csv", "--json"))
        assert code_ == 1, err
        [entry] = await fetch(postgres_dsn, "SELECT actor, action FROM audit")
        assert tuple(entry) == ("command", "import purchases")
        told = json.loads(out)
        assert (told["rows"], told["accepted"], told["rejected"]) == (3, 1, 2)
        lines = (folder / "x.csv.rejected.jsonl").read_text().splitlines()
        rows = [(row["row"], row["code"], row["values"]) for row in map(json.loads, lines)]
        assert rows == [
            (2, "missing_identity", ["", "2026-03-01", "5"]),
            (3, "invalid_timestamp", ["v", "soon", "5"]),
        ]
        for wrong in (("purchase", "x.csv"), ("purchases", "y.csv")):
            assert (await ended(await command(folder, postgres_dsn, *wrong)))[0] == 2
        (folder / "z.csv").write_text("name\nAda\n")
        code_, _, err = await ended(await command(folder, postgres_dsn, "profiles", "z.csv"))
        assert code_ == 1
        assert "no column says who a row is about" in err


# By HTTP and by a folder


async def test_a_file_by_http_and_in_the_watched_folder(postgres_dsn: str, tmp_path: Path) -> None:
    write_workspace(tmp_path / "rules", WORKSPACE, RULES)
    await asyncio.to_thread(_by_http_and_folder, tmp_path, postgres_dsn)


def _by_http_and_folder(folder: Path, dsn: str) -> None:
    with served.serve(folder, dsn) as engine, engine.admin() as admin:
        rows = "user_id,date,revenue\nu1,2026-03-01,5\nu1,2026-03-01,6\n,2026-03-01,7\n"
        answer = admin.post("/admin/import/purchases", content=rows).json()
        assert (answer["rows"], answer["accepted"], answer["rejectedCount"]) == (3, 2, 1)
        assert [(r["row"], r["code"]) for r in answer["rejected"]] == [(3, "missing_identity")]
        assert admin.post("/admin/import/purchases", content=rows).json()["accepted"] == 2  # as it was told
        assert admin.get("/admin/profiles/user_id/u1").json()["computed"]["lifetime_value"] == 11
        mapped = admin.post(
            "/admin/import/profiles",
            content='{"who": "u1", "name": "Ada"}\n',
            headers={"content-type": "application/x-ndjson"},
            params={"mapping": '{"ids": {"user_id": "who"}, "traits": {"first_name": "name"}}'},
        )
        assert mapped.json()["accepted"] == 1, mapped.text
        assert admin.get("/admin/profiles/user_id/u1").json()["traits"]["first_name"] == "Ada"
        assert admin.post("/admin/import/purchase", content=rows).status_code == 404
        wrong = admin.post("/admin/import/purchases", content=rows, params={"mapping": "idz: {}"})
        assert wrong.status_code == 400
        with httpx.Client(base_url=engine.url) as nobody:
            assert nobody.post("/admin/import/purchases", content=rows).status_code == 401

        inbox = folder / "data" / "import" / "purchases"
        inbox.mkdir(parents=True)
        (inbox / "till.csv").write_text("user_id,date,revenue\nu1,2026-03-02,9\n,2026-03-02,1\n")
        (inbox / "broken.csv").write_text("name\nAda\n")
        served.until(lambda: (inbox / "done" / "till.csv").exists(), 60, "the file is put away")
        served.until(lambda: (inbox / "failed" / "broken.csv").exists(), 60, "the other is, too")
        assert admin.get("/admin/profiles/user_id/u1").json()["computed"]["lifetime_value"] == 20
        assert "no column says" in (inbox / "failed" / "broken.csv.reason.txt").read_text()
        assert "missing_identity" in (inbox / "done" / "till.csv.rejected.jsonl").read_text()
        (inbox / "till.csv").write_text("user_id,date,revenue\nu1,2026-03-03,1\n")
        served.until(lambda: (inbox / "done" / "till-2.csv").exists(), 60, "the next of that name, too")
        assert "2026-03-02" in (inbox / "done" / "till.csv").read_text()
        assert "2026-03-03" in (inbox / "done" / "till-2.csv").read_text()
    log = served.command(folder, "privacy", "audit", dsn=dsn).stdout
    assert log.count("import folder    import purchases") == 2
