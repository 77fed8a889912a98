"""The past once more: the active rules make every recorded decision again, to the byte."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import sync_playwright

from engine.app import rulesets
from engine.app.backtest import Trial
from engine.app.backtest_order import Brought, Incomplete, in_order
from engine.app.backtest_workers import Result, Work, run
from engine.app.replay import Facts, Recorded
from engine.app.ruling import Ruling
from engine.app.timers import Timers
from engine.domain.people.events import Device, Event, Kind, Location
from tests import lanes, served
from tests.conftest import open_folder
from tests.lanes import CAFE, FAR, NOW, event

WORKSPACE = b"""
timezone: Europe/Dublin
currency: EUR
quiet_hours: {from: "21:00", to: "08:00", then: drop}
caps:
  - {channel: push, times: 5, per: day}
traits:
  first_name: {type: string}
computed:
  orders: {count: Order Completed}
  spend: {sum: event.properties.revenue, of: Order Completed}
  visits: {count: {enter: {tag: cafe}}, within: 30d}
audiences:
  regulars: profile.orders >= 3
"""
RULES = b"""
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe]}
offers:
  latte:
    purpose: marketing
    propensity: 0.5
    value: 3.0
    cost: 1.0
    send_cost: 0.01
    converts: {event: Order Completed, within: 1h}
    again_after: 1d
    message: {push: {title: "Hi {{ profile.first_name }}", body: "{{ profile.spend }}"}}
  thanks:
    purpose: marketing
    propensity: {model: redeem, at_least: 0.3}
    message: {push: {title: T, body: b}}
  cart: {purpose: marketing, message: {push: {title: Your cart, body: b}}}
rules:
  cafe: {when: {enter: {tag: cafe}}, offer: latte, cap: {times: 2, per: 7d}}
  thanks: {when: Thank Me, if: profile.orders > 0, offer: thanks, cap: {times: 3, per: 7d}}
  cart: {when: {event: Cart Updated, for: 10m}, unless: {event: Order Completed}, offer: cart}
  regular: {when: {audience: regulars, change: entered}, offer: latte}
