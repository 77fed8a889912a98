"""New rules over what people did: two rulings from the same moment on, side by side.

A group of people at a time, their log is followed from its beginning up to `since` as it was decided;
from there each side goes on under its own rules, with the caps that it used up itself. What the active
rules decided in the period stands on record: it is decided again for a sample of people, or for all,
to show that the record can be made again; and where other rules were active meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from engine.app import sweeps
from engine.app.backtest_order import Brought, Incomplete, in_order
from engine.app.backtest_tally import Count
from engine.app.rehearsal import Told
from engine.app.replay import Recorded, Replay
from engine.app.ruling import Ruling
from engine.domain.offers.decisions import Decision, Outcome
from engine.domain.people.events import Sender

ENGINE = Sender.ENGINE
UNKNOWN_RULES = "the rules that decided about them are kept no more"
STRAYED = "their log could not be followed: something else has changed what is known of them"
VERIFIED_ONE_IN = 50
"""Of people or households, how many of whom the record is made again where nobody asked for it."""
_read_decision = msgspec.json.Decoder(Decision).decode


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tried.

    `ruling_of` gives the ruling of a recorded revision, None where it is not kept. The period goes from
    `since` to `until`; what was suppressed in it is on record since `suppressed_since`. `is_recorded`: the
    active side is what engines decided by, so that its decisions may be on record; `verifies_all`: all of
    them are made again."""

    active: Ruling
    tried: Ruling
    ruling_of: Callable[[str], Ruling | None]
    since: datetime
    until: datetime
    suppressed_since: datetime
    secret: bytes
    merges: Mapping[str, Sequence[Brought]] = {}
    is_recorded: bool = True
    verifies_all: bool = False

    @property
    def is_same(self) -> bool:
        """Whether both sides decide by the same rules."""
        return self.active.rules.revision == self.tried.rules.revision


