"""Rules with a schedule: each member of the audience has a timer of their own for the next time, by
their own clock and spread over some hours.

Nobody is looked for when the hour comes: who enters the audience sets the timer, who leaves takes it
back, and whoever's clock or whose rules have changed sets it anew. So a schedule fires once for each
person, whatever engines there are, and a crash loses none. A timer that turns out to be void, after a
merge say, sets the one that is wanted. People who were there before the rule are reached by a sweep
(`engine.app.sweeps`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec.structs import replace

from engine.domain.observation import Observation, Trigger
from engine.domain.offers import caps
from engine.domain.offers.assignment import place
from engine.domain.offers.cron import next_after
from engine.domain.offers.rules import Rule, RuleSet, TriggerKind
from engine.domain.people.memory import microseconds, moment
from engine.domain.people.profiles import Profile
from engine.domain.people.timers import PREFIX, Alarms, Timer, is_internal, timer

SCHEDULE: Final = f"{PREFIX}schedule"
"""The name of the event of a schedule's time for one person."""
_LAST: Final = "last"


def concerned(rules: RuleSet, seen: Observation) -> bool:
    """Whether `followed` has anything to look at."""
    return bool(rules.scheduled) or seen.event.name == SCHEDULE


def followed(rules: RuleSet, seen: Observation, now: datetime) -> Observation:
    """The observation with everybody's timers as the schedules want them, and with what a schedule
    whose time has come sets off."""
    rang = seen.event.properties["rule"] if seen.event.name == SCHEDULE and is_internal(seen.event) else None
    fired = _fired(rules, seen, rang) if rang is not None else None
    profile, alarms, triggers = seen.profile, seen.alarms, seen.triggers
    if rang is not None and rang in profile.waiting and all(rule.id != rang for rule in rules.scheduled):
        profile = _let_go(profile, rang)  # so that it is armed again when the rule comes back
    if fired is not None and fired[0].when.name in profile.audiences.since:
        rule, occurrence = fired
        triggers += (Trigger(TriggerKind.SCHEDULE, rule.id, moment(occurrence) + _offset(rule, profile)),)
    for rule in rules.scheduled:
        just_now = fired[1] if fired is not None and fired[0] is rule else None
        is_void = rule.id == rang and just_now is None
        profile, changed = _armed(rules, rule, profile, now, just_now, is_void=is_void)
        alarms += changed
    return replace(seen, profile=profile, alarms=alarms, triggers=triggers)


def _fired(rules: RuleSet, seen: Observation, rang: str) -> tuple[Rule, int] | None:
    """The rule whose time has come, and the time that its schedule named; None for a timer that is void,
    because the person has left, or their clock or the rule has changed."""
    rule, occurrence = rules.rules.get(rang), seen.event.properties["occurrence"]
    if rule is None or rule.when.schedule is None:
        return None
    armed = seen.profile.waiting.get(rule.id, {}).get(_signature(rules, rule, seen.profile))
    return (rule, occurrence) if armed == (occurrence, True) else None


def _armed(
    rules: RuleSet, rule: Rule, profile: Profile, now: datetime, fired: int | None, *, is_void: bool
) -> tuple[Profile, Alarms]:
    schedule = rule.when.schedule
    assert schedule is not None
    known, signature = profile.waiting.get(rule.id, {}), _signature(rules, rule, profile)
    if rule.when.name not in profile.audiences.since:
        if not known:
            return profile, Alarms()
        return _let_go(profile, rule.id), Alarms((), (_timer_id(rule),))
    if signature in known and fired is None:
        if not is_void:
            return profile, Alarms()
        return profile, Alarms((_alarm(rule, known[signature][0], _offset(rule, profile)),))
    offset = _offset(rule, profile)
    zone = caps.zone(profile.zone, rules.workspace.timezone)
    last = known.get(_LAST, (0, False))[0]
    if fired is not None:
        last = _wall(moment(fired).astimezone(zone))
    after = now - offset if known else now  # whoever is in it already, and whose turn is yet to come
    if fired is not None:
        after = max(after, moment(fired))
    occurrence = next_after(schedule.cron, after.astimezone(zone))
    while occurrence is not None and _wall(occurrence.astimezone(zone)) == last:
        occurrence = next_after(schedule.cron, occurrence.astimezone(zone))  # a traveller had it already
    if occurrence is None:
        return profile, Alarms()
    at = microseconds(occurrence)
    values = {signature: (at, True), _LAST: (last, False)}
    return replace(profile, waiting={**profile.waiting, rule.id: values}), Alarms((_alarm(rule, at, offset),))


def _alarm(rule: Rule, occurrence: int, offset: timedelta) -> Timer:
    told = {"rule": rule.id, "occurrence": occurrence}
    return timer(_timer_id(rule), moment(occurrence) + offset, SCHEDULE, told, paced=True)


def _timer_id(rule: Rule) -> str:
    return f"{SCHEDULE}:{rule.id}"


def _let_go(profile: Profile, rule: str) -> Profile:
    return replace(profile, waiting={word: v for word, v in profile.waiting.items() if word != rule})


def _signature(rules: RuleSet, rule: Rule, profile: Profile) -> str:
    """What a timer was set by: another schedule, or another clock, sets another."""
    schedule = rule.when.schedule
    assert schedule is not None
    zone = profile.zone or rules.workspace.timezone
    return f"{schedule.cron.text} {schedule.over.total_seconds():g} {rule.when.name} {zone}"


def _offset(rule: Rule, profile: Profile) -> timedelta:
    schedule = rule.when.schedule
    assert schedule is not None
    return schedule.over * place(profile.cohort_key, f"hour:{rule.id}")


def _wall(local: datetime) -> int:
    """What the clock on the wall shows, as a number."""
    return microseconds(local.replace(tzinfo=UTC))
