"""Which images each query of a search may find, as keys of the catalog.

Independent of tries and vectors: retrievers apply it to their own keys.

    B queries   N images
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genret.api import Restriction
from genret.catalog.store import Snapshot
from genret.errors import UsageError
from genret.kit.arrays import Ints

NO_KEYS = np.zeros(0, dtype=np.int64)


class Allowed(NamedTuple):
    """A restriction as keys, all of them ascending."""

    only: Ints | None = None
    """The keys that may be found; None: all."""
    without: Ints = NO_KEYS
    """Keys that must not be found, including the rejected images."""
    unlike: Ints = NO_KEYS
    """The rejected images."""
    unlike_symbols: int = 0

    @property
    def everything(self) -> bool:
        return self.only is None and not len(self.without)

    def among(self, keys: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of these keys may be found; -1 may not. One pass, with a table of all keys if there are many."""
        highest = int(keys.max(initial=-1))
        if keys.size * 8 < highest:
            held = keys >= 0 if self.only is None else _in_sorted(keys, self.only)
            return held & ~_in_sorted(keys, self.without)
        table = np.full(highest + 2, self.only is None)  # the last entry is that of key -1
        if self.only is not None:
            table[self.only[: np.searchsorted(self.only, highest, side="right")]] = True
        table[self.without[: np.searchsorted(self.without, highest, side="right")]] = False
        table[-1] = False
        found: NDArray[np.bool_] = table[keys]
        return found


EVERYTHING = Allowed()


def _in_sorted(keys: NDArray[np.integer], chosen: Ints) -> NDArray[np.bool_]:
    """Which keys are among sorted ones."""
    if not len(chosen):
        return np.zeros(keys.shape, dtype=bool)
    found: NDArray[np.bool_] = chosen[np.searchsorted(chosen, keys).clip(max=len(chosen) - 1)] == keys
    return found


class Restrictions:
    """The restrictions of some queries, one for all or one per query; equal ones are resolved once."""

    def __init__(self, restrict: Restriction | Sequence[Restriction], num_queries: int):
        each = [restrict] * num_queries if isinstance(restrict, Restriction) else list(restrict)
        if len(each) != num_queries:
            raise UsageError(f"there are {num_queries} queries and {len(each)} restrictions; give each query its own")
        numbers: dict[Restriction, int] = {}
        same = {id(one): numbers.setdefault(_hashable(one), len(numbers)) for one in {id(o): o for o in each}.values()}
        self._number = [same[id(one)] for one in each]
        """Index of the distinct restriction of each query."""
        self._different = list(numbers)
        self._known: dict[int, Allowed] = {}
        self._version: int | None = None

    def resolved(self, snapshot: Snapshot, start: int, stop: int) -> list[Allowed]:
        """For queries `start` to `stop` - 1, in this version of the catalog; equal ones are the same object.

        Raises `UsageError` for an id that no searchable image has, or an invalid filter.
        """
        if self._version != snapshot.version:
            self._known, self._version = {}, snapshot.version
        asked = self._number[start:stop]
        for number in asked:
            if number not in self._known:
                self._known[number] = _resolved(snapshot, self._different[number])
        return [self._known[number] for number in asked]


def _hashable(one: Restriction) -> Restriction:
    only = None if one.only is None else tuple(one.only)
    return one._replace(only=only, without=tuple(one.without), unlike=tuple(one.unlike))


def _resolved(snapshot: Snapshot, restriction: Restriction) -> Allowed:
    if restriction.unlike_symbols < 1:
        raise UsageError(f"identifiers are alike by at least 1 symbol, not by {restriction.unlike_symbols}")
    only = None if restriction.only is None else _keys(snapshot, restriction.only)
    if restriction.where:
        fitting = snapshot.keys_where(restriction.where)
        only = fitting if only is None else np.intersect1d(only, fitting, assume_unique=True)
    unlike = _keys(snapshot, restriction.unlike)
    without = np.union1d(unlike, _keys(snapshot, restriction.without))
    return Allowed(only, without, unlike, restriction.unlike_symbols)


def _keys(snapshot: Snapshot, image_ids: Sequence[str]) -> Ints:
    """The keys of searchable images, ascending, without duplicates."""
    if not len(image_ids):
        return NO_KEYS
    keys = snapshot.keys_of(image_ids, searchable=True)
    if len(unknown := np.flatnonzero(keys < 0)):
        shown = image_ids[int(unknown[0])].encode(errors="backslashreplace").decode()
        raise UsageError(f"no searchable image has the id '{shown}'; ids are the `image_id` of what a search finds")
    return np.unique(keys)
