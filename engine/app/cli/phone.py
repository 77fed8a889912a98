"""`viewfinder phone`: what a phone would really deliver of a track."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from engine.app.cli.check import check_folders, print_problems
from engine.app.cli.environment import errors, fail, read_settings
from engine.app.profile_reading import propensities
from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Location
from engine.domain.people.profiles import Address, Consent, Profile, new_profile
from engine.domain.phones import App, Os, Phone, Report, asking, reports
from engine.formats.gpx import read_gpx
from engine.formats.problems import render_all
from engine.formats.scenario_calls import location_of, reported


def phone(
    track: Path,
    /,
    *,
    os: Annotated[Os, Parameter(help="The phone's system.")] = "ios",
    app: Annotated[App, Parameter(help="Where the app is.")] = "background",
    user: Annotated[str, Parameter(help="Whose phone it is, in what --json prints.")] = "walker",
    seed: Annotated[int, Parameter(help="Of what is left to chance, such as when iOS tells.")] = 0,
    json: Annotated[bool, Parameter(help="Print request bodies of /v1/batch, a line each.")] = False,
) -> int:
    """Turn a track into what such a phone would deliver of it: which fixes, which regions, and when.

    The limits and delays are those that Apple, Google and Segment document. In the background the phone
    watches the regions that the engine tells it to, for somebody new who allowed everything.

    Parameters
    ----------
    track
        A GPX file.
    """
    settings = read_settings()
    checked = check_folders(Path(settings.rules), Path(settings.models))
    if checked.ruling is None:
        print_problems(checked, errors)
        return 1
    try:
        data = track.read_bytes()
    except OSError as fault:
        fail(f"{track}: {fault.strerror}", 1)
    read = read_gpx(data, track.name)
    if read.problems or not read.fixes:
        said = render_all(read.problems, {track.name: data}) if read.problems else f"{track} has no fixes"
        fail(said, 1)
    rules = checked.ruling.rules
    fixes = [location_of(fix) for fix in read.fixes]
    walker = _walker(rules, user, os, fixes[0])
    ruling = checked.ruling
    ask = asking(rules, os, lambda: walker, lambda one, now: propensities(one, ruling, now))
    found = reports(fixes, ask, Phone(os, app), seed)
    if json:
        for body in _bodies(found, user, os):
            sys.stdout.write(msgspec.json.encode(body).decode() + "\n")
        return 0
    console = Console()
    console.print(_table(found))
    waited = sorted((r.sent_at - r.at).total_seconds() for r in found)
    console.print(
        f"{len(found)} events of {len(fixes)} fixes; half of them are sent within "
        f"{waited[len(waited) // 2]:.0f} s, the last after {waited[-1]:.0f} s",
        soft_wrap=True,
    )
    return 0


def _walker(rules: RuleSet, user: str, os: Os, first: Location) -> Profile:
    """Somebody of whom no more is known than that they allow everything."""
    at = first.at or datetime.now(UTC)
    consent = {name: Consent(granted=True, at=at, source="") for name in rules.workspace.purposes}
    devices = {"phone": Address(type=os, token="t", seen_at=at)}
    fresh = new_profile(("user_id", user), b"", at)
    return msgspec.structs.replace(fresh, consent=consent, devices=devices)


def _bodies(found: list[Report], user: str, os: Os) -> list[dict[str, Any]]:
    """As the phone's SDK would post them."""
    device = {"device": {"id": f"{user}-phone", "type": os}}
    bodies = []
    for at, batch in groupby(enumerate(found), key=lambda numbered: numbered[1].sent_at):
        events = []
        for number, report in batch:
            own = reported(report)
            context = {**device, **own.pop("context")}
            who = {"userId": user, "messageId": f"{user}-{number}", "timestamp": report.at}
            events.append({"type": "track", **who, **own, "context": context})
        bodies.append({"batch": events, "sentAt": at})
    return bodies


def _table(found: list[Report]) -> Table:
    grid = Table(title="what the phone delivers", title_justify="left")
    for heading in ("at", "sent after", "what", "geofence", "accuracy"):
        grid.add_column(heading, justify="right" if heading in ("sent after", "accuracy") else "left")
    for report in found:
        kind = "fix" if report.region is None else "entered" if report.entered else "exited"
        waited = (report.sent_at - report.at).total_seconds()
        accuracy = f"{report.location.accuracy:.0f} m"
        grid.add_row(f"{report.at:%H:%M:%S}", f"{waited:.0f} s", kind, report.region or "", accuracy)
    return grid
