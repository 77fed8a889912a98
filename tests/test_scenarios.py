"""`viewfinder test`: scenario files, what is decided in them, and how a failure is explained."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import pytest

from engine.app.rehearsal_outcome import Outcomes, compare
from engine.app.rehearsal_story import play
from engine.app.rulesets import check
from engine.app.ruling import Ruling
from engine.formats.scenario import read_scenarios
from engine.formats.scenario_files import read_stories
from tests.test_check import ROOT, told
from tests.test_check_cli import folder, viewfinder

__all__ = ["folder"]

WORKSPACE = """\
timezone: Europe/Dublin
quiet_hours: {from: "21:00", to: "08:00", then: drop}
consent:
  purposes:
    marketing: {basis: consent, from: [C0004]}
    location: {basis: consent}
    service: {basis: contract}
events:
  Order Completed: {from: server}
traits:
  first_name: {type: string}
  age: {type: number}
computed:
  orders: {count: Order Completed}
  lifetime_value: {sum: event.properties.revenue, of: Order Completed}
  last_store: {last: event.properties.store, of: Order Completed}
  days_since_order: {days_since: Order Completed}
  tier: {steps: lifetime_value, from: {bronze: 0, gold: 500}}
"""
RULES = """\
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {name: The Mill}}
  market: {circle: {lat: 52.67, lng: -8.62, radius: 60}, tags: [market]}
offers:
  latte:
    purpose: marketing
    value: 3
    cost: 1
    propensity: {model: redeem, at_least: 0.25}
    message: {push: {title: "Hi {{ profile.first_name | default: 'you' }}", body: "{{ geofence.name }}"}}
  thanks: {purpose: marketing, message: {push: {title: Thanks, body: Bye}}}
  ready: {purpose: service, message: {push: {title: Ready, body: Come}}}
rules:
  cold: {when: {enter: {tag: cafe}}, if: 'profile.tier == "gold" && weather.temp_c < 12', offer: latte}
  thanks: {when: Thank Me, offer: thanks, cap: {times: 1, per: 7d}}
  loyal: {when: Thank Me, if: profile.days_since_order < 10 && profile.last_store == "s1", offer: thanks}
  ready: {when: Order Ready, offer: ready}
