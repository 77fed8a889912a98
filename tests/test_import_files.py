"""Files of imports: rejected rows stand in them once, and people who were erased no more."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from engine.adapters.postgres.rights import hash_of
from engine.app.import_files import KEPT, cells_of, forget_old, kept, scrub
from engine.app.rejected_rows import Rejected, RejectedRows
from tests import lanes

SECRET = b"s"
WORKSPACE = (
    lanes.WORKSPACE
    + b"""
identities:
  - {namespace: user_id, one: true}
  - {namespace: email, from: [traits.email]}
  - {namespace: phone, from: [traits.phone]}
  - {namespace: anonymous_id}
"""
)
NAMESPACES = lanes.rule_set(workspace=WORKSPACE).workspace.namespaces
ADA = (("user_id", "7"), ("email", "ada@x.org"), ("phone", "+353871234567"))


def erased(at: datetime | None = None) -> dict[bytes, datetime]:
    return dict.fromkeys([hash_of(SECRET, key) for key in ADA], at or datetime.now(UTC))


def put(folder: Path, name: str, text: str) -> Path:
    file = folder / "purchases" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "line",
    [
        "7,Cork",
        '"7";x',
        "x\t Ada@X.org ",
        "7   19970101  1  11.77",
        'x|"087 123 4567"|"a, b"',
        "+353 87 123 4567,x",
        '{"row": 1, "values": ["ADA@x.org", "x"]}',
        '{"row": 1, "values": {"who": 7.0}}',
    ],
)
def test_a_line_that_names_somebody_goes(tmp_path: Path, line: str) -> None:
    file = put(tmp_path, "done/x.csv", f"heading\n{line}\n17,Bob;77\n")
    before = file.stat().st_mtime_ns
    assert scrub(tmp_path, erased(), SECRET, NAMESPACES) == 1
    assert file.read_text() == "heading\n17,Bob;77\n"
    assert file.stat().st_mtime_ns == before
    assert scrub(tmp_path, erased(), SECRET, NAMESPACES) == 0
    assert [f.name for f in file.parent.iterdir()] == ["x.csv"]


def test_a_parquet_file_that_names_somebody_goes_whole(tmp_path: Path) -> None:
    for name, user in (("a", 7), ("b", 8)):
        file = put(tmp_path, f"failed/{name}.parquet", "")
        parquet.write_table(pa.Table.from_pylist([{"user_id": user, "n": 1.5}]), file)
    assert scrub(tmp_path, erased(), SECRET, NAMESPACES) == 1
    assert [file.name for file in kept(tmp_path)] == ["b.parquet"]


def test_what_came_after_the_erasure_and_what_is_not_in_yet_stay(tmp_path: Path) -> None:
    put(tmp_path, "done/x.csv", "7\n")
    put(tmp_path, "x.csv", "7\n")
    assert scrub(tmp_path, erased(datetime.now(UTC) - timedelta(days=1)), SECRET, NAMESPACES) == 0
    assert scrub(tmp_path, erased(), SECRET, NAMESPACES) == 1
    assert (tmp_path / "purchases" / "x.csv").read_text() == "7\n"


def test_files_are_kept_for_a_month(tmp_path: Path) -> None:
    file = put(tmp_path, "done/x.csv", "7\n")
    os.utime(file, (0, 0))  # however old what is in it
    forget_old(tmp_path, datetime.now(UTC) + KEPT - timedelta(hours=1))
    assert file.exists()
    forget_old(tmp_path, datetime.now(UTC) + KEPT + timedelta(hours=1))
    assert not file.exists()


def test_cells_of_a_line_that_is_no_table_are_its_words() -> None:
    assert {"a", "b"} <= cells_of('a "b b')
    assert cells_of("{broken") == {"{broken"}


def test_rejected_rows_stand_once_after_an_interruption(tmp_path: Path) -> None:
    file = tmp_path / "x.rejected.jsonl"
    first = RejectedRows(file, 0)
    for row in (1, 5, 9):
        first(Rejected(row, "c", "m"))
    first.flush()
    with file.open("ab") as torn:
        torn.write(b'{"row": 11, "co')
    again = RejectedRows(file, 5)
    again(Rejected(9, "c", "m"))
    again.close()
    assert [line[:9] for line in file.read_text().splitlines()] == ['{"row":1,', '{"row":5,', '{"row":9,']
    RejectedRows(file, 0).close()  # another import: begun anew, and nothing was rejected
    assert not file.exists()
