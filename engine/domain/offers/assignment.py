"""Who is in which group: rollouts, holdouts and experiments. A person's place is a hash of a key that
survives merges and of a salt, so that it is the same on every engine and needs no memory."""

from __future__ import annotations

from hashlib import blake2b

from engine.domain.offers.rules import Rule, Variant


def place(key: str, salt: str) -> float:
    """Where a person stands, in [0, 1): evenly spread, and for another salt independent of it."""
    return int.from_bytes(blake2b(f"{salt}\0{key}".encode(), digest_size=6).digest(), "big") / 2**48


def variant(rule: Rule, key: str) -> Variant | None:
    """The arm of the rule's experiment that a person is in; None for the share that is left over."""
    at = place(key, f"variant:{rule.experiment or rule.id}")
    for arm in rule.variants:
        at -= arm.share
        if at < 0.0:
            return arm
    return None


def is_rolled_out(rule: Rule, key: str) -> bool:
    return rule.rollout >= 1.0 or place(key, f"rollout:{rule.id}") < rule.rollout
