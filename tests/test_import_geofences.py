"""`viewfinder import geofences`: files of places into a workspace, each row by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.app.cli.import_geofences import bring_geofences
from engine.domain.places.shapes import Circle, Line, Polygon
from engine.formats.fence_file import read_fences
from engine.formats.geojson import Sizes
from engine.formats.problems import Problem
from engine.formats.workspace import Loaded, load, read_folder
from tests import served

ROOT = Path(__file__).parents[1]
STOPS = ROOT / "rules" / "places" / "bus-304-stops.geojson"
CSV = """id,latitude,longitude,radius,tags,city
s1,52.66,-8.62,60,cafe;late,Limerick
s2,52.67,-8.62,45,,
s3,95,-98.62,60,,
s1,52.68,-8.62,60,,
"s4,",52.69,-8.62,x,,
s5,52.70,-8.62
s6,52.71,-8.62,30,bar,"Cork
City"
s7,52.72,-8.62,-1,,
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "workspace.yaml").write_text("timezone: Europe/Dublin\n")
    return folder


def bring(
    content: str | bytes,
    name: str,
    rules: Path,
    *,
    id_path: str = "id",
    radius: float | None = None,
    width: float | None = None,
) -> int:
    file = rules.parent / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return bring_geofences(file, rules, id_path, Sizes(radius, width), None, json=False)


def loaded(rules: Path) -> Loaded:
    return load(read_folder(rules))


