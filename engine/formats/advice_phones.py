"""Rules that wait for fixes which most phones do not give."""

from __future__ import annotations

from collections.abc import Iterator

from engine.domain.offers.rules import Rule, TriggerKind
from engine.domain.phones import caught_share
from engine.formats.located_yaml import Entry, MapNode
from engine.formats.problems import Problem

HINT = "an app on the screen tells of all; for the others say enter, or within: 5m"


def phone_advice(entry: Entry, rule: Rule) -> Iterator[Problem]:
    """An approach is seen by fixes; told so short before, phones in the background have none."""
    if rule.when.kind is not TriggerKind.APPROACH or rule.when.span is None:
        return
    span = rule.when.span
    shares = {"iOS": caught_share(span, "ios"), "Android": caught_share(span, "android")}
    if min(shares.values()) >= 0.5 or max(shares.values()) >= 1.0:
        return
    assert isinstance(entry.node, MapNode)
    when = entry.node.entries["when"].node
    assert isinstance(when, MapNode)
    told = " and ".join(f"{share:.0%} on {name}" for name, share in shares.items())
    message = f"phones with the app in the background tell of few approaches so short before: {told}"
    yield when.entries["within"].node.problem(message, HINT)
