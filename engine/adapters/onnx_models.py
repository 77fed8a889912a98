"""Propensity models run by ONNX Runtime, one thread, on the caller's own thread.

    ModelError        a file that cannot be used, with the reason in plain words; only from loading

A loaded model never raises: a row that it cannot score is None, and counted. Gradient boosting of 100
trees takes about 7 µs for one row and 1 µs for each further one, less than handing it to a thread would.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from engine.adapters.onnx_contents import refusal

if TYPE_CHECKING:  # loaded with the first model: a workspace without one does not wait for it
    import onnxruntime

MAX_MODEL_BYTES: Final = 64 * 1024 * 1024
"""Beyond this nothing is scored in microseconds."""

VERSION_LENGTH: Final = 12
PROBE_VALUES: Final = (0.0, 1.0, 100.0)
SAME_SCORE: Final = 1e-5
WARM_UP_ROWS: Final = 64
SILENT: Final = 4
"""ONNX Runtime's severity "fatal": it would print its errors besides raising them."""


class ModelError(Exception):
    """A model file that cannot be used. The text begins with the file's name and needs no traceback."""


class Model:
    """A loaded model, ready to score.

    `version` is the start of the SHA-256 of the file's bytes, in hex. `failed_rows` counts the rows
    that got no score since loading and `last_failure` says why the last one got none: whoever drives
    the model raises the alarm on them.
    """

    __slots__ = ("_column", "_input", "_outputs", "_session", "failed_rows", "last_failure", "version")

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        *,
        input_name: str,
        output: str,
        column: int,
        version: str,
    ) -> None:
        self._session = session
        self._input = input_name
        self._outputs = [output]
        self._column = column
        self.version = version
        self.failed_rows = 0
        self.last_failure: str | None = None

    def __repr__(self) -> str:
        return f"Model({self.version!r})"

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float | None]:
        """The probability of each row, in order; NaN in a row is an unknown input.

        None where the model gives no number between 0 and 1. Where the run itself fails, all are None.
        Never raises, whatever the rows are.
        """
        if not rows:
            return []
        try:
            scores = self._run(rows)
        except Exception as fault:  # ONNX Runtime's errors share no root below Exception
            self.failed_rows += len(rows)
            # Only its kind: the text could quote a row, and rows are personal.
            self.last_failure = f"the run failed with {type(fault).__name__}"
            return [None] * len(rows)
        answer: list[float | None] = [score if 0.0 <= score <= 1.0 else None for score in scores]
        missing = answer.count(None)
        if missing:
            self.failed_rows += missing
            self.last_failure = "the output is no number between 0 and 1"
        return answer

    def _run(self, rows: Sequence[Sequence[float]]) -> list[float]:
        with np.errstate(over="ignore"):  # what 32 bits cannot hold becomes infinite, without a warning
            table = np.array(rows, dtype=np.float32)
        (output,) = self._session.run(self._outputs, {self._input: table})
        scores: list[float] = output.reshape(len(rows), -1)[:, self._column].tolist()
        return scores


def load_model(path: Path, *, inputs: int, output: str) -> Model:
    """Load, check and warm up the ONNX file at `path`.

    `inputs` is the number of columns that the card lists; `output` names the tensor of probabilities:
    one column, or two of which the second counts. Raises ModelError. Only the one file is opened, and
    nothing but operators of the ONNX standard is run.
    """
    return model_of(path.name, _read(path), inputs=inputs, output=output)


def model_of(name: str, content: bytes, *, inputs: int, output: str) -> Model:
    """The model in the bytes of a file called `name`, as `load_model` has it."""
    if len(content) > MAX_MODEL_BYTES:
        raise ModelError(f"{name} is larger than {MAX_MODEL_BYTES // 1024**2} MB")
    because = refusal(content)
    if because is not None:
        raise ModelError(f"{name} {because}")
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
    except Exception as fault:
        raise ModelError(f"{name} cannot be loaded by ONNX Runtime: {_first_line(fault)}") from fault
    input_name = _checked_input(name, session, inputs)
    column = _checked_output(name, session, output)
    version = hashlib.sha256(content).hexdigest()[:VERSION_LENGTH]
    model = Model(session, input_name=input_name, output=output, column=column, version=version)
    _probe(name, model, inputs)
    return model


def _read(path: Path) -> bytes:
    try:
        # Asked before opening, as opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelError(f"{path.name} is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_MODEL_BYTES + 1)
    except FileNotFoundError:
        raise ModelError(f"{path.name} does not exist") from None
    except OSError as fault:
        raise ModelError(f"{path.name} cannot be read: {fault.strerror}") from fault
    return content


def _options() -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _checked_input(name: str, session: onnxruntime.InferenceSession, inputs: int) -> str:
    taken = session.get_inputs()
    if len(taken) != 1:
        raise ModelError(f"{name} takes {len(taken)} tensors: one of (rows, inputs) is needed")
    only = taken[0]
    if only.type != "tensor(float)":
        raise ModelError(f"{name} takes {only.type}: tensor(float) is needed")
    if len(only.shape) != 2:
        raise ModelError(f"{name} takes the shape {only.shape}: (rows, inputs) is needed")
    rows, width = only.shape
    if isinstance(width, int) and width != inputs:
        raise ModelError(f"{name} takes {width} inputs, its card lists {inputs}")
    if isinstance(rows, int):
        raise ModelError(f"{name} takes exactly {rows} rows at a time: any number is needed")
    input_name: str = only.name
    return input_name


def _checked_output(name: str, session: onnxruntime.InferenceSession, output: str) -> int:
    """The column that holds the probability."""
    given = {tensor.name: tensor for tensor in session.get_outputs()}
    if output not in given:
        raise ModelError(f"{name} has no output {output!r}, but {', '.join(map(repr, given))}")
    tensor = given[output]
    if tensor.type not in ("tensor(float)", "tensor(double)"):
        advice = " (export with zipmap off)" if tensor.type.startswith("seq(") else ""
        raise ModelError(f"{name} gives {output!r} as {tensor.type}: numbers are needed{advice}")
    columns = tensor.shape[1] if len(tensor.shape) == 2 else 1
    if len(tensor.shape) not in (1, 2) or columns not in (1, 2):
        raise ModelError(f"{name} gives {output!r} as {tensor.shape}: one or two columns are needed")
    return int(columns) - 1


def _probe(name: str, model: Model, inputs: int) -> None:
    """Score rows that any model can be asked about, together and alone; the first runs also warm up."""
    rows = [[value] * inputs for value in PROBE_VALUES]
    unknown = [float("nan")] * inputs
    try:
        model._run([*rows, unknown] * (WARM_UP_ROWS // 4))
    except Exception as fault:
        raise ModelError(f"{name} cannot score rows of {inputs} inputs: {_first_line(fault)}") from fault
    for value, row, together in zip(PROBE_VALUES, rows, model.predict(rows), strict=True):
        alone = model.predict([row])[0]
        if together is None or alone is None:
            raise ModelError(f"{name} gives no number between 0 and 1 where every input is {value:g}")
        if abs(together - alone) > SAME_SCORE:
            raise ModelError(f"{name} gives a row other scores by chance, or by the rows beside it")


def _first_line(fault: Exception) -> str:
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    return lines[0][:300]
