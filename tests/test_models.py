"""The shipped model against what its card claims, and ONNX files that nobody should have to trust."""

from __future__ import annotations

import json
import math
import os
import pickle
import runpy
import sys
from datetime import date, timedelta
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.onnx_contents import refusal
from engine.adapters.onnx_models import MAX_MODEL_BYTES, Model, ModelError, load_model
from engine.domain.offers.expressions import Names, Type, compile_expression
from engine.domain.offers.propensity import ModelCard, ModelInput, features
from engine.domain.offers.scope import UNKNOWN, Scope

SHIPPED = Path(__file__).parent.parent / "models"
SMALL = Path(__file__).parent / "data" / "models"
NAN = math.nan


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((SHIPPED / "buy_again.yaml").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def buy_again(card: dict[str, Any]) -> Model:
    return load_model(SHIPPED / card["model"], inputs=len(card["inputs"]), output=card["output"])


def linear() -> Model:
    return load_model(SMALL / "linear.onnx", inputs=2, output="probabilities")


# The shipped model


def test_scores_are_those_of_the_library_that_trained_it(buy_again: Model) -> None:
    vectors = json.loads((SHIPPED / "buy_again.vectors.json").read_text("utf-8"))
    rows = [[NAN if value is None else value for value in vector["row"]] for vector in vectors]
    assert len(rows) > 40
    assert any(map(math.isnan, (value for row in rows for value in row)))
    assert buy_again.predict(rows) == pytest.approx([vector["score"] for vector in vectors], abs=1e-5)
    assert buy_again.failed_rows == 0


def test_card_names_the_file_and_the_columns_it_was_trained_with(
    card: dict[str, Any], buy_again: Model
) -> None:
    cdnow = runpy.run_path(str(SHIPPED / "cdnow.py"))
    assert card["training"]["sha256"].startswith(buy_again.version)
    assert {column["name"]: column["from"] for column in card["inputs"]} == cdnow["INPUTS"]
    assert card["horizon"] == f"{cdnow['HORIZON'].days}d"


def test_card_tells_the_measures_that_the_file_has_on_later_months(
    card: dict[str, Any], buy_again: Model
) -> None:
    cdnow = runpy.run_path(str(SHIPPED / "cdnow.py"))
    measures = runpy.run_path(str(SHIPPED / "measures.py"))
    test = cdnow["snapshots"](cdnow["read_purchases"](), cdnow["TEST_DAYS"])
    scores = np.array(buy_again.predict(test.rows.tolist()))
    told = card["training"]["metrics"]
    assert len(scores) == card["training"]["test_rows"]
    assert measures["area_under_curve"](test.bought, scores) == pytest.approx(told["auc"], abs=1e-4)
    assert measures["log_loss"](test.bought, scores) == pytest.approx(told["log_loss"], abs=1e-4)
    assert measures["brier"](test.bought, scores) == pytest.approx(told["brier"], abs=1e-5)
    assert test.bought.mean() == pytest.approx(told["base_rate"], abs=1e-4)
    table = measures["calibration"](test.bought, scores)
    assert [(line.forecast, line.observed) for line in table] == [
        pytest.approx((line["forecast"], line["observed"]), abs=1e-4)
        for line in card["training"]["calibration"]
    ]
    assert told["auc"] > 0.8
    assert told["log_loss"] < 0.85 * told["base_log_loss"]
    assert told["brier"] < 0.9 * told["base_brier"]


def test_training_never_sees_an_outcome_of_the_months_it_is_measured_on() -> None:
    cdnow = runpy.run_path(str(SHIPPED / "cdnow.py"))
    horizon: timedelta = cdnow["HORIZON"]
    train, tune, test = cdnow["TRAIN_DAYS"], cdnow["TUNE_DAYS"], cdnow["TEST_DAYS"]
    assert max(train) + horizon <= min(tune)
    assert max(tune) + horizon <= min(test)
    with pytest.raises(ValueError, match="beyond the data's last day"):
        cdnow["snapshots"](cdnow["read_purchases"](), (date(1998, 6, 2),))


def test_a_snapshot_holds_what_the_engine_would_know_that_day() -> None:
    cdnow = runpy.run_path(str(SHIPPED / "cdnow.py"))
    one = [date(1997, 1, 1), date(1997, 1, 18), date(1997, 1, 18), date(1997, 3, 3)]
    purchases = cdnow["Purchases"](
        day=np.array([day.toordinal() for day in [*one, date(1997, 2, 2)]]),
        dollars=np.array([10.0, 0.0, 20.0, 40.0, 7.0]),
        first=np.array([0, 4]),
    )
    early = cdnow["snapshots"](purchases, (date(1997, 2, 1),))
    assert early.rows.tolist() == [[3.0, 30.0, 20.0, 14.0]]  # the second customer has bought nothing yet
    assert early.bought.tolist() == [0]  # the 30th day after is not within the horizon
    later = cdnow["snapshots"](purchases, (date(1997, 2, 2), date(1997, 3, 4)))
    assert later.bought.tolist() == [1, 0, 0]
    assert later.rows[1].tolist() == [4.0, 70.0, 40.0, 1.0]


def test_whoever_bought_longer_ago_is_never_likelier_to_be_back(buy_again: Model) -> None:
    for orders, dollars in product((1, 3, 10), (5.0, 30.0, 120.0)):
        rows = [(orders, orders * dollars, dollars, days) for days in (0, 1, 7, 30, 90, 200, 400)]
        scores = [score or 0.0 for score in buy_again.predict(rows)]
        assert all(sooner >= later for sooner, later in pairwise(scores))
        assert scores[0] > 1.5 * scores[-1]


def test_whoever_bought_more_often_is_likelier_on_average(buy_again: Model) -> None:
    def mean(orders: int) -> float:
        cases = product((10.0, 30.0, 60.0), (5, 20, 60, 120))
        rows = [(orders, orders * dollars, dollars, days) for dollars, days in cases]
        return float(np.mean(np.array(buy_again.predict(rows), dtype=float)))

    assert 1.5 * mean(1) < mean(3) < mean(10) / 1.3


def test_scores_do_not_depend_on_the_batch_nor_on_the_load(card: dict[str, Any], buy_again: Model) -> None:
    rows = [(float(k % 7), 12.5 * k, 3.25 * k, float(k)) for k in range(200)]
    again = load_model(SHIPPED / card["model"], inputs=4, output="probabilities")
    together = buy_again.predict(rows)
    assert again.predict(rows) == together
    assert [buy_again.predict([row])[0] for row in rows] == together
    assert buy_again.predict([]) == []


# Rows from a person


def test_features_are_numbers_in_the_cards_order_and_nan_where_unknown() -> None:
    names = ("orders", "vip", "town", "spent", "missing", "nothing")
    texts = [f"profile.{name}" for name in names] + ["profile.spent / profile.orders", "1.0 / profile.zero"]
    declared: Names = {"profile": dict.fromkeys((*names, "zero"), Type.ANY)}
    inputs = tuple(ModelInput(text, compile_expression(text, declared)) for text in texts)
    made = ModelCard(name="m", version="1", file="m.onnx", inputs=inputs)
    profile = {"orders": 4, "vip": True, "town": "Limerick", "spent": 30.0, "nothing": None, "zero": 0}
    row = features(made, Scope(profile=profile))
    assert [None if math.isnan(value) else value for value in row] == [
        *(4.0, 1.0, None, 30.0, None, None),
        *(7.5, None),
    ]
    assert all(isinstance(value, float) for value in row)


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(UNKNOWN) | st.just(10**400)
)
def test_any_value_becomes_a_float_that_a_model_can_take(value: Any) -> None:
    declared: Names = {"profile": {"x": Type.ANY}}
    column = ModelInput("x", compile_expression("profile.x", declared))
    made = ModelCard(name="m", version="1", file="m.onnx", inputs=(column,))
    (number,) = features(made, Scope(profile={"x": value}))
    assert math.isnan(number) or np.isfinite(np.float32(number))


