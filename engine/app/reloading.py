"""The rules that an engine decides by, exchanged whole while it runs.

Where they come from: a folder that is watched, or (`VIEWFINDER_RULES=db`) what `viewfinder publish`
made active. Either way they are built in another process, and put in place with one assignment: a
tick takes its ruling once. What cannot be built changes nothing but the list of problems.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog
import watchfiles

from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.revisions import Revisions
from engine.app import metrics, rulesets
from engine.app.rule_builder import Builder, BuilderLost
from engine.app.rulesets import Checked, Files
from engine.app.ruling import Ruling
from engine.domain.offers.pauses import NOTHING_PAUSED, Paused
from engine.domain.places.presence import SILENCE
from engine.formats.problems import Problem

QUIET_MILLISECONDS = 100
"""How long nothing may change in the folders before they are read: editors write in several steps."""
GROUPED_MILLISECONDS = 400
LOOK_MILLISECONDS = 5_000
"""How often the folders are read where nothing is heard of them: some file systems tell nothing."""
AGAIN_SECONDS = 1.0

log = structlog.get_logger()

Read = Callable[[Collection[str]], Awaitable["Files | Problem | str"]]
"""The workspace as it should run, or its revision alone where that is among those given; or what is
wrong where it cannot be had."""


class Reloading:
    """The running rules. `reload` whenever there may be others.

    `keep` stores a revision before anything is decided by it, so that what it decides can be replayed.
    `silence` is how long after a fix presence is known.
    """

    def __init__(
        self,
        checked: Checked,
        read: Read,
        keep: Callable[[Files], Awaitable[None]],
        silence: timedelta = SILENCE,
    ) -> None:
        assert checked.ruling is not None
        self._silence = silence
        self._paused = NOTHING_PAUSED
        self.ruling: Ruling = self._as_set(checked.ruling)
        self.loaded_at = datetime.now(UTC)
        self._read = read
        self._keep = keep
        self._files = checked.files
        self._said = checked.problems
        self._refusal: tuple[Problem, ...] = ()
        self._refused: str | None = None
        self._turn = asyncio.Lock()
        self._builder = Builder()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Of the last attempt."""
        return self._refusal or self._said

    async def prepare(self) -> None:
        """Makes ready for the first change."""
        with suppress(BuilderLost):  # the first change has it again
            await self._builder.learn(self._files)

    def close(self) -> None:
        self._builder.close()

    async def reload(self, *, anew: bool = False) -> None:
        """Looks at the workspace once more, and exchanges the rules where they are others and right.
        What was refused before is tried again only if `anew`. Several at once follow each other."""
        async with self._turn:
            running = self.ruling.rules.revision
            refused = None if anew else self._refused
            try:
                found = await self._read((running, refused) if refused else (running,))
                if isinstance(found, Problem):
                    self._refuse((found,), None)
                elif isinstance(found, Files):
                    await self._take(found)
                elif found == running:
                    self._refusal, self._refused = (), None
            except StoreError as fault:
                log.warning("rules_unavailable", fault=type(fault).__name__)

    async def _take(self, files: Files) -> None:
        try:
            checked = await self._builder.build(files, self.ruling)
        except BuilderLost as fault:
            self._refuse((Problem("", 1, 1, f"the rules could not be built: {fault}"),), files.revision)
            return
        if checked.ruling is None:
            self._refuse(checked.problems, files.revision)
            return
        await self._keep(files)
        self.ruling, self._said = self._as_set(checked.ruling), checked.problems
        self._refusal, self._refused = (), None
        self.loaded_at = datetime.now(UTC)
        metrics.RELOADS.labels("taken").inc()
        log.info("rules_loaded", revision=self.ruling.rules.revision)

    def _as_set(self, ruling: Ruling) -> Ruling:
        """With what the engine's settings and its operators say, not the workspace."""
        rules = msgspec.structs.replace(ruling.rules, silence=self._silence, paused=self._paused)
        return Ruling(rules, ruling.models)

    def pause(self, paused: Paused) -> bool:
        """What operators have stopped from now on. False where that is nothing new."""
        if paused == self._paused:
            return False
        self._paused = paused
        self.ruling = self._as_set(self.ruling)
        log.warning("paused", pauses=len(paused.pauses))
        return True

    def _refuse(self, problems: tuple[Problem, ...], revision: str | None) -> None:
        if problems != self._refusal:
            log.error("rules_refused", problems=len(problems), running=self.ruling.rules.revision)
            metrics.RELOADS.labels("refused").inc()
        self._refusal, self._refused = problems, revision


def from_folders(rules: Path, models: Path) -> Read:
    """Reads the two folders."""

    def read(known: Collection[str]) -> Files | str:
        files = rulesets.read(rules, models)
        return revision if (revision := files.revision) in known else files

    async def read_aside(known: Collection[str]) -> Files | Problem | str:
        try:
            return await asyncio.to_thread(read, known)
        except OSError as fault:
            return Problem(str(fault.filename or rules), 1, 1, fault.strerror or type(fault).__name__)

    return read_aside


def from_database(revisions: Revisions) -> Read:
    """Reads what was published last."""

    async def read(known: Collection[str]) -> Files | Problem | str:
        active = await revisions.active()
        if active is None:
            return Problem(
                "", 1, 1, "VIEWFINDER_RULES=db, and nothing is published yet", "viewfinder publish DIR"
            )
        if active.revision in known:
            return active.revision
        folders = await revisions.folders(active.revision)
        if folders is None:
            return Problem("", 1, 1, f"the files of revision {active.revision} are not kept")
        return Files(folders["rules"], folders["models"])

    return read


async def changes(rules: Path, models: Path) -> AsyncIterator[None]:
    """Whenever something may have changed in the folders."""
    while True:
        folders = [folder for folder in (rules, models) if folder.is_dir()]
        try:
            async for _ in watchfiles.awatch(
                *folders,
                step=QUIET_MILLISECONDS,
                debounce=GROUPED_MILLISECONDS,
                rust_timeout=LOOK_MILLISECONDS,
                yield_on_timeout=True,
            ):
                yield
        except (OSError, RuntimeError) as fault:  # a folder is away
            log.warning("rules_unwatched", fault=type(fault).__name__)
        await asyncio.sleep(AGAIN_SECONDS)
        yield
