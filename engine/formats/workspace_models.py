"""Model cards: what a model reads, and which file holds it."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Final

from engine.domain.offers.expressions import Type
from engine.domain.offers.propensity import ModelCard, ModelInput
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar
from engine.formats.problems import did_you_mean
from engine.formats.workspace_names import Declared, expression, person_names
from engine.formats.workspace_values import Problems, duration, fields, identifier, name, shown

MODELS_PREFIX: Final = "models/"
"""Before a card's name in problems, to tell it from the files of the rules' folder."""

_NEEDED: Final = ("name", "version", "model", "inputs")
_FIELDS: Final = (*_NEEDED, "predicts", "horizon", "output", "training")
"""`predicts` and `training` are for people: what is in them is not looked at."""

_FITTING: Final = (Type.ANY, Type.NUMBER, Type.BOOL)


def name_of(card: AnyNode) -> str | None:
    """The name under which a card's model is known, as far as the card can be read."""
    entry = card.entries.get("name") if isinstance(card, MapNode) else None
    return entry.node.text if entry is not None and isinstance(entry.node, Scalar) else None


def model(
    card: AnyNode, files: Mapping[str, bytes], problems: Problems, declared: Declared
) -> ModelCard | None:
    """One card. `files` are those of the models' folder, by their name in it."""
    before = len(problems)
    found = fields(card, problems, _FIELDS)
    if found is None:
        return None
    missing = [word for word in _NEEDED if word not in found]
    problems.extend(card.problem(f'a model card needs "{word}"') for word in missing)
    word = _name(found["name"], problems) if "name" in found else None
    version = name(found["version"], problems, "a version") if "version" in found else None
    file = _file(found["model"], files, problems) if "model" in found else None
    inputs = _inputs(found["inputs"], problems, declared) if "inputs" in found else ()
    output = name(found["output"], problems, "the name of an output") if "output" in found else None
    horizon = duration(found["horizon"], problems, months=True) if "horizon" in found else None
    if len(problems) > before or word is None or version is None or file is None:
        return None
    return ModelCard(
        name=word,
        version=version,
        file=file,
        inputs=inputs,
        output=output or "probabilities",
        horizon=horizon,
    )


def _name(node: AnyNode, problems: Problems) -> str | None:
    if isinstance(node, Scalar):
        return identifier(node, problems, "the name of a model")
    problems.append(node.problem(f"expected a name, found {shown(node)}"))
    return None


def _file(node: AnyNode, files: Mapping[str, bytes], problems: Problems) -> str | None:
    path = name(node, problems, "the name of an ONNX file")
    if path is None:
        return None
    folder = posixpath.dirname(node.source.file.removeprefix(MODELS_PREFIX))
    target = posixpath.normpath(posixpath.join(folder, path))
    if target in files and target.endswith(".onnx"):
        return target
    others = frozenset(file for file in files if file.endswith(".onnx"))
    problems.append(node.problem(f'there is no ONNX file "{target}"', did_you_mean(target, others)))
    return None


def _inputs(node: AnyNode, problems: Problems, declared: Declared) -> tuple[ModelInput, ...]:
    """The columns, in the model's order."""
    if not isinstance(node, ListNode) or not node.items:
        expected = "a list of inputs such as {name: orders, from: profile.orders}"
        problems.append(node.problem(f"expected {expected}, found {shown(node)}"))
        return ()
    inputs: dict[str, ModelInput] = {}
    for item in node.items:
        column = _input(item, problems, declared)
        if column is None:
            continue
        if column.name in inputs:
            problems.append(item.problem(f'the input "{column.name}" stands twice'))
        inputs[column.name] = column
    return tuple(inputs.values())


def _input(node: AnyNode, problems: Problems, declared: Declared) -> ModelInput | None:
    found = fields(node, problems, ("name", "from"), expected="{name: orders, from: profile.orders}")
    if found is None:
        return None
    missing = [word for word in ("name", "from") if word not in found]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    word = name(found["name"], problems, "the name of an input") if "name" in found else None
    value = expression(found["from"], problems, person_names(declared)) if "from" in found else None
    if value is not None and value.type not in _FITTING:
        problems.append(found["from"].problem("a model reads numbers and conditions"))
    return ModelInput(word, value) if word is not None and value is not None else None
