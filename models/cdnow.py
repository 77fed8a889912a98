"""The CDNOW purchases as snapshots: what was known of each customer on a day, and what came next.

A snapshot of a day sees only purchases of earlier days, with the very numbers that the engine's
computed traits would hold at that moment, and is labelled with whether the customer bought within the
horizon from that day on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PURCHASES = Path(__file__).parent / "data" / "cdnow-purchases.txt"
LAST_DAY = date(1998, 6, 30)
HORIZON = timedelta(days=30)

INPUTS = {
    "orders": "profile.orders",
    "lifetime_value": "profile.lifetime_value",
    "last_order_value": "profile.last_order_value",
    "days_since_order": "profile.days_since_order",
}
"""The columns in their order, each with the expression that gives it in the engine."""

TRAIN_DAYS = tuple(date(1997, 2, 1) + timedelta(days=30 * k) for k in range(10))
"""1997-02-01 to 1997-10-29: the last outcome that training may know falls on 1997-11-27."""
TUNE_DAYS = (date(1997, 12, 1),)
"""Sets the calibration; its outcomes end on 1997-12-30."""
TEST_DAYS = tuple(date(1998, 1, 1) + timedelta(days=30 * k) for k in range(6))
"""1998-01-01 to 1998-05-31: after everything that training or tuning has seen."""


@dataclass(frozen=True)
class Purchases:
    """One element per purchase, sorted by customer, then by day. `day` is a proleptic ordinal;
    `first` holds the index of each customer's first purchase."""

    day: NDArray[np.int64]
    dollars: NDArray[np.float64]
    first: NDArray[np.int64]


@dataclass(frozen=True)
class Snapshots:
    """`rows` is (n, len(INPUTS)) in 32-bit floats, as the engine hands them over; `bought` is (n,),
    1 where the customer bought again within the horizon."""

    rows: NDArray[np.float32]
    bought: NDArray[np.int8]


def read_purchases(path: Path = PURCHASES) -> Purchases:
    """Read the published file. Purchases of one day keep the file's order."""
    table = np.loadtxt(path, skiprows=1, dtype=np.float64)
    customer = table[:, 0].astype(np.int64)
    day = np.array([date.fromisoformat(str(int(written))).toordinal() for written in table[:, 1]])
    order = np.lexsort((np.arange(len(day)), day, customer))
    starts = np.flatnonzero(np.diff(customer[order], prepend=-1))
    return Purchases(day=day[order], dollars=table[order, 3], first=starts)


def snapshots(purchases: Purchases, days: tuple[date, ...]) -> Snapshots:
    """All customers that had bought before each of `days`, one row per customer and day."""
    if max(days) + HORIZON > LAST_DAY + timedelta(days=1):
        raise ValueError(f"the outcomes of {max(days)} reach beyond the data's last day, {LAST_DAY}")
    taken = [_snapshot(purchases, day.toordinal()) for day in days]
    return Snapshots(
        rows=np.concatenate([one.rows for one in taken]),
        bought=np.concatenate([one.bought for one in taken]),
    )


def _snapshot(purchases: Purchases, today: int) -> Snapshots:
    known = purchases.day < today
    coming = (purchases.day >= today) & (purchases.day < today + HORIZON.days)
    orders = np.add.reduceat(known, purchases.first, dtype=np.int64)
    lifetime_value = np.add.reduceat(np.where(known, purchases.dollars, 0.0), purchases.first)
    bought = np.add.reduceat(coming, purchases.first, dtype=np.int64) > 0
    customers = orders > 0
    last = purchases.first[customers] + orders[customers] - 1
    rows = np.column_stack(
        [
            orders[customers],
            lifetime_value[customers],
            purchases.dollars[last],
            today - purchases.day[last],
        ]
    )
    return Snapshots(rows=rows.astype(np.float32), bought=bought[customers].astype(np.int8))
