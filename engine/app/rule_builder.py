"""Rule sets built in a process of their own, so that the event loop goes on meanwhile.

Reading YAML, checking, compiling and covering fences is seconds of pure Python for a large workspace;
in a thread it took the loop's round trip from 0.08 to 11 ms. So a second process does it and sends the
finished rule set, or what is wrong with it. What is left to do here is to take it in: a thread reads it
frame by frame (64 KB), and lets the loop go first in between.

`python -m engine.app.rule_builder` is that process: workspaces in on standard input, rule sets out on
standard output. It ends with its input.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from types import FunctionType
from typing import IO, Any, TypeVar

from engine.app.rulesets import Checked, Files, build, load_models
from engine.app.ruling import Ruling
from engine.domain.offers.cel_late import is_compiled, packed, unpacked
from engine.domain.offers.rules import RuleSet
from engine.formats.fence_file import SUFFIX
from engine.formats.problems import Problem, in_order
from engine.formats.workspace import MODELS_PREFIX
from engine.formats.workspace_memory import Memory

T = TypeVar("T")

BUILD_SECONDS = 120.0
BYTES_A_SECOND = 250_000
"""And so many bytes of imported geofences in each second more: a million of them take minutes."""
MOST_LEARNT_BYTES = 32_000_000
SWITCH_SECONDS = 0.0005
"""How long the thread that takes a rule set in may keep the loop waiting; Python's own 5 ms would show."""


class BuilderLost(Exception):
    """The process ended, or took too long, before it had an answer."""


class Builder:
    """The other process. `learn` before it is needed: its imports take most of a second, and the first
    build as long as all. One that was lost is replaced with the next build."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = asyncio.Lock()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = _start()
        return self._process

    async def build(self, files: Files, running: Ruling) -> Checked:
        """Checks and compiles `files`. Models that `running` has already are taken over.

        Raises:
            BuilderLost: nothing came of it; the next build has a new process.
        """
        return await self._in_turn(files, lambda process: _ask(process, files, running))

    async def learn(self, files: Files) -> None:
        """Has the process build what is running already, so that it knows all but what changes. Very many
        geofences are not built ahead: there is not always memory for them twice.

        Raises:
            BuilderLost: as `build`.
        """
        if _imported_bytes(files) > MOST_LEARNT_BYTES:
            self._running()
            return
        await self._in_turn(files, lambda process: _tell(process, files, is_asked=False))

    async def _in_turn(self, files: Files, work: Callable[[subprocess.Popen[bytes]], T]) -> T:
        seconds = BUILD_SECONDS + _imported_bytes(files) / BYTES_A_SECOND
        async with self._turn:
            process = self._running()
            try:
                async with asyncio.timeout(seconds):
                    return await asyncio.to_thread(work, process)
            except BaseException as fault:
                _end(process)  # whatever it was: half an answer may be in the pipe
                if isinstance(fault, TimeoutError):
                    raise BuilderLost(f"no answer within {seconds:.0f} s") from fault
                if isinstance(fault, OSError | EOFError | pickle.UnpicklingError):
                    raise BuilderLost("its process ended") from fault
                raise

    def close(self) -> None:
        if self._process is not None:
            _end(self._process)


def _imported_bytes(files: Files) -> int:
    return sum(len(data) for name, data in files.rules.items() if name.endswith(SUFFIX))


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "engine.app.rule_builder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the engine, which ends this one
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _tell(process: subprocess.Popen[bytes], files: Files, *, is_asked: bool) -> None:
    assert process.stdin is not None
    pickle.dump((files, is_asked), process.stdin, pickle.HIGHEST_PROTOCOL)
    process.stdin.flush()


def _ask(process: subprocess.Popen[bytes], files: Files, running: Ruling) -> Checked:
    assert process.stdout is not None
    _tell(process, files, is_asked=True)
    with _brief_turns():
        answer = pickle.Unpickler(_Frames(process.stdout)).load()
        rules: RuleSet | None = answer[0]
        problems: tuple[Problem, ...] = answer[1]
        ruling = None
        if rules is not None:
            predictors, refused = load_models(rules.models, files, running)
            problems = in_order([*problems, *refused])
            ruling = None if refused else Ruling(rules, predictors)
    sources = {**files.rules, **{MODELS_PREFIX + name: data for name, data in files.models.items()}}
    return Checked(ruling, problems, sources, files)


class _Frames:
    """A pipe as an unpickler reads it. That it is written in Python gives the loop its turn between
    two frames, which the unpickler alone would not."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def read(self, size: int) -> bytes:
        return self._pipe.read(size)

    def readline(self) -> bytes:
        return self._pipe.readline()


class Packer(pickle.Pickler):
    """Writes rule sets: compiled expressions too, which are functions without a name to find them by."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, FunctionType) and is_compiled(thing):
            return unpacked, packed(thing)
        return NotImplemented


_brief = threading.Lock()


@contextmanager
def _brief_turns() -> Iterator[None]:
    """Threads take turns more often, in this process, for as long as this one has work to do."""
    with _brief:
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            yield
        finally:
            sys.setswitchinterval(before)


def main() -> None:
    """Builds what is asked for until there is nothing more to ask."""
    memory = Memory()
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what anything prints must not stand between the answers
        while True:
            try:
                files, is_asked = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            checked = build(files, memory=memory)
            rules = checked.ruling.rules if checked.ruling is not None else None
            answer = answers if is_asked else BytesIO()  # packing compiles: that too is then done
            Packer(answer, pickle.HIGHEST_PROTOCOL).dump((rules, checked.problems))
            answer.flush()


if __name__ == "__main__":
    main()
