"""`audiences:`: people, or accounts, of whom something is true, each after those that it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from engine.domain.offers.expressions import Expression, ExpressionError, Names, Type, compile_moments
from engine.domain.offers.propensity import ModelCard
from engine.domain.offers.rules import Audience, Computed, ComputedKind, Workspace
from engine.domain.people.audiences import DIGEST_BYTES
from engine.formats.located_yaml import AnyNode, Entry, MapNode, Scalar
from engine.formats.workspace_names import Declared, expression, located, model_names
from engine.formats.workspace_values import Problems, choice, fields, name

_OF_EVENTS: Final = ("event", "geofence", "weather", "device", "local", "trip", "offer")
"""Roots that say what happens just now, not who somebody is."""

DEEPEST: Final = 50
_READS: Final = "profile.audiences"


class Subject(msgspec.Struct, frozen=True):
    """Who is in some audiences: the root of their conditions, what these may read, and the traits."""

    root: str
    names: Names
    computed: tuple[Computed, ...]
    sections: tuple[str, ...]
    """Where in workspace.yaml the traits are declared."""

    @property
    def reads(self) -> str:
        return f"{self.root}.audiences"


def people(declared: Declared, workspace: Workspace) -> Subject:
    return Subject("profile", audience_names(declared), workspace.computed, ("traits", "computed"))


def accounts(declared: Declared, workspace: Workspace) -> Subject:
    names: Names = {"account": declared.account, "now": Type.TIMESTAMP}
    return Subject("account", names, workspace.account_computed, ("accounts",))


def is_of_accounts(entry: Entry) -> bool:
    """Whether it is an audience of accounts, as far as it can be read."""
    of = entry.node.entries.get("of") if isinstance(entry.node, MapNode) else None
    return of is not None and isinstance(of.node, Scalar) and of.node.text == "account"


class _Said(msgspec.Struct, frozen=True):
    """A sound condition, where it stands, and the audiences that it names."""

    entry: Entry
    node: Scalar
    condition: Expression
    names: frozenset[str]


def audiences(
    entries: Mapping[str, Entry],
    problems: Problems,
    subject: Subject,
    models: Mapping[str, ModelCard],
    settings: Mapping[str, Entry],
) -> tuple[Audience, ...]:
    """The audiences, in an order in which each can be looked at after those that it names."""
    said = {
        word: one
        for word, entry in entries.items()
        if (one := _condition(entry, problems, subject, models)) is not None
    }
    texts = _definitions(settings, subject)
    found: dict[str, Audience] = {}
    for word in _ordered(said, problems):
        audience = _audience(word, said[word], problems, subject, models, texts, found)
        if audience is not None:
            found[word] = audience
    return tuple(found.values())


def read_all(found: Iterable[Audience], workspace: Workspace) -> bool:
    """Whether an audience reads of a person what any event may change."""
    steady = {_READS, *(f"profile.{name}" for name in workspace.traits)}
    steady.update(f"profile.{trait.name}" for trait in workspace.computed)
    read = {path for audience in found for path in audience.condition.reads if path.startswith("profile")}
    return any(path not in steady and not path.startswith(f"{_READS}.") for path in read)


def audience_names(declared: Declared) -> Names:
    """What an audience's condition may read: what is true of a person whatever happens."""
    return {
        "profile": declared.profile,
        "propensity": model_names(declared),
        "now": Type.TIMESTAMP,
    }


def _condition(
    entry: Entry, problems: Problems, subject: Subject, models: Mapping[str, ModelCard]
) -> _Said | None:
    name(entry.key, problems, "the name of an audience")
    node: AnyNode = entry.node
    if isinstance(node, MapNode):
        found = fields(node, problems, ("of", "if")) or {}
        if "of" in found and choice(found["of"], problems, ("person", "account")) is None:
            return None
        if "if" not in found:
            problems.append(node.problem('"if" is missing'))
            return None
        node = found["if"]
    before = len(problems)
    condition = expression(node, problems, subject.names, Type.BOOL)
    of_people = subject.root == "profile"
    others = ("account", "member") if of_people else ("profile", "propensity", "member")
    foreign = {f"there is no `{root}`" for root in (*_OF_EVENTS, *others)}
    whom = "a person" if of_people else "an account"
    for number in range(before, len(problems)):
        if problems[number].message in foreign:
            message = f"{problems[number].message} in an audience: it is of {whom} at any time"
            problems[number] = msgspec.structs.replace(problems[number], message=message, suggestion=None)
    if condition is None or not isinstance(node, Scalar):
        return None
    if subject.reads in condition.reads:
        hint = f'write "NAME" in {subject.reads}'
        problems.append(node.problem("an audience asks for another one by its name", hint))
        return None
    for model in sorted(_models(condition, models)):
        inputs = models[model].inputs if model in models else ()
        if any(path.startswith(_READS) for column in inputs for path in column.expression.reads):
            message = f'the model "{model}" reads profile.audiences: no audience can rest on its score'
            problems.append(node.problem(message))
            return None
    prefix = f"{subject.reads}."
    names = frozenset(path.removeprefix(prefix) for path in condition.reads if path.startswith(prefix))
    return _Said(entry, node, condition, names)


