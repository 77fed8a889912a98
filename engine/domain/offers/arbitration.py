"""Ordering what is left after the gates into at most one winner (design 6.5)."""

from __future__ import annotations

from engine.domain.offers.rules import Offer, Rule


def expected_value(value: float, offer: Offer, propensity: float, baseline: float, lever: float) -> float:
    """What making the offer is worth, in the workspace's currency.

    `baseline` is the propensity to buy without it: who would buy anyway is not worth the discount.
    A lever scales it up or down, and never turns a loss into a gain.
    """
    worth = propensity * (value - offer.cost) - baseline * value - offer.send_cost
    return worth * (1.0 + lever)


def rank(rule: Rule, worth: float | None, geofence: str | None, offer: str) -> tuple[object, ...]:
    """A sort key, best first. Offers without a value rank by priority below all that have one;
    the names make the order independent of the order of arrival."""
    return (worth is None, -(worth or 0.0), -rule.priority, rule.id, offer, geofence or "")
