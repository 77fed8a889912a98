"""What the models say: one run per model over everything that asks."""

from __future__ import annotations

from collections.abc import Sequence

from engine.app import metrics
from engine.app.ruling import Ruling
from engine.domain.decide import Observation, Verdict
from engine.domain.offers.propensity import features


def scores_of(ruling: Ruling, asking: Sequence[Observation | Verdict]) -> dict[int, dict[str, float | None]]:
    """One run per model over all that need it: scores by a position in `asking` and model."""
    wanted: dict[str, list[int]] = {}
    for number, one in enumerate(asking):
        for name in one.needed:
            wanted.setdefault(name, []).append(number)
    scores: dict[int, dict[str, float | None]] = {}
    for name, numbers in wanted.items():
        card = ruling.rules.models[name]
        rows = []
        for number in numbers:
            scope = asking[number].scope
            assert scope is not None
            rows.append(features(card, scope))
        for number, score in zip(numbers, ruling.models[name].predict(rows), strict=True):
            scores.setdefault(number, {})[name] = score
            if score is None:
                metrics.MODEL_FAILED.labels(name).inc()
    return scores
