"""From two folders to something to decide by: rules checked and compiled, models loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath

import msgspec

from engine.adapters.onnx_models import VERSION_LENGTH, Model, ModelError, model_of
from engine.app.ruling import Ruling
from engine.domain.offers.propensity import ModelCard
from engine.domain.places.progress import Tell, say_nothing
from engine.formats.advice import advice
from engine.formats.problems import Problem, in_order
from engine.formats.workspace import MODELS_PREFIX, load, read_folder, revision_of
from engine.formats.workspace_memory import Memory


class Files(msgspec.Struct, frozen=True):
    """A workspace as it was read: the two folders' contents, by POSIX path in each."""

    rules: Mapping[str, bytes]
    models: Mapping[str, bytes]

    @property
    def revision(self) -> str:
        return revision_of(self.rules, self.models)

    def __repr__(self) -> str:
        return f"Files({len(self.rules)} of rules, {len(self.models)} of models)"


class Checked(msgspec.Struct, frozen=True):
    """What a workspace came to: a ruling, or the problems that stand against it.

    `sources` are the files read, by the name that problems give them.
    """

    ruling: Ruling | None
    problems: tuple[Problem, ...]
    sources: Mapping[str, bytes]
    files: Files

    def __repr__(self) -> str:
        return f"Checked({len(self.problems)} problems)"


def read(rules: Path, models: Path) -> Files:
    """The files of a workspace.

    Raises:
        OSError: one of the folders cannot be read.
    """
    return Files(read_folder(rules), read_folder(models) if models.is_dir() else {})


def check(
    rules: Path,
    models: Path,
    now: datetime | None = None,
    tell: Tell = say_nothing,
    receivers: Callable[[], frozenset[str] | None] = lambda: None,
) -> Checked:
    """Reads, checks and compiles a workspace. Everything that is wrong with it is in `problems`; where
    nothing is, and with `now`, also what is hardly meant. `tell` hears how far very many geofences have come.
    `receivers` says which exist, if it knows; it is asked only where some are named.

    Raises:
        OSError: one of the folders cannot be read.
    """
    return build(read(rules, models), now, tell, receivers=receivers)


def build(
    files: Files,
    now: datetime | None = None,
    tell: Tell = say_nothing,
    memory: Memory | None = None,
    receivers: Callable[[], frozenset[str] | None] = lambda: None,
) -> Checked:
    """Checks and compiles the files of a workspace. With `memory`, what did not change since it was last
    given is taken over."""
    loaded = load(files.rules, files.models, memory, tell)
    predictors, refused = load_models(loaded.models, files)
    problems = [*loaded.problems, *refused]
    ruling = None
    if loaded.rule_set is not None and not refused:
        ruling = Ruling(loaded.rule_set, predictors)
        if now is not None:
            known = receivers() if loaded.rule_set.actions else None
            problems += advice(loaded.said, loaded.rule_set, now, known)
    return Checked(ruling, in_order(problems), loaded.sources, files)


def load_models(
    cards: Mapping[str, ModelCard], files: Files, running: Ruling | None = None
) -> tuple[dict[str, Model], list[Problem]]:
    """The models of the cards, ready to run, and what is wrong with the others. Those that `running`
    has already are not loaded again."""
    predictors: dict[str, Model] = {}
    problems: list[Problem] = []
    for name, card in cards.items():
        content = files.models[card.file]
        if (known := _known(name, card, content, running)) is not None:
            predictors[name] = known
            continue
        try:
            predictors[name] = model_of(
                PurePosixPath(card.file).name, content, inputs=len(card.inputs), output=card.output
            )
        except ModelError as fault:
            problems.append(Problem(MODELS_PREFIX + card.file, 1, 1, str(fault)))
    return predictors, problems


def _known(name: str, card: ModelCard, content: bytes, running: Ruling | None) -> Model | None:
    before = running.rules.models.get(name) if running is not None else None
    if running is None or before is None:
        return None
    model = running.models.get(name)
    version = hashlib.sha256(content).hexdigest()[:VERSION_LENGTH]
    is_same = (len(before.inputs), before.output) == (len(card.inputs), card.output)
    return model if isinstance(model, Model) and model.version == version and is_same else None
