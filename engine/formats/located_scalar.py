"""Where a character of a scalar's text stands in its file, through quotes, escapes and folding."""

from __future__ import annotations

import re

from engine.formats.located_yaml import Scalar, place

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\r\n|.)", re.DOTALL)
_BLANK_ESCAPES = frozenset(" \tntr vfNLP_\n\r")
"""Escapes that stand for white space or for nothing: tab, line breaks, a folded line's end."""


def place_in(scalar: Scalar, offset: int) -> tuple[int, int]:
    """Line and column (from 1) of the character at `offset` of `scalar.text`.

    White space may be folded and quotes doubled on the way from the file to the text, but all
    other characters keep their order: so the n-th visible one of the text is the n-th of the file.
    An offset at the text's end gives the place just after its last visible character.
    """
    visible = sum(not char.isspace() for char in scalar.text[:offset])
    at_end = not scalar.text[offset:].strip()
    wanted = visible - 1 if at_end else visible
    raw = scalar.source.text[scalar.start : scalar.end]
    index, end = _nth_visible(raw, scalar.style, max(wanted, 0))
    return place(scalar.source.text, scalar.start + (end if at_end and visible else index))


def _nth_visible(raw: str, style: str, wanted: int) -> tuple[int, int]:
    """Where the n-th visible character begins and ends in the raw text."""
    index = 0
    if style in ("|", ">"):
        index = max(raw.find("\n"), 0)
    elif style:
        index = 1
    seen = 0
    while index < len(raw):
        width, visible = _unit(raw, index, style)
        if visible:
            if seen == wanted:
                return index, index + width
            seen += 1
        index += width
    return 0, 0


def _unit(raw: str, index: int, style: str) -> tuple[int, bool]:
    """How many raw characters make the next one of the text, and whether it is visible."""
    char = raw[index]
    if style == "'" and char == "'":
        return 2, True
    if style == '"' and char == "\\":
        found = _ESCAPE.match(raw, index)
        if found is None:
            return 1, True
        escape = found[1]
        if len(escape) > 1 and escape[0] in "xuU":
            code = int(escape[1:], 16)
            return len(found[0]), code > 0x10FFFF or not chr(code).isspace()
        return len(found[0]), escape[0] not in _BLANK_ESCAPES
    return 1, not char.isspace()
