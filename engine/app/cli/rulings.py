"""What the engines on a database decide by, and decided by, for commands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import msgspec

from engine.adapters.postgres.revisions import Revisions
from engine.app import rulesets
from engine.app.cli.environment import fail
from engine.app.ruling import Ruling
from engine.app.settings import Settings


class Rulings:
    """The rulings of revisions, built as they are met."""

    def __init__(self, revisions: Revisions, settings: Settings) -> None:
        self._revisions = revisions
        self._settings = settings
        self._known: dict[str, Ruling] = {}
        self.active: Ruling

    async def load(self, *, past: bool = True) -> None:
        """Builds what is active, and what the log names where the `past` is wanted."""
        active = await self._revisions.active()
        if active is None:
            fail("nothing was ever active on this database: no engine has served rules on it", 1)
            raise AssertionError
        await self.learn(dict.fromkeys([active.revision, *(await self._revisions.used() if past else ())]))
        if active.revision not in self._known:
            fail(f"the active revision {active.revision} cannot be built by this version", 1)
        self.active = self._known[active.revision]

    async def learn(self, revisions: Iterable[str]) -> None:
        """Builds those of some revisions that are kept."""
        for revision in revisions:
            if revision in self._known:
                continue
            folders = await self._revisions.folders(revision)
            if folders is None:
                continue
            ruling = rulesets.build(rulesets.Files(folders["rules"], folders["models"])).ruling
            if ruling is not None:
                self._known[revision] = self.set(ruling)

    def of(self, revision: str) -> Ruling | None:
        """None where it is not kept, or cannot be built any more."""
        return self._known.get(revision)

    @property
    def all(self) -> list[Ruling]:
        """Those that could be built."""
        return list(self._known.values())

    def set(self, ruling: Ruling) -> Ruling:
        """As an engine with these settings has it."""
        return Ruling(
            msgspec.structs.replace(ruling.rules, silence=timedelta(minutes=self._settings.silence_minutes)),
            ruling.models,
        )
