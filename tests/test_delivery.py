"""What a provider's answer means, without any provider."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.offers.delivery import (
    MAX_ATTEMPTS,
    Delivered,
    Failed,
    FcmAnswer,
    Outcome,
    Retry,
    Stop,
    Verdict,
    backoff,
    dropped,
    fcm_verdict,
    oauth_verdict,
    released,
    settlement,
    unreachable,
)
from tests.sends import NOW, TOKEN, a_send

SEND = a_send()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (FcmAnswer(status=200), Delivered()),
        (
            FcmAnswer(status=404, code="UNREGISTERED"),
            Failed(code="UNREGISTERED", forget_token=True),
        ),
        (
            FcmAnswer(status=400, code="INVALID_ARGUMENT", fields=("message.data[0].value",)),
            Failed(code="INVALID_ARGUMENT"),
        ),
        (
            FcmAnswer(status=400, code="INVALID_ARGUMENT", message="Request contains an invalid argument."),
            Failed(code="INVALID_ARGUMENT"),
        ),
        (
            FcmAnswer(status=400, code="INVALID_ARGUMENT", fields=("message.token",)),
            Failed(code="INVALID_ARGUMENT", forget_token=True),
        ),
        (
            FcmAnswer(
                status=400,
                code="INVALID_ARGUMENT",
                message="The registration token is not a valid FCM registration token",
            ),
            Failed(code="INVALID_ARGUMENT", forget_token=True),
        ),
        (
            FcmAnswer(status=400, code="INVALID_ARGUMENT", apns_reason="Unregistered"),
            Failed(code="INVALID_ARGUMENT", forget_token=True),
        ),
        # Apple's word for a token of the other environment: nothing is wrong with the token.
        (
            FcmAnswer(status=400, code="INVALID_ARGUMENT", apns_reason="BadDeviceToken"),
            Failed(code="INVALID_ARGUMENT"),
        ),
        (FcmAnswer(status=403, code="SENDER_ID_MISMATCH"), Stop(code="SENDER_ID_MISMATCH")),
        (FcmAnswer(status=401, code="THIRD_PARTY_AUTH_ERROR"), Stop(code="THIRD_PARTY_AUTH_ERROR")),
        (FcmAnswer(status=401, code="UNAUTHENTICATED"), Stop(code="UNAUTHENTICATED")),
        # The wrong project, or a proxy's page: no reason to forget anybody's token.
        (FcmAnswer(status=404, code="NOT_FOUND"), Stop(code="NOT_FOUND")),
        (FcmAnswer(status=404), Stop(code="http_404")),
        (
            FcmAnswer(status=429, code="QUOTA_EXCEEDED", retry_after=timedelta(seconds=17)),
            Retry(code="QUOTA_EXCEEDED", after=timedelta(seconds=17)),
        ),
        (
            FcmAnswer(status=429, code="QUOTA_EXCEEDED"),
            Retry(code="QUOTA_EXCEEDED", after=timedelta(seconds=30)),
        ),
        (
            FcmAnswer(status=503, code="UNAVAILABLE", retry_after=timedelta(seconds=90)),
            Retry(code="UNAVAILABLE", after=timedelta(seconds=90), unwell=True),
        ),
        (
            FcmAnswer(status=500, code="INTERNAL"),
            Retry(code="INTERNAL", after=timedelta(seconds=0.5), unwell=True),
        ),
        (FcmAnswer(status=502), Retry(code="http_502", after=timedelta(seconds=0.5), unwell=True)),
        (
            FcmAnswer(status=200, code="not_fcm"),
            Retry(code="not_fcm", after=timedelta(seconds=0.5), unwell=True, ambiguous=True),
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, FcmAnswer) else "",
)
def test_every_answer_of_fcm_has_its_meaning(answer: FcmAnswer, expected: Verdict) -> None:
    assert fcm_verdict(answer, attempts=0, jitter=0.0) == expected


def test_a_refused_token_exchange_stops_the_provider_and_an_unwell_one_is_retried() -> None:
    assert oauth_verdict(400, "invalid_grant", None, 0, 0.0) == Stop(code="oauth_invalid_grant")
    assert oauth_verdict(503, None, timedelta(seconds=4), 0, 0.0) == Retry(
        code="oauth_503", after=timedelta(seconds=4), unwell=True
    )


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_within_half_of_itself_and_has_a_ceiling(attempts: int, jitter: float) -> None:
    expected = min(2.0**attempts, 300.0)
    assert 0.49 * expected <= backoff(attempts, jitter).total_seconds() <= 1.5 * expected


@given(
    st.sampled_from([429, 500, 503]),
    st.integers(-5, 200_000),
    st.integers(0, 7),
    st.floats(0, 1, exclude_max=True),
)
def test_nobody_asks_before_retry_after(status: int, seconds: int, attempts: int, jitter: float) -> None:
    answer = FcmAnswer(status=status, retry_after=timedelta(seconds=seconds))
    verdict = fcm_verdict(answer, attempts, jitter)
    assert isinstance(verdict, Retry)
    assert verdict.after >= timedelta(seconds=max(0, min(seconds, 86_400)))


def test_a_delivered_push_tells_its_profile() -> None:
    settled = settlement(SEND, Delivered(), NOW)
    assert settled.outcome is Outcome.SENT
    assert settled.event is not None
    assert settled.event.name == "Offer Delivered"
    assert settled.event.message_id == f"delivery:{SEND.id}"
    assert settled.event.properties == {
        "decision": SEND.id,
        "offer": "latte",
        "rule": "near",
        "channel": "push",
        "device": "phone-1",
    }


def test_a_forgotten_token_is_named_by_its_digest_only() -> None:
    settled = settlement(SEND, Failed(code="UNREGISTERED", forget_token=True), NOW)
    assert settled.outcome is Outcome.FAILED
    assert settled.event is not None
    assert settled.event.properties["token_forgotten"] is True
    assert settled.event.properties["token_digest"] == sha256(TOKEN.encode()).hexdigest()[:16]
    assert settled.event.properties["reason"] == "UNREGISTERED"
    assert TOKEN not in msgspec.json.encode(settled.event).decode()


def test_a_payload_that_fcm_does_not_take_waits_for_an_operator_with_its_token_kept() -> None:
    settled = settlement(SEND, Failed(code="INVALID_ARGUMENT"), NOW)
    assert settled.outcome is Outcome.DEAD
    assert settled.event is not None
    assert settled.event.name == "Offer Failed"
    assert "token_forgotten" not in settled.event.properties


@pytest.mark.parametrize("verdict", [Retry(code="UNAVAILABLE", after=timedelta(1)), Stop(code="NOT_FOUND")])
def test_the_last_attempt_ends_dead_and_the_one_before_it_does_not(verdict: Verdict) -> None:
    last = msgspec.structs.replace(SEND, attempts=MAX_ATTEMPTS - 1)
    before = msgspec.structs.replace(SEND, attempts=MAX_ATTEMPTS - 2)
    assert settlement(last, verdict, NOW).outcome is Outcome.DEAD
    again = settlement(before, verdict, NOW)
    assert again.outcome is Outcome.RETRIED
    assert again.event is None


def test_what_may_have_arrived_is_marked() -> None:
    lost = settlement(SEND, unreachable("timeout", 0, 0.0, ambiguous=True), NOW)
    assert lost.result == {"code": "timeout", "possible_duplicate": True}
    marked = msgspec.structs.replace(SEND, possible_duplicate=True)
    gone = dropped(marked, "expired", NOW)
    assert gone.event is not None
    assert gone.event.properties["possibly_delivered"] is True


def test_a_released_send_costs_no_attempt_and_tells_nobody() -> None:
    back = released(SEND, timedelta(seconds=3))
    assert (back.outcome, back.event, back.delay) == (Outcome.RELEASED, None, timedelta(seconds=3))


def test_a_revived_send_has_an_outcome_of_its_own() -> None:
    revived = msgspec.structs.replace(SEND, requeues=2)
    event = settlement(revived, Delivered(), NOW).event
    assert event is not None
    assert event.message_id == f"delivery:{SEND.id}:2"


def test_nothing_shows_a_token() -> None:
    values = (SEND, SEND.payload, settlement(SEND, Delivered(), NOW), FcmAnswer(status=400, message=TOKEN))
    for value in values:
        assert TOKEN not in repr(value)
