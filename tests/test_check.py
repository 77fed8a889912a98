"""What is wrong with a workspace: one defect a file, each told in full at its place, and nothing besides."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.app.rulesets import Checked, check
from engine.domain.offers.rules import ComputedKind, LocationPrecision, Namespace, RuleSet, TriggerKind
from engine.domain.places.shapes import Beacon, Cells, Line, Polygon
from engine.formats.identity_values import email
from engine.formats.located_scalar import place_in
from engine.formats.located_yaml import ListNode, Scalar, read
from engine.formats.problems import Problem, render, render_all
from engine.formats.workspace import load

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
DEFECTS = DATA / "defects"
NO_MODELS = DEFECTS / "there-is-no-such-folder"
LAID_AS = {
    "workspace": "workspace.yaml",
    "rules": "shop.yaml",
    "models": "card.yaml",
    "advice": "shop.yaml",
    "advice-of-settings": "workspace.yaml",
}
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)

Told = tuple[str, str | None]
"""`file:line:column: message` as `check` says it, and the suggestion."""


def told(problem: Problem) -> Told:
    kind = "" if problem.severity == "error" else "warning: "
    place = f"{problem.file}:{problem.line}:{problem.column}"
    return f"{place}: {kind}{problem.message}", problem.suggestion


def expected_in(lines: Iterable[str]) -> list[Told]:
    expected: list[Told] = []
    for line in lines:
        if line.startswith("    "):
            expected[-1] = (expected[-1][0], line.strip())
        else:
            expected.append((line, None))
    return expected


def header(file: Path) -> Iterator[str]:
    """The comments that a defect begins with, without their `# `."""
    for line in file.read_text("utf-8", "replace").splitlines():
        if not line.startswith("# "):
            return
        yield line.removeprefix("# ")


def workspaces() -> list[Path]:
    return sorted((DEFECTS / "folders").iterdir())


def checked(folder: Path, original: Path) -> Checked:
    """What `original` comes to: the workspace is copied to `folder`, and the ONNX files that its cards
    name are laid beside them."""
    rules, models = folder / "rules", folder / "models"
    shutil.copytree(original / "rules", rules)
    models.mkdir()
    for card in sorted((original / "models").glob("*.yaml")):
        shutil.copy(card, models)
        for name in re.findall(r"^model: (\S+)", card.read_text("utf-8"), re.MULTILINE):
            if (DATA / "models" / name).is_file():
                shutil.copy(DATA / "models" / name, models)
    return check(rules, models)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sound workspace's models, and every ONNX file of the tests."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(DEFECTS / "sound" / "models", folder, dirs_exist_ok=True)
    for onnx in (DATA / "models").glob("*.onnx"):
        shutil.copy(onnx, folder)
    return folder


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The sound workspace's rules."""
    folder = tmp_path / "rules"
    folder.mkdir()
    for file in (DEFECTS / "sound").glob("*.yaml"):
        shutil.copy(file, folder)
    return folder


# One defect a file.


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        pytest.param(kind, file, id=f"{kind}/{file.stem}")
        for kind in LAID_AS
        for file in sorted((DEFECTS / kind).glob("*.yaml"))
    ],
)
def test_a_defect_is_told_at_its_place(
    kind: str, file: Path, rules: Path, models: Path, tmp_path: Path
) -> None:
    if kind == "models":
        models = shutil.copytree(models, tmp_path / "models")
    shutil.copy(file, (models if kind == "models" else rules) / LAID_AS[kind])
    found = check(rules, models, NOW if kind.startswith("advice") else None)
    expected = expected_in(header(file))
    assert expected
    assert [told(problem) for problem in found.problems] == expected
    assert (found.ruling is None) == any(problem.severity == "error" for problem in found.problems)


