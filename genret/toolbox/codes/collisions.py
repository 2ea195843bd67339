"""Resolves collisions, images with equal codes: share them, add one more code, or assign other codes to all but one.

Works on codes and distances, independent of how these were computed. Images have an order and earlier ones take
precedence, so the same images in the same order always get the same codes.

    N images   M levels   K codes of the last level   R codes already in use
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from genret import api
from genret.api import Corpus, Vokens
from genret.errors import GenretError

FIRST_WIDTH = 16
"""Initial number of alternatives tried for an image whose code is taken."""

STATE = "collisions.codes"

Code = tuple[int, ...]


class CollisionOptions(api.Config):
    collisions: Literal["keep", "extra-symbol", "nearest-free", "balanced"] = "keep"
    """Images with the same codes. keep: they share an identifier. extra-symbol: one more level numbers them (TIGER).
    nearest-free: all but the first get the nearest free codes. balanced: those with equal codes get free codes of the
    last level with the lowest total distance (LC-Rec)."""
    extra_symbol_size: int | None = Field(None, ge=2, le=65536)
    """Symbols of `extra-symbol`; null: twice as many as the images of the fit need, at least 64."""


class Distances(NamedTuple):
    """Distances of images to codes, in the scheme's own metric. Images are rows of the corpus."""

    nearest: Callable[[Tensor, int], Tensor]
    """rows (n,), count → (n, w, M) distinct codes, the nearest first; w < count only if there are no more"""
    last_level: Callable[[Tensor, Tensor], Tensor]
    """rows (n,), codes (n, M) → (n, K) distances to the last level's codes after the first M - 1"""


# ---------------------------------------------------------------------------------------------------------- strategies
def extra_symbols(codes: Tensor, taken: Tensor, size: int) -> Tensor:
    """codes (N, M), taken (R, M + 1) → (N,) how many earlier images have the same codes (TIGER, arXiv 2305.05065,
    "handling collisions"): the lowest free number below `size`, so that numbers of removed images are reused."""
    used, lowest, numbers = set(_tuples(taken)), Counter[Code](), list[int]()
    for code in _tuples(codes):
        number = lowest[code]
        while (*code, number) in used:
            number += 1
        if number >= size:
            raise GenretError(
                f"more than {size} images share the codes {_shown(code)}, and the extra symbol cannot tell them apart; "
                "train with a larger identifier.extra_symbol_size, or with more levels or codes"
            )
        lowest[code] = number + 1
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.int64)


def nearest_free(rows: Tensor, codes: Tensor, taken: Tensor, distances: Distances, sizes: Sequence[int]) -> Tensor:
    """rows (N,) of the corpus with codes (N, M), taken (R, M) → (N, M), all distinct and none of them taken.

    The first image with a code keeps it. Then the others get, one after the other, the nearest code that is free.
    """
    used, displaced = set(_tuples(taken)), list[int]()
    for place, code in enumerate(_tuples(codes)):
        if code in used:
            displaced.append(place)
        used.add(code)
    if len(used) + len(displaced) > (everything := math.prod(sizes)):
        raise GenretError(
            f"all {everything:,} codes of this identifier scheme are taken; train with more levels or codes, or with "
            "identifier.collisions keep or extra-symbol"
        )
    codes, width = codes.clone(), FIRST_WIDTH
    while displaced:
        waiting = []
        for place, choices in zip(displaced, distances.nearest(rows[displaced], width), strict=True):
            free = next((code for code in _tuples(choices) if code not in used), None)
            if free is None:
                waiting.append(place)
            else:
                codes[place] = torch.tensor(free)
                used.add(free)
        assert not waiting or width < everything, "one of all codes must be free"
        displaced, width = waiting, 4 * width
    return codes


def balanced(rows: Tensor, codes: Tensor, taken: Tensor, distances: Distances, sizes: Sequence[int]) -> Tensor:
    """As `nearest_free`, but images that compete for a code share the last level's free codes among them, so that the
    sum of their distances is minimal. Images that are left over get the nearest code that is free.

    This is the "uniform semantic mapping" of LC-Rec (Zheng et al., arXiv 2311.09049) with one image per code: there the
    transport problem is solved by Sinkhorn iterations and rounded, here the assignment itself is solved, exactly.
    """
    from scipy.optimize import linear_sum_assignment  # imported here because it takes 0.2 s

    wanted, blocked = _tuples(codes), set(_tuples(taken))
    contested = {code for code, count in Counter([*wanted, *blocked]).items() if count > 1}
    closed, groups = defaultdict[Code, set[int]](set), defaultdict[Code, list[int]](list)
    for code in blocked.union(wanted) - (contested - blocked):
        closed[code[:-1]].add(code[-1])
    for place, code in enumerate(wanted):
        if code in contested:
            groups[code[:-1]].append(place)
    result, left = codes.clone(), list[int]()
    for prefix, members in groups.items():
        free = torch.tensor(sorted(set(range(sizes[-1])) - closed[prefix]), dtype=torch.int64)
        costs = distances.last_level(rows[members], codes[members])[:, free]  # (members, free codes)
        chosen, columns = map(torch.from_numpy, linear_sum_assignment(costs.double().numpy()))
        places = torch.tensor(members)
        result[places[chosen], -1] = free[columns]
        left += set(members).difference(places[chosen].tolist())
    if left:
        left.sort()
        stays = torch.ones(len(codes), dtype=torch.bool)
        stays[left] = False
        result[left] = nearest_free(rows[left], codes[left], torch.cat([taken, result[stays]]), distances, sizes)
    return result


