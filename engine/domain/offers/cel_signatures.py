"""The functions and methods that expressions may call: on what, with what, giving what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec


class Type(StrEnum):
    """The types of the language. There is one kind of number; `any` is known only at run time."""

    ANY = "any"
    BOOL = "bool"
    NUMBER = "number"
    STRING = "string"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    LIST = "list"
    MAP = "map"
    NULL = "null"


class Signature(msgspec.Struct, frozen=True):
    """One way to call: `receiver` is None for a plain function; the last `optional` may be left out."""

    receiver: Type | None
    arguments: tuple[Type, ...]
    result: Type
    optional: int = 0


class Mismatch(msgspec.Struct, frozen=True):
    """Why a call fits no signature: a message, or the part at fault (receiver first) and its types."""

    message: str = ""
    at: int | None = None
    wanted: tuple[Type, ...] = ()


def _function(result: Type, *arguments: Type) -> tuple[Signature, ...]:
    """Of one argument, which may be of any of these types."""
    return tuple(Signature(None, (argument,), result) for argument in arguments)


def _method(receiver: Type, result: Type, *arguments: Type, optional: int = 0) -> tuple[Signature, ...]:
    return (Signature(receiver, arguments, result, optional),)


_TEXT_TEST = _method(Type.STRING, Type.BOOL, Type.STRING)
_TEXT = _method(Type.STRING, Type.STRING)
_PART = _method(Type.TIMESTAMP, Type.NUMBER, Type.STRING, optional=1)
_COUNT = (*_PART, *_method(Type.DURATION, Type.NUMBER))
_SIZED = (Type.STRING, Type.LIST, Type.MAP)

SIGNATURES: Final[Mapping[str, tuple[Signature, ...]]] = {
    "size": (
        *_function(Type.NUMBER, *_SIZED),
        *(signature for sized in _SIZED for signature in _method(sized, Type.NUMBER)),
    ),
    "contains": _TEXT_TEST,
    "startsWith": _TEXT_TEST,
    "endsWith": _TEXT_TEST,
    "matches": _TEXT_TEST,
    "lowerAscii": _TEXT,
    "upperAscii": _TEXT,
    "trim": _TEXT,
    "split": _method(Type.STRING, Type.LIST, Type.STRING, Type.NUMBER, optional=1),
    "substring": _method(Type.STRING, Type.STRING, Type.NUMBER, Type.NUMBER, optional=1),
    "charAt": _method(Type.STRING, Type.STRING, Type.NUMBER),
    "indexOf": _method(Type.STRING, Type.NUMBER, Type.STRING, Type.NUMBER, optional=1),
    "lastIndexOf": _method(Type.STRING, Type.NUMBER, Type.STRING, Type.NUMBER, optional=1),
    "reverse": _TEXT,
    "join": _method(Type.LIST, Type.STRING, Type.STRING, optional=1),
    "replace": _method(Type.STRING, Type.STRING, Type.STRING, Type.STRING, Type.NUMBER, optional=1),
    "int": _function(Type.NUMBER, Type.NUMBER, Type.STRING, Type.TIMESTAMP),
    "double": _function(Type.NUMBER, Type.NUMBER, Type.STRING),
    "string": _function(Type.STRING, Type.STRING, Type.NUMBER, Type.BOOL, Type.TIMESTAMP, Type.DURATION),
    "bool": _function(Type.BOOL, Type.BOOL, Type.STRING),
    "duration": _function(Type.DURATION, Type.STRING, Type.DURATION),
    "timestamp": _function(Type.TIMESTAMP, Type.STRING, Type.NUMBER, Type.TIMESTAMP),
    **dict.fromkeys(
        ("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"), _PART
    ),
    **dict.fromkeys(("getHours", "getMinutes", "getSeconds", "getMilliseconds"), _COUNT),
}


def signature_of(name: str, target: Type | None, arguments: Sequence[Type]) -> Type | Mismatch:
    """The result's type of a known function, or why it cannot be called like this."""
    signatures = SIGNATURES[name]
    styled = [signature for signature in signatures if (signature.receiver is None) is (target is None)]
    if not styled:
        example = f"text.{name}(…)" if target is None else f"{name}(…)"
        return Mismatch(f"{name}() is written as in {example}")
    counted = [
        signature
        for signature in styled
        if len(signature.arguments) - signature.optional <= len(arguments) <= len(signature.arguments)
    ]
    if not counted:
        low = min(len(signature.arguments) - signature.optional for signature in styled)
        high = max(len(signature.arguments) for signature in styled)
        wanted = f"{low} to {high}" if low != high else str(low) if low else "no"
        plural = "" if wanted == "1" else "s"
        return Mismatch(f"{name}() takes {wanted} argument{plural}, not {len(arguments)}")
    actual = arguments if target is None else (target, *arguments)
    for at, found in enumerate(actual):
        wanted_here = tuple(dict.fromkeys(_types(signature)[at] for signature in counted))
        counted = [signature for signature in counted if found in (Type.ANY, _types(signature)[at])]
        if not counted:
            return Mismatch(at=at, wanted=wanted_here)
    results = {signature.result for signature in counted}
    return results.pop() if len(results) == 1 else Type.ANY


def _types(signature: Signature) -> tuple[Type, ...]:
    receiver = () if signature.receiver is None else (signature.receiver,)
    return (*receiver, *signature.arguments)
