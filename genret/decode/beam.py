"""Constrained beam search: writes only identifiers of the catalog, for many queries at once.

Independent of images, texts and the meaning of tokens: it takes logits from a model and valid tokens from a `Trie`,
and keeps the best. In the loop over depths all tensor shapes are known in advance and nothing waits for the device.

The bits of negative floats, read as integers, are in reverse order. So a candidate's score, a sum of log-probabilities,
and its position fit into one 64-bit key: the lowest keys are the best, and among equal scores the first wins. Between
depths the beams are in the trie's order, so that "first" means the lowest leaf position.

    B queries   b beams   w <= b beams at this depth   c candidates of a beam   C requested columns   U leaves
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genret.api import Backbone, SearchScore
from genret.decode.guide import Guide
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie, take
from genret.errors import GenretError


class Prefixes(NamedTuple):
    """The prefixes kept after one more token, best first."""

    nodes: Tensor
    """(B, w) int64: nodes of the trie, -1 for none. `Trie.prefixes_of` returns the same for given leaves."""
    scores: Tensor
    """(B, w) float32, -inf for none: sums of log-probabilities, plus guidance"""


class Beams(NamedTuple):
    """The best identifiers of each query: by score, ties by leaf position. b is at most the number of leaves."""

    leaves: Tensor
    """(B, b) int64 positions in the trie, -1 for none: there may be fewer identifiers than beams"""
    scores: Tensor
    """(B, b) float32 sums of log-probabilities, plus guidance; -inf for none"""
    prefixes: list[Prefixes]
    """Entry d: the surviving prefixes of d + 1 tokens, for the error ledger"""


class Choice(NamedTuple):
    """Which logits are used at one depth."""

    asked: Tensor | None
    """(C,) the columns that the model computes, None for the whole vocabulary"""
    places: Tensor | None
    """(C_d,) positions of the level's tokens among these columns, arbitrary for the end; None: they are the same"""


@torch.no_grad()
def beam_search(
    model: Backbone,
    queries: Sequence[str],
    trie: Trie,
    num_beams: int,
    score: SearchScore = "level",
    level_tokens: Sequence[Tensor | None] = (),
    allowed: LeafSets | None = None,
    guide: Guide | None = None,
    written_levels: int | None = None,
    observe: Callable[[Tensor, Tensor, Tensor], None] | None = None,
    state: Any = None,
) -> Beams:
    """Searches the most probable identifiers under the model; exact if `num_beams` covers the trie.

    `score`: what the probabilities of position d are normalized over. `level`: `level_tokens[d]`, sorted, with the end
    symbol if an identifier may end there (None: the whole vocabulary; empty: the model's own levels). `vocab`: the
    whole vocabulary. `trie`: the node's children that `allowed` permits.
    `allowed`: the leaves that may be found, per query or for all; the result equals that of a trie of these alone.
    `guide`: added to the log-probabilities; made for these queries, this trie and these allowed leaves.
    `written_levels`: how many tokens the model scores; later ones get log-probability 0. None: all.
    `observe`: called at every depth with all candidates before pruning, (B, w, c) each: their nodes, -1 for none, sums
    of log-probabilities, and these plus guidance.
    `state`: that of the model's `prefill` for these queries, if it was called before.
    """
    assert num_beams >= 1
    assert allowed is None or len(allowed.starts) in (1, len(queries))
    if score == "level" and not level_tokens:
        level_tokens = [model.level_tokens(d) for d in range(trie.depth)]
    assert score != "level" or len(level_tokens) >= trie.depth, "level_tokens: one entry per position of the trie"
    batch, device = len(queries), trie.device
    nodes = torch.zeros(batch, 1, dtype=torch.int32, device=device)  # the root
    scores = torch.zeros(batch, 1, dtype=torch.float32, device=device)  # -inf where there is no beam
    if not batch or not trie.num_leaves:
        shape = batch, min(num_beams, trie.num_leaves)
        return Beams(nodes.new_empty(shape, dtype=torch.int64), scores.new_empty(shape), [])
    choices = [choose(trie, d, score, level_tokens) for d in range(trie.depth)]
    allowed = None if allowed is None else allowed.to(device)

    state = model.prefill(queries) if state is None else state
    symbols = parents = None
    broken = torch.zeros((), dtype=torch.bool, device=device)
    prefixes: list[Prefixes] = []
    sums = torch.zeros_like(scores)  # what the guide carries along each beam
    for d, level in enumerate(trie.levels):
        children, own = expand(trie, d, nodes)  # (B, w, c)
        if allowed is not None:
            children = children.masked_fill(leaves_below(trie, d + 1, children, allowed) == 0, -1)
        if written_levels is not None and d >= written_levels:
            gains = torch.zeros(children.shape, device=device)
        else:
            logits = model.step(state, symbols, parents, choices[d].asked).float()  # (B, w, C)
            writes = scores > -torch.inf
            if score == "trie":
                logits = at_symbols(logits, choices[d].places, own).masked_fill(children < 0, -torch.inf)
                writes &= logits.amax(-1) != -torch.inf  # all valid tokens may be impossible
            gains = logits.log_softmax(-1)
            broken |= (gains[..., 0].isnan() & writes).any()  # one nan or inf in a row makes all of it nan
            if score != "trie":
                gains = at_symbols(gains, choices[d].places, own)
            if trie.has_ends[d]:
                end_freely(gains, own)

        per_beam = gains.shape[-1]
        count = min(num_beams, trie.num_prefixes[d], nodes.shape[1] * per_beam)
        written = scores[..., None] + gains
        worth = written
        if guide is not None:
            sums = guide.extended(sums, own, d, per_beam)
            worth = written + guide.of(sums, children, d + 1)
        if observe is not None:
            observe(children, written, worth)
        best, places = best_of(worth, children, count)
        kept = children.flatten(1).gather(1, places)
        there = best > -torch.inf
        best = torch.where(there, best, -torch.inf)
        prefixes.append(Prefixes(torch.where(there, kept, -1).long(), best))

        if guide is not None:  # guidance is computed anew at each depth; only log-probabilities add up
            best = torch.where(there, written.flatten(1).gather(1, places), -torch.inf)
        places, order = places.sort()
        if guide is not None:
            sums = sums.flatten(1).gather(1, places)
        scores, nodes = best.gather(1, order), kept.gather(1, order).clamp_min_(0)
        parents = places // per_beam
        # Beams that have ended, and empty ones, get an arbitrary token that is ignored.
        symbols = take(level.columns, take(level.symbols, nodes).int()).clamp_min_(0)

    if bool(broken):
        raise GenretError(
            "the model's scores are not finite numbers: its training diverged or its weights are damaged; train it anew"
        )
    return Beams(*prefixes[-1], prefixes)


