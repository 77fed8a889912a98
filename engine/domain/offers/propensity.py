"""Propensity models as the domain sees them: a card, and a row of numbers for each person.

The network or the trees themselves live behind `engine.adapters.onnx_models`; scores come back
into `decide` as plain floats in the scope's `propensity`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec

from engine.domain.offers.expressions import Expression
from engine.domain.offers.scope import Scope

NAN: Final = float("nan")

FLOAT32_MAX: Final = 3.4028234663852886e38
"""Models take 32-bit floats. A number beyond them would arrive as infinite, so it is unknown."""


class ModelInput(msgspec.Struct, frozen=True):
    """One column of a model: its name, and the expression that gives its value."""

    name: str
    expression: Expression


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's YAML card says. `file` is the ONNX file's name, beside the card; `inputs` are
    in the model's column order; `output` names the tensor of probabilities; `horizon` is the time
    within which the predicted thing happens, None where the card gives none."""

    name: str
    version: str
    file: str
    inputs: tuple[ModelInput, ...]
    output: str = "probabilities"
    horizon: timedelta | None = None


def features(card: ModelCard, scope: Scope) -> tuple[float, ...]:
    """The model's row for the person and moment in `scope`, one float per input of the card.

    What is unknown, or is no number that a 32-bit float can hold, is NaN: models are trained to
    take NaN as "not known", which is not the same as 0. Booleans are 1 and 0.
    """
    return tuple([_as_float(column.expression.evaluate(scope)) for column in card.inputs])


def _as_float(value: Any) -> float:
    if isinstance(value, int | float) and -FLOAT32_MAX <= value <= FLOAT32_MAX:
        return float(value)
    return NAN
