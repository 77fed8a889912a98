"""People who were there before a rule: once for each set of audiences and schedules, everybody is looked
at, by paced timers, so that who is in a new audience is in it and who has a new schedule has its timer.

The statement that sets a bucket's timers also takes the bucket off the list, so that several engines
share the work and a crash loses none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b

import msgspec
import structlog

from engine.adapters.postgres.store import Store
from engine.app.clock import Clock
from engine.domain.offers.rules import RuleSet
from engine.domain.people.timers import PREFIX, timer

SWEEP = f"{PREFIX}sweep"
"""The name of the event by which a profile is looked at."""
NOTHING = ""
"""What stands for rules that nobody has to be looked for."""
LOOK_SECONDS = 1.0
BETWEEN_BUCKETS_SECONDS = 0.02

log = structlog.get_logger()


def name_of(rules: RuleSet) -> str | None:
    """What the sweep for these rules is called; None where there is nothing to look for."""
    of_accounts = rules.of_accounts.audience_stamp if rules.of_accounts is not None else b""
    if not (rules.audiences or rules.scheduled or of_accounts):
        return None
    digest = blake2b(rules.audience_stamp + of_accounts, digest_size=8)
    for rule in rules.scheduled:
        schedule = rule.when.schedule
        assert schedule is not None
        digest.update(f"{rule.id}\0{schedule.cron.text}\0{schedule.over}\0{rule.when.name}\n".encode())
    return digest.hexdigest()


class Sweeps:
    """The task that looks whether the rules that are decided by have been swept for."""

    def __init__(self, store: Store, rules: Callable[[], RuleSet], clock: Clock) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._done: str | None = None

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception as fault:
                # Whatever it is, the next look may find it gone.
                log.warning("sweep_waits", fault=type(fault).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def sweep(self) -> None:
        """Sets the timers of every bucket that is left."""
        name = name_of(self._rules()) or NOTHING
        if name == self._done:
            return
        await self._store.fetch("begin_sweep", name)
        now = self._clock()
        one = timer(f"{SWEEP}:{name}", now, SWEEP, {})
        event = msgspec.json.encode(one.event).decode()
        while name != NOTHING and await self._store.fetch("sweep", name, one.id, now, event):
            await asyncio.sleep(BETWEEN_BUCKETS_SECONDS)
        self._done = name
