"""A compiled expression as a Python function: made at its first call, and carried to other processes."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import CodeType, FunctionType
from typing import Any, Final

from engine.domain.offers import cel_values
from engine.domain.offers.cel_functions import FUNCTIONS
from engine.domain.offers.scope import UNKNOWN, Scope

MAX_WORK: Final = 100_000
"""What all macros of one evaluation may do: elements times the parts of what is done with each."""

OPERATIONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": cel_values.add,
    "-": cel_values.subtract,
    "*": cel_values.multiply,
    "/": cel_values.divide,
    "%": cel_values.modulo,
    "==": cel_values.same,
    "!=": cel_values.different,
    "<": cel_values.less,
    "<=": cel_values.less_equal,
    ">": cel_values.greater,
    ">=": cel_values.greater_equal,
    "in": cel_values.is_in,
}
GIVEN: Final[Mapping[str, Any]] = {
    "__builtins__": {},
    "type": type,
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "list": list,
    "dict": dict,
    "len": len,
    "span": timedelta,
    "UNKNOWN": UNKNOWN,
    "NULL": cel_values.NULL,
    "MAX_WORK": MAX_WORK,
    **{
        function.__name__: function
        for function in (
            *OPERATIONS.values(),
            cel_values.member,
            cel_values.index,
            cel_values.negative,
            cel_values.opposite,
            cel_values.elements,
            cel_values.cost,
            cel_values.distinct_map,
            cel_values.stored,
            cel_values.outward,
        )
    },
    **{f"call_{name}": function for name, function in FUNCTIONS.items()},
}


_FILE: Final = "<expression>"
_SOURCE: Final = "SOURCE"
_LATE: Final = compile("def evaluate(s): return first_call(evaluate, s)", _FILE, "exec")


def late(source: str, constants: Mapping[str, Any]) -> Callable[[Scope], Any]:
    """A function that becomes what `source` says when it is first called."""
    given = {**GIVEN, **constants, _SOURCE: source, "first_call": _first_call}
    exec(_LATE, given)
    evaluate: Callable[[Scope], Any] = given["evaluate"]
    return evaluate


def _first_call(evaluate: FunctionType, scope: Scope) -> Any:
    finish(evaluate)
    return evaluate(scope)


def finish(evaluate: FunctionType) -> None:
    """Compiles a function of `compile_tree` now, where that has not been done."""
    given = evaluate.__globals__
    source = given.get(_SOURCE)
    if source is not None:
        made: dict[str, Any] = {}
        exec(compile(source, _FILE, "exec"), made)
        evaluate.__code__ = made["evaluate"].__code__
        given.pop(_SOURCE, None)


def is_compiled(function: FunctionType) -> bool:
    """Whether it came from here."""
    return function.__code__.co_filename == _FILE


def packed(evaluate: FunctionType) -> tuple[bytes, dict[str, Any]]:
    """A compiled function for another process of the same Python: its code, and its constants."""
    finish(evaluate)
    constants = {name: value for name, value in evaluate.__globals__.items() if name.startswith("K")}
    return marshal.dumps(evaluate.__code__), constants


def unpacked(code: bytes, constants: Mapping[str, Any]) -> Callable[[Scope], Any]:
    """The function that was packed."""
    loaded = marshal.loads(code)
    assert isinstance(loaded, CodeType)
    return FunctionType(loaded, {**GIVEN, **constants})
