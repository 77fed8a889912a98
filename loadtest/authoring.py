"""What authors wait for: `viewfinder check`, `viewfinder test`, and a saved file in a running engine, in a
workspace of a large business.

`python -m loadtest.authoring` prints the seconds, with `--json` one JSON object. Exit code 1 where one
of them did not end as it should.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from engine.app import rulesets
from engine.app.rule_builder import Builder
from loadtest.results import LoadtestError

FILES: Final = 100
RULES_PER_FILE: Final = 10
FENCES_PER_FILE: Final = 10
SCENARIOS_PER_FILE: Final = 10
REPEATS: Final = 3

_WORKSPACE = """\
timezone: Europe/Dublin
currency: EUR
caps: [{channel: push, times: 20, per: day}]
traits:
  first_name: {type: string}
computed:
  orders: {count: Order Completed}
  lifetime_value: {sum: event.properties.revenue, of: Order Completed}
  tier: {steps: lifetime_value, from: {bronze: 0, silver: 200, gold: 500}}
"""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from a command's start to its end, the fastest of some runs, and those of them that it
    had a processor: on a busy machine they tell more."""

    rules: int
    files: int
    check_seconds: float
    check_cpu_seconds: float
    scenarios: int
    test_seconds: float
    test_cpu_seconds: float
    reload_seconds: float


def write(folder: Path) -> None:
    """A workspace of 1,000 rules in 100 files, with 1,000 scenarios in 100 more."""
    (folder / "tests").mkdir(parents=True)
    (folder / "workspace.yaml").write_text(_WORKSPACE, "utf-8")
    for number in range(FILES):
        (folder / f"shop-{number:03}.yaml").write_text(_shop(number), "utf-8")
        (folder / "tests" / f"shop-{number:03}.yaml").write_text(_tests(number), "utf-8")


def _shop(shop: int) -> str:
    lines = ["geofences:"]
    for n in range(FENCES_PER_FILE):
        at = f"lat: {52.0 + shop / 100:.4f}, lng: {-9.0 + n / 100:.4f}, radius: 60"
        lines.append(
            f"  place-{shop}-{n}: {{circle: {{{at}}}, tags: [shop-{shop}], properties: {{floor: {n % 5}}}}}"
        )
    lines.append("offers:")
    for n in range(RULES_PER_FILE):
        lines += [
            f"  offer-{shop}-{n}:",
            "    purpose: marketing",
            f"    value: 0.3 * profile.lifetime_value + {n + 1}",
            "    cost: 1.20",
            "    propensity: 0.1",
            "    message:",
            "      push:",
            "        title: {en: \"Hello {{ profile.first_name | default: 'you' }}\", fr: Bonjour}",
            f'        body: {{en: "Floor {{{{ geofence.floor }}}} has it", fr: "Offre {n}"}}',
        ]
    lines.append("rules:")
    for n in range(RULES_PER_FILE):
        lines += [
            f"  rule-{shop}-{n}:",
            f"    when: {{enter: {{tag: shop-{shop}}}, if: geofence.floor == {n % 5}}}",
            f'    if: profile.tier in ["gold", "silver"] && profile.orders > {n} && local.hour < 20',
            f"    offer: offer-{shop}-{n}",
            "    cap: {times: 1, per: 7d}",
        ]
    return "\n".join(lines) + "\n"


def _tests(shop: int) -> str:
    lines = ["tests:"]
    for n in range(SCENARIOS_PER_FILE):
        at = f"latitude: {52.0 + shop / 100:.4f}, longitude: {-9.0 + n / 100:.4f}, accuracy: 8"
        fix = f"type: track, event: Location Updated, context: {{location: {{{at}}}}}"
        lines += [
            f"  - name: a gold member at shop {shop}, place {n}",
            "    profile:",
            f"      user_id: u{n}",
            "      computed: {lifetime_value: 620, orders: 30}",
            "      consent: {marketing: granted}",
            "      device: {type: ios}",
            "    now: 2026-01-12T09:00:00Z",
            "    events:",
            "      - {at: +0s, type: screen, name: Home}",
            f"      - {{at: +1m, {fix}}}",
            "      - {at: +9m, type: screen, name: Home}",
            "    until: +2h",
            "    expect:",
            f"      - {{rule: rule-{shop}-{5 + n % 5}, outcome: offered}}",
        ]
    return "\n".join(lines) + "\n"


def measure() -> Report:
    """Times both commands, and what a reload takes from the saved file to the new rule set.

    Raises:
        LoadtestError: one of them did not end as it should.
    """
    with tempfile.TemporaryDirectory(prefix="viewfinder-tools-") as name:
        rules = Path(name) / "rules"
        write(rules)
        checked, checked_cpu = _fastest("check", rules)
        tested, tested_cpu = _fastest("test", rules)
        reloaded = asyncio.run(_reload(rules))
        return Report(
            rules=FILES * RULES_PER_FILE,
            files=FILES,
            check_seconds=checked,
            check_cpu_seconds=checked_cpu,
            scenarios=FILES * SCENARIOS_PER_FILE,
            test_seconds=tested,
            test_cpu_seconds=tested_cpu,
            reload_seconds=reloaded,
        )


def _fastest(command: str, rules: Path) -> tuple[float, float]:
    seconds = []
    for _ in range(REPEATS):
        started, used = time.perf_counter(), _children_cpu()
        ended = subprocess.run(
            [sys.executable, "-m", "engine", command, str(rules)], capture_output=True, text=True, check=False
        )
        seconds.append((time.perf_counter() - started, _children_cpu() - used))
        if ended.returncode != 0:
            raise LoadtestError(f"viewfinder {command}: {(ended.stdout + ended.stderr)[-2000:]}")
    wall, cpu = zip(*seconds, strict=True)
    return round(min(wall), 2), round(min(cpu), 2)


async def _reload(rules: Path) -> float:
    """One of the files is changed, and the set built in the engine's other process."""
    builder, models = Builder(), rules / "none"
    file = rules / "shop-042.yaml"
    text = file.read_text("utf-8")
    before = rulesets.read(rules, models)
    ruling = rulesets.build(before).ruling
    assert ruling is not None
    seconds = []
    try:
        await builder.build(before, ruling)
        for turn in range(REPEATS):
            file.write_text(text.replace("cost: 1.20", f"cost: 1.2{turn + 1}"), "utf-8")
            started = time.perf_counter()
            checked = await builder.build(rulesets.read(rules, models), ruling)
            seconds.append(time.perf_counter() - started)
            assert checked.ruling is not None
            ruling = checked.ruling
    finally:
        builder.close()
    return round(min(seconds), 2)


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def table(report: Report) -> Table:
    shown = Table(title="what authors wait for")
    for column in ("command", "of", "seconds", "CPU seconds"):
        shown.add_column(column)
    for row in (
        (
            "check",
            f"{report.rules:,} rules in {report.files} files",
            report.check_seconds,
            report.check_cpu_seconds,
        ),
        ("test", f"{report.scenarios:,} scenarios", report.test_seconds, report.test_cpu_seconds),
        ("reload", f"1 of {report.files} files", report.reload_seconds),
    ):
        shown.add_row(*row[:2], *(f"{seconds:.2f}" for seconds in row[2:]))
    return shown


def main() -> None:
    try:
        report = measure()
    except LoadtestError as fault:
        Console(stderr=True).print(f"error: {fault}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    if "--json" in sys.argv[1:]:
        print(msgspec.json.encode(report).decode())
    else:
        Console().print(table(report))


if __name__ == "__main__":
    main()
