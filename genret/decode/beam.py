"""Beam search that can only write identifiers of the catalog, for many queries at once.

Does not know images, texts or what the symbols mean: it asks a model for logits, a `Trie` for what may follow, and
keeps the best. In the loop over depths all tensors have shapes known beforehand and nothing waits for the device.

    B queries   b beams   w <= b beams at this depth   c children at most   C columns asked of the model   U leaves
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from genret.decode.trie import Level, Trie
from genret.errors import GenretError
from genret.interfaces import SearchScore


class Stepper(Protocol):
    """What the search needs of a backbone; see `genret.interfaces.Backbone`."""

    def prefill(self, queries: Sequence[str]) -> Any: ...

    def step(self, state: Any, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None) -> Tensor: ...


class Prefixes(NamedTuple):
    """What was kept after one more token, best first."""

    nodes: Tensor
    """(B, w) int64: nodes of the trie, `-2 - leaf` for an identifier that ended earlier, -1 where there is none.
    `Trie.prefixes_of` says the same of given leaves."""
    scores: Tensor
    """(B, w) float32, -inf where there is none"""


class Beams(NamedTuple):
    """The best identifiers of each query: by score, ties by leaf position. b is at most the number of leaves."""

    leaves: Tensor
    """(B, b) int64 positions in the trie, -1 where there is none: fewer identifiers than beams is ordinary"""
    scores: Tensor
    """(B, b) float32 sums of log-probabilities, -inf where there is none"""
    prefixes: list[Prefixes]
    """Entry d: the prefixes of d + 1 tokens that survived, as the error ledger counts them"""


class Choice(NamedTuple):
    """Which logits matter at one depth."""

    asked: Tensor | None
    """(C,) the columns that the model computes, None for the whole vocabulary"""
    places: Tensor
    """(C_d,) where the trie's tokens of this position lie among them"""


@torch.no_grad()
def beam_search(
    model: Stepper,
    queries: Sequence[str],
    trie: Trie,
    num_beams: int,
    score: SearchScore = "level",
    level_tokens: Sequence[Tensor | None] = (),
    allowed: Tensor | None = None,
) -> Beams:
    """Searches the identifiers that the model most probably writes; exact where `num_beams` covers the trie.

    `score`: what the probabilities of position d are normalised over: `level`: `level_tokens[d]`, sorted, the end
    symbol among them where an identifier may end (None: the whole vocabulary); `vocab`: the whole vocabulary; `trie`:
    the node's children as far as `allowed` leaves them.
    `allowed`: (B or 1, U) bool, the leaves that may be found; equal to searching a trie of these alone.
    """
    assert num_beams >= 1
    assert allowed is None or (allowed.shape[-1] == trie.num_leaves and allowed.shape[0] in (1, len(queries)))
    assert score != "level" or len(level_tokens) >= trie.depth, "level_tokens: one entry per position of the trie"
    batch, device = len(queries), trie.device
    nodes = torch.zeros(batch, 1, dtype=torch.int64, device=device)  # the root
    scores = torch.zeros(batch, 1, dtype=torch.float32, device=device)
    if not batch or not trie.num_leaves:
        shape = batch, min(num_beams, trie.num_leaves)
        return Beams(nodes.new_empty(shape), scores.new_empty(shape), [])
    choices = [choose(trie, d, score, level_tokens) for d in range(trie.depth)]
    below = None if allowed is None else count_before(allowed.to(device)).expand(batch, -1)

    state = model.prefill(queries)
    symbols = parents = previous = None
    broken = torch.zeros((), dtype=torch.bool, device=device)
    prefixes: list[Prefixes] = []
    for d, level in enumerate(trie.levels):
        logits = model.step(state, symbols, parents, choices[d].asked).float()  # (B, w, C)
        children, is_child, ended = expand(level, previous, nodes, trie.max_children[d])
        low, high = level.low[children].long(), level.high[children].long()  # (B, w, c)
        if below is not None:
            is_child &= leaves_between(below, low, high) > 0
        token = level.symbols[children].long()
        of_children = logits.gather(-1, choices[d].places[token.flatten(1)].view_as(token))
        rivals = of_children.masked_fill(~is_child, -torch.inf) if score == "trie" else logits
        total = rivals.logsumexp(-1, keepdim=True)  # (B, w, 1)
        broken |= (is_child & ~(total < torch.inf)).any()
        possible = is_child & (of_children > -torch.inf)
        gains = torch.where(possible, scores[..., None] + (of_children - total), -torch.inf)

        # Identifiers that ended earlier keep their place and score: one more candidate of each beam, first in its row.
        width, per_beam = nodes.shape[1], gains.shape[-1] + 1
        finished = ended < -1
        candidates = torch.cat([torch.where(finished, scores, -torch.inf)[..., None], gains], -1).flatten(1)
        first_leaf = torch.cat([torch.where(finished, -2 - ended, 0)[..., None], low], -1).flatten(1)
        kept = best(candidates, first_leaf, min(num_beams, trie.num_prefixes[d], width * per_beam))

        scores = candidates.gather(1, kept)
        parents = kept // per_beam
        nodes = torch.cat([ended[..., None], children], -1).flatten(1).gather(1, kept)
        nodes = torch.where(scores > -torch.inf, nodes, -1)
        # Beams that have ended, or never were, write some token that nobody reads.
        symbols = level.columns[torch.where(nodes >= 0, level.symbols[nodes.clamp_min(0)].long(), 0)]
        prefixes.append(Prefixes(nodes, scores))
        previous = level

    if bool(broken):
        raise GenretError(
            "the model's scores are not finite numbers: its training diverged or its weights are damaged; train it anew"
        )
    leaves = torch.where(nodes >= 0, trie.levels[-1].low[nodes.clamp_min(0)].long(), -2 - nodes)
    return Beams(torch.where(nodes == -1, -1, leaves), scores, prefixes)


