"""From a cell to what lies in it, in four arrays: an open hash table.

A dictionary of the cells of a million fences would take a gigabyte; these arrays take a tenth of it,
are handed to another process as they are, and answer in half a microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]
Entries = NDArray[np.uint32]

_FULLEST: Final = 0.6
_SPARE_SLOTS: Final = 4_096
_AT_ONCE: Final = 500_000
_SEVERAL: Final = 1 << 31


class CellTable(msgspec.Struct, frozen=True):
    """`slots` hold cells, 0 where free; a cell is at `cell % prime` or in one of the slots behind it.
    `values` hold the entry of the same slot, or, with the top bit set, where in `lists` their number
    stands, followed by them."""

    prime: int
    slots: Cells
    values: Entries
    lists: Entries

    def nbytes(self) -> int:
        return self.slots.nbytes + self.values.nbytes + self.lists.nbytes


class CellLookup:
    """A table ready for questions. Answers are in ascending order."""

    __slots__ = ("_lists", "_prime", "_slots", "_values")

    def __init__(self, table: CellTable) -> None:
        self._prime = table.prime
        # Of a memoryview single items come as plain ints, twice as fast as from an array.
        self._slots = memoryview(table.slots.data)
        self._values = memoryview(table.values.data)
        self._lists = memoryview(table.lists.data)

    def entries(self, cell: int) -> Sequence[int]:
        """What was entered for a cell."""
        slots = self._slots
        slot = cell % self._prime
        while (found := slots[slot]) != cell:
            if not found:
                return ()
            slot += 1
        value = self._values[slot]
        if value < _SEVERAL:
            return (value,)
        start = value - _SEVERAL
        return self._lists[start + 1 : start + 1 + self._lists[start]].tolist()


def table_of(cells: Cells, entries: Entries) -> CellTable:
    """The table of pairs of a cell and an entry below 2³¹."""
    order = np.lexsort((entries, cells))
    cells, entries = cells[order], entries[order]
    del order
    firsts = np.flatnonzero(np.diff(cells, prepend=-1))
    counts = np.diff(np.append(firsts, len(cells)))
    values = entries[firsts]
    several = counts > 1
    sizes = counts[several] + 1
    starts = np.cumsum(sizes) - sizes
    values[several] = (starts + _SEVERAL).astype(np.uint32)
    lists = np.zeros(int(sizes.sum()), np.uint32)
    lists[starts] = counts[several]
    is_entry = np.ones(len(lists), np.bool_)
    is_entry[starts] = False
    lists[is_entry] = entries[np.repeat(several, counts)]
    return _hashed(cells[firsts], values, lists)


def _hashed(cells: Cells, values: Entries, lists: Entries) -> CellTable:
    prime = _prime_above(int(len(cells) / _FULLEST) + 1)
    slots = np.zeros(prime + _SPARE_SLOTS, np.int64)
    placed = np.zeros(len(slots), np.uint32)
    for start in range(0, len(cells), _AT_ONCE):  # all at once would take as much memory again
        waiting = np.arange(start, min(start + _AT_ONCE, len(cells)))
        at = cells[waiting] % prime
        while len(waiting):
            free = slots[at] == 0
            slot, first = np.unique(at[free], return_index=True)
            taken = np.flatnonzero(free)[first]
            slots[slot] = cells[waiting[taken]]
            placed[slot] = values[waiting[taken]]
            left = np.ones(len(waiting), np.bool_)
            left[taken] = False
            waiting, at = waiting[left], at[left] + 1
    return CellTable(prime, slots, placed, lists)


def _prime_above(least: int) -> int:
    odd = least | 1
    while any(odd % factor == 0 for factor in range(3, int(odd**0.5) + 1, 2)):
        odd += 2
    return odd
