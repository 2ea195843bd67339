"""`check_reranker`: independent scores of candidates, better than chance for trained rerankers.

B queries   C candidates   D width
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from genret.api import Candidates, Reranker
from genret.testing.config import check_config, made
from genret.testing.encoder import Drawn, draw
from genret.testing.world.corpus import WIDTH
from genret.testing.world.expect import Checked
from genret.testing.world.miniature import expect_better_than_chance

C = 6
TOLERANCE = 1e-3


def check_reranker(reranker: type[Reranker], /, *, beats_chance: bool = True, **options: Any) -> None:
    """Checks a reranker with these options against its contract; `ContractError` says what to change.

    One score per candidate, the same each time, independent of the order of candidates and of other queries; empty
    places are not scored; the positive is first more often than by chance. `beats_chance=False`: for untrained weights,
    such as random ones in a test.
    """
    check_config(reranker, **options)
    checked, one, drawn = Checked(reranker), made(reranker, options), draw()
    with checked.doing("to() was called"):
        one.to(torch.device("cpu"))
    asked: list[int] = []
    given = candidates(drawn, asked)
    there = given.rows >= 0
    scores = score(checked, one, given)
    checked.expect(
        all(key >= 0 for key in asked), "it reads the picture of key -1; rows of -1 are empty places, leave them out"
    )
    untouched = candidates(drawn, [])
    checked.expect(
        all(torch.equal(getattr(given, name), getattr(untouched, name)) for name in ("rows", "features", "scores")),
        "score() changes the candidates in place; work on a copy",
    )
    alike(checked, one, given, scores, there)
    if beats_chance:
        best = scores.masked_fill(~there, -torch.inf).argmax(1)
        recall = float((given.rows.gather(1, best[:, None])[:, 0] == torch.arange(len(given.queries))).float().mean())
        advice = "Higher is better; pass beats_chance=False where a test's weights are random"
        expect_better_than_chance(checked, C, recall, advice, times=2)


def candidates(drawn: Drawn, asked: list[int]) -> Candidates:
    """Query q is the first caption of image q; that image is among its candidates, at any place but the last."""
    count = len(drawn.pictures)
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(count, WIDTH, generator=generator), dim=-1)
    queries = drawn.captions[::2]
    rows = (torch.arange(count)[:, None] + torch.tensor([0, 3, 7, 11, 14, 18])[None]) % count
    places = torch.stack([torch.randperm(C, generator=generator) for _ in range(count)])
    rows = rows.gather(1, places)
    rows[4, rows[4] != 4] = -1  # one candidate alone
    rows[:, -1] = torch.where(rows[:, -1] == torch.arange(count), rows[:, -1], -1)  # not all places are taken
    noisy = F.normalize(vectors + 0.1 * torch.randn(vectors.shape, generator=generator), dim=-1)

    def read(key: int) -> Image.Image:
        asked.append(int(key))
        return drawn.pictures[int(key)].copy()

    def caption_log_probs(features: Tensor, captions: Any) -> Tensor:
        wanted = noisy[[queries.index(caption) for caption in captions]]
        return 10 * ((features * wanted).sum(-1) - 1)

    first_stage = -torch.rand(count, C, generator=generator)
    features = vectors[rows.clamp_min(0)].masked_fill((rows < 0)[..., None], 0.0)
    return Candidates(
        queries, noisy, rows, features, first_stage.masked_fill(rows < 0, -torch.inf), read, caption_log_probs
    )


def score(checked: Checked, reranker: Reranker, given: Candidates) -> Tensor:
    with checked.doing("score() was called"):
        scores = reranker.score(given)
    checked.expect(isinstance(scores, Tensor), f"score() is a {type(scores).__name__}; return a tensor (B, C)")
    checked.expect(
        scores.shape == given.rows.shape and scores.is_floating_point(),
        f"score() is {scores.dtype} of the shape {tuple(scores.shape)}; return floats {tuple(given.rows.shape)}",
    )
    checked.on_cpu(scores, "score()")
    checked.expect(not scores.requires_grad, "score() carries gradients; compute it under torch.inference_mode()")
    there = scores[given.rows >= 0]
    checked.expect(bool(torch.isfinite(there).all()), "score() of candidates that are there is not finite")
    return scores


def alike(checked: Checked, reranker: Reranker, given: Candidates, scores: Tensor, there: Tensor) -> None:
    def close(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one.float(), other.float(), atol=TOLERANCE, rtol=TOLERANCE)

    again = score(checked, reranker, given)
    checked.expect(
        close(again[there], scores[there]), "score() differs from call to call; switch dropout off (module.eval())"
    )
    turned = given._replace(rows=given.rows.flip(1), features=given.features.flip(1), scores=given.scores.flip(1))
    checked.expect(
        close(score(checked, reranker, turned).flip(1)[there], scores[there]),
        "score() of a candidate changes with its place; judge each by itself",
    )
    part = slice(3, 6)
    some = given._replace(
        queries=given.queries[part],
        query_features=given.query_features[part],
        rows=given.rows[part],
        features=given.features[part],
        scores=given.scores[part],
    )
    checked.expect(
        close(score(checked, reranker, some)[there[part]], scores[part][there[part]]),
        "score() of a query changes with the queries beside it; mask padding and keep queries apart",
    )
