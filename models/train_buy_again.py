"""Train the sample propensity model: will this customer buy again within 30 days?

Run with `uv run --extra train python models/train_buy_again.py`. It writes, beside itself,
`buy_again.onnx`, its card `buy_again.yaml` and `buy_again.vectors.json` (inputs with the scores that
LightGBM itself gives them, for the tests). The same data and libraries give the same bytes.

Training never sees the future: trees from the outcomes up to 1997-11-27, their calibration from
December 1997, the measures from 1998. A mean of `lifetime_value / orders` as a fifth input was tried
and changed none of the measures in the third digit, so it is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
from cdnow import HORIZON, INPUTS, TEST_DAYS, TRAIN_DAYS, TUNE_DAYS, Snapshots, read_purchases, snapshots
from measures import Bin, area_under_curve, brier, calibration, calibration_error, log_loss
from numpy.typing import NDArray
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

FOLDER = Path(__file__).parent
NAME = "buy_again"
TREES = 100
SEED = 19970101
UNKNOWN_SHARE = 0.3
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.03,
    "num_leaves": 15,
    "max_depth": 4,
    "min_data_in_leaf": 200,
    # Someone who has stayed away longer is not likelier to be back, whatever a thin leaf says; it also
    # keeps the score sane past the oldest recency that training has seen (300 days).
    "monotone_constraints": [-1 if name == "days_since_order" else 0 for name in INPUTS],
    "seed": SEED,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
AGREEMENT = 1e-5
"""How far ONNX Runtime's 32-bit scores may stray from LightGBM's own 64-bit ones."""


def with_unknowns(known: Snapshots) -> Snapshots:
    """Each row twice: as it is, and with some inputs hidden, so that NaN comes to mean "not known".

    The data has every input of every customer; a profile in the engine may not.
    """
    hidden = np.random.default_rng(SEED).random(known.rows.shape) < UNKNOWN_SHARE
    return Snapshots(
        rows=np.concatenate([known.rows, np.where(hidden, np.float32(np.nan), known.rows)]),
        bought=np.concatenate([known.bought, known.bought]),
    )


def grow(train: Snapshots, progress: Progress) -> lightgbm.Booster:
    """Fit the trees."""
    task = progress.add_task("growing trees", total=TREES)
    return lightgbm.train(
        PARAMETERS,
        lightgbm.Dataset(train.rows, train.bought, feature_name=list(INPUTS)),
        num_boost_round=TREES,
        callbacks=[lambda _: progress.advance(task)],
    )


def recalibrate(booster: lightgbm.Booster, tune: Snapshots) -> tuple[float, float]:
    """Fit `slope * log-odds + shift` on the months after training and fold it into the leaves.

    The cohort cools as it ages, so trees fitted on its youth forecast too high (Platt's correction,
    by Newton's method). Returns (slope, shift).
    """
    log_odds = np.column_stack([booster.predict(tune.rows, raw_score=True), np.ones(len(tune.rows))])
    slope_and_shift = np.array([1.0, 0.0])
    for _ in range(20):
        share = 1 / (1 + np.exp(-log_odds @ slope_and_shift))
        curvature = (log_odds.T * (share * (1 - share))) @ log_odds
        slope_and_shift += np.linalg.solve(curvature, log_odds.T @ (tune.bought - share))
    slope, shift = float(slope_and_shift[0]), float(slope_and_shift[1])
    for tree in range(booster.num_trees()):
        for leaf in range(_leaves(booster, tree)):
            value = booster.get_leaf_output(tree, leaf)
            booster.set_leaf_output(tree, leaf, slope * value + shift / booster.num_trees())
    return slope, shift


def _leaves(booster: lightgbm.Booster, tree: int) -> int:
    return int(booster.dump_model(num_iteration=1, start_iteration=tree)["tree_info"][0]["num_leaves"])


def with_float32_thresholds(booster: lightgbm.Booster) -> lightgbm.Booster:
    """The same trees with every threshold rounded down to a 32-bit float.

    ONNX keeps thresholds in 32 bits and rounds them to the nearest, which sent 11.88 dollars down the
    other branch than LightGBM (scores 0.006 apart). For 32-bit inputs, rounding down changes nothing.
    """

    def rounded(line: re.Match[str]) -> str:
        exact = np.array(line[1].split(), dtype=np.float64)
        nearest = exact.astype(np.float32)
        lower = np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
        return "threshold=" + " ".join(repr(float(value)) for value in lower)

    text = re.sub(r"^threshold=(.*)$", rounded, booster.model_to_string(), flags=re.MULTILINE)
    # Each tree's length in bytes stands in the header, and is wrong now; without it they are parsed in turn.
    return lightgbm.Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE))


def to_onnx(booster: lightgbm.Booster) -> bytes:
    """The model with one input `inputs` (rows, columns) and one output `probabilities` (rows, 2)."""
    model = convert_lightgbm(
        booster,
        name=NAME,
        initial_types=[("inputs", FloatTensorType([None, len(INPUTS)]))],
        target_opset=15,
        zipmap=False,
    )
    graph = model.graph
    label = next(output for output in graph.output if output.name != "probabilities")
    graph.output.remove(label)
    for node in [node for node in graph.node if label.name in node.output and len(node.output) == 1]:
        graph.node.remove(node)
    # The converter lists these in the order of a set, which differs from run to run.
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return bytes(model.SerializeToString(deterministic=True))


def onnx_scores(model: bytes, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of buying again by ONNX Runtime, (rows,)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores: NDArray[np.float32] = session.run(["probabilities"], {"inputs": rows})[0][:, 1]
    return scores


def probe_rows(test: Snapshots) -> NDArray[np.float32]:
    """A few customers of the test months, the same with each input unknown, and the edges."""
    some = test.rows[:: len(test.rows) // 40][:40]
    holes = np.repeat(some[:1], len(INPUTS), axis=0)
    np.fill_diagonal(holes, np.nan)
    nobody_yet = [0.0 if name in ("orders", "lifetime_value") else np.nan for name in INPUTS]
    edges = np.array([nobody_yet, [np.nan] * len(INPUTS), [0.0] * len(INPUTS), [1e6] * len(INPUTS)])
    return np.concatenate([some, holes, edges]).astype(np.float32)


def write_vectors(path: Path, rows: NDArray[np.float32], scores: NDArray[np.float64]) -> None:
    """Rows and LightGBM's scores of them, one a line; null for NaN."""
    lines = [
        json.dumps(
            {
                "row": [None if np.isnan(value) else float(value) for value in row],
                "score": round(float(score), 7),
            }
        )
        for row, score in zip(rows, scores, strict=True)
    ]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def next_version(card: Path, digest: str) -> str:
    """One more than the version on the present card, or the same if the model's bytes are the same."""
    if not card.exists():
        return "1"
    text = card.read_text(encoding="utf-8")
    written = re.search(r'^version: "(\d+)"', text, re.MULTILINE)
    if written is None:
        raise SystemExit(f'{card.name} has no version to go on from: expected a line like version: "1"')
    return written[1] if digest in text else str(int(written[1]) + 1)


def write_card(path: Path, *, digest: str, measured: dict[str, Any], table: list[Bin]) -> None:
    """The YAML card, written for a person to read and edit."""
    longest = max(map(len, INPUTS))
    inputs = "\n".join(
        f"  - {{name: {name},{' ' * (longest - len(name))} from: {source}}}"
        for name, source in INPUTS.items()
    )
    metrics = "\n".join(f"    {name}: {value}" for name, value in measured["metrics"].items())
    lines = "\n".join(
        f"    - {{people: {line.people}, forecast: {line.forecast:.4f}, observed: {line.observed:.4f}}}"
        for line in table
    )
    mean = sum(line.forecast * line.people for line in table) / sum(line.people for line in table)
    base_rate = measured["metrics"]["base_rate"]
    path.write_text(
        f"""\
# Written by train_buy_again.py.
name: {NAME}
version: "{next_version(path, digest)}"          # goes up when training gives another model
model: {NAME}.onnx
predicts: buys again within the horizon
horizon: {HORIZON.days}d
inputs:               # in the model's order; what is unknown goes in as NaN
{inputs}
output: probabilities # column 1
training:
  data: data/cdnow-purchases.txt
  trained_on: >-
    CDNOW, published by Fader and Hardie: the 23,570 people who first bought there in the first quarter
    of 1997, seen every 30 days. Trees from snapshots of {TRAIN_DAYS[0]} to {TRAIN_DAYS[-1]}, calibration from
    {TUNE_DAYS[0]}, the measures below from {TEST_DAYS[0]} to {TEST_DAYS[-1]}.
  rows: {measured["rows"]}
  test_rows: {measured["test_rows"]}
  sha256: {digest}
  metrics:            # base_rate: the share that bought; base_*: of a forecast of just that
{metrics}
  calibration:        # tenths of the test rows, lowest forecasts first
{lines}
  limits: >-
    Nobody in the data is without an order: a profile that has none gets the score of someone of whom
    little is known, so ask for profile.orders > 0 in the rule. No newcomers after March 1997: the cohort
    cools as it ages, and in the test months {mean:.1%} were forecast and {base_rate:.1%} bought.
    It tells who buys anyway, not who buys because of an offer.
""",
        encoding="utf-8",
    )


def measure(test: Snapshots, scores: NDArray[np.floating], table: list[Bin]) -> dict[str, float]:
    """The card's metrics, to four digits (Brier five)."""
    base_rate = float(test.bought.mean())
    flat = np.full(len(test.bought), base_rate)
    return {
        "auc": round(area_under_curve(test.bought, scores), 4),
        "log_loss": round(log_loss(test.bought, scores), 4),
        "base_log_loss": round(log_loss(test.bought, flat), 4),
        "brier": round(brier(test.bought, scores), 5),
        "base_brier": round(brier(test.bought, flat), 5),
        "calibration_error": round(calibration_error(table), 4),
        "base_rate": round(base_rate, 4),
    }


def report(console: Console, metrics: dict[str, float], table: list[Bin]) -> None:
    """Print the measures and the calibration table."""
    shown = Table(title="measured on 1998, after all that training saw")
    for heading in ("measure", "model", "base rate only"):
        shown.add_column(heading, justify="left" if heading == "measure" else "right")
    shown.add_row("area under the curve", f"{metrics['auc']:.4f}", "0.5000")
    shown.add_row("log loss", f"{metrics['log_loss']:.4f}", f"{metrics['base_log_loss']:.4f}")
    shown.add_row("Brier score", f"{metrics['brier']:.5f}", f"{metrics['base_brier']:.5f}")
    shown.add_row("calibration error", f"{metrics['calibration_error']:.4f}", "")
    console.print(shown)
    tenths = Table(title="calibration")
    for heading in ("people", "forecast", "observed"):
        tenths.add_column(heading, justify="right")
    for line in table:
        tenths.add_row(f"{line.people:,}", f"{line.forecast:.1%}", f"{line.observed:.1%}")
    console.print(tenths)


def main() -> int:
    """Train, check, write. Exit code 1 if ONNX Runtime and LightGBM disagree; nothing is written then."""
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        steps = progress.add_task("steps", total=5)
        purchases = read_purchases()
        train, tune, test = (snapshots(purchases, days) for days in (TRAIN_DAYS, TUNE_DAYS, TEST_DAYS))
        progress.advance(steps)
        booster = grow(with_unknowns(train), progress)
        progress.advance(steps)
        slope, shift = recalibrate(booster, tune)
        progress.advance(steps)
        model = to_onnx(with_float32_thresholds(booster))
        progress.advance(steps)
        scores = onnx_scores(model, test.rows)
        probes = probe_rows(test)
        expected = np.asarray(booster.predict(probes))
        worst = max(
            float(np.abs(scores - np.asarray(booster.predict(test.rows))).max()),
            float(np.abs(onnx_scores(model, probes) - expected).max()),
        )
        progress.advance(steps)
    console.print(f"log-odds corrected by {slope:.3f} x + {shift:.3f}; ONNX within {worst:.1e} of LightGBM")
    if not worst <= AGREEMENT:
        console.print(f"[red]not written: the scores may differ by {AGREEMENT:.0e} at most")
        return 1
    table = calibration(test.bought, scores)
    metrics = measure(test, scores, table)
    report(console, metrics, table)
    digest = hashlib.sha256(model).hexdigest()
    (FOLDER / f"{NAME}.onnx").write_bytes(model)
    measured = {"rows": len(train.rows), "test_rows": len(test.rows), "metrics": metrics}
    write_card(FOLDER / f"{NAME}.yaml", digest=digest, measured=measured, table=table)
    write_vectors(FOLDER / f"{NAME}.vectors.json", probes, expected)
    console.print(
        f"wrote {NAME}.onnx ({len(model):,} bytes), {NAME}.yaml, {NAME}.vectors.json in {FOLDER.name}/"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
