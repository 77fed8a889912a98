"""Units to decisions: in rounds, event k of everybody before event k+1, with one model run per model
and round over all of them.

The lane decides with it between load and commit, a rehearsal without a database: there is no other way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import inf

from engine.app.replies import Pending
from engine.app.ruling import Ruling
from engine.app.scoring import scores_of
from engine.app.turn import Turn
from engine.app.unit import Unit
from engine.domain import decide
from engine.domain.decide import Observation, Verdict

NO_SCORES: Mapping[str, float | None] = {}
Watcher = Callable[[Pending, Observation, Verdict], None]
"""Is told of each event that was decided, with what was seen and found."""
_Waiting = tuple[Unit, Pending, Observation, Verdict | None]
"""An event whose fate hangs on a model; without a verdict the model is an audience's."""


def decide_units(
    units: Sequence[Unit], ruling: Ruling, turn: Turn, deadline: float = inf, watcher: Watcher | None = None
) -> None:
    """Decides the units' events until `deadline` (`time.perf_counter`); what is not reached is left
    in its unit."""
    active = list(units)
    while active:
        waiting: list[_Waiting] = []
        begun = False
        for unit in active:
            if (asked := unit.next) is None or (begun and time.perf_counter() > deadline):
                continue
            begun = True
            if (seen := unit.begin(asked, turn)) is None:
                continue
            pending, verdict = asked.pending, None
            if not seen.needed:
                verdict = decide.judge(turn.rules, seen, turn.now, pending.newest, None, pending.slots)
                if not verdict.needed:
                    # Most events end here, while what they touch is still in the processor's cache.
                    unit.finish(pending, seen, verdict, NO_SCORES, turn)
                    if watcher is not None:
                        watcher(pending, seen, verdict)
                    continue
            waiting.append((unit, pending, seen, verdict))
        if waiting:
            _score(waiting, ruling, turn, watcher)
        active = [unit for unit in active if len(unit.events) > 1 and unit.next is not None]
        if time.perf_counter() > deadline:
            return


def _score(waiting: Sequence[_Waiting], ruling: Ruling, turn: Turn, watcher: Watcher | None) -> None:
    """Decides what hangs on models: who is in which audience first, then what is offered."""
    among = scores_of(ruling, [seen for _, _, seen, _ in waiting])
    steps: list[tuple[Unit, Pending, Observation, Verdict]] = []
    for number, (unit, pending, seen, verdict) in enumerate(waiting):
        if verdict is None:
            seen = decide.settle(turn.rules, seen, turn.now, among[number])
            verdict = decide.judge(turn.rules, seen, turn.now, pending.newest, None, pending.slots)
        steps.append((unit, pending, seen, verdict))
    scored = scores_of(ruling, [verdict for _, _, _, verdict in steps])
    for number, (unit, pending, seen, verdict) in enumerate(steps):
        scores = scored.get(number, NO_SCORES)
        if verdict.needed:
            verdict = decide.judge(turn.rules, seen, turn.now, pending.newest, scores, pending.slots)
        if number in among:
            scores = {**among[number], **scores}
        unit.finish(pending, seen, verdict, scores, turn)
        if watcher is not None:
            watcher(pending, seen, verdict)
