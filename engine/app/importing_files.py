"""What a file and its mapping come to: how to read it, and who it is when it is given again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from engine.adapters.postgres import imports
from engine.adapters.postgres.imports import Progress
from engine.app.clock import Clock, system_clock
from engine.app.importing import Import
from engine.app.rejected_rows import Rejected
from engine.domain.offers.rules import Workspace
from engine.domain.people.events import Event
from engine.formats.import_events import Reader
from engine.formats.import_mapping import ImportMapping, Kind, by_names, mapping, unknown_columns
from engine.formats.import_rows import Format, Row, Table, Unreadable, format_of, table
from engine.formats.problems import Problem
from engine.formats.segment_verdicts import Refusal

if TYPE_CHECKING:
    from engine.app.engine import Engine

_HEADING_BYTES = 1 << 20
"""Of a file, in which its first line must be."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A file that can be brought in. `total` are its rows where that is known beforehand."""

    kind: Kind
    file: Path
    format: Format
    mapping: ImportMapping
    identifier: str
    total: int | None
    event_of: Callable[[Row], Event | Refusal]

    def table(self, opened: BinaryIO) -> Table:
        return table(opened, self.format, self.mapping)


def prepare(
    kind: Kind, file: Path, mapping_file: Path | None, workspace: Workspace
) -> tuple[Prepared | None, list[Problem]]:
    """How to bring the file in, or what is wrong with its mapping.

    Raises:
        OSError: a file cannot be read.
        Unreadable: the file is no table, or has not the columns that the mapping reads.
    """
    said = mapping_file.read_bytes() if mapping_file is not None else b""
    with file.open("rb") as opened:
        return prepare_open(kind, file, opened, format_of(file.name), str(mapping_file), said, workspace)


def prepare_open(
    kind: Kind,
    file: Path,
    opened: BinaryIO,
    form: Format,
    named: str,
    said: bytes,
    workspace: Workspace,
    clock: Clock = system_clock,
) -> tuple[Prepared | None, list[Problem]]:
    """The same of a file that is open. `said` is the mapping's text, of the file `named`; it may be
    empty. `clock` tells what is history. Raises Unreadable."""
    problems: list[Problem] = []
    given = mapping(named, said, problems) if said else ImportMapping()
    if given is None:
        return None, problems
    digest = hashlib.blake2b()
    lines = 0
    while chunk := opened.read(1 << 20):
        digest.update(chunk)
        lines += chunk.count(b"\n")
    opened.seek(0)
    # What reads a table closes what it reads from.
    columns = table(io.BytesIO(opened.read(_HEADING_BYTES)) if form != "parquet" else opened, form, given)
    given = complete(kind, columns.columns, workspace, given)
    return Prepared(
        kind=kind,
        file=file,
        format=form,
        mapping=given,
        identifier=identifier_of(kind, digest.hexdigest(), said),
        total=None if form == "parquet" else lines,
        event_of=Reader(kind, given, workspace, clock()).event,
    ), problems


def complete(
    kind: Kind, columns: tuple[str, ...], workspace: Workspace, given: ImportMapping
) -> ImportMapping:
    """The mapping with what the columns' names say, where it does not say it itself.

    Raises:
        Unreadable: the file has not the columns that the mapping reads, or none that says who.
    """
    if given.is_by_names:
        given = by_names(kind, columns, [n.name for n in workspace.namespaces], given)
    if columns and (missing := unknown_columns(given, columns)):
        raise Unreadable("; ".join(missing))
    if not given.ids:
        named = ", ".join(n.name for n in workspace.namespaces)
        raise Unreadable(f"no column says who a row is about: name one {named}, or give a mapping with ids")
    return given


async def begin(engine: Engine, prepared: Prepared) -> Progress:
    """How far the file has come."""
    return await imports.begin(engine.store.pool, prepared.identifier, prepared.kind, prepared.file.name)


async def bring_in(
    engine: Engine,
    prepared: Prepared,
    opened: BinaryIO,
    done: Progress,
    reject: Callable[[Rejected], object],
    flush: Callable[[], object] = lambda: None,
) -> None:
    """Brings a file in by the engine's own lane, behind what phones send, from where `done` says."""
    if done.finished_at is None:
        work = Import(
            engine.store.pool,
            engine.lane,
            engine.ruling.rules.workspace,
            prepared.identifier,
            reject=reject,
            flush=flush,
            paced=True,
        )
        await work.run(prepared.table(opened).rows, prepared.event_of, done)


def identifier_of(kind: Kind, digest: str, said: bytes) -> str:
    """Who an import is: the same kind, content and mapping."""
    return hashlib.blake2b(f"{kind}\0{digest}\0".encode() + said, digest_size=16).hexdigest()
