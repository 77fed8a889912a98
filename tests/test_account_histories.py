"""Random lives of members, told to two engines: memberships and roll-ups are those of the oracle."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import account_histories, lanes
from tests.account_histories import RULES, WORKSPACE, Told

EXAMPLES = int(os.environ.get("HISTORIES", "40"))


class Pair(NamedTuple):
    """Two engines on one database, a loop to run them, and names that no other history has."""

    runner: asyncio.Runner
    engines: list[lanes.Engine]
    prefixes: Iterator[str]


@pytest.fixture
def pair(postgres_dsn: str) -> Iterator[Pair]:
    rules = lanes.rule_set(RULES, WORKSPACE)
    with asyncio.Runner() as runner:
        both = [lanes.engine(postgres_dsn, rules) for _ in range(2)]
        engines = [runner.run(one.__aenter__()) for one in both]
        yield Pair(runner, engines, (f"{number}-" for number in count()))
        for one in both:
            runner.run(one.__aexit__(None, None, None))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lives=account_histories.histories(), seed=st.integers(0, 2**32))
def test_each_devices_order_gives_the_accounts_of_the_oracle(
    pair: Pair, lives: dict[str, list[Told]], seed: int
) -> None:
    found = pair.runner.run(account_histories.live(pair.engines, lives, next(pair.prefixes), seed))
    assert found == account_histories.accounts_of(lives)