def _tuples(codes: Tensor) -> list[Code]:
    return list(map(tuple, codes.tolist()))


def _shown(code: Code) -> str:
    vokens = Vokens()
    return " ".join(vokens.name(level, value) for level, value in enumerate(code))


# ---------------------------------------------------------------------------------------------------------- with memory
class Collisions:
    """The selected strategy and the codes it gave to the images of the fit. These keep their codes when others come.

    (Unless another image of the catalog has the code by then: identifiers stay unique.)
    """

    def __init__(self, options: CollisionOptions, sizes: Sequence[int], shared: bool = False):
        self.how, self.sizes, self.shared = options.collisions, tuple(sizes), shared
        self.extra_size = options.extra_symbol_size
        self._remember([], torch.zeros(0, len(sizes), dtype=torch.int64))

    @property
    def avoided(self) -> bool:
        return self.how != "keep"

    @property
    def vokens(self) -> Vokens:
        """The scheme's vokens; the size of the extra level is known only after a fit."""
        extra = (self.extra_size or 2,) if self.how == "extra-symbol" else ()
        return Vokens(self.sizes + extra, self.shared, learned=len(self.sizes))

    def fit(self, image_ids: Sequence[str], codes: Tensor, distances: Distances) -> None:
        """Assigns final codes to the images of the fit, whose nearest codes are (N, M)."""
        if not self.avoided:
            return
        if self.how == "extra-symbol" and self.extra_size is None:
            most = int(codes.unique(dim=0, return_counts=True)[1].max())
            self.extra_size = max(64, 2 * most)
        nothing = torch.zeros(0, len(self.vokens.sizes), dtype=torch.int64)
        self._remember(image_ids, self._settle(torch.arange(len(codes)), codes, nothing, distances))

    def _remember(self, image_ids: Sequence[str], codes: Tensor) -> None:
        self.codes = codes
        self._row_of = {image_id: row for row, image_id in enumerate(image_ids)}

    def settle(self, corpus: Corpus, codes: Tensor, distances: Distances) -> Tensor:
        """codes (N, M), the nearest of each image → (N, M) final codes, or (N, M + 1) with an extra symbol."""
        if not self.avoided:
            return codes
        taken = self.codes[:0] if corpus.taken is None else corpus.taken
        blocked, fitted = set(_tuples(taken)), _tuples(self.codes)
        remembered = torch.tensor([self._row_of.get(image_id, -1) for image_id in corpus.image_ids], dtype=torch.int64)
        known = torch.tensor([row >= 0 and fitted[row] not in blocked for row in remembered.tolist()], dtype=torch.bool)
        result = torch.zeros(len(codes), self.codes.shape[1], dtype=torch.int64)
        result[known] = self.codes[remembered[known]]
        new = (~known).nonzero()[:, 0]
        result[new] = self._settle(new, codes[new], torch.cat([taken, result[known]]), distances)
        return result

    def _settle(self, rows: Tensor, codes: Tensor, taken: Tensor, distances: Distances) -> Tensor:
        if self.how == "extra-symbol":
            return torch.cat([codes, extra_symbols(codes, taken, self.vokens.sizes[-1])[:, None]], 1)
        strategy = nearest_free if self.how == "nearest-free" else balanced
        return strategy(rows, codes, taken, distances, self.sizes)

    def extra_probabilities(self) -> Tensor:
        """(K_extra,) frequency of each extra symbol in the fit: all that is known of it without counting."""
        counts = torch.bincount(self.codes[:, -1], minlength=self.vokens.sizes[-1]).float()
        return counts / counts.sum().clamp_min(1)

    # ------------------------------------------------------------------------------------------------ disk
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts that `restore` needs; none if images share their codes."""
        if not self.avoided:
            return {}, {}
        return {STATE: self.codes}, {"image_ids": list(self._row_of), "extra_symbol_size": self.extra_size}

    def restore(self, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Reads its own part of `tensors`."""
        if self.avoided:
            self.extra_size = facts["extra_symbol_size"]
            self._remember(facts["image_ids"], tensors.pop(STATE))
