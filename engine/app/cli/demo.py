"""`viewfinder demo`: the whole way, once: a real phone's track in, decisions, pushes out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import asyncpg
import httpx
from cyclopts import Parameter

from engine.adapters.postgres.embedded import EmbeddedPostgresError, start
from engine.app.cli.check import check_folders, print_problems
from engine.app.cli.environment import errors, fail, read_settings
from engine.app.demo.fcm_stand_in import StandIn, stand_in
from engine.app.demo.report import Report
from engine.app.ruling import Ruling
from engine.app.settings import Settings
from engine.formats.problems import render_all
from engine.formats.scenario import Expected, Scenario
from engine.formats.scenario_calls import Call, begins_at, calls, introduction
from engine.formats.scenario_files import Story, read_stories

SCENARIO = "tests/bus-304.yaml"
DATABASE = "viewfinder_demo_"
WRITE_KEY, SERVER_KEY, ADMIN_TOKEN = "demo-app", "demo-server", "demo-admin"
READY_SECONDS = 30.0
PUSH_SECONDS = 10.0


def demo(
    *,
    once: Annotated[bool, Parameter(help="End after the track.")] = False,
    json: Annotated[bool, Parameter(help="Print JSON lines, a summary object last.")] = False,
) -> int:
    """Replay a real bus ride through the engine, on a fresh embedded database."""
    settings = read_settings()
    checked = check_folders(Path(settings.rules), Path(settings.models))
    if checked.ruling is None:
        print_problems(checked, errors)
        return 1
    story = _story(Path(settings.rules), checked.ruling)
    try:
        server = start(Path(settings.data))
    except EmbeddedPostgresError as fault:
        fail(str(fault), 1)
    try:
        return asyncio.run(_play(settings, server.dsn, story, once=once, as_json=json))
    finally:
        server.stop()


def _story(rules: Path, checked: Ruling) -> Story:
    file = rules / SCENARIO
    if not file.is_file():
        fail(f"{file} is missing: the demo plays that scenario; run it where the sample workspace is", 1)
    found = read_stories(rules, checked.rules, SCENARIO)
    if found.problems:
        fail(render_all(found.problems, found.sources), 1)
    if not found.stories or not found.stories[0].fixes:
        fail(f"{file} has no scenario with a track", 1)
    return found.stories[0]


@asynccontextmanager
async def _fresh_database(dsn: str) -> AsyncIterator[str]:
    """The demo's own database, empty: each ride decides as the first one did. Gone afterwards, as are
    those of demos that were killed."""
    name = f"{DATABASE}{os.getpid()}"
    connection = await asyncpg.connect(dsn)
    try:
        for row in await connection.fetch(
            "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", DATABASE
        ):
            with contextlib.suppress(asyncpg.ObjectInUseError):
                await connection.execute(f"DROP DATABASE IF EXISTS {row['datname']}")
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    head, _, query = dsn.partition("?")
    try:
        yield f"{head.rsplit('/', 1)[0]}/{name}?{query}"
    finally:
        connection = await asyncpg.connect(dsn)
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.close()


async def _play(
    settings: Settings,
    dsn: str,
    story: Story,
    *,
    once: bool,
    as_json: bool,
) -> int:
    with tempfile.TemporaryDirectory(prefix="viewfinder-demo-") as folder:
        async with (
            stand_in() as fcm,
            _fresh_database(dsn) as database,
            _engine(settings, database, fcm, Path(folder)) as (process, url),
        ):
            scenario = story.scenario
            start = begins_at(scenario, story.fixes)
            requests = [introduction(scenario, start), *calls(scenario, story.fixes)]
            report = Report(as_json=as_json, total=len(requests))
            started = time.perf_counter()
            with report.progress:
                problems = await _ride(url, requests, report, scenario)
                await _until_delivered(fcm, report)
            report.summary.seconds = round(time.perf_counter() - started, 3)
            if report.summary.pushes_delivered != report.summary.offered:
                problems.append(f"{report.summary.offered} offers, {report.summary.pushes_delivered} pushes")
            report.finish(problems, None if once else url)
            if not once:
                await _until_stopped(process)
            return 1 if problems else 0


@asynccontextmanager
async def _engine(
    settings: Settings, dsn: str, fcm: StandIn, folder: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """An engine of its own process, as `serve` runs it, on the replay clock and a free port."""
    credentials = folder / "service-account.json"
    fcm.credentials(credentials)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIEWFINDER_")}
    environment |= {
        "VIEWFINDER_DATABASE_URL": dsn,
        "VIEWFINDER_DATA": str(settings.data),
        "VIEWFINDER_RULES": str(settings.rules),
        "VIEWFINDER_MODELS": str(settings.models),
        "VIEWFINDER_PORT": "0",
        "VIEWFINDER_CLOCK": "replay",
        "VIEWFINDER_WRITE_KEYS": WRITE_KEY,
        "VIEWFINDER_SERVER_KEYS": SERVER_KEY,
        "VIEWFINDER_ADMIN_TOKEN": ADMIN_TOKEN,
        "VIEWFINDER_FCM_URL": fcm.url,
        "VIEWFINDER_FCM_CREDENTIALS_FILE": str(credentials),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine", "serve", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process, await _ready(process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _ready(process: asyncio.subprocess.Process) -> str:
    """Where the engine serves, once it says so."""
    assert process.stdout is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            async for line in process.stdout:
                if line.startswith(b"ready "):
                    return line.split()[1].decode()
    fail("the engine did not start; what it said stands above", 1)
    raise AssertionError


async def _ride(url: str, requests: list[Call], report: Report, scenario: Scenario) -> list[str]:
    """Sends everything, one request after the other as one phone and one shop do; answers what was
    not as the scenario expects. An app is told of its offers only, so an operator looks on."""
    expected = list(scenario.expect)
    problems: list[str] = []
    user = quote(str(scenario.profile.user_id), safe="")
    known: set[str] = set()
    async with (
        httpx.AsyncClient(base_url=url, auth=(WRITE_KEY, ""), timeout=30.0) as app,
        httpx.AsyncClient(base_url=url, auth=(SERVER_KEY, ""), timeout=30.0) as shop,
        httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=30.0
        ) as operator,
    ):
        for call in requests:
            answer = await _post(shop if call.from_server else app, call)
            problems += [f"refused: {r['code']}: {r['message']}" for r in answer["rejected"]]
            report.sent()
            seen = await operator.get(f"/admin/profiles/user_id/{user}/decisions", params={"limit": 5})
            seen.raise_for_status()
            for decision in reversed(seen.json()["decisions"]):
                if decision["id"] in known or decision["reason"] == "condition_false":
                    continue
                known.add(decision["id"])
                report.decision(call.sent_at, decision)
                if scenario.strict or decision["outcome"] != "suppressed":
                    problems += _compare(decision, expected)
    problems += [f"expected but not decided: {_told(one)}" for one in expected]
    return problems


async def _post(client: httpx.AsyncClient, call: Call) -> dict[str, Any]:
    response = await client.post(f"/v1/{call.call}", json=call.body)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def _compare(decision: dict[str, Any], expected: list[Expected]) -> list[str]:
    if expected and expected[0].agrees(decision):
        del expected[0]
        return []
    named = {word: decision[word] for word in ("outcome", "rule", "offer", "reason", "geofence")}
    return [f"decided but not expected: {_told(Expected(**named))}"]


def _told(expected: Expected) -> str:
    parts = (expected.outcome, expected.rule, expected.offer, expected.reason, expected.geofence)
    return " ".join(part for part in parts if part)


async def _until_delivered(fcm: StandIn, report: Report) -> None:
    """Pushes leave after the answer: gives the last ones a moment."""
    deadline = time.perf_counter() + PUSH_SECONDS
    while len(fcm.messages) < report.summary.offered and time.perf_counter() < deadline:
        await asyncio.sleep(0.02)
    report.summary.pushes_delivered = len(fcm.messages)


async def _until_stopped(process: asyncio.subprocess.Process) -> None:
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, process.terminate)
    await process.wait()
