"""Faults as answers: plain, as JSON, and quoting nothing of the request, not even its URL."""

from __future__ import annotations

from typing import Any

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from engine.adapters.postgres.faults import StoreError

log = structlog.get_logger()

Asked = Request[Any, Any, Any]
Answer = Response[dict[str, Any]]


def _refused(_: Asked, fault: HTTPException) -> Answer:
    return Response({"message": fault.detail}, status_code=fault.status_code, headers=fault.headers)


def _invalid(_: Asked, fault: ValidationException) -> Answer:
    wrong = fault.extra if isinstance(fault.extra, list) else []
    return Response(
        {"message": "the request is not as it should be", "problems": wrong}, status_code=fault.status_code
    )


def _unreadable(_: Asked, __: RecursionError) -> Answer:
    return Response({"message": "the body is nested too deeply"}, status_code=400)


def _database_away(_: Asked, __: StoreError) -> Answer:
    return Response(
        {"message": "the database is away: try again"}, status_code=503, headers={"retry-after": "2"}
    )


def _failed(_: Asked, fault: Exception) -> Answer:
    log.error("request_failed", exc_info=fault)
    return Response({"message": "this request failed; it was logged"}, status_code=500)


HANDLERS: ExceptionHandlersMap = {
    ValidationException: _invalid,
    HTTPException: _refused,
    StoreError: _database_away,
    RecursionError: _unreadable,
    Exception: _failed,
}
