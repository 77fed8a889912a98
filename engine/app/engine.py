"""The running engine: its parts, wired once, in the order in which they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from engine.adapters.addresses import allowed
from engine.adapters.fcm import Fcm, read_credentials
from engine.adapters.postgres.changes import Changes
from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.notices import listen
from engine.adapters.postgres.outbox import Outbox, Send
from engine.adapters.postgres.pauses import Pauses
from engine.adapters.postgres.revisions import Revisions
from engine.adapters.postgres.rights import FORGET
from engine.adapters.postgres.store import Store, connect
from engine.adapters.weather import OpenMeteo
from engine.app import import_files, import_folder, jobs
from engine.app.backfill import Backfill
from engine.app.cache import ProfileCache
from engine.app.clock import Clock, ReplayClock, system_clock
from engine.app.ingest import Ingest
from engine.app.keys import Keys
from engine.app.lane import Lane
from engine.app.merges import Merges
from engine.app.permits import why_not
from engine.app.receivers import Receivers
from engine.app.registering import unknown_to
from engine.app.reloading import Reloading, changes, from_database, from_folders
from engine.app.rulesets import Checked, Files
from engine.app.ruling import Ruling
from engine.app.sender import Sender
from engine.app.settings import PUBLISHED, Settings
from engine.app.sharing import Sharing
from engine.app.sweeps import Sweeps
from engine.app.tick import Pipeline
from engine.app.timers import Timers
from engine.app.vacuums import Vacuums
from engine.app.weather import Weather
from engine.domain.offers.pauses import NOTHING_HELD, Held, held, paused
from engine.domain.sharing.readers import why_not as why_not_told

LOOK_SECONDS = 1.0
"""How often an engine looks at what others did, where no notice comes."""
DRAIN_SECONDS = 10.0
"""How long a replay's clock waits for what is being sent."""

log = structlog.get_logger()


class SentAt(msgspec.Struct, frozen=True):
    """As much of a body as the replay clock needs."""

    sentAt: datetime | None = None  # noqa: N815 - the wire's name


_sent_at = msgspec.json.Decoder(SentAt)