def _models(condition: Expression, models: Iterable[str]) -> frozenset[str]:
    if "propensity" in condition.reads:  # any of them: the name is an expression itself
        return frozenset(models)
    prefix = "propensity."
    return frozenset(path.removeprefix(prefix) for path in condition.reads if path.startswith(prefix))


def _ordered(said: Mapping[str, _Said], problems: Problems) -> list[str]:
    """Each name after those that it rests on; those that rest on themselves are left out."""
    placed: dict[str, None] = {}
    told: set[str] = set()

    def place(word: str, path: tuple[str, ...]) -> None:
        if word in path:
            circle = path[path.index(word) :]
            if told.isdisjoint(circle):
                way = " → ".join((*circle, word))
                problems.append(said[circle[0]].entry.key.problem(f"the audience rests on itself: {way}"))
            told.update(circle)
            return
        if word in placed or word not in said:
            return
        if len(path) > DEEPEST:
            problems.append(said[path[0]].entry.key.problem(f"rests on more than {DEEPEST} others in a row"))
            told.add(path[0])
            return
        for other in sorted(said[word].names):
            place(other, (*path, word))
        placed[word] = None

    for word in said:
        place(word, ())
    return [word for word in placed if word not in told]


def _audience(
    word: str,
    one: _Said,
    problems: Problems,
    subject: Subject,
    models: Iterable[str],
    texts: Mapping[str, str],
    found: Mapping[str, Audience],
) -> Audience | None:
    ticking = frozenset(c.name for c in subject.computed if c.kind is ComputedKind.DAYS_SINCE)
    try:
        moments = compile_moments(one.node.text, subject.names, ticking)
    except ExpressionError as error:
        problems.extend(located(one.node, problem) for problem in error.problems)
        return None
    read = _read_traits(one.condition, subject)
    rests_on = [one.node.text]
    rests_on += [texts.get(path, "") for path in sorted(one.condition.reads)]
    rests_on += [texts.get(f"{subject.root}.{trait.name}", "") for trait in read]
    rests_on += [found[other].digest.hex() for other in sorted(one.names) if other in found]
    return Audience(
        name=word,
        condition=one.condition,
        digest=blake2b("\0".join((word, *rests_on)).encode(), digest_size=DIGEST_BYTES).digest(),
        moments=moments,
        ticking=tuple(trait for trait in read if trait.kind is ComputedKind.DAYS_SINCE),
        shifting=read,
        models=_models(one.condition, models) if subject.root == "profile" else frozenset(),
    )


def _read_traits(condition: Expression, subject: Subject) -> tuple[Computed, ...]:
    """The computed traits that a condition depends on, through others as well."""
    by_name = {trait.name: trait for trait in subject.computed}
    found: dict[str, Computed] = {}
    waiting = [path.removeprefix(f"{subject.root}.") for path in sorted(condition.reads)]
    while waiting:
        trait = by_name.get(waiting.pop())
        if trait is not None and trait.name not in found:
            found[trait.name] = trait
            waiting += (trait.of, trait.over)
    return tuple(found.values())


def _definitions(settings: Mapping[str, Entry], subject: Subject) -> Mapping[str, str]:
    """How each trait is declared, as it is written."""
    texts: dict[str, str] = {}
    for section in subject.sections:
        entry = settings.get(section)
        if section == "accounts" and entry is not None and isinstance(entry.node, MapNode):
            entry = entry.node.entries.get("computed")
        if entry is not None and isinstance(entry.node, MapNode):
            for word, trait in entry.node.entries.items():
                node = trait.node
                texts[f"{subject.root}.{word}"] = node.source.text[node.start : node.end]
    return texts
