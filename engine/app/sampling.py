"""Which decisions are stored."""

from __future__ import annotations

from engine.domain.offers.decisions import Decision, is_worth_telling

SAMPLED_SHARE = 0.01
"""Of decisions in which no candidate met its condition, how many are stored."""


def is_kept(decision: Decision) -> bool:
    """Whether to store a decision: all that tell something, and a sample of the others, chosen by
    the id so that a replay chooses the same."""
    return is_worth_telling(decision) or int(decision.id[-4:], 16) < SAMPLED_SHARE * 0x10000