"""
ADA = (
    "{user_id: ada, traits: {first_name: Ada}, computed: {lifetime_value: 620},"
    " consent: {marketing: granted, location: granted}, device: {type: ios, token: t1}}"
)
AT_THE_CAFE = (
    "{at: +1m, type: track, event: Location Updated,"
    " context: {location: {latitude: 52.66, longitude: -8.62, accuracy: 8}}}"
)


@pytest.fixture(scope="module")
def ruling(tmp_path_factory: pytest.TempPathFactory) -> Ruling:
    """The workspace above, with a real model behind `redeem`."""
    root = tmp_path_factory.mktemp("scenarios")
    lay(root)
    checked = check(root / "rules", root / "models")
    assert checked.ruling is not None, checked.problems
    return checked.ruling


def lay(root: Path, *tests: str) -> None:
    """The workspace in a folder, with scenarios in files of their own."""
    (root / "rules" / "tests").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "rules" / "workspace.yaml").write_text(WORKSPACE, "utf-8")
    (root / "rules" / "rules.yaml").write_text(RULES, "utf-8")
    shutil.copy(ROOT / "tests/data/models/linear.onnx", root / "models" / "redeem.onnx")
    inputs = "[{name: orders, from: profile.orders}, {name: hour, from: local.hour}]"
    card = f"name: redeem\nversion: '1'\nmodel: redeem.onnx\ninputs: {inputs}\n"
    (root / "models" / "redeem.yaml").write_text(card, "utf-8")
    for number, text in enumerate(tests):
        (root / "rules" / "tests" / f"{number}.yaml").write_text(text, "utf-8")


def story(*lines: str, profile: str = ADA, now: str = "2026-01-12T09:00:00Z") -> str:
    """A file with one scenario, whose further fields are `lines`."""
    first = f"tests:\n  - name: a story\n    profile: {profile}\n    now: {now}\n"
    return first + "".join(f"    {line}\n" for line in lines)


def outcome(ruling: Ruling, text: str) -> Outcomes:
    scenarios, problems = read_scenarios("tests/a.yaml", text.encode(), ruling.rules)
    assert problems == ()
    [scenario] = scenarios
    played = play(scenario, (), ruling)
    assert played.problems == ()
    return compare(scenario, played, ruling.rules)


def passes(ruling: Ruling, text: str) -> bool:
    return not outcome(ruling, text).differences


LATTE = "expect: [{offer: latte, rule: cold, outcome: offered}]"
COLD = "weather: {temp_c: 4.0}"
LIKELY = "propensity: {redeem: 0.6}"


# What a scenario says about the world.


def test_the_example_of_the_language(ruling: Ruling) -> None:
    assert passes(ruling, story(COLD, LIKELY, f"events: [{AT_THE_CAFE}]", "until: +2h", LATTE))


@pytest.mark.parametrize(
    ("lines", "profile", "reason"),
    [
        (["weather: {temp_c: 15}", LIKELY], ADA, "condition_false"),
        ([LIKELY], ADA, "condition_unknown"),
        ([COLD, "propensity: {redeem: 0.2}"], ADA, "low_propensity"),
        ([COLD, "propensity: {redeem: failed}"], ADA, "model_failed"),
        ([COLD, LIKELY], ADA.replace("620", "20"), "condition_false"),
        ([COLD, LIKELY], ADA.replace("marketing: granted", "marketing: denied"), "no_consent"),
        ([COLD, LIKELY], ADA.replace("marketing: granted", "marketing: unknown"), "no_consent"),
        ([COLD, LIKELY], ADA.replace("token: t1", "token: null"), "no_device"),
        ([COLD, LIKELY], ADA.replace(", device: {type: ios, token: t1}", ""), "no_device"),
        ([COLD, LIKELY], ADA.replace("token: t1", "permissions: {push: denied}"), "no_permission"),
        ([COLD, LIKELY], ADA.replace("{user_id", "{timezone: Asia/Tokyo, user_id"), None),
    ],
)
def test_the_world_is_as_it_says(ruling: Ruling, lines: list[str], profile: str, reason: str | None) -> None:
    suppressed = f"expect: [{{offer: latte, outcome: suppressed, reason: {reason}}}]"
    text = story(*lines, f"events: [{AT_THE_CAFE}]", LATTE if reason is None else suppressed, profile=profile)
    assert passes(ruling, text)


def test_quiet_hours_are_on_the_persons_own_clock(ruling: Ruling) -> None:
    for zone, reason in (("Europe/Dublin", "quiet_hours"), ("America/New_York", None)):
        profile = ADA.replace("{user_id", f"{{timezone: {zone}, user_id")
        wanted = "outcome: offered" if reason is None else f"outcome: suppressed, reason: {reason}"
        text = story(
            COLD, LIKELY, f"events: [{AT_THE_CAFE}]", f"expect: [{{offer: latte, {wanted}}}]",
            profile=profile, now="2026-01-12T22:00:00Z",
        )  # fmt: skip
        assert passes(ruling, text)


def test_without_scores_the_real_model_runs(ruling: Ruling) -> None:
    found = outcome(ruling, story(COLD, f"events: [{AT_THE_CAFE}]", "expect: []"))
    [candidate] = found.decisions[0].candidates
    assert candidate.propensity is not None
    assert candidate.propensity not in (0.6, 0.2)


def test_computed_traits_are_as_stated_and_go_on_from_there(ruling: Ruling) -> None:
    profile = ADA.replace("620", "490, orders: 4, days_since_order: 12, last_store: s1")
    bought = (
        "{at: +1m, type: track, from: server, event: Order Completed, properties: {revenue: 12, store: s1}}"
    )
    asked = "{at: %s, type: track, event: Thank Me}"
    text = story(
        f"events: [{asked % '+0s'}, {bought}, {asked % '+8d'}]",
        "expect:",
        "  - {rule: thanks, outcome: offered}",
        "  - {rule: loyal, outcome: offered}",
        profile=profile,
    )
    # First `loyal` is false, because the last order was 12 days ago. Later both hold, and names decide.
    assert passes(ruling, text)


def test_time_passes_between_events(ruling: Ruling) -> None:
    asked = "{at: %s, type: track, event: Thank Me}"
    early, late = "6d23h59m59s", "7d"
    capped = "{rule: thanks, outcome: suppressed, reason: capped}"
    for at, second in ((early, capped), (late, "{rule: thanks, outcome: offered}")):
        lines = [
            f"events: [{asked % '+0s'}, {asked % f'+{at}'}]",
            f"expect: [{{rule: thanks, outcome: offered}}, {second}]",
        ]
        assert passes(ruling, story(*lines))


def test_an_app_cannot_claim_what_only_a_server_may(ruling: Ruling) -> None:
    text = story("events: [{at: +0s, type: track, event: Order Completed}]", "expect: []")
    [scenario], _ = read_scenarios("tests/a.yaml", text.encode(), ruling.rules)
    [problem] = play(scenario, (), ruling).problems
    assert problem.line == 5
    assert "server_only" in problem.message
    assert problem.suggestion == "add from: server"


# What must be decided: exactly these, in this order.


THANK = "{at: +%dm, type: track, event: Thank Me}"
READY = "{at: +%dm, type: track, event: Order Ready}"


@pytest.mark.parametrize(
    ("expect", "strict", "differences"),
    [
        ("[{offer: ready, outcome: offered}, {offer: thanks, outcome: offered}]", False, 0),
        ("[{offer: thanks, outcome: offered}, {offer: ready, outcome: offered}]", False, 2),
        ("[{offer: ready, outcome: offered}]", False, 1),
        ("[]", False, 2),
        ("[{outcome: offered}, {outcome: offered}]", False, 0),
        ("[{outcome: offered}, {outcome: offered}, {outcome: offered}]", False, 1),
        ("[{outcome: offered}, {outcome: offered}, {rule: thanks, outcome: suppressed}]", False, 0),
        ("[{outcome: offered}, {outcome: offered}]", True, 1),
        ("[{outcome: offered}, {outcome: offered}, {rule: thanks, outcome: suppressed}]", True, 0),
        ("[{offer: ready, outcome: offered, trigger: event}, {offer: thanks, outcome: offered}]", False, 0),
        ("[{offer: ready, outcome: offered, trigger: enter}, {offer: thanks, outcome: offered}]", False, 2),
        ("[{outcome: offered, message: {title: Ready}}, {outcome: offered}]", False, 0),
        ("[{outcome: offered, message: {title: Steady}}, {outcome: offered}]", False, 2),
    ],
)
def test_exactly_these_in_this_order(ruling: Ruling, expect: str, strict: bool, differences: int) -> None:
    events = ", ".join((READY % 0, THANK % 1, THANK % 2))
    text = story(f"events: [{events}]", f"expect: {expect}", f"strict: {str(strict).lower()}")
    assert len(outcome(ruling, text).differences) == differences


def test_what_is_reached(ruling: Ruling) -> None:
    found = outcome(ruling, story(f"events: [{THANK % 0}, {AT_THE_CAFE}]", "expect: [{outcome: offered}]"))
    # `cold` came up, and its condition was unknown; so was that of `loyal`.
    assert (found.rules_reached, found.offers_reached) == ({"thanks"}, {"thanks"})


# Why it failed.


def because(ruling: Ruling, text: str) -> list[tuple[str | None, str | None, tuple[str, ...]]]:
    return [(d.expected, d.decided, d.because) for d in outcome(ruling, text).differences]


def test_a_missing_offer_shows_what_stopped_it_and_by_how_much(ruling: Ruling) -> None:
    text = story(COLD, "propensity: {redeem: 0.2}", f"events: [{AT_THE_CAFE}]", LATTE)
    assert because(ruling, text) == [
        (
            "offered cold latte",
            None,
            (
                "09:01:00 (+1m0s) suppressed cold latte at cafe low_propensity",
                "cold → latte at cafe: low_propensity: propensity 0.20 is below 0.25",
            ),
        )
    ]


def test_a_false_condition_shows_the_values_that_it_read(ruling: Ruling) -> None:
    [(_, _, lines)] = because(
        ruling, story("weather: {temp_c: 15.5}", LIKELY, f"events: [{AT_THE_CAFE}]", LATTE)
    )
    assert lines[1:] == (
        'cold → latte at cafe: condition_false: not true: profile.tier == "gold" && weather.temp_c < 12',
        '  profile.tier is "gold"',
        "  weather.temp_c is 15.5",
    )


def test_an_unknown_condition_shows_what_is_not_known(ruling: Ruling) -> None:
    [(_, _, lines)] = because(ruling, story(LIKELY, f"events: [{AT_THE_CAFE}]", LATTE))
    assert lines[-1] == "  weather.temp_c is unknown"


def test_a_rule_that_nothing_set_off_shows_what_happened(ruling: Ruling) -> None:
    far = AT_THE_CAFE.replace("52.66", "52.67")
    mock = far.replace("accuracy: 8", "accuracy: 8, isMock: true").replace("+1m", "+2m")
    [(_, _, lines)] = because(ruling, story(f"events: [{far}, {mock}, {mock.replace('2m', '3m')}]", LATTE))
    assert lines == (
        "nothing set off cold, which waits for enter cafe",
        "what happened: event Location Updated × 3, enter market",
        "noted: fix: mock × 2",
    )


def test_a_rule_that_puts_other_offers_forward(ruling: Ruling) -> None:
    text = story("events: []", "expect: [{rule: cold, offer: ready, outcome: offered}]")
    [(_, _, lines)] = because(ruling, text)
    assert lines == ("cold does not put ready forward, but latte", "what happened: nothing")


def test_a_decision_too_many_shows_with_whom_it_competed(ruling: Ruling) -> None:
    profile = ADA.replace("620", "620, days_since_order: 1, last_store: s1")
    [(expected, decided, lines)] = because(
        ruling, story(f"events: [{THANK % 3}]", "expect: []", profile=profile)
    )
    assert expected is None
    assert decided == "09:03:00 (+3m0s) offered loyal thanks"
    assert lines == (
        "loyal → thanks: won",
        "thanks → thanks: outranked: loyal ranks higher",
    )


def test_another_text_is_shown(ruling: Ruling) -> None:
    wanted = 'expect: [{rule: cold, outcome: offered, message: {title: "Hi Bob", body: The Mill}}]'
    [missing, _] = because(ruling, story(COLD, LIKELY, f"events: [{AT_THE_CAFE}]", wanted))
    assert missing[0] == 'offered cold title "Hi Bob" body "The Mill"'
    assert missing[2][-1] == 'its title is "Hi Ada"'


# What is wrong with a file.


@pytest.mark.parametrize(
    ("text", "problem", "suggestion"),
    [
        ("tests: {}", "1:8: expected a list of tests, found fields", 'begin each with "- name: …"'),
        ("test: []", '1:1: unknown section "test"', 'did you mean "tests"?'),
        ("- a", "1:1: expected tests:, found a list", None),
        (
            story("wether: {temp_c: 4}", "expect: []"),
            '5:5: unknown field "wether"',
            'did you mean "weather"?',
        ),
        (story(), '2:5: "expect" is missing', "add expect: [] where nothing must be offered"),
        (
            "tests: [{name: a, expect: []}]",
            '1:9: "now" is missing',
            "add now: 2026-01-12T09:00:00Z, when the story begins",
        ),
        (
            story("expect: [{rule: could, outcome: offered}]"),
            '5:21: there is no rule "could"',
            'did you mean "cold"?',
        ),
        (
            story("expect: [{offer: late, outcome: offered}]"),
            '5:22: there is no offer "late"',
            'did you mean "latte"?',
        ),
        (
            story("expect: [{geofence: caffe, outcome: offered}]"),
            '5:25: there is no geofence "caffe"',
            'did you mean "cafe"?',
        ),
        (
            story("expect: [{rule: cold}]"),
            '5:14: "outcome" is missing',
            "one of offered, deferred, suppressed",
        ),
        (
            story("expect: [{outcome: ofered}]"),
            '5:24: expected one of offered, deferred, suppressed, found "ofered"',
            'did you mean "offered"?',
        ),
        (
            story("expect: [{outcome: offered, reason: capped}]"),
            "5:41: what is offered has no reason against it",
            None,
        ),
        (
            story("events: [{at: 5m, type: track}]", "expect: []"),
            '5:19: expected a time after the start such as +12m or +1h30m, found "5m"',
            "did you mean +5m?",
        ),
        (story("events: [{at: +5m}]", "expect: []"), '5:14: "type" is missing', None),
        (
            story("events: [{at: +5m, type: tracks}]", "expect: []"),
            '5:30: expected one of track, identify, screen, page, group, alias, merge, found "tracks"',
            'did you mean "track"?',
        ),
        (
            story("events: [{at: +5m, type: track}]", "until: +4m", "expect: []"),
            "6:12: the story goes on after it: an event comes later",
            None,
        ),
        (
            story("propensity: {redem: 0.5}", "expect: []"),
            '5:18: there is no model "redem"',
            'did you mean "redeem"?',
        ),
        (
            story("propensity: {redeem: 1.5}", "expect: []"),
            '5:26: the score of redeem must be between 0 and 1, found "1.5"',
            None,
        ),
        (
            story("expect: []", profile="{traits: {frist_name: Ada}}"),
            '3:24: there is no trait "frist_name"',
            'did you mean "first_name"?',
        ),
        (
            story("expect: []", profile="{traits: {age: old}}"),
            '3:29: expected a number, found "old"',
            None,
        ),
        (
            story("expect: []", profile="{traits: {orders: 3}}"),
            '3:24: there is no trait "orders"',
            "it is computed: write it under computed: {orders: …}",
        ),
        (
            story("expect: []", profile="{computed: {age: 3}}"),
            '3:26: there is no computed trait "age"',
            "it is stated: write it under traits: {age: …}",
        ),
        (
            story("expect: []", profile="{computed: {tier: gold}}"),
            '3:26: "tier" follows from lifetime_value',
            "set lifetime_value instead",
        ),
        (
            story("expect: []", profile="{consent: {marketting: granted}}"),
            '3:25: there is no purpose "marketting"',
            'did you mean "marketing"?',
        ),
        (
            story("expect: []", profile="{consent: {marketing: yes}}"),
            '3:36: expected one of granted, denied, unknown, found "yes"',
            None,
        ),
        (
            story("expect: []", profile="{device: {type: iphone}}"),
            '3:30: expected one of ios, android, web, found "iphone"',
            None,
        ),
        (
            story("expect: []", now="9 o'clock"),
            "4:10: expected a date such as 2026-11-01 or a time such as 2026-11-01T09:00:00Z, "
            'found "9 o\'clock"',
            None,
        ),
    ],
)
def test_a_defect_of_a_scenario_is_told_at_its_place(
    ruling: Ruling, text: str, problem: str, suggestion: str | None
) -> None:
    found, problems = read_scenarios("tests/a.yaml", text.encode(), ruling.rules)
    assert [told(one) for one in problems] == [(f"tests/a.yaml:{problem}", suggestion)]
    assert found == ()


def test_one_defect_leaves_the_other_scenarios(ruling: Ruling) -> None:
    text = story("expect: [{outcome: ofered}]") + "  - {name: sound, now: 2026-01-12, expect: []}\n"
    found, problems = read_scenarios("tests/a.yaml", text.encode(), ruling.rules)
    assert [one.name for one in found] == ["sound"]
    assert len(problems) == 1


# Folders, files, tracks.

TRACK = """<gpx version="1.1"><trk><trkseg>
<trkpt lat="52.65" lon="-8.62"><time>2019-02-18T07:45:00Z</time></trkpt>
<trkpt lat="52.66" lon="-8.62"><time>2019-02-18T08:15:00Z</time></trkpt>
</trkseg></trk></gpx>"""


def test_a_track_is_found_beside_its_file_or_from_the_workspace(tmp_path: Path, ruling: Ruling) -> None:
    lay(tmp_path, *(story(f"track: {t}", COLD, LIKELY, LATTE) for t in ("walk.gpx", "tracks/far.gpx")))
    (tmp_path / "rules/tests/walk.gpx").write_text(TRACK)
    (tmp_path / "rules/tracks").mkdir()
    (tmp_path / "rules/tracks/far.gpx").write_text(TRACK)
    found = read_stories(tmp_path / "rules", ruling.rules)
    assert found.problems == ()
    for one in found.stories:
        played = play(one.scenario, one.fixes, ruling)
        assert played.told[-1].now.isoformat() == "2026-01-12T09:30:00+00:00"
        assert compare(one.scenario, played, ruling.rules).differences == ()


def test_without_now_a_story_begins_with_its_track(tmp_path: Path, ruling: Ruling) -> None:
    text = story("track: walk.gpx", LATTE).replace("    now: 2026-01-12T09:00:00Z\n", "")
    lay(tmp_path, text)
    (tmp_path / "rules/tests/walk.gpx").write_text(TRACK)
    [one] = read_stories(tmp_path / "rules", ruling.rules).stories
    assert play(one.scenario, one.fixes, ruling).began_at.isoformat() == "2019-02-18T07:45:00+00:00"


@pytest.mark.parametrize("track", ["../../secret.gpx", "/etc/passwd", "wlak.gpx"])
def test_a_track_that_is_not_there(tmp_path: Path, ruling: Ruling, track: str) -> None:
    lay(tmp_path, story(f"track: {track}", "expect: []"))
    (tmp_path / "rules/tests/walk.gpx").write_text(TRACK)
    (tmp_path / "secret.gpx").write_text(TRACK)
    [problem] = read_stories(tmp_path / "rules", ruling.rules).problems
    assert (problem.line, problem.column) == (5, 12)
    assert problem.message.startswith(f'there is no track "{track}"')


def test_tests_may_stand_beside_their_rules(tmp_path: Path, ruling: Ruling) -> None:
    lay(tmp_path)
    with (tmp_path / "rules/rules.yaml").open("a") as file:
        file.write(story("expect: []"))
    assert check(tmp_path / "rules", tmp_path / "models").problems == ()
    assert [one.scenario.file for one in read_stories(tmp_path / "rules", ruling.rules).stories] == [
        "rules.yaml"
    ]


# The command.


def test_the_command_passes(folder: Path) -> None:
    lay(folder, story(COLD, LIKELY, f"events: [{AT_THE_CAFE}]", LATTE))
    ended = viewfinder(folder, "test")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.sub(r"[\d.]+ s", "0 s", ended.stdout) == (
        "tests/0.yaml\n"
        "  ✓ a story\n"
        "no test reaches 3 of 4 rules: loyal, ready, thanks\n"
        "no test reaches 2 of 3 offers: ready, thanks\n"
        "1 passed in 0 s\n"
    )


def test_the_command_fails_and_says_why(folder: Path) -> None:
    lay(folder, story(LIKELY, f"events: [{AT_THE_CAFE}]", LATTE), story("expect: []"))
    ended = viewfinder(folder, "test")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith(
        "tests/0.yaml\n"
        "  ✗ a story\n"
        "      expected, not decided: offered cold latte  tests/0.yaml:7\n"
        "        09:01:00 (+1m0s) suppressed cold latte at cafe condition_unknown\n"
        "        cold → latte at cafe: condition_unknown: something in it is not known: "
        'profile.tier == "gold" && weather.temp_c < 12\n'
        '          profile.tier is "gold"\n'
        "          weather.temp_c is unknown\n"
        "tests/1.yaml\n"
        "  ✓ a story\n"
    )
    assert "1 passed, 1 failed in " in ended.stdout


def test_the_command_as_json(folder: Path) -> None:
    lay(folder, story(LIKELY, f"events: [{AT_THE_CAFE}]", LATTE))
    ended = viewfinder(folder, "test", "--json")
    assert (ended.returncode, ended.stderr) == (1, "")
    report = json.loads(ended.stdout)
    assert (report["passed"], report["failed"], report["problems"]) == (0, 1, [])
    [one] = report["tests"]
    assert (one["file"], one["line"], one["name"], one["passed"]) == ("tests/0.yaml", 2, "a story", False)
    assert one["differences"][0]["expected"] == "offered cold latte"
    assert one["decisions"][0]["reason"] == "condition_unknown"
    assert report["coverage"]["unreached_rules"] == ["cold", "loyal", "ready", "thanks"]


def test_the_command_on_a_faulty_file_or_workspace(folder: Path) -> None:
    lay(folder, story("expcet: []"))
    ended = viewfinder(folder, "test")
    assert ended.returncode == 1
    assert 'tests/0.yaml:5:5: unknown field "expcet"\n        expcet: []\n        ^\n' in ended.stdout
    (folder / "rules/rules.yaml").write_text("ruels: {}\n")
    ended = viewfinder(folder, "test")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "rules.yaml:1:1: " in ended.stderr


@pytest.mark.parametrize("arguments", [("nowhere",), ("--models", "nowhere"), ("--wrong",)])
def test_wrong_usage_of_the_command(folder: Path, arguments: tuple[str, ...]) -> None:
    lay(folder)
    ended = viewfinder(folder, "test", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr


def test_only_some(folder: Path) -> None:
    other = story("expect: [{outcome: offered}]").replace("a story", "another")
    lay(folder, story("expect: []"), other)
    ended = viewfinder(folder, "test", "--match", "a story")
    assert ended.returncode == 0
    assert "another" not in ended.stdout
    assert "no test reaches" not in ended.stdout


def test_no_tests_yet(folder: Path) -> None:
    lay(folder)
    ended = viewfinder(folder, "test")
    assert ended.returncode == 0
    assert "no tests found" in ended.stdout


def test_a_thousand_scenarios_are_a_matter_of_seconds(tmp_path: Path, ruling: Ruling) -> None:
    """Under 5 s on the design's machine; here with room for a busy one."""
    one = story(COLD, LIKELY, f"events: [{THANK % 0}, {AT_THE_CAFE}]", "until: +2h", "expect: []")
    lay(tmp_path, *(one + one.removeprefix("tests:\n") * 99 for _ in range(10)))
    started = time.perf_counter()
    found = read_stories(tmp_path / "rules", ruling.rules)
    outcomes = [compare(s.scenario, play(s.scenario, s.fixes, ruling), ruling.rules) for s in found.stories]
    assert len(outcomes) == 1000
    assert all(len(o.differences) == 2 for o in outcomes)
    assert time.perf_counter() - started < 20.0


def test_the_sample_workspace_passes(folder: Path) -> None:
    ended = viewfinder(folder, "test", str(ROOT / "rules"))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