class Engine:
    """Everything between the sockets and the database. `start` it, `stop` it."""

    def __init__(self, settings: Settings, dsn: str, checked: Checked) -> None:
        assert checked.ruling is not None
        self.settings = settings
        self.reloading: Reloading
        self.keys = Keys(frozenset(settings.write_keys), frozenset(settings.server_keys))
        self.admin_token = settings.admin_token
        self.draining = False
        self.store: Store
        self.cache: ProfileCache
        self.lane: Lane
        self.ingest: Ingest
        self._dsn = dsn
        self._checked = checked
        self._replay = ReplayClock() if settings.clock == "replay" else None
        self.clock: Clock = self._replay or system_clock
        self._background: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._told: frozenset[str] = frozenset()
        self._missing: frozenset[tuple[str, str]] = frozenset()
        self._reloads: set[asyncio.Task[None]] = set()

    @property
    def ruling(self) -> Ruling:
        """What is decided by now; another one after a reload."""
        return self.reloading.ruling

    async def start(self) -> None:
        settings = self.settings
        self.store = await connect(self._dsn)
        secret = self.secret = await self.store.secret(secrets.token_bytes(32))
        self.revisions = Revisions(self.store.pool)
        self.pauses = Pauses(self.store.pool)
        self.reloading = await self._rules()
        self.reloading.pause(paused(await self.pauses.active()))
        self.timers: Timers
        providers = {}
        if settings.fcm_credentials_file is not None:
            credentials = read_credentials(Path(settings.fcm_credentials_file))
            providers["fcm"] = Fcm(credentials, url=settings.fcm_url)
        else:
            log.warning("no_push_provider", consequence="pushes wait until they expire")
        self.sender = Sender(
            outbox=Outbox(self.store.pool),
            providers=providers,
            permits=self._permits,
            now=self.clock,
            on_settled=lambda: self.timers.wake(),
            paused=lambda: self.ruling.rules.paused,
        )
        self.sharing = Sharing(Changes(self.store.pool), self._not_told)
        self._sky = OpenMeteo(settings.weather_url) if settings.weather_url is not None else None
        self.weather = Weather(self._sky) if self._sky is not None else None
        self.cache = ProfileCache(settings.cache_mb * 1024 * 1024)
        pipeline = Pipeline(
            store=self.store,
            cache=self.cache,
            ruling=lambda: self.ruling,
            clock=self.clock,
            secret=secret,
            providers=frozenset(providers),
            take_sends=self.sender.take,
            weather=self.weather,
            merged=lambda: self.merges.wake(),
            fed=lambda: self.timers.wake(),
            sharing=lambda: self.receivers.told(self.ruling.rules),
            shared=self.sharing.wake,
        )
        self.lane = Lane(pipeline)
        self.merges = Merges(self.store, self.cache.evict)
        self.vacuums = Vacuums(self.store)
        self.timers = Timers(self.store, self.lane, self.clock, self._held)
        self.backfill = Backfill(self.store, self.lane, lambda: self.ruling, self.clock)
        self.ingest = Ingest(
            lane=self.lane,
            ruling=lambda: self.ruling,
            clock=self.clock,
            keys=self.keys,
            store=self.store,
            before=self._follow if self._replay is not None else None,
        )
        await self.sender.start()
        own = frozenset(providers)

        def know(receivers: frozenset[str]) -> None:
            pipeline.providers = own | receivers

        self.receivers = Receivers(
            self.store.pool,
            self.sender,
            self.sharing,
            allowed(settings.receivers_allow),
            self.clock,
            know,
        )
        await self.receivers.look()
        self._lane_task = asyncio.create_task(self.lane.run(), name="lane")
        ringing = self.timers.run() if self._replay is None else self.timers.run_replay()
        self._timers_task = asyncio.create_task(ringing, name="timers")
        self._scheduler = None
        if self._replay is None:  # a replay's time is no measure of what is past its retention
            self._scheduler = jobs.schedule(self.store, lambda: self.ruling.rules.workspace.retention)
        self._background = [
            asyncio.create_task(listen(self._dsn, self._heard), name="notices"),
            asyncio.create_task(self.merges.run(), name="merges"),
            asyncio.create_task(self.vacuums.run(), name="vacuums"),
            asyncio.create_task(self.backfill.run(), name="backfill"),
            asyncio.create_task(self._follow_others(), name="operations"),
            asyncio.create_task(import_folder.watch(self, Path(settings.data) / import_files.FOLDER)),
        ]
        if self._replay is None:  # a replay begins with nobody
            sweeps = Sweeps(self.store, lambda: self.ruling.rules, self.clock)
            self._background.append(asyncio.create_task(sweeps.run(), name="sweeps"))
        if self.weather is not None:
            self._background.append(asyncio.create_task(self.weather.run(), name="weather"))
        if self._follows_folders:
            self._background.append(asyncio.create_task(self._watch(), name="watch"))
        # What ticks make is free of cycles: it goes by itself, and is not worth looking through.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)

    async def stop(self) -> None:
        """Takes nothing new, finishes what is under way, hands back what it leased."""
        self.draining = True
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
        background = [self._timers_task, *self._background, *self._reloads]
        for task in background:
            task.cancel()
        self.reloading.close()
        await asyncio.gather(*background, return_exceptions=True)
        self.lane.close()
        await self._lane_task
        await asyncio.gather(self.sender.stop(), self.sharing.stop())
        if self._sky is not None:
            await self._sky.close()
        await self.store.close()

    async def not_ready(self) -> str | None:
        """Why no events can be taken now; None where they can."""
        if self.draining:
            return "stopping"
        try:
            async with asyncio.timeout(2.0), self.store.session() as session:
                await session.owners([])
        except (StoreError, TimeoutError):
            return "the database is away"
        return None

    # the rules, and what others do to them

    @property
    def _follows_folders(self) -> bool:
        return self.settings.rules != PUBLISHED

    async def _rules(self) -> Reloading:
        silence = timedelta(minutes=self.settings.silence_minutes)
        if not self._follows_folders:
            return Reloading(self._checked, from_database(self.revisions), self._keep, silence)
        await self._keep(self._checked.files)
        rules, models = Path(self.settings.rules), Path(self.settings.models)
        return Reloading(self._checked, from_folders(rules, models), self._keep, silence)

    async def _keep(self, files: Files) -> None:
        """Stores the files of a revision; those of a folder become what is published."""
        revision = files.revision
        await self.revisions.keep(revision, {"rules": files.rules, "models": files.models})
        if self._follows_folders:
            await self.revisions.publish(revision, "serve")

    async def reload(self) -> None:
        """Looks at the workspace again, here and on all engines that share the database."""
        await self.reloading.reload(anew=True)
        with contextlib.suppress(StoreError):
            await self.revisions.tell("reload")

    def reload_soon(self) -> None:
        """The same, for a signal."""
        self._reloads = {task for task in self._reloads if not task.done()}
        self._reloads.add(asyncio.create_task(self._safely(self.reload()), name="reload"))

    def _heard(self, notice: str) -> None:
        if notice.startswith(FORGET):
            self.cache.evict(notice.removeprefix(FORGET))
            return
        self._told |= {notice}
        self._changed.set()

    async def _watch(self) -> None:
        async for _ in changes(Path(self.settings.rules), Path(self.settings.models)):
            await self._safely(self.reloading.reload())

    async def _follow_others(self) -> None:
        """Looks at what operators and other engines did: when told, and every second anyway."""
        await asyncio.sleep(LOOK_SECONDS)  # those who wait for the engine go first
        self._reloads.add(asyncio.create_task(self._safely(self.reloading.prepare()), name="builder"))
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            told, self._told = self._told, frozenset()
            await self._safely(self.look_at_pauses())
            await self._safely(self.receivers.look())
            await self._safely(self.sharing.count())
            self._warn_of_receivers()
            if "reload" in told or not self._follows_folders:
                await self._safely(self.reloading.reload(anew="reload" in told))

    def _warn_of_receivers(self) -> None:
        """Once for each that rules name and nobody took in."""
        missing = frozenset(unknown_to(self.ruling.rules, self.receivers.all))
        for action, webhook in sorted(missing - self._missing):
            log.warning("receiver_unknown", action=action, receiver=webhook, consequence="its calls wait")
        self._missing = missing

    def _held(self) -> Held:
        rules = self.ruling.rules
        if not rules.paused:
            return NOTHING_HELD
        return held(
            rules.paused,
            {
                rule.id: (*rule.offers, *(arm.offer.id for arm in rule.variants))
                for rule in rules.rules.values()
            },
        )

    async def look_at_pauses(self) -> None:
        """Stops what operators have stopped since, and goes on with what they let go on."""
        if self.reloading.pause(paused(await self.pauses.active())):
            self.sender.wake()

    async def _safely(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as fault:
            # Whatever it is, the next look may find it gone.
            log.exception("operations_wait", fault=type(fault).__name__)

    async def _permits(self, sends: Sequence[Send]) -> dict[str, str | None]:
        """Asked right before sending: consent may be gone since the decision, or the device may
        belong to somebody else by now. Reads the database, because another engine may know."""
        async with self.store.session() as session:
            people = await session.standing(sorted({send.profile_id for send in sends}))
        purposes = self.ruling.rules.workspace.purposes
        return {
            send.id: why_not(send, people.get(send.profile_id), purposes.get(send.purpose)) for send in sends
        }

    async def _not_told(self, receiver: str, ids: Sequence[str]) -> dict[str, str | None]:
        """Asked right before a receiver is told of people: consent may be gone since."""
        one = self.receivers.all.get(receiver)
        purpose = self.ruling.rules.workspace.purposes.get(one.purpose or "") if one is not None else None
        async with self.store.session() as session:
            people = await session.standing(sorted(set(ids)))
        return {profile: why_not_told(people.get(profile), purpose) for profile in ids}

    async def _follow(self, body: bytes) -> None:
        """Moves the replay clock to the body's `sentAt`, and fires what became due on the way."""
        assert self._replay is not None
        try:
            sent_at = _sent_at.decode(body).sentAt
        except msgspec.DecodeError:
            return
        if sent_at is None:
            return
        try:
            at = sent_at.replace(tzinfo=UTC) if sent_at.tzinfo is None else sent_at.astimezone(UTC)
        except OverflowError:  # off the calendar
            return
        if at > self._replay():
            await self.timers.follow(at, self._replay.advance, lambda: self.sender.drain(DRAIN_SECONDS))
