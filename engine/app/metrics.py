"""What operators watch: Prometheus metrics. Labels never hold ids, places or anything personal."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter, Gauge, Histogram

from engine.domain.offers.decisions import Decision, is_worth_telling

EVENTS = Counter("viewfinder_events", "Events by verdict", ["verdict"])
ACCEPTED, DUPLICATES, REJECTED = (EVENTS.labels(v) for v in ("accepted", "duplicate", "rejected"))
DECISIONS = Counter("viewfinder_decisions", "Decisions by outcome", ["outcome", "reason"])
CONDITION_FALSE = Counter(
    "viewfinder_rules_condition_false", "Decisions in which no candidate met its condition", ["rule"]
)
TICK_SECONDS = Histogram(
    "viewfinder_tick_seconds",
    "Time of a tick by phase",
    ["phase"],
    buckets=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 2.0),
)
LOAD_SECONDS, DECIDE_SECONDS, COMMIT_SECONDS = (
    TICK_SECONDS.labels(phase) for phase in ("load", "decide", "commit")
)
TICK_EVENTS = Histogram(
    "viewfinder_tick_events", "Events in a tick", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
MODEL_FAILED = Counter("viewfinder_model_failed", "Scores that a model could not give", ["model"])
LOST = Counter("viewfinder_commits_lost", "Events decided again because another engine was faster")
CONFLICTS = Counter("viewfinder_commit_conflicts", "Ticks decided again after a deadlock or conflict")
STARVED = Counter("viewfinder_ticks_exclusive", "Ticks decided under a lock after losing repeatedly")
WEATHER = Counter("viewfinder_weather_requests", "Requests for readings, by what came of them", ["outcome"])
RELOADS = Counter(
    "viewfinder_rules_reloads", "Attempts to exchange the rules, by what came of them", ["outcome"]
)


BACKFILL_SHARE = Gauge(
    "viewfinder_backfill_share", "How much of all profiles has been brought to what is declared now"
)
BACKFILLED = Counter("viewfinder_backfilled", "Profiles that were brought to what is declared now")


def count(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        DECISIONS.labels(decision.outcome.value, decision.reason.value if decision.reason else "").inc()
        if not is_worth_telling(decision):
            CONDITION_FALSE.labels(decision.rule or "").inc()