# Scores that are none


def test_a_row_without_a_probability_is_none_and_counted_and_the_others_stand() -> None:
    model = linear()
    scores = model.predict([(1.0, 0.0), (NAN, 0.0), (0.0, 0.0), (math.inf, math.inf)])
    assert scores == [pytest.approx(1 / (1 + math.exp(-0.5))), None, 0.5, None]
    assert model.failed_rows == 2
    assert model.last_failure == "the output is no number between 0 and 1"


def test_a_failed_run_is_none_for_every_row_and_tells_nothing_of_them() -> None:
    model = linear()
    wrong: Any = [[(1.0, 2.0, 3.0)], [(1.0, 2.0), (1.0,)], [("ada@example.com", 1.0)], [(10**400, 1.0)]]
    for rows in wrong:
        assert model.predict(rows) == [None] * len(rows)
        assert "ada" not in str(model.last_failure)
    assert model.failed_rows == 5
    assert model.predict([(0.0, 0.0)]) == [0.5]


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_loading_starts_no_threads() -> None:
    before = len(os.listdir("/proc/self/task"))
    held = [linear() for _ in range(3)]
    assert len(os.listdir("/proc/self/task")) == before
    assert [model.predict([(0.0, 0.0)]) for model in held] == [[0.5]] * 3


