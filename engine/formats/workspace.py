"""The files of a workspace to a rule set, or to all that is wrong with them.

The order matters: what is named is read before what names it, so that every name is resolved as
soon as it is met, and nothing is left to look up when a decision is made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from engine.domain.offers.expressions import Names, Type, Words
from engine.domain.offers.propensity import ModelCard
from engine.domain.offers.rules import Audience, Computed, Offer, Rule, RuleSet, Workspace
from engine.domain.places.progress import Tell, say_nothing
from engine.formats.located_yaml import LARGEST_FILE_BYTES, MapNode, Scalar, read
from engine.formats.problems import Problem, in_order
from engine.formats.workspace_accounts import with_accounts
from engine.formats.workspace_actions import action
from engine.formats.workspace_audiences import accounts, audiences, is_of_accounts, people
from engine.formats.workspace_built_in import built_in
from engine.formats.workspace_filing import filed
from engine.formats.workspace_labels import check_offer, check_rollups, check_rule, readers, uses
from engine.formats.workspace_memory import Memory
from engine.formats.workspace_models import MODELS_PREFIX, model, name_of
from engine.formats.workspace_names import (
    ACCOUNT,
    Declared,
    account_types,
    fence_names,
    message_members,
    profile_types,
)
from engine.formats.workspace_offers import offer
from engine.formats.workspace_places import Places, Said
from engine.formats.workspace_rules import rule
from engine.formats.workspace_sections import SETTINGS_FILE, Sections, is_rule_file, sections
from engine.formats.workspace_settings import settings, with_computed
from engine.formats.workspace_trials import tries
from engine.formats.workspace_trips import trips

__all__ = ["MODELS_PREFIX", "Loaded", "load", "read_folder", "revision_of", "workspaces_below"]

_YAML: Final = (".yaml", ".yml")
_READ: Final = (*_YAML, ".geojson", ".json", ".fences", ".onnx")
_LARGEST_READ_BYTES: Final = 256_000_000
_REVISION_DIGITS: Final = 16


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the files. `rule_set` is None where any problem is an error.

    `models` are the cards that are sound by themselves, whatever else is not. `sources` are the files
    that problems may name, by that name: `problems.render_all` quotes them. `said` is where everything
    stands in them.
    """

    rule_set: RuleSet | None
    models: Mapping[str, ModelCard]
    problems: tuple[Problem, ...]
    revision: str
    sources: Mapping[str, bytes]
    said: Sections


