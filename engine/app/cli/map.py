"""`viewfinder map`: a track on a map, with what it set off."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from engine.app.cli.check import check_folders, models_of, print_problems
from engine.app.cli.environment import errors, fail, read_settings
from engine.app.track_map import page_of, picture_of
from engine.formats.gpx import read_gpx
from engine.formats.problems import render_all


def map(
    track: Path,
    /,
    *,
    out: Annotated[Path, Parameter(help="The page to write.")] = Path("map.html"),
    rules: Annotated[Path | None, Parameter(help="The rules' folder; VIEWFINDER_RULES.")] = None,
    models: Annotated[Path | None, Parameter(help="The models' folder.")] = None,
) -> int:
    """Draw a track with the geofences along it: every fix with its accuracy, and each enter, exit, dwell
    and approach at its place and time, with what was decided on it. The page needs no network.

    Parameters
    ----------
    track
        A GPX file.
    """
    settings = read_settings()
    beside = models_of(rules) if rules is not None else Path(settings.models)
    checked = check_folders(rules or Path(settings.rules), models or beside)
    if checked.ruling is None:
        print_problems(checked, errors)
        return 1
    try:
        data = track.read_bytes()
    except OSError as fault:
        fail(f"{track}: {fault.strerror}", 2)
        raise
    read = read_gpx(data, track.name)
    if read.problems:
        errors.out(render_all(read.problems, {track.name: data}), highlight=False)
    if not read.fixes:
        fail(f"{track}: no fixes to draw", 1)
    picture = picture_of(track.stem, read.fixes, checked.ruling)
    try:
        out.write_text(page_of(picture), "utf-8")
    except OSError as fault:
        fail(f"{out}: {fault.strerror}", 2)
    decided = sum(len(one.decisions) for one in picture.happened)
    sys.stdout.write(
        f"{out}: {len(picture.fixes):,} fixes, {len(picture.fences):,} geofences, "
        f"{len(picture.happened):,} transitions, {decided:,} decisions\n"
    )
    return 0
