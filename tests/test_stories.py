"""The sample workspaces: sound, tested, and the same over HTTP as in a rehearsal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.app.rehearsal_outcome import compare
from engine.app.rehearsal_story import play
from engine.app.rulesets import check
from engine.app.ruling import Ruling
from engine.formats.scenario import Scenario
from engine.formats.scenario_calls import begins_at, calls, introduction
from engine.formats.scenario_files import Story, read_stories
from tests import served
from tests.conftest import open_folder

ROOT = Path(__file__).parents[1]
RULES, MODELS = ROOT / "rules", ROOT / "models"
WORKSPACES = sorted(found.parent.name for found in RULES.glob("*/workspace.yaml"))

OVER_HTTP = {
    "airport": "without consent nothing is offered, and the gate is still told",
    "cafes": "whose usual hours are learnt from what they order",
    "cars": "who has booked is told so, and not asked again",
    "insurance": "who has a home insured is told of their car",
    "retail": "bought in time, emptied in time, and another cart",
}
"""Of each workspace a story that needs no history and no scores but those of the real model."""


def stories(workspace: str) -> tuple[Ruling, tuple[Story, ...]]:
    checked = check(RULES / workspace, MODELS, datetime.now(UTC))
    assert checked.problems == ()
    assert checked.ruling is not None
    found = read_stories(RULES / workspace, checked.ruling.rules)
    assert found.problems == ()
    return checked.ruling, found.stories


def test_every_sample_workspace_has_a_story_over_http() -> None:
    assert sorted(OVER_HTTP) == WORKSPACES


@pytest.mark.parametrize("workspace", WORKSPACES)
def test_a_sample_workspace_is_sound_and_its_tests_reach_everything(workspace: str) -> None:
    ruling, found = stories(workspace)
    reached: set[str] = set()
    for story in found:
        played = play(story.scenario, story.fixes, ruling)
        outcome = compare(story.scenario, played, ruling.rules)
        assert (played.problems, outcome.differences) == ((), ()), story.scenario.name
        reached |= outcome.rules_reached | outcome.offers_reached
    everything = {*ruling.rules.rules, *ruling.rules.offers, *ruling.rules.actions}
    assert everything - reached == set()


@pytest.mark.parametrize("workspace", sorted(OVER_HTTP))
def test_a_story_over_http(workspace: str, postgres_dsn: str) -> None:
    """`serve` on a replay's clock decides what the rehearsal decided, candidate by candidate."""
    ruling, found = stories(workspace)
    [story] = [one for one in found if one.scenario.name == OVER_HTTP[workspace]]
    scenario = story.scenario
    rehearsed = [
        decision
        for decision in compare(scenario, play(scenario, story.fixes, ruling), ruling.rules).decisions
        if scenario.expect
    ]
    with (
        open_folder() as folder,
        served.serve(
            folder, postgres_dsn, RULES=str(RULES / workspace), MODELS=str(MODELS), CLOCK="replay"
        ) as engine,
    ):
        decided = told_over_http(engine, scenario, story)
    assert [_outline(one) for one in decided] == [
        (d.outcome.value, d.rule, d.offer, d.reason.value if d.reason else None, d.geofence)
        for d in rehearsed
    ]


def _outline(decision: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(decision[word] for word in ("outcome", "rule", "offer", "reason", "geofence"))


def told_over_http(engine: served.Served, scenario: Scenario, story: Story) -> list[dict[str, Any]]:
    """Sends the story as its app and the business's server do; all that was decided, oldest first."""
    start = begins_at(scenario, story.fixes)
    with (
        engine.client() as app,
        engine.client(served.SERVER_KEY) as shop,
        engine.admin() as operator,
    ):
        for call in (introduction(scenario, start), *calls(scenario, story.fixes)):
            post(shop if call.from_server else app, call.call, call.body)
        if scenario.until is not None:
            pass_time(app, start + scenario.until)
        path = f"/admin/profiles/user_id/{scenario.profile.user_id}/decisions"
        answer = operator.get(path, params={"limit": 100})
        answer.raise_for_status()
    decisions = [d for d in answer.json()["decisions"] if d["reason"] != "condition_false"]
    return list(reversed(decisions))


def post(client: httpx.Client, call: str, body: dict[str, Any]) -> None:
    answer = client.post(f"/v1/{call}", json=body)
    answer.raise_for_status()
    assert answer.json()["rejected"] == []


def pass_time(app: httpx.Client, until: datetime) -> None:
    """Somebody else does something then."""
    for at in (until, until + timedelta(seconds=1)):
        stamp = at.isoformat()
        body = {"userId": "somebody-else", "event": "Nothing", "timestamp": stamp, "sentAt": stamp}
        post(app, "track", body)
