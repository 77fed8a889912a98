"""Two profiles that turn out to be one person: nothing is lost, nothing counts twice, whoever is faster.

`HISTORIES=10000 uv run pytest tests/test_merges.py` tells so many random histories; the suite some.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.domain.people.merging import UNITED
from engine.domain.people.profiles import Profile
from tests import histories, lanes
from tests.histories import RULES, WORKSPACE, Told, causal_histories, free_histories

EXAMPLES = int(os.environ.get("HISTORIES", "40"))
_settings = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking would run thousands more on a real database
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Pair:
    """Two engines on one database, and a loop to run them."""

    def __init__(self, dsn: str) -> None:
        self.runner = asyncio.Runner()
        self._dsn = dsn
        self._numbers = iter(range(10**9))
        self._stop = asyncio.Event()
        self.engines: list[lanes.Engine] = []

    def prefix(self) -> str:
        return f"{next(self._numbers)}-"

    async def start(self) -> None:
        rules = lanes.rule_set(RULES, WORKSPACE)
        self._contexts = [lanes.engine(self._dsn, rules) for _ in range(2)]
        self.engines = [await context.__aenter__() for context in self._contexts]

    async def end(self) -> None:
        for context in self._contexts:
            await context.__aexit__(None, None, None)


@pytest.fixture
def pair(postgres_dsn: str) -> Iterator[Pair]:
    two = Pair(postgres_dsn)
    two.runner.run(two.start())
    yield two
    two.runner.run(two.end())
    two.runner.close()


@_settings
@given(history=free_histories(), seed=st.integers(0, 2**32))
def test_any_order_gives_the_people_of_the_oracle(pair: Pair, history: list[Told], seed: int) -> None:
    found = pair.runner.run(histories.live_freely(pair.engines, history, pair.prefix(), seed))
    assert found == histories.people_of_free(history)


@_settings
@given(lives=causal_histories(), seed=st.integers(0, 2**32))
def test_each_devices_order_gives_the_people_of_the_oracle(
    pair: Pair, lives: dict[str, list[Told]], seed: int
) -> None:
    found = pair.runner.run(histories.live_causally(pair.engines, lives, pair.prefix(), seed))
    assert found == histories.people_of_causal(lives)


def test_every_field_of_a_document_is_united() -> None:
    """A field that is added to the document needs a rule for two that become one."""
    kept = {"id", "format", "version", "ended", "erased", "account"}
    assert set(UNITED) == set(Profile.__struct_fields__) - kept
