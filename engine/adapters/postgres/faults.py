"""What the database does to us.

StoreError
├── Unavailable        the database is away; whether the statement took is not known
└── Conflict           a deadlock or serialization failure: nothing took, decide again
"""

from __future__ import annotations

from typing import Any

import asyncpg


class StoreError(Exception):
    """The root of what the database does to us."""


class Unavailable(StoreError):
    """The database is away or too slow; whether the statement took is not known."""


class Conflict(StoreError):
    """A deadlock or serialization failure: nothing took."""


class faults:  # noqa: N801 - reads as a statement
    """Turns the driver's exceptions into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: Any) -> None:
        if isinstance(fault, asyncpg.DeadlockDetectedError | asyncpg.SerializationError):
            raise Conflict(type(fault).__name__) from fault
        if isinstance(
            fault,
            asyncpg.PostgresConnectionError
            | asyncpg.OperatorInterventionError
            | asyncpg.InsufficientResourcesError
            | asyncpg.CannotConnectNowError
            | asyncpg.InterfaceError
            | asyncpg.ReadOnlySQLTransactionError  # a server that was demoted: look for the new one
            | asyncpg.InternalClientError  # a connection cut in the middle of the protocol
            | OSError
            | TimeoutError,
        ):
            raise Unavailable(type(fault).__name__) from fault
