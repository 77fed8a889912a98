"""The peer of `loadtest match`: PostGIS finds the same fences, in a PostgreSQL of its own."""

from __future__ import annotations

import random

import numpy as np
import pytest
import shapely

from loadtest import match, match_postgis


@pytest.mark.skipif(not match_postgis.is_installed(), reason="postgresql-15-postgis-3 is not installed")
def test_postgis_finds_what_shapely_finds() -> None:
    chance = random.Random(1)
    shapes = np.array(
        [shapely.Point(chance.uniform(0, 1), chance.uniform(0, 1)).buffer(0.05) for _ in range(200)]
    )
    points = [(chance.uniform(0, 1), chance.uniform(0, 1)) for _ in range(300)]
    found = match_postgis.measure(shapes, points)
    assert found is not None
    tree = shapely.STRtree(shapes)
    expected = sum(len(tree.query(shapely.Point(lng, lat), predicate="intersects")) for lat, lng in points)
    assert found.found == expected > 100
    assert found.singly == 300
    assert found.singly_wall_microseconds > 0


def test_without_postgis_the_table_says_so() -> None:
    one = match.Match(
        shapes="circles",
        fences=1,
        engine_microseconds=1.0,
        first_microseconds=1.0,
        strtree_microseconds=1.0,
        ratio=1.0,
        found=1,
        strtree_found=1,
        postgis=None,
    )
    report = match.MatchReport(matches=(one,))
    cells = [cell for column in match.table(report).columns for cell in column.cells]
    assert cells.count("not installed") == 2
    assert "postgresql-15-postgis-3" in match.notes(report)
