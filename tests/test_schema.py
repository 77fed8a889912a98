"""The JSON Schemas of authors' files: they agree with the loader, and a real language server uses them."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from engine.app.cli.schema import NAMES, documents
from engine.formats.located_yaml import read
from engine.formats.problems import Problem
from engine.formats.scenario import read_scenarios
from engine.formats.workspace import load, read_folder
from engine.formats.workspace_places import plain
from tests.test_check import DATA, DEFECTS, ROOT
from tests.test_check_cli import folder, viewfinder

__all__ = ["folder"]

SCHEMAS = {name: json.loads(content) for name, content in documents().items()}
FOLDERS = (
    DEFECTS / "built" / "rules",
    ROOT / "rules",
    *sorted(found.parent for found in (ROOT / "rules").glob("*/workspace.yaml")),
)
PLAIN = {
    *("lat", "lng", "radius", "width", "times", "id", "push", "location", "precise", "daily"),
    *("mon", "tue", "wed", "thu", "fri", "sat", "sun", "title", "body", "deeplink", "image"),
    *("event", "name", "userId", "anonymousId", "previousId", "groupId", "messageId"),
    *("properties", "traits", "context", "timestamp", "originalTimestamp"),
}
"""Fields that say by their names what they are."""
RULE_FILES = [
    pytest.param(folder, name, id=f"{folder.parent.name}/{folder.name}/{name}")
    for folder in FOLDERS
    for name in sorted(read_folder(folder))
    if name.endswith(".yaml")
]
TEST_FILES = [
    pytest.param(folder, file, id=f"{folder.name}/{file.name}")
    for folder in FOLDERS
    for file in sorted((folder / "tests").glob("*.yaml"))
]


def tree(data: bytes) -> Any:
    problems: list[Problem] = []
    root = read("a.yaml", data, problems)
    assert root is not None
    assert problems == []
    return plain(root)


def models(workspace: Path) -> dict[str, bytes]:
    beside = workspace.parent / "models" if workspace.name == "rules" else ROOT / "models"
    found = read_folder(beside)
    named = re.findall(r"^model: (\S+)", b"\n".join(found.values()).decode(errors="replace"), re.MULTILINE)
    return {**dict.fromkeys(named, b""), **found}


def schema_of(name: str) -> Draft7Validator:
    return Draft7Validator(SCHEMAS["workspace.json" if name == "workspace.yaml" else "rules.json"])


def with_unknown_fields(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The same tree, each time with one field more that nobody knows, at every place that has fields:
    the way to that place, and the tree."""

    def places(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        if isinstance(node, dict):
            yield path
            for key, below in node.items():
                yield from places(below, (*path, key))
        elif isinstance(node, list):
            for number, below in enumerate(node):
                yield from places(below, (*path, number))

    for path in places(value, ()):
        changed = copy.deepcopy(value)
        at = changed
        for step in path:
            at = at[step]
        at["Unknown_Field"] = {"Unknown": 1}
        yield path, changed


@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_are_schemas_and_explain_every_field(name: str) -> None:
    schema = SCHEMAS[name]
    Draft7Validator.check_schema(schema)

    def unexplained(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for word, field in node.get("properties", {}).items():
                if isinstance(field, dict) and not {"description", "$ref"} & field.keys():
                    yield word
            for below in node.values():
                yield from unexplained(below)
        elif isinstance(node, list):
            for below in node:
                yield from unexplained(below)

    assert set(unexplained(schema)) <= PLAIN


@pytest.mark.parametrize(("workspace", "name"), RULE_FILES)
def test_a_sound_file_is_valid_and_unknown_fields_are_refused_by_both(workspace: Path, name: str) -> None:
    files = read_folder(workspace)
    sound = tree(files[name])
    validator = schema_of(name)
    assert list(validator.iter_errors(sound)) == []
    disagree = []
    for _, changed in with_unknown_fields(sound):
        text = json.dumps(changed, ensure_ascii=False).encode()
        loaded = load({**files, name: text}, models(workspace))
        refused = any(problem.severity == "error" for problem in loaded.problems)
        if refused is validator.is_valid(changed):
            told = [problem.message for problem in loaded.problems]
            disagree.append(
                (refused, told[:2], [e.message[:150] for e in validator.iter_errors(changed)][:2])
            )
    assert disagree == []


@pytest.mark.parametrize(("workspace", "file"), TEST_FILES)
def test_a_sound_scenario_is_valid_and_unknown_fields_are_refused_by_both(
    workspace: Path, file: Path
) -> None:
    rules = load(read_folder(workspace), models(workspace)).rule_set
    assert rules is not None
    sound = tree(file.read_bytes())
    sound["tests"] = sound["tests"][:2]
    validator = Draft7Validator(SCHEMAS["tests.json"])
    assert list(validator.iter_errors(sound)) == []
    for path, changed in with_unknown_fields(sound):
        text = json.dumps(changed)
        _, problems = read_scenarios("tests/a.yaml", text.encode(), rules)
        of_person = path and path[-1] in ("traits", "computed", "consent", "propensity")
        if of_person and "events" not in path:
            assert problems  # names of the workspace: only the loader knows them
        else:
            assert bool(problems) is not validator.is_valid(changed), path


def test_the_sample_model_card_is_valid() -> None:
    card = tree((ROOT / "models" / "buy_again.yaml").read_bytes())
    validator = Draft7Validator(SCHEMAS["model.json"])
    assert list(validator.iter_errors(card)) == []
    assert not validator.is_valid({**card, "inptus": []})


def test_every_sample_names_its_schema() -> None:
    """A first-line comment that editors follow, to a file that is there."""
    for workspace in FOLDERS[1:]:
        for file in [*workspace.glob("*.yaml"), *(workspace / "tests").glob("*.yaml")]:
            first = file.read_text("utf-8").split("\n", 1)[0]
            prefix = "# yaml-language-server: $schema="
            assert first.startswith(prefix), file
            named = (file.parent / first.removeprefix(prefix)).resolve()
            wanted = "tests.json" if file.parent.name == "tests" else "rules.json"
            assert named.name == ("workspace.json" if file.name == "workspace.yaml" else wanted)
            assert named.is_file()


def test_the_command_writes_them(folder: Path) -> None:
    ended = viewfinder(folder, "schema", "rules/.schema")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(path.name for path in (folder / "rules/.schema").iterdir()) == sorted(NAMES)
    (folder / "file").write_text("")
    ended = viewfinder(folder, "schema", "file/below")
    assert (ended.returncode, ended.stdout) == (1, "")


@pytest.fixture(scope="module")
def language_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """yaml-language-server, which most editors use, from npm."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the YAML language server comes from there")
    root = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "yaml-language-server@1"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install yaml-language-server: {done.stderr.strip()[-200:]}")
    return root / "node_modules" / ".bin" / "yaml-language-server"


def test_a_real_language_server_completes_explains_and_marks(language_server: Path, tmp_path: Path) -> None:
    for name, content in documents().items():
        (tmp_path / name).write_bytes(content)
    text = (
        "# yaml-language-server: $schema=rules.json\n"
        "rules:\n"
        "  latte:\n"
        "    when: {enter: {tag: cafe}}\n"
        "    ofer: latte\n"
        "    qui\n"
    )
    answers = subprocess.run(
        ["node", str(DATA / "language_client.js"), str(language_server), str(tmp_path / "a.yaml")],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answers.returncode == 0, answers.stderr
    told = json.loads(answers.stdout)
    assert any("ofer is not allowed" in message for message in told["diagnostics"])
    assert {"quiet", "offer", "unless"} <= set(told["completions"])
    assert "What sets it off" in told["hover"]