def choose(trie: Trie, depth: int, score: SearchScore, level_tokens: Sequence[Tensor | None]) -> Choice:
    """Which columns to request from the model at `depth`, and the positions of the trie's tokens among them."""
    columns, ends = trie.levels[depth].columns, trie.has_ends[depth]
    own = columns[1:] if ends else columns
    asked = own if score == "trie" else level_tokens[depth] if score == "level" else None
    if asked is None:
        return Choice(None, columns.clamp_min(0))
    asked = asked.to(own)
    if not ends and asked.equal(own):
        return Choice(asked, None)
    places = torch.searchsorted(asked, own).clamp_max(len(asked) - 1)
    assert asked[places].equal(own), f"level_tokens[{depth}] lacks symbols of the trie (the end symbol?)"
    return Choice(asked, torch.nn.functional.pad(places, (1, 0)) if ends else places)


def expand(trie: Trie, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor | None]:
    """nodes (B, w) of `depth` → children (B, w, c) int32, -1 for none, in the trie's order, and the token column
    of each (B, w, c) int64; None for all symbols in order."""
    wide, level = trie.wide(depth), trie.levels[depth]
    if wide is not None:
        return wide.index_select(0, nodes.flatten()).view(*nodes.shape, -1), None
    start, stop = take(level.offsets, nodes)[..., None], take(level.offsets, nodes + 1)[..., None]
    children = start + torch.arange(trie.max_children[depth], dtype=torch.int32, device=nodes.device)
    symbols = take(level.symbols, children.clamp_max(len(level.symbols) - 1)).long()
    return children.masked_fill(children >= stop, -1), symbols


def at_symbols(values: Tensor, places: Tensor | None, symbols: Tensor | None) -> Tensor:
    """values (B, w, C) of the requested columns → (B, w, c) of the candidates."""
    if symbols is None:
        return values if places is None else values.index_select(-1, places)
    return values.gather(-1, symbols if places is None else take(places, symbols))


def end_freely(gains: Tensor, symbols: Tensor | None) -> None:
    """An ended identifier keeps its score: the first column of its level is the end and gets log-probability 0."""
    if symbols is None:
        gains[..., 0] = 0.0
    else:
        gains.masked_fill_(symbols == 0, 0.0)


def best_of(scores: Tensor, children: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """scores (B, w, c), none above 0, of candidates that exist where children (B, w, c) is not -1 → the `count` best
    and their positions among the w c of each query, (B, count) each: sorted, the first of equal ones first. Entries
    that are nan, -inf or missing come last, and are nan or -inf.
    """
    # Or-ing child -1 sets all bits: a nan after -inf. The sign bit is also set for scores that rounding raised above 0.
    bits = (children >> 31).bitwise_or_(-(2**31)).bitwise_or_(scores.view(torch.int32))
    keys = bits.flatten(1).long()
    keys <<= 32
    keys |= torch.arange(keys.shape[1], device=keys.device)
    keys = keys.topk(count, largest=False).values
    return (keys >> 32).int().view(torch.float32), keys & 0xFFFFFFFF


def leaves_below(trie: Trie, depth: int, nodes: Tensor, allowed: LeafSets) -> Tensor:
    """nodes (B, w, c) of `depth` → the number of allowed leaves below each; for -1, that of the first node."""
    ends = torch.stack(trie.leaf_range(nodes.clamp_min(0), depth), dim=1)  # (B, 2, w, c)
    counts = allowed.count_before(ends.flatten(1)).view(ends.shape)
    return counts[:, 1] - counts[:, 0]
