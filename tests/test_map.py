"""`viewfinder map`, opened in a browser as a marketer would."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import cos, radians
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from engine.app.cli.map import map as map_command
from engine.app.ruling import Ruling
from engine.app.track_map import page_of, picture_of
from engine.domain.places.earth import meters_between
from engine.domain.places.picture import rings_of
from engine.domain.places.shapes import Cells, Circle, Line, Polygon
from engine.formats.gpx import TrackFix
from tests.story import rule_set

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NOON = datetime(2026, 1, 12, 12, 0, tzinfo=UTC)

TOWN = """
geofences:
  mill:
    circle: {lat: 52.66, lng: -8.62, radius: 60}
    tags: [cafe]
    properties: {name: "</script><b>Mill & Co"}
  quay: {polygon: {points: [[52.658, -8.61], [52.658, -8.60], [52.662, -8.60], [52.662, -8.61]]}}
  path: {line: {points: [[52.658, -8.625], [52.658, -8.595]], width: 12}}
  far: {circle: {lat: 53.3, lng: -6.2, radius: 500}}
offers:
  latte: {purpose: marketing, message: {push: {title: t, body: b}}}
rules:
  latte: {when: {enter: {tag: cafe}}, offer: latte}
"""


def walk() -> list[TrackFix]:
    """Eastwards through the mill and the quay, a fix every 10 s, 30 m apart; one jumps far away."""
    step = 30 / (111_300 * cos(radians(52.66)))
    return [
        TrackFix(
            latitude=53.5 if number == 12 else 52.66,
            longitude=-8.625 + number * step,
            time=NOON + timedelta(seconds=10 * number),
            accuracy_meters=8.0,
        )
        for number in range(70)
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    picture = picture_of("a walk", walk(), Ruling(rule_set(TOWN), {}))
    file = tmp_path_factory.mktemp("map") / "map.html"
    file.write_text(page_of(picture), "utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 800}, timezone_id="Asia/Tokyo")
        faults: list[str] = []
        asked: list[str] = []
        opened.on("pageerror", lambda error: faults.append(str(error)))
        opened.on(
            "request", lambda request: faults.append(request.url) if "map.html" not in request.url else None
        )
        opened.goto(file.as_uri())
        opened.wait_for_selector("body[data-ready=yes]")
        yield opened
        assert faults == []
        assert set(asked) <= {file.as_uri()}  # nothing else had to be fetched
        browser.close()


def test_what_happened_is_listed_at_its_time_on_the_workspaces_clock(page: Page) -> None:
    rows = page.locator("ol li").all_inner_texts()
    assert len(rows) == 4
    assert "entered </script><b>Mill & Co" in rows[0]
    assert "offered latte by latte" in rows[0]
    assert "left" in rows[1]
    assert "entered quay" in rows[2]
    times = page.locator("ol time").all_inner_texts()
    assert all(time.startswith("12:0") for time in times)  # Dublin, wherever the browser is
    assert times == sorted(times)


def test_the_map_shows_places_fixes_and_transitions(page: Page) -> None:
    assert page.locator("path.fence").count() == 3  # not the one that is a hundred kilometres away
    assert page.locator("path.fence.touched").count() == 2
    assert page.locator("circle.accuracy").count() == 70
    assert page.locator("circle.fix.ignored").count() == 1
    assert page.locator("circle.event").count() == 4
    assert page.locator("circle.event.enter").count() == 2
    assert page.locator("circle.halo").count() == 1
    box = page.locator("circle.event.enter").first.bounding_box()
    assert box is not None
    assert 0 < box["x"] < 1200
    assert 0 < box["y"] < 800


def test_a_row_leads_to_its_place_and_the_slider_through_time(page: Page) -> None:
    before = page.locator("svg").get_attribute("viewBox")
    page.locator("ol li").nth(2).click()
    assert page.locator("svg").get_attribute("viewBox") != before
    assert page.locator("path.fence.chosen").count() == 1
    page.locator("#when").fill("12")
    assert "teleport" in page.locator("footer output").inner_text()
    page.locator("#circles").uncheck()
    assert not page.locator("circle.accuracy").first.is_visible()
    page.locator("#zoom button").nth(2).click()
    width = float((page.locator("svg").get_attribute("viewBox") or "").split()[2])
    page.locator("#zoom button").nth(0).click()
    assert float((page.locator("svg").get_attribute("viewBox") or "").split()[2]) < width


def test_the_command_writes_a_page_that_holds_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ride.html"
    track = ROOT / "rules" / "tracks" / "bus-304.gpx"
    assert map_command(track, out=out, rules=ROOT / "rules", models=ROOT / "models") == 0
    assert "2,144 fixes" in capsys.readouterr().out
    text = out.read_text("utf-8")
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "Café Henry" in text


@pytest.mark.parametrize("content", [b"<gpx/>", b"not a track"])
def test_a_track_without_fixes_is_the_users_fault(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.gpx").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        map_command(tmp_path / "t.gpx", out=tmp_path / "o.html", rules=ROOT / "rules", models=ROOT / "models")
    assert ended.value.code == 1
    assert not (tmp_path / "o.html").exists()


def test_shapes_are_drawn_as_they_are() -> None:
    (((ring,),)) = rings_of(Circle(52.0, -8.0, 500))
    assert all(abs(meters_between(52.0, -8.0, *point) - 500) < 1 for point in ring)
    assert len(rings_of(Cells((0x8A182E6C5097FFF,)))) == 1
    turns = range(20_000)
    around = tuple((cos(radians(k * 0.018)), cos(radians(90 - k * 0.018))) for k in turns)
    ((thin,),) = rings_of(Polygon(((*around, around[0]),)))
    assert 30 < len(thin) <= 1_000
    ((wide,),) = rings_of(Line((((52.0, -8.0), (52.0, -7.99)),), 20))
    assert min(abs(lat - 52.0) for lat, _ in wide) < 1e-4
