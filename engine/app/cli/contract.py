"""`viewfinder contract`: what SDK authors build against, written from the code."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.app.cli.environment import fail, write_file
from engine.app.ingest_contract import schemas
from engine.app.web import litestar_app


def contract(folder: Path, /) -> int:
    """Write openapi.json and the JSON Schemas into a folder, as the repository's sdk_contract has them."""
    for name, text in files().items():
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            fail(f"{fault.filename or folder}: {fault.strerror}", 2)
        write_file(file, text)
    return 0


def files() -> dict[str, bytes]:
    """The generated part of the contract, by path in its folder."""
    document = litestar_app().openapi_schema.to_schema()
    text = msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2)
    return {"openapi.json": text + b"\n", **{f"schemas/{name}": data for name, data in schemas().items()}}
