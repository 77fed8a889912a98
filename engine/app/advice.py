"""What would have had to be different for a candidate to go further, as one would say it."""

from __future__ import annotations

from engine.app.reasons import Looked, shown, stopped_at, unmet, values_read
from engine.domain.offers.decisions import Judged, Reason
from engine.domain.offers.rules import RuleSet


def advice(judged: Judged, rules: RuleSet | None = None, looked: Looked | None = None) -> str | None:
    """The change that opens the gate that stopped it; None for one that won. With what it looked at, of
    a condition only the parts that did not hold, each with the values that it hung on."""
    if rules is not None and looked is not None and (parts := _parts(judged, rules, looked)):
        return parts
    numbers = judged.numbers
    match judged.reason:
        case None:
            return None
        case Reason.PAUSED:
            return f"it is let go on with `viewfinder resume`; it was stopped for {numbers.get('because')!r}"
        case Reason.OUTSIDE_DATES:
            return f"it happens {'after' if 'starts' in numbers else 'before'} {shown(_first(judged))}"
        case Reason.NO_CONSENT:
            return f"the person grants consent for {numbers['purpose']}"
        case Reason.STALE_EVENT if "ageSeconds" in numbers:
            over = numbers["ageSeconds"] - numbers["freshSeconds"]
            return f"the event arrives {over:.0f} s sooner, or the rule's `fresh` is that much longer"
        case Reason.CONDITION_FALSE:
            return f"this holds: {numbers.get('condition', 'its condition')}"
        case Reason.CONDITION_UNKNOWN:
            return f"everything that this reads is known: {numbers.get('condition') or numbers.get('value')}"
        case Reason.CAPPED if "count" in numbers and "times" in numbers:
            more = numbers["count"] - numbers["times"] + 1
            return f"{more} fewer count within {numbers.get('per')}, or {numbers['count'] + 1} may"
        case Reason.NO_DEVICE:
            return "the person has a device that can be pushed to"
        case Reason.NO_PERMISSION:
            return "the person allows pushes on the device"
        case Reason.LOW_PROPENSITY:
            short = numbers["atLeast"] - numbers["propensity"]
            return f"the propensity is {short:.3f} higher, or `at_least` is {numbers['propensity']:.2f}"
        case Reason.NOT_WORTH_IT:
            return f"the expected value is {-numbers['expectedValue']:.2f} higher"
        case Reason.OUTRANKED:
            return f"{numbers.get('by')} is not there, or worth less"
        case Reason.QUIET_HOURS if "from" in numbers:
            return f"it is not between {numbers['from']} and {numbers['to']} where the person is"
        case Reason.OUTSIDE_HOURS:
            return "it happens within the rule's `during`"
        case _:
            return None


def _parts(judged: Judged, rules: RuleSet, looked: Looked) -> str:
    """The parts of a condition that did not hold; empty where it was no condition."""
    expression = stopped_at(judged, rules)
    if expression is None or "condition" not in judged.numbers:
        return ""
    holds = "is known" if judged.reason is Reason.CONDITION_UNKNOWN else "holds"
    said = []
    for part in unmet(expression, looked.scope):
        values = ", ".join(f"{path} is {value}" for path, value in values_read(part, looked))
        said.append(f"{part.text} {holds}" + (f" ({values})" if values else ""))
    return " and ".join(said)


def _first(judged: Judged) -> object:
    return next(iter(judged.numbers.values()), "")