# Files that are refused

EXTERNAL = "keeps weights in another file"
CUSTOM = "uses the custom operator"
CHANCE = "gives a row other scores by chance, or by the rows beside it"
REFUSED = {
    "external_initializer": EXTERNAL,
    "external_elsewhere": EXTERNAL,
    "external_constant": EXTERNAL,
    "external_sparse": EXTERNAL,
    "custom_operator": f"{CUSTOM} com.example.Oracle",
    "vendor_operator": f"{CUSTOM} com.microsoft.Gelu",
    "own_function": "defines functions of its own",
    "branches": "has branches or loops",
    "double_input": "takes tensor(double): tensor(float) is needed",
    "one_row": "takes exactly 1 rows at a time",
    "flat_input": "takes the shape ['rows']",
    "two_inputs": "takes 2 tensors",
    "wrong_output": "has no output 'probabilities', but 'score'",
    "three_columns": "gives 'probabilities' as ['rows', 3]: one or two columns",
    "integer_output": "gives 'probabilities' as tensor(int64)",
    "zipmap": "gives 'probabilities' as seq(map(int64,tensor(float))): numbers are needed (export with",
    "not_a_probability": "gives no number between 0 and 1 where every input is 1",
    "always_nan": "gives no number between 0 and 1 where every input is 0",
    "by_neighbours": CHANCE,
    "by_chance": CHANCE,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_with_a_fault_is_refused_in_plain_words(name: str) -> None:
    with pytest.raises(ModelError) as refused:
        load_model(SMALL / f"{name}.onnx", inputs=2, output="probabilities")
    assert str(refused.value).startswith(f"{name}.onnx {REFUSED[name]}")


def test_every_small_model_is_named_here() -> None:
    assert {path.stem for path in SMALL.glob("*.onnx")} == {*REFUSED, "linear", "any_width", "as_told"}


def test_external_weights_are_refused_even_where_they_lie_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes((SMALL / "external_initializer.onnx").read_bytes())
    (tmp_path / "weights.bin").write_bytes(np.array([0.5, -0.25], dtype=np.float32).tobytes())
    with pytest.raises(ModelError, match=EXTERNAL):
        load_model(tmp_path / "m.onnx", inputs=2, output="probabilities")


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [("linear", 3, "takes 2 inputs, its card lists 3"), ("any_width", 3, "cannot score rows of 3 inputs")],
)
def test_another_width_than_the_cards_is_refused(name: str, inputs: int, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        load_model(SMALL / f"{name}.onnx", inputs=inputs, output="probabilities")


class Planted:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_renamed_is_refused_and_never_opened_as_one(tmp_path: Path, protocol: int) -> None:
    renamed = tmp_path / "m.onnx"
    renamed.write_bytes(pickle.dumps(Planted(tmp_path / "ran"), protocol))
    with pytest.raises(ModelError, match=r"^m\.onnx is not an ONNX model"):
        load_model(renamed, inputs=2, output="probabilities")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_readable_file_of_sensible_size_is_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    expected = {
        "huge.onnx": "is larger than 64 MB",
        "pipe.onnx": "is not a file",
        "folder.onnx": "is not a file",
        "empty.onnx": "is not an ONNX model",
        "text.onnx": "is not an ONNX model",
        "gone.onnx": "does not exist",
    }
    for name, because in expected.items():
        with pytest.raises(ModelError) as refused:
            load_model(tmp_path / name, inputs=2, output="probabilities")
        assert str(refused.value) == f"{name} {because}"


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = (SMALL / "linear.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"^cut\.onnx "):
            load_model(cut, inputs=2, output="probabilities")


@given(st.binary(max_size=200), st.integers(0, 240))
def test_reading_a_files_contents_never_raises(noise: bytes, at: int) -> None:
    whole = (SMALL / "external_sparse.onnx").read_bytes()
    for content in (noise, whole[:at] + noise + whole[at:], whole[:at] + noise + whole[at + len(noise) :]):
        assert refusal(content) is None or isinstance(refusal(content), str)
