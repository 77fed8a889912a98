"""`viewfinder schema`: JSON Schemas of the files that people write, so that editors complete and explain."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

from engine.app.cli.environment import fail

NAMES = ("workspace.json", "rules.json", "tests.json", "model.json")


def schema(folder: Path, /) -> int:
    """Write the schemas of workspace.yaml, rule files, scenario tests and model cards into a folder.

    The first line of a file then names its schema, as a path from that file:
    `# yaml-language-server: $schema=.schema/rules.json`
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in documents().items():
            (folder / name).write_bytes(content)
            sys.stdout.write(f"wrote {folder / name}\n")
    except OSError as fault:
        fail(f"{fault.filename or folder}: {fault.strerror}", 1)
    return 0


def documents() -> dict[str, bytes]:
    """The schemas by file name, as they are kept beside the loader."""
    kept = resources.files("engine.formats") / "schemas" / "files"
    return {name: (kept / name).read_bytes() for name in NAMES}