"""
OTHER = RULES.replace(b"cap: {times: 2, per: 7d}", b"cap: {times: 1, per: 7d}").replace(
    b"at_least: 0.3", b"at_least: 0.1"
)
CARD = lanes.MODEL_CARD
PEOPLE = [f"p{n}" for n in range(60)]
SECRET = b"0123456789abcdef0123456789abcdef"


class Rising:
    """A model: the more orders, the likelier; none for those who have none."""

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float | None]:
        return [min(0.9, row[0] / 7) if row[0] > 0 else None for row in rows]


def ruling(rules: bytes = RULES) -> Ruling:
    loaded = lanes.load(
        {"workspace.yaml": WORKSPACE, "rules.yaml": rules}, {"redeem.yaml": CARD, "redeem.onnx": b""}
    )
    assert loaded.rule_set is not None, loaded.problems
    return Ruling(loaded.rule_set, {"redeem": Rising()})


def life(chance: random.Random, now: datetime) -> Event:
    """Something that one of them does."""
    user = chance.choice(PEOPLE)
    at = now - timedelta(seconds=chance.choice((0, 0, 1, 40, 900)))
    match chance.randrange(9):
        case 0:
            device = Device(id=f"{chance.choice(PEOPLE)}-phone", type="android", token=f"t{chance.random()}")
            return event(Kind.IDENTIFY, user=user, device=device, at=at, traits={"first_name": user.upper()})
        case 1:
            return event(Kind.IDENTIFY, user=user, at=at, consent={"marketing": chance.random() < 0.9})
        case 2:
            return event(Kind.IDENTIFY, user=user, anonymous=f"a{chance.randrange(40)}", at=at)
        case 3:
            properties = {"revenue": chance.randrange(1, 50)}
            return event(name="Order Completed", user=user, properties=properties, at=at)
        case 4:
            return event(name="Thank Me", anonymous=f"a{chance.randrange(40)}", at=at)
        case 5:
            return event(name="Thank Me", user=user, at=at)
        case 6:
            return event(name="Cart Updated", user=user, at=at)
        case _:
            return event(name="Location Updated", user=user, location=chance.choice((CAFE, FAR)), at=at)


async def lived(dsn: str, events: int, rules: Ruling) -> tuple[datetime, datetime]:
    """Days of many people on a real lane, with timers that fire; when it began and ended."""
    chance = random.Random(1)
    async with lanes.engine(dsn, rules.rules, dict(rules.models)) as engine:
        reading = itertools.count()
        # As a real clock has it, no two ticks are at the same time.
        engine.clock = lambda: engine.now + timedelta(microseconds=next(reading))
        timers = Timers(engine.store, engine.lane, engine.clock)
        await engine.send(*(lanes.arrival(user) for user in PEOPLE))
        consent = {"marketing": True, "location": True}
        await engine.send(*(event(Kind.IDENTIFY, user=user, consent=consent) for user in PEOPLE))
        done = 0
        while done < events:
            engine.now += timedelta(seconds=chance.randrange(1, 600))
            await timers.fire_due()
            batch = [life(chance, engine.now) for _ in range(chance.randrange(1, 40))]
            replies = [engine.submit(one) for one in batch]
            await asyncio.gather(*(asyncio.wait_for(reply.done, 60) for reply in replies))
            done += len(batch)
        return NOW, engine.now


def played(
    dsn: str,
    active: Ruling,
    other: Ruling,
    since: datetime,
    past: Sequence[Ruling] = (),
    *,
    workers: int = 1,
    **fields: Any,
) -> Result:
    """A backtest of everybody, every decision made again."""
    rulings = {one.rules.revision: one for one in (active, *past)}
    trial = Trial(
        active=active,
        tried=other,
        ruling_of=rulings.get,
        since=since,
        until=since,
        suppressed_since=since,
        secret=SECRET,
        verifies_all=True,
    )
    trial = msgspec.structs.replace(trial, **fields)
    work = Work(
        dsn=dsn,
        trial=trial,
        namespaces=(active.rules.workspace.namespaces,),
        joins_accounts=active.rules.uses_accounts,
    )
    return run(work, workers, lambda done: None)


def test_the_active_rules_make_every_decision_again(postgres: str) -> None:
    with served.database(postgres, "lived") as dsn:
        began, ended = asyncio.run(lived(dsn, 4000, ruling()))
        result = played(dsn, ruling(), ruling(OTHER), began + (ended - began) / 2)
        agreement, active = result.count.agreement, result.count.active
        assert agreement.recorded > 500
        assert agreement.reproduced == agreement.recorded
        assert (agreement.differing, agreement.missing, agreement.unknown) == (0, 0, 0)
        assert not result.count.left_out
        assert {"no_consent", "capped"} <= set(active.suppressed)
        assert {rule for rule, _ in active.offered} == {"cafe", "thanks", "cart", "regular"}
        assert result.count.changes()

        # What stands on record need not be decided again.
        standing = played(dsn, ruling(), ruling(OTHER), began + (ended - began) / 2, verifies_all=False).count
        assert standing.agreement.recorded < agreement.recorded
        assert standing.active.offered == active.offered
        assert standing.active.suppressed == active.suppressed
        assert standing.tried == result.count.tried
        assert standing.active.estimated

        # Several processes come to the same, but for the last digits of sums.
        since = began + (ended - began) / 2
        shared = played(dsn, ruling(), ruling(OTHER), since, workers=3).count
        assert shared.tried.offered == result.count.tried.offered
        assert (shared.active.report("a", ""), shared.tried.report("t", "")) == (
            result.count.active.report("a", ""),
            result.count.tried.report("t", ""),
        )
        assert (shared.agreement, shared.events) == (agreement, result.count.events)


async def silent(dsn: str, rules: Ruling) -> datetime:
    """Three people go into the café's edge, with nothing heard of them for five minutes before: an enter
    only where that is long enough for nobody to know any more. When it began."""
    async with lanes.engine(dsn, rules.rules, dict(rules.models)) as engine:
        for user in PEOPLE[:3]:
            await engine.send(lanes.arrival(user))
            await engine.send(event(Kind.IDENTIFY, user=user, consent={"marketing": True, "location": True}))
            for latitude in (FAR.latitude, CAFE.latitude + 0.0005):
                engine.now += timedelta(minutes=5)
                place = Location(latitude=latitude, longitude=CAFE.longitude, accuracy=20.0)
                fix = event(name="Location Updated", user=user, location=place, at=engine.now)
                await engine.send(fix)
    return NOW


def test_what_another_silence_decided_is_made_again(postgres: str) -> None:
    """The engine was told that presence is unknown after a minute; whoever asks later goes by the default."""
    active = ruling()
    short = Ruling(msgspec.structs.replace(active.rules, silence=timedelta(minutes=1)), active.models)
    with served.database(postgres, "silent") as dsn:
        began = asyncio.run(silent(dsn, short))
        agreement = played(dsn, active, ruling(OTHER), began).count.agreement
        assert agreement.recorded == agreement.reproduced == 3


def test_the_command_tells_it_in_figures_and_on_a_page(postgres: str) -> None:
    """The page is opened in a real browser, and needs nothing but itself."""
    rules = RULES.replace(b"propensity: {model: redeem, at_least: 0.3}", b"propensity: 0.5")
    with open_folder() as folder, served.database(postgres, "backtested") as dsn:
        active = served.write_workspace(folder / "active" / "rules", WORKSPACE, rules)
        other = served.write_workspace(
            folder / "other" / "rules", WORKSPACE, rules.replace(b"times: 3, per: 7d", b"times: 1, per: 7d")
        )
        published = served.command(folder, "publish", str(active), dsn=dsn)
        assert published.returncode == 0, published.stderr
        checked = rulesets.check(active, folder / "none")
        assert checked.ruling is not None
        asyncio.run(lived(dsn, 600, checked.ruling))

        page = folder / "report.html"
        ended = served.command(
            folder, "backtest", str(other), "--since", "3000d", "--html", str(page), "--json", dsn=dsn
        )
        assert ended.returncode == 0, ended.stderr
        report = json.loads(ended.stdout)
        history = report["history"]
        assert history["recorded"] == history["reproduced"] > 50
        assert history["differing"] == history["missing"] == history["unknown"] == 0
        assert report["active"]["offered"] > report["tried"]["offered"]
        assert report["changes"][0]["rule"] == "thanks"
        assert report["changes"][0]["before"] > report["changes"][0]["after"]

        shown = served.command(folder, "backtest", str(other), "--since", "3000d", dsn=dsn)
        assert "biggest changes" in shown.stdout
        assert "to the byte" in shown.stdout
        few = served.command(
            folder, "backtest", str(other), "--since", "3000d", "--profiles", "10", "--json", dsn=dsn
        )
        assert 0 < json.loads(few.stdout)["events"] < report["events"]
        against = served.command(
            folder, "backtest", str(active), "--against", str(other), "--since", "3000d", "--json", dsn=dsn
        )
        swapped = json.loads(against.stdout)
        assert (swapped["active"]["name"], swapped["tried"]["name"]) == (str(other), str(active))
        assert swapped["tried"]["offered"] == report["active"]["offered"]
        assert swapped["active"]["offered"] == report["tried"]["offered"]
        assert swapped["history"]["recorded"] == 0
        for wrong, says in (
            (["--since", "soon"], "error: --since: 'soon' is no duration such as 12h or 7d"),
            (["--profiles", "0"], "error: --profiles must be at least 1"),
            (["--against", "nowhere"], "error: there is no folder nowhere"),
            (["--html", "nowhere/page.html"], "error: there is no folder nowhere"),
        ):
            ended = served.command(folder, "backtest", str(other), *wrong, dsn=dsn)
            assert (ended.returncode, ended.stderr.strip()) == (2, says)
        seen = look_at(page)
    assert "Backtest: " in seen["title"]
    assert seen["requests"] == [f"file://{page}"]
    assert not seen["errors"]
    assert seen["bars"] >= 8
    assert seen["widest"] > 100
    assert seen["overflow"] <= 0, "it is wider than a phone"
    assert seen["letters"] >= 9


def look_at(page: Path) -> dict[str, Any]:
    """What a browser makes of a file."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        requests: list[str] = []
        errors: list[str] = []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        tab.goto(f"file://{page}")
        bars = tab.locator("svg rect")
        widths = [bars.nth(n).bounding_box() for n in range(bars.count())]
        seen: dict[str, Any] = {
            "title": tab.title(),
            "requests": [url for url in requests if not url.startswith("data:")],
            "errors": errors,
            "bars": bars.count(),
            "widest": max(box["width"] for box in widths if box is not None),
        }
        tab.set_viewport_size({"width": 360, "height": 740})
        seen["overflow"] = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        # How high the letters of a chart are on a phone's screen.
        seen["letters"] = tab.evaluate(
            "12 * document.querySelector('svg').getBoundingClientRect().width"
            " / document.querySelector('svg').viewBox.baseVal.width"
        )
        browser.close()
    return seen


