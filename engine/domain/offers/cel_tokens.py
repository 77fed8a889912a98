"""The words of an expression: names, numbers, texts and signs, each with its place."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

import msgspec

from engine.domain.offers.cel_problems import refuse

INT64_MAX: Final = 2**63 - 1


class Mark(Enum):
    """The kinds of token."""

    NAME = auto()
    NUMBER = auto()
    TEXT = auto()
    SIGN = auto()
    END = auto()


class Token(msgspec.Struct, frozen=True):
    """`text` as written; `value` of a number or text. A whole number may be 2**63, for its minus."""

    mark: Mark
    text: str
    start: int
    end: int
    value: int | float | str = ""


TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\f]|//[^\n]*)+)
    |(?P<string>[rRbB]{0,2}["'])
    |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+\.[0-9]+|\.[0-9]+|[0-9]+(?=[eE][+-]?[0-9]))(?:[eE][+-]?[0-9]+)?|[0-9]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|[-<>+*/%!?:.,()\[\]{}])""",
    re.VERBOSE,
)
WORD = re.compile(r"[A-Za-z_0-9]+")
BODIES = {
    (quote * width, raw): re.compile(
        r"(?s:.*?)" + quote * 3
        if raw and width == 3
        else rf"[^{quote}\r\n]*{quote}"
        if raw
        else r"(?s:(?:[^\\]|\\.)*?)" + quote * 3
        if width == 3
        else rf"(?:[^{quote}\\\r\n]|\\.)*{quote}"
    )
    for quote in "\"'"
    for width in (1, 3)
    for raw in (False, True)
}
ESCAPE = re.compile(
    r"(?s:\\(x[0-9a-fA-F]{2}|X[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.))"
)
SIMPLE: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {
    sign: sign for sign in "\\?\"'`"
}
MEANT: Final = {
    "=": ("to compare, write `==`", "=="),
    "&": ("for `and`, write `&&`", "&&"),
    "|": ("for `or`, write `||`", "||"),
    "“": ("texts stand in straight quotes", '"'),
    "”": ("texts stand in straight quotes", '"'),
    "‘": ("texts stand in straight quotes", "'"),
    "’": ("texts stand in straight quotes", "'"),
    "`": ('a name with other signs is written `profile["its name"]`', None),
    "≤": ("write `<=`", "<="),
    "≥": ("write `>=`", ">="),
    "≠": ("write `!=`", "!="),
}


def tokens_of(text: str) -> list[Token]:
    """All tokens, closed by one END. Raises ExpressionError at the first sign that means nothing."""
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            message, suggestion = MEANT.get(text[at], (f"`{text[at]}` has no meaning here", None))
            raise refuse(message, at, at + 1, suggestion)
        match found.lastgroup:
            case "space":
                at = found.end()
                continue
            case "string":
                token = _string(text, at, found.group())
            case "number":
                token = _number(text, at, found.group())
            case "name":
                token = Token(Mark.NAME, found.group(), at, found.end())
            case _:
                token = Token(Mark.SIGN, found.group(), at, found.end())
        tokens.append(token)
        at = token.end
    tokens.append(Token(Mark.END, "", len(text), len(text)))
    return tokens


def _number(text: str, at: int, digits: str) -> Token:
    end = at + len(digits)
    if tail := WORD.match(text, end):
        written = text[at : tail.end()]
        if tail.group() in ("u", "U"):
            raise refuse("there is one kind of whole number: leave out the `u`", at, tail.end(), digits)
        if tail.group() in ("ms", "s", "m", "h", "d"):
            raise refuse(
                f'a duration is written duration("{written}")', at, tail.end(), f'duration("{written}")'
            )
        raise refuse(f"`{written}` is neither a number nor a name", at, tail.end())
    if digits[:2] in ("0x", "0X"):
        value: int | float = int(digits, 16)
    elif digits.isdigit():
        value = int(digits) if len(digits) <= 1000 else INT64_MAX + 2
    else:
        value = float(digits)
    if value == float("inf") or (isinstance(value, int) and value > INT64_MAX + 1):
        raise refuse("this number is too large", at, end)
    return Token(Mark.NUMBER, digits, at, end, value)


def _string(text: str, at: int, opening: str) -> Token:
    prefix, quote = opening[:-1].lower(), opening[-1]
    if "b" in prefix:
        raise refuse("bytes are not part of the language", at, at + len(opening))
    if len(prefix) > 1:
        raise refuse(f"`{opening[:-1]}` is not a kind of text", at, at + len(opening))
    start = at + len(prefix)
    fence = quote * 3 if text.startswith(quote * 3, start) else quote
    body = BODIES[fence, prefix == "r"].match(text, start + len(fence))
    if body is None:
        raise refuse("this text has no closing quote", at, len(text))
    inside = body.group()[: -len(fence)]
    value = inside if prefix == "r" else _unescaped(inside, body.start())
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise refuse("half of a surrogate pair is not a character", at, body.end())
    return Token(Mark.TEXT, text[at : body.end()], at, body.end(), value)


def _unescaped(inside: str, offset: int) -> str:
    def character(found: re.Match[str]) -> str:
        code = found.group(1)
        if len(code) == 1 and code in SIMPLE:
            return SIMPLE[code]
        start = offset + found.start()
        problem = refuse(f"`\\{code}` is not an escape", start, start + 1 + len(code), "\\" * 2 + code)
        if len(code) == 1:
            raise problem
        number = int(code, 8) if code.isdigit() else int(code[1:], 16)
        if number > 0x10FFFF:
            raise problem
        return chr(number)

    return ESCAPE.sub(character, inside)
