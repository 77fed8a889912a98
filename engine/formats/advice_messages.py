"""Messages that phones cut, that no push service carries, or that some people cannot read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from engine.formats.located_yaml import AnyNode, Entry, MapNode, Scalar
from engine.formats.problems import Problem
from engine.formats.workspace_values import is_language

SHOWN: Final[Mapping[str, int]] = {"title": 65, "body": 178}
"""Characters that Android shows of a title at the most, and iOS of a text."""

PAYLOAD_BYTES: Final = 4096
"""What APNs and FCM take."""
OWN_BYTES: Final = 320
"""Of it, what the engine adds: the decision's, offer's and rule's ids, and how to collapse them."""

_OUTPUT = re.compile(r"\{\{.*?\}\}", re.DOTALL)


def message_advice(offers: Mapping[str, Entry]) -> Iterator[Problem]:
    """What is wrong with the messages of all offers, beside each other."""
    pushes = [push for entry in offers.values() if (push := _push(entry)) is not None]
    for push in pushes:
        yield from _too_long(push)
        yield from _too_large(push)
    yield from _missing_languages(pushes)


def _push(entry: Entry) -> Mapping[str, Entry] | None:
    node: AnyNode | None = entry.node
    for word in ("message", "push"):
        found = node.entries.get(word) if isinstance(node, MapNode) else None
        node = found.node if found is not None else None
    return node.entries if isinstance(node, MapNode) else None


def _texts(node: AnyNode) -> Mapping[str, Scalar]:
    """The texts by language; "" where there is one for all."""
    if isinstance(node, Scalar):
        return {"": node}
    entries = node.entries if isinstance(node, MapNode) else {}
    return {tag: entry.node for tag, entry in entries.items() if isinstance(entry.node, Scalar)}


def _fixed(node: Scalar) -> str:
    """What stands in every rendering. Nothing is said of texts with conditions or loops."""
    return "" if "{%" in node.text else _OUTPUT.sub("", node.text).strip()


def _too_long(push: Mapping[str, Entry]) -> Iterator[Problem]:
    for word, most in SHOWN.items():
        for node in _texts(push[word].node).values() if word in push else ():
            length = len(_fixed(node))
            if length > most:
                more = " and more" if "{{" in node.text else ""
                message = f"a {word} of {length} characters{more}: phones show {most}"
                yield node.problem(message)


def _too_large(push: Mapping[str, Entry]) -> Iterator[Problem]:
    words = [word for word in ("title", "body", "deeplink", "image") if word in push]
    largest = {word: max(_texts(push[word].node).values(), key=_bytes, default=None) for word in words}
    size = OWN_BYTES + sum(_bytes(node) for node in largest.values() if node is not None)
    if size > PAYLOAD_BYTES:
        worst = max((node for node in largest.values() if node is not None), key=_bytes)
        message = f"a push of {size:,} bytes: APNs and FCM take {PAYLOAD_BYTES:,}"
        yield worst.problem(message)


def _bytes(node: Scalar) -> int:
    return len(msgspec.json.encode(_fixed(node)))


def _missing_languages(pushes: list[Mapping[str, Entry]]) -> Iterator[Problem]:
    """A language that most offers have and one has not: its people read another one."""
    spoken = [
        (push["title"], frozenset(tag for tag in _texts(push["title"].node) if is_language(tag)))
        for push in pushes
        if "title" in push
    ]
    spoken = [(title, tags) for title, tags in spoken if tags]
    counts = Counter(tag for _, tags in spoken for tag in tags)
    usual = sorted(tag for tag, times in counts.items() if times >= 2 and 2 * times > len(spoken))
    for title, tags in spoken:
        for tag in usual:
            if tag not in tags:
                message = f'no "{tag}", which {counts[tag]} of {len(spoken)} offers with languages have'
                yield title.key.problem(message)
