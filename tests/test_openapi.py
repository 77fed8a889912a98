"""The published contract is what the code says now."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine.app.cli.contract import files
from engine.app.ingest import PATHS

CONTRACT = Path(__file__).parent.parent / "sdk_contract"
MEND = "write it anew: uv run viewfinder contract sdk_contract"


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(files()["openapi.json"])


def test_the_files_are_what_the_code_says() -> None:
    generated = files()
    published = {f"schemas/{path.name}" for path in (CONTRACT / "schemas").iterdir()} | {"openapi.json"}
    assert published == set(generated), MEND
    stale = [name for name, text in generated.items() if (CONTRACT / name).read_bytes() != text]
    assert stale == [], MEND


def test_every_reference_leads_somewhere(document: Any) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references
    for reference in references:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
        assert node


def test_ingest_is_described_whole(document: Any) -> None:
    assert set(PATHS) <= set(document["paths"])
    for path in PATHS:
        responses = document["paths"][path]["post"]["responses"]
        assert {"200", "400", "401", "413", "503"} <= set(responses)


def test_the_schemas_in_the_document_judge_like_the_files(document: Any) -> None:
    """References were rewritten: the copies must still say the same."""

    def fits(name: str, value: Any) -> bool:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        return jsonschema.Draft202012Validator(schema).is_valid(value)

    event = {"type": "track", "event": "Open", "userId": "u"}
    assert fits("Event", event)
    assert fits("Batch", {"batch": [event]})
    assert fits("Single", {"event": "Open", "userId": "u"})
    assert not fits("Event", {"event": "Open", "userId": "u"})
    assert not fits("Event", {**event, "context": {"location": {"latitude": 91, "longitude": 0}}})
    assert not fits("Batch", {"batch": [{**event, "userId": 7.5, "anonymousId": []}]})
    answer = {"success": True, "accepted": 1, "duplicates": 0, "rejected": [], "decisions": []}
    assert fits("Answer", answer)
    assert not fits("Answer", {**answer, "rejected": [{"index": 0}]})
