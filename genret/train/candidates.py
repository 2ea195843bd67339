"""The candidates of L_dis: the generator's own beams, with the positive among them (paper 3.2, Eqns. 8, 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genret.api import Backbone, GeneratorBatch
from genret.decode.beam import beam_search
from genret.decode.trie import Trie
from genret.recipe.schema import TrainOptions
from genret.train.targets import Targets, rows_of_images


def synonyms_of(targets: Targets, trie: Trie) -> Tensor | None:
    """(N, A) the leaves of each training image; None if every image has a single identifier."""
    owners = targets.own.owners
    if not len(owners) or int(torch.bincount(owners).max()) == 1:
        return None
    return trie.leaf_of_row.cpu()[rows_of_images(owners, int(owners.max()) + 1)]


def with_candidates(
    batch: GeneratorBatch,
    backbone: Backbone,
    queries: Sequence[str],
    trie: Trie,
    options: TrainOptions,
    own: Tensor | None = None,
) -> GeneratorBatch:
    """Beam-searches candidates with the current model (Eqn. 8), puts the positive among them, and scores them.

    candidates (B, b, L); if the positive is missing it replaces a random candidate, as in the paper.
    own (B, A): all leaves of the positive image if it has several; its other leaves are not used as negatives.
    """
    training = backbone.module.training
    backbone.module.eval()
    beams = beam_search(
        backbone, queries, trie, options.rank_beams, options.score, written_levels=options.written_levels
    )
    backbone.module.train(training)
    candidates = trie.tokens_of(beams.leaves.clamp_min(0))
    candidates = candidates.to(batch.targets.device)
    if candidates.shape[2] < batch.targets.shape[1]:
        gap = batch.targets.shape[1] - candidates.shape[2]
        candidates = torch.nn.functional.pad(candidates, (0, gap), value=-1)
    there = beams.leaves >= 0
    match = (candidates == batch.targets[:, None]).all(-1) & there
    random_place = (torch.rand(len(queries), device=there.device) * there.sum(1)).long()
    positive = torch.where(match.any(1), match.float().argmax(1), random_place)
    rows = torch.arange(len(queries), device=there.device)
    candidates[rows, positive] = batch.targets
    if own is not None:
        there = there & ~(beams.leaves[:, :, None] == own[:, None]).any(-1)
        there[rows, positive] = True
    sums = backbone.score(queries, candidates, batch.columns).sum(-1)
    return batch._replace(candidate_scores=sums.masked_fill(~there, float("-inf")), positive=positive)
