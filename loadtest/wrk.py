"""The client for full speed where it is installed: wrk, with wrk.lua."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec

from loadtest.results import LoadtestError, Measured
from loadtest.traffic import Traffic, lua_plan

SCRIPT = Path(__file__).with_name("wrk.lua")
SPARE_SECONDS = 30.0

_decode = msgspec.json.Decoder(Measured).decode


def is_installed() -> bool:
    return shutil.which("wrk") is not None


def drive(url: str, traffic: Traffic, folder: Path, *, seconds: int, connections: int) -> Measured:
    """Sends as fast as answers come, from one thread.

    Raises:
        LoadtestError: wrk did not run as it should.
    """
    plan = folder / "plan.lua"
    plan.write_text(lua_plan(traffic), "ascii")
    # Its own 2 s are little on a machine that others use; what was slow shows in the latency.
    patience = ["--timeout", "20s"]
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        *patience,
        "-s",
        str(SCRIPT),
        url,
        "--",
        str(plan),
    ]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds + SPARE_SECONDS
        )
    except subprocess.TimeoutExpired as fault:
        raise LoadtestError(f"wrk did not end {SPARE_SECONDS:.0f} s after its time") from fault
    last = ran.stdout.strip().rpartition("\n")[2]
    try:
        return _decode(last)
    except msgspec.DecodeError as fault:
        raise LoadtestError(f"wrk failed ({ran.returncode}): {ran.stderr.strip() or last}") from fault