def read_folder(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """The files of a rules' or models' folder that matter to a rule set, by their POSIX path in it.

    Hidden files, scenario tests and workspaces of their own (folders with a workspace.yaml) are left
    out. Raises OSError for a folder that cannot be read.
    """
    root = Path(path)
    files = {}
    others = workspaces_below(root)
    for found in sorted(entry for entry in root.rglob("*") if entry.is_file()):
        name = found.relative_to(root).as_posix()
        parts = name.split("/")
        hidden = any(part.startswith(".") for part in parts) or "tests" in parts[:-1]
        if hidden or not others.isdisjoint(found.parents) or found.suffix.lower() not in _READ:
            continue
        most = LARGEST_FILE_BYTES + 1 if found.suffix.lower() in _YAML else _LARGEST_READ_BYTES
        try:
            with found.open("rb") as file:
                files[name] = file.read(most)
        except OSError as fault:  # reading, unlike opening, does not name the file
            raise OSError(fault.errno, fault.strerror, str(found)) from fault
    return files


def workspaces_below(root: Path) -> set[Path]:
    """The folders below that are workspaces of their own."""
    return {found.parent for found in root.rglob(SETTINGS_FILE) if found.parent != root}


def revision_of(rules: Mapping[str, bytes], models: Mapping[str, bytes]) -> str:
    """The content hash of everything that a rule set is made of."""
    digest = hashlib.sha256()
    for kind, files in (("rules", rules), ("models", models)):
        for name in sorted(files):
            content = hashlib.sha256(files[name]).hexdigest()
            digest.update(f"{kind}\0{name}\0{content}\n".encode())
    return digest.hexdigest()[:_REVISION_DIGITS]


class _Ground(msgspec.Struct, frozen=True, eq=False):
    """What rules and offers stand on: settings, places, models, audiences, and every name."""

    workspace: Workspace
    declared: Declared
    models: Mapping[str, ModelCard]
    audiences: tuple[Audience, ...]
    companies: tuple[Audience, ...]
    """Audiences of accounts."""


def load(
    rules: Mapping[str, bytes],
    models: Mapping[str, bytes] | None = None,
    memory: Memory | None = None,
    tell: Tell = say_nothing,
) -> Loaded:
    """The rule set of a workspace's files, or every problem of them at once. Never raises.

    `rules` and `models` are the two folders' files by their POSIX path in the folder. With `memory`,
    what did not change since it was last given is taken over. `tell` hears how far very many geofences
    have come.
    """
    models = models or {}
    memory = memory or Memory()
    memory.begin()
    problems: list[Problem] = []
    said = sections(rules, problems, memory)
    files = (*rules.items(), *models.items())
    own = built_in(data for name, data in files if is_rule_file(name))
    ground = memory.part(
        "ground",
        _stands_on(said, rules, models, own),
        problems,
        lambda found: _ground(said, rules, models, own, tell, found),
    )
    workspace, declared = ground.workspace, ground.declared

    zone = ZoneInfo(workspace.timezone)
    members = message_members(declared)
    offers: dict[str, Offer] = {}
    for word, entry in said.offers.items():
        make = partial(offer, entry, declared=declared, members=members, zone=zone)
        catalogued = memory.part(("offer", word), (entry, ground), problems, make)
        if catalogued is not None:
            offers[word] = catalogued
    actions = {
        word: done
        for word, entry in said.actions.items()
        if (done := action(entry, problems, declared, members)) is not None
    }
    plans = trips(said.trips, problems, declared)
    made: dict[str, Rule] = {}
    for word, entry in said.rules.items():
        catalogue = offers if tries(entry) else None
        ruling = partial(rule, entry, declared=declared, zone=zone, catalogue=offers)
        ruled = memory.part(("rule", word), (entry, ground, catalogue), problems, ruling)
        if ruled is not None:
            made[word] = ruled

    if workspace.labels:
        workspace = msgspec.structs.replace(workspace, readers=readers(workspace))
        of = uses(workspace, ground.audiences, ground.models)
        check_rollups(said.settings.get("accounts"), workspace.account_computed, of, problems)
        for word, catalogued in (*offers.items(), *actions.items()):
            check_offer(said.offers.get(word) or said.actions[word], catalogued, of, problems)
        for word, ruled in made.items():
            check_rule(said.rules[word], ruled, offers | actions, of, problems)

    revision = revision_of(rules, models)
    sources = {**rules, **{MODELS_PREFIX + name: data for name, data in models.items()}}
    found_problems = in_order(problems)
    rule_set = None
    if not any(problem.severity == "error" for problem in found_problems):
        rule_set = filed(
            revision,
            workspace,
            declared.fences,
            offers,
            actions,
            made,
            ground.models,
            ground.audiences,
            plans,
            tell,
        )
        texts = [data for name, data in sources.items() if is_rule_file(name)]
        rule_set = with_accounts(rule_set, ground.companies, declared.account, texts)
        said_of_weather = any(b"weather" in data for data in texts)
        rule_set = msgspec.structs.replace(rule_set, reads_weather=said_of_weather)
    return Loaded(
        rule_set=rule_set,
        models=ground.models,
        problems=found_problems,
        revision=revision,
        sources=sources,
        said=said,
    )


def _stands_on(
    said: Sections, rules: Mapping[str, bytes], models: Mapping[str, bytes], own: tuple[Computed, ...]
) -> object:
    """All that `_ground` reads."""
    return (
        said.settings,
        said.geofences,
        said.audiences,
        said.trips,
        tuple(said.offers),
        tuple(said.actions),
        said.complete,
        {name: data for name, data in rules.items() if not is_rule_file(name)},
        models,
        tuple(trait.name for trait in own),
    )


def _ground(
    said: Sections,
    rules: Mapping[str, bytes],
    models: Mapping[str, bytes],
    own: tuple[Computed, ...],
    tell: Tell,
    problems: list[Problem],
) -> _Ground:
    workspace = settings(said.settings, problems)
    places = Places(rules, problems, workspace.timezone, tell)
    for entry in said.geofences:
        places.add(entry)
    placed = places.read()
    audiences_of_accounts = {word: entry for word, entry in said.audiences.items() if is_of_accounts(entry)}
    audiences_of_people = {word: e for word, e in said.audiences.items() if word not in audiences_of_accounts}
    declared = Declared(
        purposes=frozenset(workspace.purposes),
        offers=frozenset(said.offers),
        actions=frozenset(said.actions),
        audiences=frozenset(audiences_of_people),
        account_audiences=frozenset(audiences_of_accounts),
        trips=frozenset(said.trips),
        fences=placed.fences,
        fence_names=placed.names,
        tags=placed.tags,
        below=_names_below(placed),
        everywhere=fence_names(placed.sorts),
        complete=said.complete,
        places_complete=places.is_complete,
    )
    workspace = with_computed(workspace, said.settings, problems, declared, own)
    declared = msgspec.structs.replace(
        declared,
        profile=_profile(workspace, said, audiences_of_people),
        account=_account(workspace, said, audiences_of_accounts),
    )

    cards = _cards(models, problems)
    declared = msgspec.structs.replace(
        declared,
        models=frozenset(filter(None, map(name_of, cards))),
        complete=declared.complete and len(cards) == sum(map(is_rule_file, models)),
    )
    known = _models(cards, models, problems, declared)
    peopled = audiences(audiences_of_people, problems, people(declared, workspace), known, said.settings)
    subject = accounts(declared, workspace)
    companies = audiences(audiences_of_accounts, problems, subject, {}, said.settings)
    return _Ground(workspace, declared, known, peopled, companies)


def _names_below(placed: Said) -> Mapping[Set[str], Names]:
    """What the fences of each tag have between them; several tags may be of the same ones."""
    return {ids: fence_names(placed.of_tag(tag)) for tag, ids in placed.tags.items()}


def _account(workspace: Workspace, said: Sections, audiences_of: Iterable[str]) -> Names:
    """The types below `account`, by the same rules."""
    types: dict[str, Type | Words | Names] = {}
    entry = said.settings.get("accounts")
    computed = entry.node.entries.get("computed") if entry and isinstance(entry.node, MapNode) else None
    if computed is not None and isinstance(computed.node, MapNode):
        types.update(dict.fromkeys(computed.node.entries, Type.ANY))
    types.update(account_types(workspace.account_computed, audiences_of))
    return types if said.complete else {**types, "audiences": ACCOUNT["audiences"]}


def _profile(workspace: Workspace, said: Sections, audiences_of: Iterable[str]) -> Names:
    """The types below `profile`. A trait whose declaration is faulty may be of any, and where a file
    could not be read an audience may be in it."""
    types: dict[str, Type | Words | Names] = {}
    for section in ("traits", "computed"):
        entry = said.settings.get(section)
        if entry is not None and isinstance(entry.node, MapNode):
            types.update(dict.fromkeys(entry.node.entries, Type.ANY))
    types.update(profile_types(workspace.traits.values(), workspace.computed, audiences_of))
    return types if said.complete else {**types, "audiences": Type.LIST}


def _cards(models: Mapping[str, bytes], problems: list[Problem]) -> list[MapNode]:
    found = []
    for name in sorted(filter(is_rule_file, models)):
        card = read(MODELS_PREFIX + name, models[name], problems)
        if isinstance(card, MapNode):
            found.append(card)
        elif card is not None:
            problems.append(card.problem("expected the fields of a model card"))
    return found


def _models(
    cards: Iterable[MapNode], files: Mapping[str, bytes], problems: list[Problem], declared: Declared
) -> Mapping[str, ModelCard]:
    known: dict[str, ModelCard] = {}
    said: dict[str, Scalar] = {}
    for card in cards:
        entry = card.entries.get("name")
        if entry is not None and isinstance(entry.node, Scalar):
            first = said.setdefault(entry.node.text, entry.node)
            if first is not entry.node:
                message = f'the model "{first.text}" stands twice, first in {first.source.file}'
                problems.append(entry.node.problem(message))
        found = model(card, files, problems, declared)
        if found is not None:
            known.setdefault(found.name, found)
    return known