def rejected(rules: Path, name: str) -> dict[int, tuple[int, str]]:
    lines = (rules.parent / f"{name}.rejected.jsonl").read_text("utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return {row["row"]: (row["line"], row["problems"][0]) for row in rows}


def test_a_csv_of_circles_and_what_is_wrong_with_its_rows(rules: Path) -> None:
    assert bring(CSV, "My Shops.csv", rules) == 1
    assert rejected(rules, "My Shops.csv") == {
        3: (4, "latitude 95 is not between -90 and 90"),
        4: (5, 'the id "s1" stands twice, first in row 1'),
        5: (6, 'radius is not a number: "x"'),
        6: (7, "3 values for 6 columns"),
        8: (10, "radius -1 is not more than 0 metres"),
    }
    found = loaded(rules)
    assert found.problems == ()
    assert found.rule_set is not None
    fences = found.rule_set.fences
    assert set(fences) == {"s1", "s2", "s6"}
    assert fences["s1"].shape == Circle(52.66, -8.62, 60)
    assert fences["s1"].tags == {"cafe", "late", "my-shops"}
    assert fences["s1"].properties == {"city": "Limerick"}
    assert fences["s6"].properties == {"city": "Cork\nCity"}
    assert found.rule_set.index.containing(52.66, -8.62) == ("s1",)


def test_geojson_of_every_shape_with_sizes_of_their_own(rules: Path) -> None:
    square = [[-8.6, 52.6], [-8.6, 52.7], [-8.5, 52.7], [-8.5, 52.6], [-8.6, 52.6]]
    bow = [[-8.6, 52.6], [-8.5, 52.7], [-8.5, 52.6], [-8.6, 52.7], [-8.6, 52.6]]
    features = [
        ("Point", [-8.62, 52.66], {"code": "a", "radius": 80}),
        ("Point", [-8.63, 52.66], {"code": "b"}),
        ("LineString", [[-8.62, 52.66], [-8.62, 52.67]], {"code": "c", "width": 9}),
        ("Polygon", [square], {"code": 4}),
        ("Polygon", [bow], {"code": "e"}),
        ("Point", [-8.62, 52.66], {}),
    ]
    text = json.dumps(
        {
            "type": "FeatureCollection",
            "features": [
                {"type": "Feature", "properties": said, "geometry": {"type": kind, "coordinates": at}}
                for kind, at, said in features
            ],
        },
        indent=1,
    )
    assert bring(text, "town.geojson", rules, id_path="properties.code", radius=50) == 1
    wrong = rejected(rules, "town.geojson")
    assert {row: message for row, (_, message) in wrong.items()} == {
        5: "ring 1: crosses itself near latitude 52.650000, longitude -8.550000",
        6: 'no text or number at "properties.code"',
    }
    assert '"Feature"' in text.splitlines()[wrong[5][0]]
    found = loaded(rules).rule_set
    assert found is not None
    assert found.fences["a"].shape == Circle(52.66, -8.62, 80)
    assert found.fences["b"].shape == Circle(52.66, -8.63, 50)
    assert isinstance(found.fences["c"].shape, Line)
    assert isinstance(found.fences["4"].shape, Polygon)  # mended: it ran the wrong way round


def test_a_feature_a_line_and_the_same_name_again_takes_its_place(rules: Path) -> None:
    def line(fence_id: str) -> str:
        geometry = {"type": "Point", "coordinates": [-8.62, 52.66]}
        return json.dumps({"type": "Feature", "id": fence_id, "properties": {}, "geometry": geometry})

    assert bring(f"{line('a')}\n\n{line('b')}\n", "town.geojsonl", rules, radius=50) == 0
    assert not (rules.parent / "town.geojsonl.rejected.jsonl").exists()
    said = rules / "places" / "town.yaml"
    said.write_text("geofences:\n  town: {file: town.fences, tags: [mine], open: {daily: '08:00-20:00'}}\n")
    first = loaded(rules)
    assert first.rule_set is not None
    assert set(first.rule_set.fences) == {"a", "b"}
    assert bring(f"{line('b')}\nno json\n", "town.geojsonl", rules, radius=50) == 1
    second = loaded(rules)
    assert second.rule_set is not None
    assert set(second.rule_set.fences) == {"b"}
    assert second.rule_set.fences["b"].tags == {"mine"}  # what the author made of the YAML stays
    opening = second.rule_set.fences["b"].opening
    assert opening is not None
    assert opening.timezone == "Europe/Dublin"
    assert second.revision != first.revision


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("name,x,y\n", "a.csv"),
        ("id,lat,lng\n1,2,3\n", "a.csv"),
        (b"id,lat,lng,radius\n\xff\n", "a.csv"),
        ("", "a.csv"),
        ("{}", "a.geojson"),
        ("[" * 100_000, "a.geojson"),
        ('{"type": "FeatureCollection", "features": []}', "a.geojson"),
        ("id,lat,lng,radius\n1,95,3,5\n", "a.csv"),
    ],
)
def test_a_file_without_places_changes_nothing(content: str | bytes, name: str, rules: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        bring(content, name, rules)
    assert ended.value.code == 1
    assert not list(rules.rglob("*.fences"))
    assert not list(rules.rglob("*.part"))


def test_an_imported_file_that_was_changed_is_refused(rules: Path) -> None:
    assert bring("id,lat,lng,radius\na,52,-8,50\n", "town.csv", rules) == 0
    file = rules / "places" / "town.fences"
    file.write_bytes(file.read_bytes().replace(b"52.0", b"53.0"))
    (problem,) = loaded(rules).problems
    assert (problem.file, problem.line) == ("places/town.fences", 1)
    assert "changed" in problem.message
    assert isinstance(read_fences(b"", "x"), Problem)
    assert isinstance(read_fences(b'{"format": 2, "fences": 0, "sha256": ""}\n', "x"), Problem)


def test_ids_are_told_where_they_stand_twice(rules: Path) -> None:
    assert bring("id,lat,lng,radius\na,52,-8,50\nb,52,-8,50\n", "town.csv", rules) == 0
    (rules / "shop.yaml").write_text("geofences: {b: {circle: {lat: 52, lng: -8, radius: 9}}}\n")
    (problem,) = loaded(rules).problems
    assert problem.message.startswith('the geofence "b" stands twice')


def test_sizes_and_ids_belong_to_the_import(rules: Path) -> None:
    assert bring("id,lat,lng,radius\na,52,-8,50\n", "town.csv", rules) == 0
    said = rules / "places" / "town.yaml"
    said.write_text("geofences:\n  town: {file: town.fences, id: properties.x, radius: 9}\n")
    assert [problem.message for problem in loaded(rules).problems] == [
        '"id" was said when town.fences was imported',
        '"radius" was said when town.fences was imported',
    ]


def test_the_command(rules: Path, tmp_path: Path) -> None:
    arguments = ("import", "geofences", str(STOPS), "--id", "properties.stop_id", "--radius", "40", "--json")
    ran = served.command(tmp_path, *arguments, RULES=str(rules))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "rows": 36,
        "geofences": 36,
        "mended": 0,
        "rejected": 0,
        "file": str(rules / "places" / "bus-304-stops.fences"),
    }
    found = loaded(rules).rule_set
    assert found is not None
    assert len(found.fences) == 36