@pytest.mark.parametrize("workspace", [pytest.param(folder, id=folder.name) for folder in workspaces()])
def test_defects_of_several_files(workspace: Path, tmp_path: Path) -> None:
    found = checked(tmp_path, workspace)
    expected = expected_in((workspace / "expected.txt").read_text("utf-8").splitlines())
    assert expected
    assert [told(problem) for problem in found.problems] == expected
    assert (found.ruling is None) == any(problem.severity == "error" for problem in found.problems)


def test_what_the_language_says_is_built_or_said_to_be_not_supported_yet() -> None:
    """`the-whole-language` holds the examples of the language's page, word for word but for two
    mends: quotes around an expression with a comma, and a French body for a French title."""
    said = expected_in((DEFECTS / "folders/the-whole-language/expected.txt").read_text("utf-8").splitlines())
    assert all(line.endswith(('" is not supported yet', "the offer is never made")) for line, _ in said)


@pytest.mark.parametrize(
    ("data", "message", "place"),
    [
        (b"x" * 10_000_000, "the file is larger than 1,000,000 bytes", (1, 1)),
        (b"rules:\n" + b"# comment\n" * 1_000_000, "the file is larger than 1,000,000 bytes", (1, 1)),
        ("rules: {}\n".encode("utf-16"), "not UTF-8 text", (1, 1)),
        (b"rules:\n  a: \0", "the character U+0000 must not stand in a file", (2, 6)),
        (b"rules: " + b"[" * 100_000, "nested deeper than 40 levels", (1, 48)),
        (b"rules: " + b"{a: " * 100_000, "nested deeper than 40 levels", (1, 165)),
        (b"rules:\n" + b"  - x\n" * 100_001, "more than 100,000 values in one file", (99_999, 5)),
    ],
)
def test_files_that_are_too_much(data: bytes, message: str, place: tuple[int, int], rules: Path) -> None:
    (rules / "shop.yaml").write_bytes(data)
    started = time.perf_counter()
    found = check(rules, NO_MODELS)
    assert time.perf_counter() - started < 5.0
    [problem] = found.problems
    assert problem.message == message
    assert (problem.line, problem.column) == place
    shown = render_all(found.problems, found.sources)
    assert len(shown) < 1_000


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_places_count_lines_and_characters_as_editors_do(newline: str, mark: bytes, rules: Path) -> None:
    lines = ["rules:", "  é: {when: Visit, offer: thanks}", "  ü: {when: Visit, ofer: thanks}", ""]
    (rules / "shop.yaml").write_bytes(mark + newline.join(lines).encode())
    found = check(rules, NO_MODELS)
    assert [(p.line, p.column) for p in found.problems] == [(3, 20)]


# No defect.


def test_the_sound_workspace(rules: Path, models: Path) -> None:
    found = check(rules, models, NOW)
    assert found.problems == ()
    assert found.ruling is not None
    assert set(found.ruling.models) == {"redeem"}


def test_the_sample_workspace() -> None:
    found = check(ROOT / "rules", ROOT / "models", datetime.now(UTC))
    assert found.problems == ()
    assert found.ruling is not None


@pytest.mark.parametrize("text", [b"", b"\n\n", b"# nothing yet\n", b"---\n", b"rules:\noffers:\n"])
def test_an_empty_file_says_nothing(text: bytes, rules: Path, models: Path) -> None:
    (rules / "shop.yaml").write_bytes(text)
    assert check(rules, models).problems == ()