class Backtest:
    """Feed it group after group with `play`; `count` is what it comes to."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.count = Count()
        self._past = Replay(trial.active, trial.secret)
        self._sides = Replay(trial.active, trial.secret), Replay(trial.tried, trial.secret)
        sweep = sweeps.name_of(trial.tried.rules)
        self._sweeps = sweep is not None and sweep != sweeps.name_of(trial.active.rules)

    def play(self, rows: Sequence[Recorded], documents: Sequence[str]) -> None:
        """The log of a group of people, and their decisions (JSON) since the period began."""
        count, trial = self.count, self.trial
        period = sum(row.facts.now >= trial.since for row in rows)
        if not period and not self._sweeps:
            return  # nothing is decided about them on either side
        people = len({row.profile_id for row in rows})
        try:
            if any(trial.ruling_of(revision) is None for revision in {row.facts.revision for row in rows}):
                raise Incomplete(UNKNOWN_RULES)
            log = in_order(rows, trial.merges)
            decided, made = self._play(log, documents)
        except Incomplete as fault:
            count.left_out[str(fault)] += people
            return
        count.people += people
        count.events += period
        count.before += len(log) - period
        if any(row.facts.forgotten for row in rows):
            count.positionless += people
        latest = max(row.facts.now for row in rows)
        count.until = latest if count.until is None else max(count.until, latest)
        on_record: list[Decision] = []
        if decided is None or made is None:
            on_record = [_read_decision(document) for document in documents]
        sides = ((count.active, trial.active, decided), (count.tried, trial.tried, made))
        before, after = (
            tally.count(on_record if side is None else side, ruling.rules, recorded=side is None)
            for tally, ruling, side in sides
        )
        count.compare(before, after)

    def _play(
        self, log: Sequence[Recorded], documents: Sequence[str]
    ) -> tuple[list[Decision] | None, list[Decision] | None]:
        """What both sides decided; None for what stands on record.

        Raises:
            Incomplete: the log cannot be followed.
        """
        trial, past = self.trial, self._past
        past.begin(log)
        begun = next((i for i, row in enumerate(log) if row.facts.now >= trial.since), len(log))
        for row in log[:begun]:
            self._follow(row)
        period = log[begun:]
        revision = trial.active.rules.revision
        is_plain = trial.is_recorded and all(row.facts.revision == revision for row in period)
        is_known = is_plain and trial.since >= trial.suppressed_since
        verifies = trial.is_recorded and not any(row.facts.forgotten for row in log) and self._is_chosen(log)

        follows = verifies or (is_plain and not is_known)
        active, tried = self._sides
        if not trial.is_same:
            tried.begin(log, past.rehearsal if is_known and not follows else past.rehearsal.fork())
            if self._sweeps:
                tried.sweep(trial.since)
        if not is_plain:
            active.begin(log, past.rehearsal.fork() if follows else past.rehearsal)
        told = {(row.profile_id, row.event.message_id) for row in period if row.event.sender is ENGINE}

        def will_come(profile_id: str, message_id: str) -> bool:
            return (profile_id, message_id) in told

        standing = _by_message(documents) if is_known and not follows else {}
        again: list[Decision] = []
        before: list[Decision] = []
        after: list[Decision] = []
        for row in period:
            then: Iterable[Decision] = ()
            if follows:
                then = self._follow(row)
                again += then
            if not is_plain:
                then = _decisions(active.take(row, will_come))
                before += then
            elif standing:
                then = standing.get(row.event.message_id, ())
            if trial.is_same:
                continue
            here = _decisions(tried.take(row, will_come))
            if here:
                after += here
                if then:
                    _stand_in(tried, then, here)
        if not is_plain:
            before += _decisions(active.pass_time(trial.until, will_come))
        if not trial.is_same:
            after += _decisions(tried.pass_time(trial.until, will_come))
        if verifies:
            self._verify(again, documents)
        decided = before if not is_plain else again if follows else None
        return decided, (decided if trial.is_same else after)

    def _follow(self, row: Recorded) -> Sequence[Decision]:
        """What was decided on an event, under the rules that did it; makes sure that it fell to whom it
        fell to."""
        ruling = self.trial.ruling_of(row.facts.revision)
        assert ruling is not None
        told = self._past.follow(row, ruling)
        if told.seen is None or (told.seen.profile.id, told.seen.profile.seq) != (row.profile_id, row.number):
            raise Incomplete(STRAYED)
        return told.decisions

    def _is_chosen(self, log: Sequence[Recorded]) -> bool:
        trial = self.trial
        if trial.verifies_all or trial.is_same:
            return True
        return int(min(row.profile_id for row in log)[-4:], 16) % VERIFIED_ONE_IN == 0

    def _verify(self, again: Sequence[Decision], documents: Sequence[str]) -> None:
        """Of what was suppressed before `suppressed_since` nothing may be on record any more."""
        count, since = self.count, self.trial.suppressed_since
        kept = [d for d in again if d.outcome is not Outcome.SUPPRESSED or d.decided_at >= since]
        count.excused += len(again) - len(kept)
        by_id: dict[str, str] = {}
        for document in documents:
            decision = _read_decision(document)
            if decision.outcome is not Outcome.SUPPRESSED or decision.decided_at >= since:
                by_id[decision.id] = document
        count.agreement.people += 1
        count.agreement.compare(kept, by_id)


def _by_message(documents: Sequence[str]) -> dict[str, list[Decision]]:
    found: dict[str, list[Decision]] = {}
    for document in documents:
        decision = _read_decision(document)
        found.setdefault(decision.message_id, []).append(decision)
    return found


def _decisions(told: Sequence[Told]) -> list[Decision]:
    return [d for one in told if one.seen is not None for d in one.decisions]


def _stand_in(tried: Replay, then: Iterable[Decision], here: Sequence[Decision]) -> None:
    """Which decisions were made in the place of which, so that what became of those became of these."""
    made = {(d.message_id, d.rule, d.offer): d.id for d in here}
    for decision in then:
        found = made.get((decision.message_id, decision.rule, decision.offer))
        if found is not None:
            tried.stands_for(decision.id, found)
