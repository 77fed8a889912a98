"""What becomes of a push: a provider's answer → deliver, retry, drop, forget, stop.

Pure: jitter is an argument in [0, 1), times are given. `Verdict` says what the provider's answer
means for one send, `Settlement` what that means for its row and for the person's profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

import msgspec

from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.profiles import token_digest

MAX_ATTEMPTS = 8
"""A send that was tried so often and never taken waits for an operator."""
LONGEST_BACKOFF = timedelta(minutes=5)
QUOTA_BACKOFF = timedelta(seconds=60)
"""FCM's advice for a 429 that does not say how long to wait; its quota refills every minute."""
LONGEST_RETRY_AFTER = timedelta(days=1)
PAUSE = timedelta(seconds=60)
"""How long a provider rests that refuses us as a whole; after it, one send tries again."""


class Push(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message to one device, rendered; what the outbox row keeps."""

    device_id: str
    token: str
    title: str
    body: str
    deeplink: str | None = None
    image: str | None = None
    data: Mapping[str, str]
    collapse_key: str
    platform: str | None = None

    def __repr__(self) -> str:
        return f"Push(collapse_key={self.collapse_key!r}, …)"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a webhook: its name in the workspace, and what it is told."""

    webhook: str
    body: Mapping[str, Any]
    decision: str
    action: str
    rule: str

    def __repr__(self) -> str:
        return f"Call({self.webhook!r}, {self.decision})"


class Send(msgspec.Struct, frozen=True, kw_only=True):
    """A leased outbox row. `id` is the decision's; `attempts` were made before this one.

    `possible_duplicate`: an earlier attempt may have reached the person without our knowing.
    `requeues`: how often an operator revived it.
    """

    bucket: int
    id: str
    profile_id: str
    provider: str
    purpose: str
    payload: Push | Call
    expires_at: datetime
    attempts: int
    lease: str
    requeues: int = 0
    possible_duplicate: bool = False

    @property
    def made_by(self) -> tuple[str | None, str | None, str]:
        """Rule, offer or action, and channel: what an operator may have stopped."""
        if isinstance(self.payload, Call):
            return self.payload.rule, self.payload.action, "webhook"
        return self.payload.data.get("rule"), self.payload.data.get("offer"), "push"

    def __repr__(self) -> str:
        return f"Send({self.id}, provider={self.provider!r}, attempts={self.attempts})"


# What an answer means


class Delivered(msgspec.Struct, frozen=True):
    """The provider took it."""


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Later perhaps. `unwell`: the provider itself is at fault. `ambiguous`: it may have been
    taken all the same."""

    code: str
    after: timedelta
    unwell: bool = False
    ambiguous: bool = False


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Never. `forget_token`: because the address is no longer one."""

    code: str
    forget_token: bool = False


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """The provider refuses us as a whole: alarm, and nothing more to it for `pause`."""

    code: str
    pause: timedelta = PAUSE


Verdict = Delivered | Retry | Failed | Stop


class FcmAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What FCM v1 said. `code` is the FcmError's, else the google.rpc status, None where the body
    was not FCM's. `fields` are those that a BadRequest names, `apns_reason` is Apple's own."""

    status: int
    code: str | None = None
    message: str = ""
    fields: tuple[str, ...] = ()
    apns_reason: str | None = None
    retry_after: timedelta | None = None

    def __repr__(self) -> str:
        return f"FcmAnswer({self.status}, {self.code!r})"


def backoff(attempts: int, jitter: float, first: timedelta = timedelta(seconds=1)) -> timedelta:
    """Doubles with every attempt made before, up to five minutes, and varies by half either way."""
    doubled: timedelta = first * 2 ** min(attempts, 20)
    return min(doubled, max(first, LONGEST_BACKOFF)) * (0.5 + jitter)


def fcm_verdict(answer: FcmAnswer, attempts: int, jitter: float) -> Verdict:
    """What FCM's answer means for one send that was tried `attempts` times before.

    https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode. A token is forgotten only
    where FCM itself says that it is none: a 404 of a proxy or of a wrong project is no such word.
    """
    status, code = answer.status, answer.code or f"http_{answer.status}"
    if status == 200:
        if answer.code is None:
            return Delivered()
        return Retry(code=code, after=backoff(attempts, jitter), unwell=True, ambiguous=True)
    if status == 429:
        return Retry(code=code, after=not_before(answer.retry_after, attempts, jitter, QUOTA_BACKOFF))
    if status >= 500 or status in (408, 425):
        return Retry(code=code, after=not_before(answer.retry_after, attempts, jitter), unwell=True)
    if code == "UNREGISTERED":
        return Failed(code=code, forget_token=True)
    if status in (401, 403, 404) or status < 400:
        return Stop(code=code)
    return Failed(code=code, forget_token=code == "INVALID_ARGUMENT" and _is_about_token(answer))


def _is_about_token(answer: FcmAnswer) -> bool:
    """FCM names the field in a BadRequest, or only says so in words, or passes Apple's 410 on."""
    if answer.fields:
        return "message.token" in answer.fields
    return answer.apns_reason == "Unregistered" or "registration token" in answer.message.lower()


def not_before(
    retry_after: timedelta | None, attempts: int, jitter: float, first: timedelta = timedelta(seconds=1)
) -> timedelta:
    """Never before Retry-After, and not everybody at that very moment."""
    if retry_after is None:
        return backoff(attempts, jitter, first)
    wait = min(max(retry_after, timedelta()), LONGEST_RETRY_AFTER)
    return wait + wait * 0.1 * jitter


def oauth_verdict(
    status: int, error: str | None, retry_after: timedelta | None, attempts: int, jitter: float
) -> Verdict:
    """What a refused token exchange (RFC 6749, 5.2) means for the send that needed it."""
    code = f"oauth_{error or status}"
    if status == 429 or status >= 500:
        return Retry(code=code, after=not_before(retry_after, attempts, jitter), unwell=True)
    return Stop(code=code)


def unreachable(code: str, attempts: int, jitter: float, *, ambiguous: bool) -> Retry:
    """No answer. `ambiguous` where the request may have gone out."""
    return Retry(code=code, after=backoff(attempts, jitter), unwell=True, ambiguous=ambiguous)


# What it means for the row and for the profile


class Outcome(StrEnum):
    """How one turn of a send ended. RELEASED: not tried, given back for later."""

    SENT = "sent"
    RETRIED = "retried"
    FAILED = "failed"
    DROPPED = "dropped"
    DEAD = "dead"
    RELEASED = "released"


State = Literal["pending", "sent", "dropped", "dead"]
STATES: Mapping[Outcome, State] = {
    Outcome.SENT: "sent",
    Outcome.RETRIED: "pending",
    Outcome.FAILED: "dropped",
    Outcome.DROPPED: "dropped",
    Outcome.DEAD: "dead",
    Outcome.RELEASED: "pending",
}


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """What to write into a send's row, under its lease. `event` tells the profile of a final one;
    `delay` is the time until a pending one is due again."""

    send: Send
    outcome: Outcome
    code: str | None = None
    delay: timedelta = timedelta()
    result: Mapping[str, Any] = {}
    event: Event | None = None

    def __repr__(self) -> str:
        return f"Settlement({self.send.id}, {self.outcome.value}, {self.code!r})"


def settlement(send: Send, verdict: Verdict, now: datetime) -> Settlement:
    """How a send that was tried is settled; `now` is the pipeline's."""
    match verdict:
        case Delivered():
            return _final(send, Outcome.SENT, None, now)
        case Failed(code=code, forget_token=True):
            return _final(send, Outcome.FAILED, code, now, forget_token=True)
        case Failed(code=code):
            return _final(send, Outcome.DEAD, code, now)
    if send.attempts + 1 >= MAX_ATTEMPTS:
        if isinstance(verdict, Retry) and verdict.ambiguous:
            send = msgspec.structs.replace(send, possible_duplicate=True)
        return _final(send, Outcome.DEAD, verdict.code, now)
    result: dict[str, Any] = {"code": verdict.code}
    if isinstance(verdict, Stop):
        return Settlement(
            send=send, outcome=Outcome.RETRIED, code=verdict.code, delay=verdict.pause, result=result
        )
    if verdict.ambiguous:
        result["possible_duplicate"] = True
    return Settlement(
        send=send, outcome=Outcome.RETRIED, code=verdict.code, delay=verdict.after, result=result
    )


def dropped(send: Send, reason: str, now: datetime) -> Settlement:
    """A send that must not go out any more."""
    return _final(send, Outcome.DROPPED, reason, now)


def released(send: Send, delay: timedelta = timedelta()) -> Settlement:
    """A send given back untried."""
    return Settlement(send=send, outcome=Outcome.RELEASED, delay=delay)


def _final(
    send: Send, outcome: Outcome, code: str | None, now: datetime, *, forget_token: bool = False
) -> Settlement:
    result: dict[str, Any] = {"code": code} if code else {}
    event = outcome_event(send, code, now, delivered=outcome is Outcome.SENT, forget_token=forget_token)
    return Settlement(send=send, outcome=outcome, code=code, result=result, event=event)


def outcome_event(
    send: Send, reason: str | None, now: datetime, *, delivered: bool, forget_token: bool = False
) -> Event:
    """The event by which the profile learns what became of its push, or of a webhook's call. It never
    holds the token."""
    payload = send.payload
    properties: dict[str, Any] = {"decision": send.id}
    if isinstance(payload, Call):
        properties |= {"offer": payload.action, "rule": payload.rule, "channel": "webhook"}
    else:
        properties |= {
            "offer": payload.data.get("offer"),
            "rule": payload.data.get("rule"),
            "channel": "push",
            "device": payload.device_id,
        }
    if reason is not None:
        properties["reason"] = reason
    if forget_token and isinstance(payload, Push):
        properties["token_forgotten"] = True
        properties["token_digest"] = token_digest(payload.token)
    if send.possible_duplicate and not delivered:
        properties["possibly_delivered"] = True
    return Event(
        kind=Kind.TRACK,
        sender=Sender.ENGINE,
        name="Offer Delivered" if delivered else "Offer Failed",
        message_id=outcome_id(send),
        received_at=now,
        timestamp=now,
        properties=properties,
    )


def outcome_id(send: Send) -> str:
    """The outcome's message id: one per life of the send, so that the outcome of one that an
    operator revived is no duplicate of the first."""
    return f"delivery:{send.id}" + (f":{send.requeues}" if send.requeues else "")
