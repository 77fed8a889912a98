"""A phone's real track past the 36 stops of its bus, against a slow reading of the same rules."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from geographiclib.geodesic import Geodesic  # type: ignore[import-untyped]

from engine.domain.places.fence_index import Fence, build
from engine.domain.places.interest import interest
from engine.domain.places.presence import SILENCE, Fix, Ignored, Presence, Step, step
from engine.domain.places.shapes import Circle
from engine.formats.geojson import Sizes, read_geojson
from engine.formats.gpx import read_gpx

RULES = Path(__file__).parents[1] / "rules"
STAYS = (timedelta(seconds=10), timedelta(seconds=60))

Happened = tuple[datetime, str, str]
"""When, "enter", "exit" or "dwell", and at which fence."""


def ride(fixes: list[Fix], fences: list[Fence]) -> list[Step]:
    index, presence, steps = build(fences), Presence(), []
    wanted = interest(index, [(fence.id, stay) for fence in fences for stay in STAYS], ())
    for each in fixes:
        steps.append(step(presence, each, index, SILENCE, wanted))
        presence = steps[-1].presence
    return steps


def bus_fixes() -> list[Fix]:
    track = read_gpx((RULES / "tracks" / "bus-304.gpx").read_bytes(), "bus-304.gpx")
    return [
        Fix(latitude=f.latitude, longitude=f.longitude, at=f.time, received_at=f.time, sent_at=f.time)
        for f in track.fixes
    ]


def stops(radius: float) -> list[Fence]:
    data = (RULES / "places" / "bus-304-stops.geojson").read_bytes()
    found = read_geojson(data, "stops.geojson", Sizes(radius_meters=radius))
    return [Fence(feature.properties["stop_id"], feature.shape) for feature in found.features]


def unbroken(holds: np.typing.NDArray[np.bool_]) -> list[int]:
    """For each index the first one from which on it has held without a break; the next where not."""
    indices = np.arange(len(holds))
    return [int(last) + 1 for last in np.maximum.accumulate(np.where(holds, -1, indices))]


def oracle(fixes: list[Fix], fences: list[Fence], accuracy: float = 25.0) -> list[Happened]:
    """The same rules, slowly: one fence at a time over the whole track, finding unbroken stretches
    instead of counting."""
    newest_first = [f for k, f in enumerate(fixes) if all(f.at > g.at for g in fixes[max(0, k - 60) : k])]
    seconds = np.array([f.at.timestamp() for f in newest_first])
    found: list[Happened] = []
    for fence in fences:
        assert isinstance(fence.shape, Circle)
        north = np.array([f.latitude - fence.shape.latitude for f in newest_first]) * 111_270
        east = np.array([f.longitude - fence.shape.longitude for f in newest_first]) * 67_650
        out = np.hypot(north, east) - fence.shape.radius_meters
        for near in np.flatnonzero(np.abs(out) < 400):
            f = newest_first[near]
            line = Geodesic.WGS84.Inverse(
                f.latitude, f.longitude, fence.shape.latitude, fence.shape.longitude
            )
            out[near] = line["s12"] - fence.shape.radius_meters
        inside_since, outside_since = unbroken(out <= 0), unbroken(out > accuracy)
        is_in, changed = False, 0
        for k in range(len(out)):
            if is_in:
                sure = out[k] > 3 * accuracy
                since = max(changed, outside_since[k])
            else:
                sure = (k == 0 and out[k] <= 0) or -out[k] > accuracy / 2
                since = max(changed, inside_since[k])
            if sure or (k - since >= 2 and seconds[k] - seconds[since] >= 30):
                is_in, changed = not is_in, k + 1
                found.append((newest_first[k].at, "enter" if is_in else "exit", fence.id))
    changes = sorted(found)
    for number, (begin, kind, place) in enumerate(changes):
        later = [at for at, _, where in changes[number + 1 :] if where == place]
        end = later[0] if later else newest_first[-1].at
        if kind == "enter":
            found += [(begin + stay, "dwell", place) for stay in STAYS if begin + stay <= end]
    return sorted(found)


def happened(steps: list[Step]) -> list[Happened]:
    return sorted((t.at, t.kind, t.fence) for s in steps for t in s.transitions)


@pytest.mark.parametrize("radius", [40.0, 100.0])
@pytest.mark.parametrize("version", ["as it is", "doubled", "shuffled", "thinned"])
def test_the_bus_agrees_with_the_oracle(radius: float, version: str) -> None:
    fixes = bus_fixes()
    if version == "doubled":
        fixes = [f for each in fixes for f in (each, each)]
    elif version == "shuffled":
        random = np.random.default_rng(304)
        late = random.uniform(0, 30, len(fixes))
        order = np.argsort([f.at.timestamp() + delay for f, delay in zip(fixes, late, strict=True)])
        fixes = [fixes[k] for k in order]
    elif version == "thinned":
        fixes = fixes[::10]
    fences = stops(radius)
    steps = ride(fixes, fences)
    found = happened(steps)
    assert found == oracle(fixes, fences)
    assert [kind for _, kind, _ in found].count("dwell") > 10
    entered = [fence for _, kind, fence in found if kind == "enter"]
    assert len(entered) == len(set(entered))
    if version in ("as it is", "doubled"):
        assert len(entered) == 36
    if version == "doubled":
        assert sum(s.ignored is Ignored.DOUBLED for s in steps) == 2144


def test_noise_of_30_m_enters_no_stop_twice() -> None:
    noise = np.random.default_rng(30).uniform(-30, 30, (2144, 2))
    fixes = [
        msgspec.structs.replace(
            f,
            latitude=f.latitude + north / 111_270,
            longitude=f.longitude + east / 67_650,
            accuracy_meters=30.0,
        )
        for f, (north, east) in zip(bus_fixes(), noise, strict=True)
    ]
    for radius in (40.0, 100.0):
        found = happened(ride(fixes, stops(radius)))
        assert found == oracle(fixes, stops(radius), 30.0)
        entered = [fence for _, kind, fence in found if kind == "enter"]
        assert len(entered) == len(set(entered)) == 36
