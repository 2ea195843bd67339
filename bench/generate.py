"""transformers' constrained `generate`: a Python callback for every beam at every step, over a trie of dicts.

Released code of generative retrieval decodes in this way. This is an independent implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.floor import prompts
from bench.identifiers import NUM_LEVELS
from bench.models import Model, queries
from genret.components.backbones.t5 import T5Backbone
from genret.decode.beam import beam_search
from genret.decode.trie import Trie

LARGEST = 100_000
"""Maximum number of identifiers; a dict for every prefix of ten million would exceed memory."""
TOLERANCE = 1e-3
"""Tolerance between two computations of a sum of log-probabilities, within which the order may differ."""


class DictTrie:
    """Nested dicts, one per prefix."""

    def __init__(self, tokens: Tensor):
        self._root: dict[int, Any] = {}
        for row in tokens.tolist():
            node = self._root
            for token in row:
                node = node.setdefault(token, {})

    def following(self, prefix: Sequence[int]) -> list[int]:
        node = self._root
        for token in prefix:
            node = node.get(token, {})
        return list(node)


def constrained(model: Model, trie: DictTrie, num_beams: int) -> Callable[[list[str]], Any]:
    """Texts → what `generate` returns: as many sequences as beams, and their scores."""
    is_t5 = isinstance(model.backbone, T5Backbone)

    @torch.no_grad()
    def run(texts: list[str]) -> Any:
        if is_t5:
            batch = model.backbone.tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
            batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
            skip = 1  # the start token
        else:
            batch = prompts(model, texts)
            skip = batch["input_ids"].shape[1]
        network: Any = model.network
        return network.generate(
            **batch,
            num_beams=num_beams,
            num_return_sequences=num_beams,
            max_new_tokens=NUM_LEVELS,
            do_sample=False,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _, written: trie.following(written[skip:].tolist()),
            return_dict_in_generate=True,
            output_scores=True,
        )

    return run


def timed(model: Model, trie: DictTrie, batch: int, num_beams: int) -> Callable[[int], Any]:
    run = constrained(model, trie, num_beams)
    return lambda number: run(queries(batch, number))


def disagreements(model: Model, trie: Trie, dicts: DictTrie, texts: list[str], num_beams: int) -> int:
    """The number of identifiers that only one of them finds, not counting ties.

    genret normalizes over the whole vocabulary here, as `generate` does.
    """
    theirs = constrained(model, dicts, num_beams)(texts)
    ours = beam_search(model.backbone, texts, trie, num_beams, "vocab")
    written = theirs.sequences[:, -NUM_LEVELS:].view(len(texts), -1, NUM_LEVELS).tolist()
    scores = theirs.sequences_scores.view(len(texts), -1).float()
    count = 0
    for query in range(len(texts)):
        found = trie.tokens_of(ours.leaves[query]).tolist()
        last = min(float(ours.scores[query, -1]), float(scores[query, -1])) + TOLERANCE
        mine = {tuple(row): float(score) for row, score in zip(found, ours.scores[query], strict=True)}
        other = {tuple(row): float(score) for row, score in zip(written[query], scores[query], strict=True)}
        for row in mine.keys() | other.keys():
            if row in mine and row in other:
                count += abs(mine[row] - other[row]) > TOLERANCE
            else:
                count += max(mine.get(row, -torch.inf), other.get(row, -torch.inf)) > last
    return count