def choose(trie: Trie, depth: int, score: SearchScore, level_tokens: Sequence[Tensor | None]) -> Choice:
    """Which columns to ask the model for at `depth`, and where the trie's tokens lie among them."""
    own, _ = trie.columns(depth)
    if score == "trie":
        return Choice(own, torch.arange(len(own), device=own.device))
    of_level = level_tokens[depth] if score == "level" else None
    if of_level is None:
        return Choice(None, own)
    asked = of_level.to(own)
    places = torch.searchsorted(asked, own).clamp_max(len(asked) - 1)
    assert asked[places].equal(own), f"level_tokens[{depth}] lacks symbols of the trie (the end symbol?)"
    return Choice(asked, places)


def expand(level: Level, previous: Level | None, nodes: Tensor, max_children: int) -> tuple[Tensor, Tensor, Tensor]:
    """nodes (B, w) → children (B, w, c), which of them exist (B, w, c), and ended (B, w).

    `previous` leads to `nodes` (None: they are the root). ended: `-2 - leaf` where the beam's identifier is complete,
    -1 elsewhere.
    """
    node = nodes.clamp_min(0)
    start, stop = level.offsets[node].long(), level.offsets[node + 1].long()
    children = start[..., None] + torch.arange(max_children, device=nodes.device)
    is_child = (children < stop[..., None]) & (nodes >= 0)[..., None]
    ended = torch.where(nodes < -1, nodes, -1)
    if previous is not None:
        ended = torch.where((nodes >= 0) & (start == stop), -2 - previous.low[node].long(), ended)
    return torch.where(is_child, children, 0), is_child, ended


def count_before(allowed: Tensor) -> Tensor:
    """allowed (B, U) → (B, U + 1) int32, how many of the first u leaves are allowed."""
    return torch.nn.functional.pad(allowed.cumsum(1, dtype=torch.int32), (1, 0))


def leaves_between(below: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """below (B, U + 1), low and high (B, w, c) → the number of allowed leaves in each range."""
    first, last = (below.gather(1, ends.flatten(1)).view_as(ends) for ends in (low, high))
    return last - first


def best(candidates: Tensor, first_leaf: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest candidates (B, n), in order; of equals, the one whose leaves come first.

    `topk` leaves the order of equals open, so score and leaf become one integer: a float's bits, with those of negative
    numbers flipped, order as the float does. The ranges of candidates are disjoint: no two have the same first leaf.
    """
    bits = candidates.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ((ordered.long() << 32) | (0x7FFFFFFF - first_leaf)).topk(count, sorted=True).indices
