"""How good a forecast was: discrimination, sharpness, and whether 10 % means one in ten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Bin:
    """One line of a calibration table: people with similar forecasts, and what they did."""

    people: int
    forecast: float
    observed: float


def area_under_curve(happened: NDArray[np.int8], forecast: Floats) -> float:
    """The chance that someone who did it was forecast higher than someone who did not; ties half."""
    _, place, count = np.unique(forecast, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(count) - (count - 1) / 2
    positives = int(happened.sum())
    negatives = len(happened) - positives
    ranks = float(middle_rank[place][happened == 1].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def log_loss(happened: NDArray[np.int8], forecast: Floats) -> float:
    """Mean negative log likelihood, in nats."""
    right = np.where(happened == 1, forecast, 1 - forecast).astype(np.float64)
    return float(-np.log(np.clip(right, 1e-15, 1.0)).mean())


def brier(happened: NDArray[np.int8], forecast: Floats) -> float:
    """Mean squared error of the probability."""
    return float(np.square(forecast.astype(np.float64) - happened).mean())


def calibration(happened: NDArray[np.int8], forecast: Floats, bins: int = 10) -> list[Bin]:
    """Equally large groups from the lowest to the highest forecast."""
    groups = np.array_split(np.argsort(forecast, kind="stable"), bins)
    return [
        Bin(len(group), float(forecast[group].mean(dtype=np.float64)), float(happened[group].mean()))
        for group in groups
    ]


def calibration_error(table: list[Bin]) -> float:
    """Mean distance of forecast and observed share, weighted by people."""
    people = sum(line.people for line in table)
    return sum(line.people * abs(line.forecast - line.observed) for line in table) / people
