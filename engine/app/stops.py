"""What an operator asks to stop, by a request or a command."""

from __future__ import annotations

import msgspec

from engine.domain.offers.pauses import CHANNELS, What
from engine.domain.offers.rules import RuleSet
from engine.formats.problems import did_you_mean


class Stop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to stop: exactly one of `rule`, `offer`, `channel` and `all`; and why."""

    reason: str
    rule: str | None = None
    offer: str | None = None
    channel: str | None = None
    all: bool = False

    def what(self) -> tuple[What, str]:
        """The one that is given.

        Raises:
            ValueError: none, or several.
        """
        named: list[tuple[What, str | None]] = [
            ("rule", self.rule),
            ("offer", self.offer),
            ("channel", self.channel),
            ("all", "" if self.all else None),
        ]
        given = [(what, name) for what, name in named if name is not None]
        if len(given) != 1:
            raise ValueError("one of rule, offer, channel and all is needed, and no more")
        return given[0]


def unknown(what: What, name: str, rules: RuleSet) -> str | None:
    """What is wrong with a name that is to be stopped, None where there is such a thing."""
    offers = {**rules.offers, **rules.actions}
    known = {"rule": rules.rules.keys(), "offer": offers.keys(), "channel": CHANNELS}.get(what)
    if known is None or name in known:
        return None
    return " ".join(filter(None, (f'there is no {what} "{name}":', did_you_mean(name, frozenset(known)))))
