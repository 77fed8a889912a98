"""What an ONNX file holds, read before ONNX Runtime sees it.

A file that comes from elsewhere must not make the engine open other files, run code that is not plain
tensor arithmetic, or run without an end. ONNX Runtime offers no such look ahead of loading, so this
walks the protobuf encoding itself (https://protobuf.dev/programming-guides/encoding/; field numbers of
onnx.proto). It visits every occurrence of a field, so that a decoder which takes only the last one
cannot see anything that was not visited here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

MODEL_IR_VERSION, MODEL_GRAPH, MODEL_FUNCTIONS = 1, 7, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE_INITIALIZER = 1, 5, 15
NODE_OP_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSORS: Final = (5, 10)
ATTRIBUTE_SPARSE_TENSORS: Final = (22, 23)
ATTRIBUTE_GRAPHS: Final = (6, 11)
SPARSE_PARTS: Final = (1, 2)
TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 13, 14

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""The operators of the ONNX standard. Anything else is somebody's extension."""

NOT_ONNX: Final = "is not an ONNX model"


class _NotProtobufError(Exception):
    """The bytes do not parse."""


def refusal(content: bytes) -> str | None:
    """Why a file with this content must not be loaded, as the end of a sentence that starts with the
    file's name; None if nothing speaks against it. Never raises."""
    if content[:1] == b"\x80" and content[1:2] <= b"\x05":
        return f"{NOT_ONNX} but a Python pickle, which could run any code: export the model to ONNX"
    try:
        return next(_model(memoryview(content)), None)
    except _NotProtobufError:
        return NOT_ONNX


def _model(content: memoryview) -> Iterator[str]:
    seen = set()
    found: list[str] = []
    for number, value in _fields(content):
        seen.add(number)
        if number == MODEL_GRAPH and isinstance(value, memoryview):
            found.extend(_graph(value))
        elif number == MODEL_FUNCTIONS:
            found.append("defines functions of its own: export it with them inlined")
    if not {MODEL_IR_VERSION, MODEL_GRAPH} <= seen:
        yield NOT_ONNX
    yield from found


def _graph(content: memoryview) -> Iterator[str]:
    for number, value in _fields(content):
        if isinstance(value, int):
            continue
        if number == GRAPH_NODE:
            yield from _node(value)
        elif number == GRAPH_INITIALIZER:
            yield from _tensor(value)
        elif number == GRAPH_SPARSE_INITIALIZER:
            yield from _sparse_tensor(value)


def _node(content: memoryview) -> Iterator[str]:
    operator, domains = "", [""]
    for number, value in _fields(content):
        if isinstance(value, int):
            continue
        if number == NODE_OP_TYPE:
            operator = _text(value)
        elif number == NODE_DOMAIN:
            domains.append(_text(value))
        elif number == NODE_ATTRIBUTE:
            yield from _attribute(value)
    for domain in domains:
        if domain not in STANDARD_DOMAINS:
            yield f"uses the custom operator {domain}.{operator}: only those of the ONNX standard are run"


def _attribute(content: memoryview) -> Iterator[str]:
    for number, value in _fields(content):
        if isinstance(value, int):
            continue
        if number in ATTRIBUTE_TENSORS:
            yield from _tensor(value)
        elif number in ATTRIBUTE_SPARSE_TENSORS:
            yield from _sparse_tensor(value)
        elif number in ATTRIBUTE_GRAPHS:
            yield "has branches or loops (If, Loop, Scan): a propensity must take the same short time always"


def _sparse_tensor(content: memoryview) -> Iterator[str]:
    for number, value in _fields(content):
        if number in SPARSE_PARTS and isinstance(value, memoryview):
            yield from _tensor(value)


def _tensor(content: memoryview) -> Iterator[str]:
    for number, value in _fields(content):
        if number == TENSOR_EXTERNAL_DATA or (number == TENSOR_DATA_LOCATION and value != 0):
            yield "keeps weights in another file (external data): export it as a single file"


def _text(value: memoryview) -> str:
    return bytes(value[:100]).decode("utf-8", "replace")


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of one message in order: their number, and their bytes or their integer (0 for the
    fixed-width ones, which nothing here needs)."""
    at, end = 0, len(content)
    while at < end:
        key, at = _varint(content, at, end)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise _NotProtobufError
        if wire_type == VARINT:
            value, at = _varint(content, at, end)
            yield number, value
            continue
        if wire_type == BYTES:
            length, at = _varint(content, at, end)
        elif wire_type == FIXED32:
            length = 4
        elif wire_type == FIXED64:
            length = 8
        else:
            raise _NotProtobufError
        if length > end - at:
            raise _NotProtobufError
        yield number, content[at : at + length] if wire_type == BYTES else 0
        at += length


def _varint(content: memoryview, at: int, end: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise _NotProtobufError
