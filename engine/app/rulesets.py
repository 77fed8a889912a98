"""From two folders to something to decide by: rules checked and compiled, models loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from engine.adapters.onnx_models import Model, ModelError, load_model
from engine.app.ruling import Ruling
from engine.formats.problems import Problem, in_order
from engine.formats.workspace import MODELS_PREFIX, load, read_folder


class Checked(msgspec.Struct, frozen=True):
    """What a workspace came to: a ruling, or the problems that stand against it.

    `sources` are the files read, by the name that problems give them.
    """

    ruling: Ruling | None
    problems: tuple[Problem, ...]
    sources: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Checked({len(self.problems)} problems)"


def check(rules: Path, models: Path) -> Checked:
    """Reads, checks and compiles a workspace. Everything that is wrong with it is in `problems`.

    Raises:
        OSError: one of the folders cannot be read.
    """
    loaded = load(read_folder(rules), read_folder(models) if models.is_dir() else {})
    problems = list(loaded.problems)
    predictors: dict[str, Model] = {}
    for name, card in loaded.models.items():
        try:
            predictors[name] = load_model(models / card.file, inputs=len(card.inputs), output=card.output)
        except ModelError as fault:
            problems.append(Problem(MODELS_PREFIX + card.file, 1, 1, str(fault)))
    ruling = None
    if loaded.rule_set is not None and len(predictors) == len(loaded.models):
        ruling = Ruling(loaded.rule_set, predictors)
    return Checked(ruling, in_order(problems), loaded.sources)
