"""`POST /admin/import/{kind}`: a file as the body, row by row as events."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, post
from litestar.datastructures import State
from litestar.exceptions import ClientException, NotFoundException, ServiceUnavailableException
from litestar.params import FromPath, QueryParameter

from engine.adapters.postgres.faults import StoreError
from engine.app.admin_access import admin_only
from engine.app.engine import Engine
from engine.app.importing_files import begin, bring_in, prepare_open
from engine.app.rejected_rows import Rejected
from engine.app.replies import Interrupted
from engine.formats.import_mapping import KINDS, kind_of
from engine.formats.import_rows import Format, Unreadable

BODY_BYTES_MAX = 64 * 1024 * 1024
REJECTED_SHOWN = 1000
_FORMATS: dict[str, Format] = {
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/json": "jsonl",
    "application/vnd.apache.parquet": "parquet",
}

Said = Annotated[str, QueryParameter(name="mapping", description="Which column is what: YAML or JSON")]


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows. `rejected` are the first thousand that were not taken."""

    rows: int
    accepted: int
    duplicates: int
    rejected: list[Rejected]
    rejected_count: int = msgspec.field(name="rejectedCount")


@post(
    "/{kind:str}",
    operation_id="import",
    summary="A file of profiles, purchases, consents, accounts or interactions",
    description="The body is CSV, JSON Lines or Parquet, by its Content-Type. The same body again adds "
    "nothing; one that was interrupted goes on where it was.",
    status_code=200,
    request_max_body_size=BODY_BYTES_MAX,
)
async def bring(
    kind: FromPath[str], request: Request[Any, Any, Any], state: State, said: Said = ""
) -> ImportView:
    engine: Engine = state.engine
    known = kind_of(kind)
    if known is None:
        raise NotFoundException(f"expected one of {', '.join(KINDS)}")
    form = _FORMATS.get(request.headers.get("content-type", "").partition(";")[0].strip().lower(), "csv")
    body = await request.body()
    rejected: list[Rejected] = []

    def reject(row: Rejected) -> None:
        if len(rejected) < REJECTED_SHOWN:
            rejected.append(msgspec.structs.replace(row, values=None))

    workspace = engine.ruling.rules.workspace
    try:
        prepared, problems = prepare_open(
            known,
            Path(f"{kind} by HTTP"),
            io.BytesIO(body),
            form,
            "mapping",
            said.encode(),
            workspace,
            engine.clock,
        )
        if prepared is None:
            raise ClientException("; ".join(f"{p.line}:{p.column}: {p.message}" for p in problems))
        done = await begin(engine, prepared)
        await bring_in(engine, prepared, io.BytesIO(body), done, reject)
    except Unreadable as fault:
        raise ClientException(str(fault)) from fault
    except (Interrupted, StoreError) as fault:
        raise ServiceUnavailableException("the database is away: send it again to go on") from fault
    return ImportView(
        rows=done.rows,
        accepted=done.accepted,
        duplicates=done.duplicates,
        rejected=rejected,
        rejected_count=done.rejected,
    )


router = Router(
    path="/admin/import",
    route_handlers=[bring],
    guards=[admin_only],
    response_headers={"cache-control": "no-store"},
    security=[{"adminToken": []}],
    tags=["admin"],
)
