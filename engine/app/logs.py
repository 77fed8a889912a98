"""Logs: one JSON object a line on standard error, whoever writes it, with no value of anybody's.

A fault's text may quote what it was about (a row, a key, a position), so that of a fault only its
kind and the places in the code are told.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

_encode = msgspec.json.Encoder(enc_hook=str, order="deterministic").encode


def configure() -> None:
    """For a process that serves. Of libraries only what goes wrong: httpx would tell every push."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, _timed, _without_values, _line],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "event": record.getMessage().partition("\n")[0],
            "logger": record.name,
            "level": record.levelname.lower(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            event["fault"] = _places(record.exc_info[1])
        return _line(None, "", _timed(None, "", event))


def _timed(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _without_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    stated = event.pop("exc_info", None)
    fault = stated if isinstance(stated, BaseException) else sys.exception() if stated else None
    if fault is not None:
        event["fault"] = _places(fault)
    return event


def _places(fault: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(fault.__traceback__)[-12:]
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return {"kind": type(fault).__name__, "at": where}


def _line(_: Any, __: str, event: Mapping[str, Any]) -> str:
    return _encode(event).decode()
