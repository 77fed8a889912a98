"""What engines decide by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from engine.domain.offers.rules import RuleSet


class Predictor(Protocol):
    """A loaded model: probabilities for rows of inputs, None for a row that failed."""

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float | None]: ...


class Ruling(msgspec.Struct, frozen=True):
    """What one tick decides by: a revision, and its models ready to run."""

    rules: RuleSet
    models: Mapping[str, Predictor]
