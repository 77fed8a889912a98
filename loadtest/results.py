"""What was measured: single measurements, their medians, and the engine beside the echo."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec


class LoadtestError(Exception):
    """Something could not be measured, or the engine did what it must not. The text says which."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One server, for a few seconds. Counts are of requests: `requested` were sent, `answered` with
    200; `not_ok` with anything else, and `faults` are connections refused, cut or timed out."""

    answered: int
    requested: int
    not_ok: int
    faults: int
    seconds: float
    p50_ms: float
    p99_ms: float


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds of one server. CPU time is per event: of the server's process, and of
    PostgreSQL's on its behalf. Where other programs take from the machine it tells more than
    events per second."""

    events_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_microseconds: float
    postgres_cpu_microseconds: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario. `ratio` is the median of the rounds' own ratios of events per second: the servers
    take turns, so that whatever else the machine does meets both. `rate` is in requests per second,
    None at full speed."""

    name: str
    client: str
    rate: float | None
    engine: Side
    echo: Side
    ratio: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `batch_of_single_echo` is the design's measure for batches: the engine's events
    per second in batches over the echo's requests per second with single events. `other_cores` is
    the CPU time per second that programs took which are no part of the measurement."""

    cores: str
    rounds: int
    seconds: int
    connections: int
    batch_connections: int
    scenarios: tuple[Compared, ...]
    batch_of_single_echo: float
    answered_events: int
    stored_events: int
    missing_events: int
    other_cores: float
    took_seconds: float


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement with what it cost: CPU seconds of the server, of PostgreSQL, and of programs
    that are no part of it."""

    measured: Measured
    events_per_request: int
    server_cpu: float
    postgres_cpu: float
    other_cpu: float

    @property
    def events(self) -> int:
        return self.measured.answered * self.events_per_request

    @property
    def events_per_second(self) -> float:
        return self.events / self.measured.seconds


def side(turns: Sequence[Turn]) -> Side:
    """The medians of one server's turns."""
    return Side(
        events_per_second=median(t.events_per_second for t in turns),
        p50_ms=median(t.measured.p50_ms for t in turns),
        p99_ms=median(t.measured.p99_ms for t in turns),
        cpu_microseconds=median(t.server_cpu / t.events for t in turns) * 1e6,
        postgres_cpu_microseconds=median(t.postgres_cpu / t.events for t in turns) * 1e6,
    )


def compared(
    name: str, client: str, rate: float | None, engine: Sequence[Turn], echo: Sequence[Turn]
) -> Compared:
    """Both sides of a scenario, round by round."""
    ratios = [a.events_per_second / b.events_per_second for a, b in zip(engine, echo, strict=True)]
    return Compared(
        name=name, client=client, rate=rate, engine=side(engine), echo=side(echo), ratio=median(ratios)
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that so many per cent of an ordered list do not exceed (nearest rank)."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
