"""Why one event of a request is refused: a stable code and a plain sentence.

Codes are the wire contract's. No sentence quotes a value of the event: answers are logged by
clients, and a value may be a person's position or e-mail address.
"""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True):
    """The verdict on an event that is not taken."""

    code: str
    message: str


NOT_AN_OBJECT = Refusal("not_an_object", "an event must be a JSON object")
TOO_LARGE = Refusal("too_large", "an event may have 32 KB, the batch's context included")
TOO_DEEP = Refusal("too_deep", "an event may be nested 64 levels deep")
NOT_A_NUMBER = Refusal("not_a_number", "NaN, Infinity and numbers beyond 1.8e308 are not JSON numbers")
INVALID_TEXT = Refusal("invalid_text", "text must be UTF-8 without NUL and without lone surrogates")
UNKNOWN_TYPE = Refusal("unknown_type", "type must be track, identify, screen, page, group, alias or merge")
MISSING_IDENTITY = Refusal("missing_identity", "userId, anonymousId or another id of the workspace is needed")
MISSING_ALIAS = Refusal("missing_identity", "previousId and userId are needed")
MISSING_MERGE = Refusal("missing_identity", "two ids are needed, each a user_id or an anonymous_id")
MISSING_EVENT = Refusal("missing_event", "a track call needs the name of its event")
SERVER_ONLY = Refusal("server_only", "this event is taken from server keys only")
LATITUDE_OUT_OF_RANGE = Refusal("latitude_out_of_range", "latitude must be within -90 and 90 degrees")
LONGITUDE_OUT_OF_RANGE = Refusal("longitude_out_of_range", "longitude must be within -180 and 180 degrees")


def invalid_timestamp(field: str) -> Refusal:
    """`field` is neither RFC 3339 text nor epoch seconds or milliseconds."""
    return Refusal("invalid_timestamp", f"{field} must be RFC 3339 text, or epoch seconds or milliseconds")


def not_a_number(field: str) -> Refusal:
    """`field` is not a finite number."""
    return Refusal("not_a_number", f"{field} must be a finite number")


def too_long(field: str, characters: int) -> Refusal:
    """`field` does not fit into the database's keys or a header."""
    return Refusal("too_large", f"{field} may have {characters} characters")


def control_characters(field: str) -> Refusal:
    """`field` would reach a header with its line breaks."""
    return Refusal("invalid_text", f"{field} must not contain control characters")