def test_what_is_mended_is_a_warning_and_no_error(rules: Path) -> None:
    ring = [[-8.63, 52.66], [-8.63, 52.67], [-8.62, 52.67], [-8.62, 52.66]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    shop = {"type": "Feature", "properties": {"name": "A"}, "geometry": shape}
    (rules / "shops.geojson").write_text(json.dumps(shop))
    (rules / "shop.yaml").write_text("geofences:\n  shops: {file: shops.geojson, id: properties.name}\n")
    found = check(rules, NO_MODELS)
    assert [told(problem) for problem in found.problems] == [
        ("shops.geojson:1:1: warning: feature 1: ring 1 ran clockwise: turned it round", None),
        ("shops.geojson:1:1: warning: feature 1: ring 1 was not closed: closed it", None),
    ]
    assert found.ruling is not None
    assert "A" in found.ruling.rules.fences


def test_a_tag_of_no_geofence(rules: Path) -> None:
    """A file may hold no place yet."""
    (rules / "shops.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    (rules / "shop.yaml").write_text(
        "geofences:\n  shops: {file: shops.geojson, id: properties.name, tags: [new]}\n"
        "rules:\n  r: {when: {enter: {tag: new}}, offer: thanks}\n"
    )
    found = check(rules, NO_MODELS, NOW)
    assert [told(problem) for problem in found.problems] == [
        ("shop.yaml:4:13: warning: the rule never fires: no geofence has this tag", None)
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> RuleSet:
    """A workspace that uses all that is built."""
    found = checked(tmp_path_factory.mktemp("built"), DEFECTS / "built")
    assert found.problems == ()
    assert found.ruling is not None
    return found.ruling.rules


def test_settings_are_kept_as_they_were_said(built: RuleSet) -> None:
    said = built.workspace
    assert (said.timezone, said.currency, said.rates) == ("Europe/Dublin", "EUR", {"USD": 0.92, "GBP": 1.17})
    assert said.quiet_hours is not None
    assert (said.quiet_hours.start, said.quiet_hours.end) == (clock(22, 30), clock(6, 0))
    daily, marketing = said.caps
    assert (daily.channel, daily.times, daily.per.calendar) == ("push", 3, "day")
    assert (marketing.purpose, marketing.times, marketing.per.rolling) == (
        "marketing",
        8,
        timedelta(days=14),
    )
    purposes = {name: (one.basis, one.unknown, one.names) for name, one in said.purposes.items()}
    assert purposes == {
        "marketing": ("consent", "deny", {"C0004", "NO"}),
        "partners": ("consent", "allow", set()),
        "location": ("consent", "deny", set()),
        "service": ("contract", "deny", set()),
    }
    assert said.location_precision == LocationPrecision(
        granted="exact", denied="none", unknown="neighbourhood"
    )
    assert said.namespaces == (
        Namespace(name="user_id", one=True),
        Namespace(
            name="loyalty_card",
            one=True,
            on_change="replace",
            sources=(("traits", "loyalty_card"), ("context", "externalId")),
        ),
        Namespace(name="email", sources=(("traits", "email"),), normal=email),
        Namespace(name="anonymous_id"),
    )
    assert said.server_only == {"Order Completed"}
    assert {name: one.type for name, one in said.traits.items()} == {
        "first_name": "string",
        "age": "number",
        "vegan": "boolean",
        "departs_at": "timestamp",
        "interests": "list",
    }
    assert said.retention["positions"] == timedelta(days=30)
    assert said.retention["offered"] == timedelta(days=400)
    assert said.retention["events"].days == 395


def test_computed_traits_are_kept_as_they_were_said(built: RuleSet) -> None:
    said = {one.name: one for one in built.workspace.computed}
    assert [(one.name, one.kind.value) for one in built.workspace.computed] == [
        ("orders", "count"),
        ("big_orders", "count"),
        ("home_views", "count"),
        ("car_reviews", "count"),
        ("cafe_visits", "count"),
        ("lifetime_value", "sum"),
        ("last_store", "last"),
        ("days_since_order", "days_since"),
        ("tier", "steps"),
        ("average_order", "average"),
        ("smallest_order", "min"),
        ("largest_order", "max"),
        ("first_store", "first"),
        ("visits_1h", "count"),
        ("skus", "distinct"),
        ("usual_hours", "most_often"),
        ("usual_store", "most_often"),
        ("orders_a_visit", "ratio"),
        ("keenness", "steps"),
        ("activity", "steps"),
    ]
    patterns = {one.name: one.pattern for one in built.workspace.computed if one.pattern is not None}
    assert patterns["big_orders"].condition is not None
    assert (patterns["home_views"].kind, patterns["home_views"].name) == (TriggerKind.SCREEN, "Home")
    assert (patterns["car_reviews"].kind, patterns["car_reviews"].name) == (TriggerKind.PAGE, "Car Review")
    assert (patterns["cafe_visits"].kind, patterns["cafe_visits"].fences) == (
        TriggerKind.ENTER,
        {"cafe-quay"},
    )
    assert patterns["last_store"].kind is TriggerKind.EXIT
    assert said["tier"].kind is ComputedKind.STEPS
    assert said["tier"].steps == ((0, "bronze"), (200, "silver"), (500, "gold"))


def test_places_are_kept_as_they_were_said(built: RuleSet) -> None:
    assert set(built.fences) == {
        "cafe-quay",
        "market",
        "D1",
        "D2",
        "304",
        "walkway",
        "block",
        "kiosk-8",
        "main-street",
    }
    assert built.fences["walkway"].shape == Line((((52.6701, -8.6270), (52.6720, -8.6262)),), 12.0)
    assert built.fences["main-street"].shape == Line((((52.66, -8.61), (52.665, -8.61)),), 8.0)
    assert built.fences["block"].shape == Cells((0x8A182E6C5097FFF, 0x8A182E6C554FFFF))
    assert built.fences["kiosk-8"].shape == Beacon("5f1c:7:8")
    market = built.fences["market"].shape
    assert isinstance(market, Polygon)
    assert [len(ring) for ring in market.rings] == [4, 4]
    quay = built.fences["cafe-quay"].opening
    assert quay is not None
    assert quay.timezone == "Europe/Dublin"
    assert quay.days[5] == ((480, 720), (840, 1080))
    assert quay.days[6] == ()
    assert quay.days[0] == ((360, 1320),)
    assert built.index.containing(52.67105, -8.6266) == ("walkway",)
    assert "kiosk-8" not in built.index
    assert built.fences["cafe-quay"].tags == {"cafe", "NO"}
    assert built.fences["cafe-quay"].properties == {"name": "Café Quay", "store_id": "s12", "indoor": True}
    assert built.fences["D2"].properties == {"code": "D2", "city": "Limerick"}


def test_offers_are_kept_as_they_were_said(built: RuleSet) -> None:
    latte, cookie, ready = (built.offers[name] for name in ("latte", "cookie", "ready"))
    assert (latte.purpose, latte.cost, latte.send_cost) == ("marketing", 1.2, 0.002)
    assert (latte.model, latte.at_least, latte.baseline, latte.prior) == ("redeem", 0.25, "buys_anyway", None)
    assert latte.tags == {"drinks", "NO", "010"}
    assert latte.starts == datetime(2026, 6, 30, 23, tzinfo=UTC)  # the day begins in Dublin's summer time
    assert latte.ends == datetime(2026, 7, 31, 23, tzinfo=UTC)  # and the last one counts whole
    assert latte.push is not None
    assert list(latte.push.title) == ["en", "pt-BR"]
    assert latte.push.time_to_live == timedelta(minutes=30)
    assert latte.push.deeplink is not None
    assert latte.push.image is not None
    assert (cookie.purpose, cookie.prior, cookie.model) == ("partners", 0.04, None)
    assert cookie.push is not None
    assert cookie.push.title[""]({}) == "NO"
    assert cookie.push.body[""]({}) == "22:30"
    assert ready.value is None


def test_rules_are_kept_as_they_were_said(built: RuleSet) -> None:
    triggers = {
        name: (one.when.kind.value, one.when.name or one.when.fences) for name, one in built.rules.items()
    }
    assert triggers == {
        "bare": ("event", "Order Placed"),
        "event": ("event", "Order Placed"),
        "event-if": ("event", "Order Placed"),
        "page": ("page", "Car Review"),
        "screen": ("screen", "Home"),
        "enter-tag": ("enter", {"cafe-quay"}),
        "enter-fence": ("enter", {"D1"}),
        "exit-tag": ("exit", {"304"}),
        "exit-fence": ("exit", {"market"}),
        "stay": ("dwell", {"cafe-quay"}),
        "ahead": ("approach", {"market"}),
        "on-the-way": ("arriving", "collection"),
        "there": ("arrived", "collection"),
        "everything": ("enter", {"cafe-quay"}),
    }
    with_condition = {name for name, one in built.rules.items() if one.when.condition is not None}
    assert with_condition == {"event-if", "page", "enter-fence", "ahead", "there"}
    one = built.rules["everything"]
    assert one.condition is not None
    assert one.offers == ("latte", "cookie")
    assert one.during is not None
    assert (one.during.start, one.during.end, one.during.days) == (clock(7), clock(11, 30), {"mon", "tue"})
    assert [(cap.times, cap.per.text) for cap in one.caps] == [(1, "7d"), (2, "month")]
    assert (one.fresh, one.priority, one.lever) == (timedelta(seconds=90), 10.0, -0.1)
    assert one.tags == {"morning"}
    assert one.starts == datetime(2026, 11, 1, 7, tzinfo=UTC)
    assert one.ends == datetime(2027, 3, 1, tzinfo=UTC)
    assert built.rules["enter-tag"].fresh == timedelta(minutes=10)
    assert built.rules["ahead"].fresh == timedelta(seconds=90)
    assert built.rules["on-the-way"].fresh == timedelta(minutes=3)
    assert built.rules["there"].fresh == timedelta(minutes=10)
    assert built.rules["bare"].fresh is None


# What may not run long, or reach further than it should: refused when the rules load.


def problems_of_condition(condition: str) -> tuple[Problem, ...]:
    """Of a workspace whose only rule has this condition, between double quotes on its seventh line."""
    text = (
        "offers:\n  thanks: {purpose: marketing, message: {push: {title: Thanks, body: Bye}}}\n"
        f"rules:\n  again:\n    when: Visit\n    offer: thanks\n    if: {json.dumps(condition)}\n"
    )
    return load({"rules.yaml": text.encode()}).problems


REPEATS = "in the pattern at 1: repeats inside repeats are not allowed"
DUNDER = "names that start with two underscores are not allowed"


@pytest.mark.parametrize(
    ("condition", "message", "column"),
    [
        ("(" * 200 + "true" + ")" * 200, "nested deeper than 50 levels", 60),
        ("!" * 3_000 + "true", "nested deeper than 50 levels", 10),
        ("[" * 3_900, "nested deeper than 50 levels", 60),
        ("-" * 3_999, "nested deeper than 50 levels", 10),
        ("true" + " && true" * 500, "longer than 4,000 characters", 4_010),
        ("true" + "&&true" * 500, "more than 500 parts: split the condition", 10),
        ("x" * 500_000, "longer than 4,000 characters", 4_010),
        ("1" * 3_990 + " > 1", "this number is too large", 10),
        ("event.properties.a.matches('(a+)+$')", REPEATS, 37),
        ("event.properties.a.matches('(a*)*b')", REPEATS, 37),
        ("event.properties.__class__ == 1", f"{DUNDER}: `__class__`", 27),
        ("[1].exists(__x, __x > 0)", f"{DUNDER}: `__x`", 21),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_expression_that_would_run_long_or_far(condition: str, message: str, column: int) -> None:
    started = time.perf_counter()
    found = problems_of_condition(condition)
    assert time.perf_counter() - started < 1.0
    assert [(p.line, p.column, p.message) for p in found] == [(7, column, message)]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_001,
        "{{" * 4_000,
        "{% if true %}" * 600,
        "{% if true %}" * 300 + "{% endif %}" * 300,
        "{% for a in (1..1000000000) %}" * 300,
        "{{ profile.first_name" + " | upcase" * 900 + " | nothing }}",
    ],
    ids=["long", "braces", "ifs", "deep", "loops", "filters"],
)
def test_a_message_that_would_run_long(text: str) -> None:
    message = {"push": {"title": "Thanks", "body": text}}
    rules = {"offers": {"thanks": {"purpose": "marketing", "message": message}}}
    started = time.perf_counter()
    found = load({"rules.yaml": json.dumps(rules).encode()})
    assert time.perf_counter() - started < 1.0
    assert found.problems
    assert all((p.file, p.line) == ("rules.yaml", 1) for p in found.problems)


# Where in the file a character of a text stands.

LETTERS = st.text(st.sampled_from("ab=.()'\"\\{}[]:#&*!|>%@`é日😀 \n\t"), max_size=60)


@settings(deadline=None)
@given(
    before=LETTERS,
    after=LETTERS,
    style=st.sampled_from([None, "'", '"', "|", ">"]),
    width=st.integers(10, 80),
    escaped=st.booleans(),
)
def test_a_character_is_found_through_quotes_escapes_and_folds(
    before: str, after: str, style: str | None, width: int, escaped: bool
) -> None:
    """Whatever YAML wraps around an expression, its faults are shown at the very character."""
    text = f"{before}Ω{after}"
    dumped = yaml.safe_dump([text], default_style=style, width=width, allow_unicode=not escaped)
    problems: list[Problem] = []
    root = read("f.yaml", dumped.encode(), problems)
    assume(not problems)  # an escape of a character that no file may hold
    assert isinstance(root, ListNode)
    [node] = root.items
    assert isinstance(node, Scalar)
    assert node.text == text
    line, column = place_in(node, len(before))
    assert dumped.split("\n")[line - 1][column - 1 :].startswith(("Ω", "\\u03A9"))


# The text form.


@pytest.mark.parametrize(
    ("line", "column", "shown"),
    [
        ("    ofer: latte", 5, "        ofer: latte\n        ^"),
        ("Zoë: nope", 6, "    Zoë: nope\n         ^"),
        ("\ta:\tnope", 5, "     a: nope\n        ^"),
        ("a: nope", 8, "    a: nope\n           ^"),
        ("日本: nope", 5, "    日本: nope\n          ^"),
        ("☕😀: nope", 5, "    ☕😀: nope\n          ^"),
        ("e\u0301: nope", 5, "    e\u0301: nope\n       ^"),
        ("a\x07\x1b[31m: nope", 9, "    a  [31m: nope\n            ^"),
    ],
)
def test_the_caret_stands_below_what_is_wrong(line: str, column: int, shown: str) -> None:
    """As it looks in a terminal, where some characters are two columns wide, and some none."""
    text = render(Problem("f.yaml", 1, column, "wrong"), [line])
    assert text == f"f.yaml:1:{column}: wrong\n{shown}"


def test_a_long_line_is_cut_around_what_is_wrong() -> None:
    line = "a" * 5_000 + "!" + "b" * 5_000
    _, shown, caret = render(Problem("f.yaml", 1, 5_001, "wrong"), [line]).split("\n")
    assert len(shown) < 200
    assert shown[caret.index("^")] == "!"


def test_a_problem_of_a_binary_file_is_shown_without_its_bytes() -> None:
    content = (DATA / "models" / "linear.onnx").read_bytes()
    problem = Problem("models/linear.onnx", 1, 1, "takes 2 inputs, its card lists 1")
    text = render_all([problem], {"models/linear.onnx": content})
    assert text == "models/linear.onnx:1:1: takes 2 inputs, its card lists 1\n1 error"


def test_problems_are_in_order_of_file_and_place_each_once() -> None:
    found = load({"z.yaml": b"a: 1\nb: 2\n", "b.yaml": b"c: 1\n", "a/c.yaml": b"d: 1\n"}).problems
    places = [(p.file, p.line, p.column) for p in found]
    assert places == [("a/c.yaml", 1, 1), ("b.yaml", 1, 1), ("z.yaml", 1, 1), ("z.yaml", 2, 1)]
