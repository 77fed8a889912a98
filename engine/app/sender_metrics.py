"""What operators watch of the sender. Labels never hold ids, tokens or anything personal."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

TURNS = Counter(
    "viewfinder_sends", "Sends settled, by how this turn of them ended", ["provider", "outcome", "code"]
)
POSSIBLE_DUPLICATES = Counter(
    "viewfinder_sends_possible_duplicate",
    "Sends tried though an earlier attempt of them may have arrived",
    ["provider"],
)
REFUSED = Counter(
    "viewfinder_settlements_refused", "Settlements under a lease that was no longer ours", ["provider"]
)
ALARMS = Counter(
    "viewfinder_provider_alarms", "Times that a provider refused us as a whole", ["provider", "code"]
)
STOPPED = Gauge(
    "viewfinder_provider_stopped",
    "1 while nothing goes out to the provider",
    ["provider"],
    multiprocess_mode="livemax",
)
QUEUED = Gauge(
    "viewfinder_sends_queued",
    "Sends in memory that wait for their turn",
    ["provider"],
    multiprocess_mode="livesum",
)
IN_FLIGHT = Gauge(
    "viewfinder_sends_in_flight",
    "Sends that a provider has not answered",
    ["provider"],
    multiprocess_mode="livesum",
)
OVERFLOWED = Counter(
    "viewfinder_sends_overflowed",
    "Sends left to the expiry of their lease because the queue was full",
    ["provider"],
)
SEND_SECONDS = Histogram(
    "viewfinder_send_seconds",
    "Time from asking a provider to its answer",
    ["provider"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


def forget(provider: str) -> None:
    """Shows nothing under way to a provider that is none any more."""
    for gauge in (QUEUED, IN_FLIGHT, STOPPED):
        gauge.labels(provider).set(0)
