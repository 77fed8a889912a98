"""What an ingest request is answered with, by what became of its events."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.app import metrics
from engine.app.replies import Interrupted, Overloaded, Reply
from engine.app.responses import Refused, Response
from engine.domain.offers.decisions import full_form, public_form
from engine.formats.segment import Answer, Rejection

_encode = msgspec.json.Encoder().encode

TAKEN = Response(200, _encode(Answer(accepted=1)))
"""The answer to most requests."""


def full() -> Refused:
    return Refused(503, "the engine is full: nothing was taken, send it again", 1)


def away() -> Refused:
    return Refused(503, "the database is away: nothing is confirmed, send it again", 2)


def undecided() -> Refused:
    return Refused(500, "this request could not be decided; it was logged")


def not_taken(rejection: Rejection) -> Response:
    """To a request of one event that is rejected."""
    fault = {"success": False, "code": rejection.code, "message": rejection.message}
    return Response(400, _encode(fault))


def response_of(
    trusted: bool,
    rejected: Sequence[tuple[Rejection, bytes]],
    reply: Reply | None,
    fault: Exception | None,
) -> Response:
    """The answer to a request whose events are durable, None for one that has none, or failed by `fault`."""
    if fault is None and reply is not None and reply.is_plain and not rejected:
        return TAKEN
    if isinstance(fault, Overloaded):
        return full().response
    if isinstance(fault, Interrupted):
        return away().response
    if fault is not None:
        return undecided().response
    accepted, duplicates, decisions = 0, 0, []
    if reply is not None:
        accepted, duplicates, decisions = reply.accepted, reply.duplicates, reply.decisions
    if rejected:
        metrics.REJECTED.inc(len(rejected))
    form = full_form if trusted else public_form
    answer = Answer(
        accepted=accepted,
        duplicates=duplicates,
        rejected=tuple([rejection for rejection, _ in rejected]),
        decisions=[shown for d in decisions if (shown := form(d)) is not None],
    )
    return Response(200, _encode(answer))
