"""Stage 2 of AVG: trains a language model to write identifiers (paper 3.2). Works on tokens, not on pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret.api import Backbone, FitContext, GeneratorBatch, Loss
from genret.api.border import loss_term
from genret.decode.beam import beam_search
from genret.decode.trie import Trie
from genret.errors import UsageError
from genret.kit import loop
from genret.recipe.schema import TrainOptions
from genret.search.ranking import LeafImages, rank_images
from genret.search.tokenization import columns_of
from genret.train.candidates import synonyms_of, with_candidates
from genret.train.image_examples import ImageExamples, needs_features
from genret.train.targets import Targets
from genret.train.teacher import Teacher

CUTOFFS = (1, 5, 10)
DEV_BATCH = 64
"""Number of development queries searched at a time."""


class Examples(NamedTuple):
    """T training captions and their possible targets."""

    captions: Sequence[str]
    targets: Targets
    tokens: Tensor
    """(R, L) the targets' identifiers as tokens, -1 pads"""
    trie: Trie
    """The training images' identifiers: the candidates of L_dis."""
    teacher: Teacher | None = None
    """Set only if a loss or the targets need a teacher."""
    features: Tensor | None = None
    """(N, D) the training images' vectors; only if the backbone reads features."""


class Development(NamedTuple):
    """The validation data for early stopping."""

    queries: Sequence[str]
    relevant: np.ndarray
    """(Q,) the positive of each query"""
    trie: Trie
    leaf_images: LeafImages


def fit_generator(
    backbone: Backbone,
    examples: Examples,
    losses: Mapping[str, Loss],
    options: TrainOptions,
    development: Development | None,
    context: FitContext,
) -> loop.LoopResult:
    """Minimizes L = w_gen·L_gen + w_dis·L_dis (Eqn. 10) and keeps the weights with the best development recall."""
    columns = columns_of(backbone, options.score, examples.tokens.shape[1])
    tokens = examples.tokens.to(context.device)
    if not losses:
        raise UsageError("loss: the generator has nothing to learn from; give loss.token or loss.rank a weight above 0")
    image_examples = None
    if needs_features(losses.values()):
        assert examples.features is not None, "losses that read features need vectors"
        image_examples = ImageExamples(examples.features, examples.targets, tokens)
    only_compares = all(loss.needs_candidates for loss in losses.values())
    synonyms = synonyms_of(examples.targets, examples.trie)

    def draw(captions: Tensor) -> Tensor:
        """(B,) captions → (B, L) target tokens."""
        target = tokens[examples.targets.draw(captions).to(context.device)]
        if options.teacher_targets == 0:
            return target
        assert examples.teacher is not None
        written = torch.full_like(target, -1)
        sampled = examples.teacher.tokens(examples.teacher.write(captions)).to(context.device)[:, : target.shape[1]]
        written[:, : sampled.shape[1]] = sampled
        written[:, sampled.shape[1] :] = target[:, sampled.shape[1] :]  # an end symbol, if there is one
        from_teacher = torch.rand(len(captions), 1, device=target.device) < options.teacher_targets
        return torch.where(from_teacher, written, target)

    def step(indices: Tensor, epoch: int, number: int) -> dict[str, Tensor]:
        queries = noisy([examples.captions[index] for index in indices.tolist()], options.query_noise)
        target = draw(indices)
        compare = only_compares or (epoch >= options.rank_from and number % options.rank_every == 0)
        active = {name: loss for name, loss in losses.items() if compare or not loss.needs_candidates}
        batch = GeneratorBatch(None, target, columns)
        if any(not loss.needs_candidates for loss in active.values()):
            batch = batch._replace(logits=backbone.level_logits(queries, target, columns))
        if examples.teacher is not None and any(loss.needs_teacher for loss in active.values()):
            batch = batch._replace(teacher=examples.teacher.distributions(indices, target))
        if any(loss.needs_candidates for loss in active.values()):
            positive_leaves = (
                None if synonyms is None else synonyms[examples.targets.images(indices)].to(context.device)
            )
            batch = with_candidates(batch, backbone, queries, examples.trie, options, positive_leaves)
        if image_examples is not None:
            captions = [examples.captions[index] for index in indices.tolist()]
            batch = image_examples.add(batch, backbone, examples.targets.images(indices), captions, active.values())
        terms = {name: loss_term(name, loss, batch) for name, loss in active.items()}
        total = sum(
            (losses[name].config.weight * term for name, term in terms.items()), torch.zeros((), device=target.device)
        )
        return {"loss": total, **terms}

    def evaluate() -> float:
        assert development is not None
        return sum(recalls(backbone, development, options).values()) / len(CUTOFFS)

    return loop.run(
        backbone.module,
        step,
        len(examples.captions),
        options,
        context,
        evaluate if development is not None else None,
        name="generator",
    )


def recalls(backbone: Backbone, development: Development, options: TrainOptions) -> dict[int, float]:
    """Image-level recall@1/5/10 in percent, constrained beam search over the development images."""
    ranks = []
    score, written = options.score, options.written_levels
    for start in range(0, len(development.queries), DEV_BATCH):
        queries = development.queries[start : start + DEV_BATCH]
        beams = beam_search(backbone, queries, development.trie, options.dev_beams, score, written_levels=written)
        ranked = rank_images(beams.leaves.cpu().numpy(), beams.scores.float().cpu().numpy(), development.leaf_images)
        hit = ranked.images == development.relevant[start : start + len(queries), None]
        ranks.append(np.where(hit.any(axis=1), hit.argmax(axis=1), np.iinfo(np.int64).max))
    ranks_all = np.concatenate(ranks)
    return {k: 100.0 * float((ranks_all < k).mean()) for k in CUTOFFS}


def noisy(queries: list[str], share: float) -> list[str]:
    """Removes a word from some of the queries or, with equal probability, adds one of a random other query.

    Users' queries contain words that are in no caption; a model trained on clean captions alone is not robust to these.
    Samples from torch's global random state.
    """
    if share == 0:
        return queries
    result = list(queries)
    for row in (torch.rand(len(queries)) < share).nonzero()[:, 0].tolist():
        words = queries[row].split()
        place, lender, pick, fewer = torch.rand(4).tolist()
        if fewer < 0.5 and len(words) > 1:
            del words[int(place * len(words))]
        elif others := queries[int(lender * len(queries))].split():
            words.insert(int(place * (len(words) + 1)), others[int(pick * len(others))])
        result[row] = " ".join(words)
    return result
