"""Very many fences in little memory: encoded one after the other, decoded when they are asked for.

A million of them take some hundred megabytes, where objects would take a gigabyte.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.domain.places.fences import Fence

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Fence).decode


class PackedFences(Mapping[str, Fence]):
    """Fences by id, in order of id. `starts` are where each begins in `data`, and at last the end."""

    __slots__ = ("data", "ids", "starts")

    def __init__(self, ids: list[str], data: bytes, starts: NDArray[np.int64]) -> None:
        self.ids = ids
        self.data = data
        self.starts = starts

    def __reduce__(self) -> tuple[object, ...]:
        return PackedFences, (self.ids, self.data, self.starts)

    def __getitem__(self, fence_id: str) -> Fence:
        number = bisect_left(self.ids, fence_id)
        if number == len(self.ids) or self.ids[number] != fence_id:
            raise KeyError(fence_id)
        return _decode(memoryview(self.data)[self.starts[number] : self.starts[number + 1]])

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def in_order(self) -> Iterator[Fence]:
        """All of them, each decoded once."""
        view = memoryview(self.data)
        for start, end in pairwise(self.starts.tolist()):
            yield _decode(view[start:end])


def pack(fences: Iterable[Fence]) -> PackedFences:
    """The fences packed; of two with one id the later stands."""
    encoded = {fence.id: _encode(fence) for fence in fences}
    ids = sorted(encoded)
    pieces = [encoded[fence_id] for fence_id in ids]
    starts = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return PackedFences(ids, b"".join(pieces), starts)
