"""What FCM v1 and Google's token endpoint answer, word for word, and other ways to behave.

Bodies after https://firebase.google.com/docs/cloud-messaging/error-codes and answers recorded in
the issue trackers of its client libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What the stand-in does with one push.

    `takes`: it reaches the phone. Then it answers with `status`, `headers` and `body`; or, as
    `way` says, never (`hang`), by closing the connection (`close`), or after it has forgotten the
    access token that it was asked with (`revoke`).
    """

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    takes: bool = False
    way: Literal["answer", "hang", "close", "revoke"] = "answer"


def status_body(code: int, status: str, message: str, *details: Mapping[str, Any]) -> bytes:
    """A google.rpc.Status as JSON."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = details
    return msgspec.json.encode({"error": error})


def _refusal(code: int, status: str, message: str, fcm_code: str, **headers: str) -> Behaviour:
    detail = {"@type": _FCM_ERROR, "errorCode": fcm_code}
    return Behaviour(status=code, headers=headers, body=status_body(code, status, message, detail))


DELIVER = Behaviour(takes=True)
UNREGISTERED = _refusal(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
INVALID_TOKEN = _refusal(
    400,
    "INVALID_ARGUMENT",
    "The registration token is not a valid FCM registration token",
    "INVALID_ARGUMENT",
)
INVALID_TOKEN_FIELD = Behaviour(
    status=400,
    body=status_body(
        400,
        "INVALID_ARGUMENT",
        "Request contains an invalid argument.",
        {"@type": _FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}],
        },
    ),
)
SENDER_ID_MISMATCH = _refusal(403, "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH")
THIRD_PARTY_AUTH_ERROR = _refusal(
    401,
    "UNAUTHENTICATED",
    "Request is missing required authentication credential.",
    "THIRD_PARTY_AUTH_ERROR",
)
INTERNAL = _refusal(500, "INTERNAL", "Internal error encountered.", "INTERNAL")
UNAVAILABLE = _refusal(503, "UNAVAILABLE", "The service is currently unavailable.", "UNAVAILABLE")
HTML_502 = Behaviour(
    status=502,
    headers={"content-type": "text/html; charset=UTF-8"},
    body=b"<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error 502 (Server Error)!!1"
    b"</title>\n  <p><b>502.</b> <ins>That\xe2\x80\x99s an error.</ins>\n",
)
HANG = Behaviour(way="hang")
TAKE_AND_HANG = Behaviour(takes=True, way="hang")
CLOSE = Behaviour(way="close")
TAKE_AND_CLOSE = Behaviour(takes=True, way="close")
EXPIRED_ACCESS_TOKEN = Behaviour(way="revoke")


def quota_exceeded(retry_after: int | str | None) -> Behaviour:
    """A 429; `retry_after` in seconds or as an HTTP date."""
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return _refusal(
        429,
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for quota metric 'Messages' and limit 'Messages per minute'.",
        "QUOTA_EXCEEDED",
        **headers,
    )


def invalid_payload(field: str, description: str) -> Behaviour:
    """A 400 about one field of the message."""
    return Behaviour(
        status=400,
        body=status_body(
            400,
            "INVALID_ARGUMENT",
            description,
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": field, "description": description}],
            },
        ),
    )


def unauthenticated(reason: str) -> Behaviour:
    """A 401 about the access token."""
    return Behaviour(
        status=401,
        body=status_body(
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
            "cookie or other valid authentication credential. See "
            "https://developers.google.com/identity/sign-in/web/devconsole-project.",
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "googleapis.com",
                "metadata": {
                    "service": "fcm.googleapis.com",
                    "method": "google.firebase.fcm.v1.FcmService.SendMessage",
                },
            },
        ),
    )


def oauth_refusal(error: str, description: str) -> Behaviour:
    """RFC 6749, 5.2."""
    return Behaviour(
        status=400,
        body=msgspec.json.encode({"error": error, "error_description": description}),
    )