def row(profile: str, number: int, minute: int, message: str = "") -> Recorded:
    at = NOW + timedelta(minutes=minute)
    told = event(name="Thank Me", message=message or f"{profile}{number}", at=at)
    return Recorded(profile, number, told, Facts(now=at, revision="r"))


def order(rows: Sequence[Recorded], **merges: Sequence[Brought]) -> list[str]:
    return [f"{one.profile_id}{one.number}" for one in in_order(rows, merges)]


def test_rows_are_told_in_their_order_under_whom_they_were_told_to() -> None:
    # b became one with a by a's third event, when a had two; c with b by b's second, when b had one.
    merges = {"a": [Brought("b", 2, "merge")], "b": [Brought("c", 1, "earlier")]}
    own = [row("a", 1, 1), row("a", 2, 6), row("a", 7, 9, "merge"), row("a", 8, 10)]
    b = [(1, 2, ""), (4, 5, "earlier")]
    c = [(1, 3), (2, 4)]
    expected = ["a1", "b1", "c1", "c2", "b4", "a2", "a7", "a8"]
    apart = [row("b", n, at, m) for n, at, m in b] + [row("c", n, at) for n, at in c]
    assert order([*own, *apart], **merges) == expected
    # As it stands once all of it was brought over, and while it is half done.
    moved = [row("a", 2 + n, at, m) for n, at, m in b] + [row("a", 3 + n, at) for n, at in c]
    assert order([*moved, *own], **merges) == expected
    assert order([*own, *moved[:1], *apart[1:]], **merges) == expected


def test_numbers_count_for_more_than_clocks() -> None:
    assert order([row("a", 1, 5), row("a", 2, 4), row("a", 3, 6)]) == ["a1", "a2", "a3"]
    rows = [row("a", 1, 1), row("b", 1, 9), row("a", 3, 8, "merge")]
    assert order(rows, a=[Brought("b", 1, "merge")]) == ["a1", "b1", "a3"]


@pytest.mark.parametrize("gone", [0, 1, 2, 3, 4])
def test_where_a_row_is_missing_nothing_is_said(gone: int) -> None:
    rows = [row("a", 1, 1), row("a", 2, 2), row("a", 3, 3), row("a", 4, 4, "merge"), row("a", 5, 5)]
    del rows[gone]
    if gone == 4:  # the last one: nobody can miss it
        assert order(rows, a=[Brought("b", 2, "merge")]) == ["a1", "a2", "b1", "a4"]
        return
    with pytest.raises(Incomplete):
        order(rows, a=[Brought("b", 2, "merge")])
