"""How the columns of a file become events: a mapping in YAML, or what the columns' names say.

event: Order Completed          # or {column: what}; for purchases and interactions
separator: whitespace           # one character; the default is the comma
columns: [customer_id, date]    # for a file without a heading
decimal: ","                    # how numbers are written; the default is the point
time: {column: date, format: "%Y%m%d", timezone: Europe/Dublin}
id: order_id                    # what tells one row from another; without it its number and content
ids: {user_id: customer_id}
traits: {first_name: Vorname}
properties: {revenue: dollars, currency: {value: USD}, store: {column: shop, as: text}}
consent: {marketing: newsletter}
source: second_party            # of the traits; the default is what the workspace declares of each
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, cast
from zoneinfo import ZoneInfo

import msgspec

from engine.domain.people.sources import PARTIES
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar, read
from engine.formats.problems import Problem, did_you_mean
from engine.formats.workspace_values import choice, fields, name, shown, text, time_zone

Kind = Literal["profiles", "purchases", "consents", "accounts", "interactions"]
KINDS: Final = ("profiles", "purchases", "consents", "accounts", "interactions")
WHITESPACE: Final = "whitespace"
PURCHASE: Final = "Order Completed"

_FIELDS: Final = (
    "event",
    "separator",
    "columns",
    "decimal",
    "time",
    "id",
    "ids",
    "traits",
    "properties",
    "consent",
    "source",
)
_TIMES: Final = ("timestamp", "time", "date", "at", "occurred_at")
_ACCOUNTS: Final = ("group_id", "account_id")


class Cell(msgspec.Struct, frozen=True):
    """Where a value comes from: a column, or the same for every row. `as_text` keeps digits as text."""

    column: str = ""
    value: Any = None
    as_text: bool = False


class ImportMapping(msgspec.Struct, frozen=True, kw_only=True):
    """What each row becomes. None of `ids`, `traits`, `properties` and `consent` given: by the names
    of the columns, see `by_names`."""

    event: Cell = Cell(value=PURCHASE)
    separator: str = ","
    columns: tuple[str, ...] = ()
    decimal: str = "."
    time: Cell | None = None
    time_format: str | None = None
    timezone: str | None = None
    id: str | None = None
    ids: Mapping[str, Cell] = {}
    traits: Mapping[str, Cell] = {}
    properties: Mapping[str, Cell] = {}
    consent: Mapping[str, Cell] = {}
    source: str = ""

    @property
    def is_by_names(self) -> bool:
        return not (self.ids or self.traits or self.properties or self.consent)


def mapping(file: str, data: bytes, problems: list[Problem]) -> ImportMapping | None:
    """The mapping of a YAML file; None, with problems added, where it is not sound."""
    root = read(file, data, problems)
    if root is None:
        return None
    before = len(problems)
    found = fields(root, problems, _FIELDS)
    if found is None:
        return None
    values: dict[str, Any] = {}
    for word in ("ids", "traits", "properties", "consent"):
        if word in found:
            values[word] = _cells(found[word], problems)
    if "event" in found:
        values["event"] = _event(found["event"], problems)
    if "separator" in found:
        values["separator"] = _separator(found["separator"], problems)
    if "decimal" in found:
        values["decimal"] = choice(found["decimal"], problems, (".", ","))
    if "source" in found:
        values["source"] = choice(found["source"], problems, PARTIES)
    if "id" in found:
        values["id"] = name(found["id"], problems, "the name of a column")
    if "columns" in found:
        values["columns"] = _columns(found["columns"], problems)
    if "time" in found:
        values.update(_time(found["time"], problems))
    return ImportMapping(**values) if len(problems) == before else None


def by_names(
    kind: Kind, columns: Sequence[str], namespaces: Collection[str], given: ImportMapping
) -> ImportMapping:
    """The mapping that the columns' names say: identities by their namespace, a time, an event; the
    others are traits of a profile, purposes of a consent, properties of all else."""
    lower = {column.strip().lower(): column for column in columns}
    ids = {word: Cell(lower[word], as_text=True) for word in namespaces if word in lower}
    for word in _ACCOUNTS:
        if word in lower:
            ids["group_id"] = Cell(lower[word], as_text=True)
    time = given.time
    if time is None:
        time = next((Cell(lower[word]) for word in _TIMES if word in lower), None)
    identifier = given.id or lower.get("message_id")
    event = given.event
    if kind == "interactions" and "event" in lower:
        event = Cell(lower["event"])
    taken = {cell.column for cell in (*ids.values(), event, *((time,) if time else ()))}
    rest = {c.strip(): Cell(c) for c in columns if c not in taken and c != lower.get("message_id")}
    where = {"profiles": "traits", "consents": "consent"}.get(kind, "properties")
    return msgspec.structs.replace(given, ids=ids, time=time, id=identifier, event=event, **{where: rest})


def unknown_columns(given: ImportMapping, columns: Sequence[str]) -> list[str]:
    """What the mapping reads that the file does not have, a sentence each."""
    cells = [*given.ids.values(), *given.traits.values(), *given.properties.values()]
    cells += [*given.consent.values(), given.event, *((given.time,) if given.time else ())]
    wanted = dict.fromkeys([cell.column for cell in cells if cell.column] + ([given.id] if given.id else []))
    return [
        f'the file has no column "{word}"' + (f": {close}" if (close := did_you_mean(word, columns)) else "")
        for word in wanted
        if word not in columns
    ]


def _cells(node: AnyNode, problems: list[Problem]) -> dict[str, Cell]:
    if not isinstance(node, MapNode):
        fields(node, problems, ())
        return {}
    found: dict[str, Cell] = {}
    for word, entry in node.entries.items():
        cell = _cell(entry.node, problems)
        if cell is not None:
            found[word] = cell
    return found


def _cell(node: AnyNode, problems: list[Problem]) -> Cell | None:
    if isinstance(node, Scalar):
        column = name(node, problems, "the name of a column")
        return Cell(column) if column is not None else None
    found = fields(node, problems, ("column", "value", "as"), expected="a column, or {value: …}")
    if found is None:
        return None
    if ("column" in found) == ("value" in found):
        problems.append(node.problem('expected either "column" or "value"'))
        return None
    as_text = "as" in found and choice(found["as"], problems, ("text", "number")) == "text"
    if "value" in found:
        fixed = found["value"]
        if isinstance(fixed, Scalar):
            return Cell(value=fixed.value, as_text=as_text)
        problems.append(fixed.problem(f"expected a text or a number, found {shown(fixed)}"))
        return None
    column = name(found["column"], problems, "the name of a column")
    return Cell(column, as_text=as_text) if column is not None else None


def _event(node: AnyNode, problems: list[Problem]) -> Cell:
    if isinstance(node, Scalar):
        return Cell(value=text(node, problems, "the name of an event"))
    return _cell(node, problems) or Cell()


def _separator(node: AnyNode, problems: list[Problem]) -> str | None:
    if isinstance(node, Scalar) and (node.text == WHITESPACE or len(node.text) == 1):
        return node.text
    hint = f"or {WHITESPACE}"
    problems.append(node.problem(f"a separator is one character, found {shown(node)}", hint))
    return None


def _columns(node: AnyNode, problems: list[Problem]) -> tuple[str, ...]:
    if not isinstance(node, ListNode):
        problems.append(node.problem(f"expected a list of names, found {shown(node)}"))
        return ()
    return tuple(word for item in node.items if (word := name(item, problems, "a name")) is not None)


def _time(node: AnyNode, problems: list[Problem]) -> dict[str, Any]:
    if isinstance(node, Scalar):
        return {"time": _cell(node, problems)}
    found = fields(node, problems, ("column", "format", "timezone"))
    if found is None:
        return {}
    if "column" not in found:
        problems.append(node.problem('"column" is missing'))
        return {}
    values: dict[str, Any] = {"time": _cell(found["column"], problems)}
    if "format" in found:
        values["time_format"] = text(found["format"], problems, "a format such as %Y-%m-%d")
    if "timezone" in found:
        values["timezone"] = time_zone(found["timezone"], problems)
    return values


def zone_of(given: ImportMapping, workspace_zone: str) -> ZoneInfo:
    """The clock that times without an offset are on."""
    return ZoneInfo(given.timezone or workspace_zone)


def kind_of(word: str) -> Kind | None:
    return cast(Kind, word) if word in KINDS else None
