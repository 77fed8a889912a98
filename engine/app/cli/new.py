"""`viewfinder new`: a recipe's files, with tests, to start from."""

from __future__ import annotations

import shlex
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from engine.app.cli.environment import fail, read_settings

Recipe = Literal["abandoned-cart", "win-back", "welcome", "store-visit", "order-pickup"]
SETTINGS = "workspace.yaml"


def new(recipe: Recipe, folder: Path | None = None, /) -> int:
    """Write a recipe's rules and tests into a workspace; with a workspace.yaml where there is none.

    Parameters
    ----------
    recipe
        Which one.
    folder
        The rules' folder; VIEWFINDER_RULES where not given.
    """
    root = folder if folder is not None else Path(read_settings().rules)
    written = files(recipe)
    if (root / SETTINGS).exists():
        del written[SETTINGS]
    taken = sorted((name for name in written if (root / name).exists()), key=lambda name: name.count("/"))
    if taken:
        fail(f"{root / taken[0]} is there already: nothing was written", 1)
    try:
        for name, content in written.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    except OSError as fault:
        fail(f"{fault.filename or root}: {fault.strerror}", 1)
    for name in written:
        sys.stdout.write(f"wrote {root / name}\n")
    where = shlex.quote(str(root))
    sys.stdout.write(f"next: viewfinder check {where} && viewfinder test {where}\n")
    return 0


def files(recipe: str) -> dict[str, bytes]:
    """What a recipe writes into an empty folder, by path in it."""
    recipes = resources.files("engine.app") / "recipes"
    return {SETTINGS: (recipes / SETTINGS).read_bytes(), **_below(recipes / recipe, "")}


def _below(folder: Traversable, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            found |= _below(entry, f"{prefix}{entry.name}/")
        else:
            found[prefix + entry.name] = entry.read_bytes()
    return found
