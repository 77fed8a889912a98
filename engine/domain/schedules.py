"""Rules with a schedule: each member of the audience has a timer of their own for the next time, by
their own clock and spread over some hours.

Nobody is looked for when the hour comes: who enters the audience sets the timer, who leaves takes it
back, and whoever's clock or whose rules have changed sets it anew. So a schedule fires once for each
person, whatever engines there are, and a crash loses none. People who were there before the rule are
reached by a sweep (`engine.app.sweeps`).
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
from engine.domain.people.timers import PREFIX, Alarms, is_internal, timer

SCHEDULE: Final = f"{PREFIX}schedule"
"""The name of the event of a schedule's time for one person."""
_LAST: Final = "last"


def followed(rules: RuleSet, seen: Observation, now: datetime) -> Observation:
    """The observation with everybody's timers as the schedules want them, and with what a schedule
    whose time has come sets off."""
    fired = _fired(rules, seen)
    profile, alarms, triggers = seen.profile, seen.alarms, seen.triggers
    if fired is not None and fired[0].when.name in profile.audiences.since:
        rule, occurrence = fired
        triggers += (Trigger(TriggerKind.SCHEDULE, rule.id, moment(occurrence) + _offset(rule, profile)),)
    for rule in rules.scheduled:
        just_now = fired[1] if fired is not None and fired[0] is rule else None
        profile, changed = _armed(rules, rule, profile, now, just_now)
        alarms += changed
    return replace(seen, profile=profile, alarms=alarms, triggers=triggers)


def _fired(rules: RuleSet, seen: Observation) -> tuple[Rule, int] | None:
    """The rule whose time has come, and the time that its schedule named; None for a timer that is void,
    because the person has left, or their clock or the rule has changed."""
    event = seen.event
    if event.name != SCHEDULE or not is_internal(event):
        return None
    rule, occurrence = rules.rules.get(event.properties["rule"]), event.properties["occurrence"]
    if rule is None or rule.when.schedule is None:
        return None
    armed = seen.profile.waiting.get(rule.id, {}).get(_signature(rules, rule, seen.profile))
    return (rule, occurrence) if armed == (occurrence, True) else None


def _armed(
    rules: RuleSet, rule: Rule, profile: Profile, now: datetime, fired: int | None
) -> tuple[Profile, Alarms]:
    schedule = rule.when.schedule
    assert schedule is not None
    known, signature = profile.waiting.get(rule.id, {}), _signature(rules, rule, profile)
    identifier = f"{SCHEDULE}:{rule.id}"
    if rule.when.name not in profile.audiences.since:
        if not known:
            return profile, Alarms()
        waiting = {word: values for word, values in profile.waiting.items() if word != rule.id}
        return replace(profile, waiting=waiting), Alarms((), (identifier,))
    if signature in known and fired is None:
        return profile, Alarms()
    zone = caps.zone(profile.zone, rules.workspace.timezone)
    offset = _offset(rule, profile)
    last = known.get(_LAST, (0, False))[0]
    if fired is not None:
        last = _wall(moment(fired).astimezone(zone))
    after = max(now - offset, moment(fired)) if fired is not None else now
    occurrence = next_after(schedule.cron, after.astimezone(zone))
    while occurrence is not None and _wall(occurrence.astimezone(zone)) == last:
        occurrence = next_after(schedule.cron, occurrence.astimezone(zone))  # a traveller had it already
    if occurrence is None:
        return profile, Alarms()
    at = microseconds(occurrence)
    values = {signature: (at, True), _LAST: (last, False)}
    told = {"rule": rule.id, "occurrence": at}
    alarm = timer(identifier, occurrence + offset, SCHEDULE, told, paced=True)
    return replace(profile, waiting={**profile.waiting, rule.id: values}), Alarms((alarm,))


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
