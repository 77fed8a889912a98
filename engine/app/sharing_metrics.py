"""What operators watch of receivers. Labels name receivers, never people."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TOLD = Counter(
    "viewfinder_changes",
    "Messages to receivers, by topic and how this turn ended",
    ["receiver", "topic", "outcome"],
)
DIED = Counter("viewfinder_changes_dead", "Messages that a receiver did not take in time", ["receiver"])
WAITING = Gauge(
    "viewfinder_receiver_waiting",
    "People of whom a receiver is still to be told",
    ["receiver"],
    multiprocess_mode="livemax",
)
DEAD = Gauge(
    "viewfinder_receiver_dead_letters",
    "Messages that wait for an operator",
    ["receiver"],
    multiprocess_mode="livemax",
)
IN_FLIGHT = Gauge(
    "viewfinder_changes_in_flight",
    "People of whom a receiver is being told",
    ["receiver"],
    multiprocess_mode="livesum",
)
STOPPED = Gauge(
    "viewfinder_receiver_stopped",
    "1 while nothing goes out to the receiver",
    ["receiver"],
    multiprocess_mode="livemax",
)
SECONDS = Histogram(
    "viewfinder_change_seconds",
    "Time from telling a receiver to its answer",
    ["receiver"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
