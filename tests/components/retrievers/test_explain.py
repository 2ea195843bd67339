"""An explanation tells the same story as the search, and as an enumeration of all prefixes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from genret.api import Additive, QueryBatch, Restriction, Vokens
from genret.errors import UsageError
from genret.recipe.schema import SearchOptions
from tests.search.fakes import FIRST, Generative, Scheme, Writer, generative, image, in_memory, resources, two_tower

CODES = [(a, b, c) for a in range(3) for b in range(3) for c in range(4)]
OWN = {f"i{n}": codes for n, codes in enumerate(CODES)} | {"copy": (0, 0, 0)}
IMAGES = [image(name, [codes], (n + 1, 1)) for n, (name, codes) in enumerate(OWN.items())]


FIXED = Vokens((3, 3, 4))


class Forced(Writer):
    """Of identifiers without an end symbol; also scores given sequences, as a backbone does."""

    def level_tokens(self, level: int) -> torch.Tensor | None:
        return torch.arange(FIRST, FIRST + FIXED.sizes[level]) if level < len(FIXED.sizes) else None

    def score(self, queries: Any, sequences: torch.Tensor, columns: Any) -> torch.Tensor:
        rows = [
            [[self.gain(query, row, d) for d in range(len(row))] for row in some]
            for query, some in zip(queries, sequences.tolist(), strict=True)
        ]
        return torch.tensor(rows)

    def gain(self, query: str, tokens: list[int], d: int) -> float:
        if tokens[d] < 0:
            return 0.0
        logits, rivals = self.logits(query, tuple(tokens[:d])), self.level_tokens(d)
        assert rivals is not None
        return logits[tokens[d]] - math.log(sum(math.exp(logits[rival]) for rival in rivals.tolist()))


class Sums(Scheme):
    """Code vectors that add up."""

    vokens = FIXED

    books = [torch.randn(size, 2, generator=torch.Generator().manual_seed(size + 7)) for size in (3, 3, 4)]

    def additive(self, features: torch.Tensor) -> Additive:
        return Additive(features, self.books)


class Guided(Generative):
    @property
    def text_vectors(self) -> Any:
        return lambda queries: torch.tensor([[0.6, 0.8]] * len(queries))


@pytest.fixture
def catalog() -> Any:
    made = in_memory()
    made.add(IMAGES)
    return made


def guided(catalog: Any, gamma: float) -> Guided:
    made = Guided()
    made.connect(resources(catalog, SearchOptions(guidance=gamma, num_beams=3), identifier=Sums(), backbone=Forced()))
    return made


@pytest.mark.parametrize("gamma", [0.0, 2.5])
def test_every_level_agrees_with_an_enumeration(catalog: Any, gamma: float) -> None:
    """Beam search by hand: the survivors' children, each with its log-probability and the mean of the points below."""
    retriever, writer = guided(catalog, gamma), Forced()
    told = retriever.explain("a query", num_beams=3, k=3)
    target, alive = torch.tensor([0.6, 0.8]), [()]
    for level in told.levels[:3]:
        children = [(*prefix, code) for prefix in alive for code in range((3, 3, 4)[len(prefix)])]

        def log_prob(codes: tuple[int, ...]) -> float:
            tokens = [FIRST + code for code in codes]
            return sum(writer.gain("a query", tokens, d) for d in range(len(tokens)))

        def near(codes: tuple[int, ...]) -> float:
            below = [whole for whole in CODES if whole[: len(codes)] == codes]
            points = torch.stack([torch.stack([Sums.books[m][c] for m, c in enumerate(one)]).sum(0) for one in below])
            return -gamma / 2 * float((target - points.mean(0)).square().sum())

        ranking = sorted(children, key=lambda codes: -(log_prob(codes) + near(codes)))
        alive = ranking[:3]
        assert level.num_candidates == len(children) and level.num_kept == 3
        assert [one.rank for one in level.prefixes] == list(range(1, len(level.prefixes) + 1))
        for one, codes in zip(level.prefixes, ranking, strict=False):
            assert one.symbols == [f"c{m}_{code}" for m, code in enumerate(codes)]
            assert one.log_prob == pytest.approx(log_prob(codes), abs=1e-4)
            assert one.guidance == pytest.approx(near(codes), abs=1e-4)
            assert one.score == pytest.approx(one.log_prob + one.guidance, abs=1e-5)
            assert one.is_kept == (codes in alive)
            below = {name for name, whole in OWN.items() if whole[: len(codes)] == codes}
            assert one.num_images == len(below) and set(one.image_ids) <= below
        assert level.cutoff == pytest.approx(log_prob(alive[-1]) + near(alive[-1]), abs=1e-4)
    found = retriever.search(["a query"], 3, num_beams=3)[0]
    assert told.hits == found.hits and told.num_beams == found.num_beams and told.guidance == gamma
    document = json.loads(json.dumps(told.as_json()))
    assert document["levels"][1]["prefixes"][0]["symbols"] == told.levels[1].prefixes[0].symbols
    assert document["hits"][0]["image_id"] == told.hits[0].image_id


@pytest.mark.parametrize("query", ["one", "two"])
@pytest.mark.parametrize("k", [3, 40])
def test_where_an_image_is_lost(catalog: Any, query: str, k: int) -> None:
    retriever, best = guided(catalog, 1.0), {}
    everything = retriever.search([query], 40)[0].hits
    assert len(everything) == 37
    hits = everything[:k] if k == 40 else retriever.search([query], k)[0].hits
    for row in IMAGES[:: 1 if k == 3 else 9]:
        told = retriever.explain(query, row.image_id, num_beams=k, k=k)
        assert told.hits == hits
        score = next(hit.score for hit in everything if hit.image_id == row.image_id)
        assert told.right_score == pytest.approx(score, abs=1e-4)
        marks = [[one for one in level.prefixes if one.is_right] for level in told.levels]
        died = next((d for d, ones in enumerate(marks) if not any(one.is_kept for one in ones)), None)
        best[row.image_id] = told.lost_at
        if told.rank is not None:
            assert told.lost_at is None and told.hits[told.rank - 1].image_id == row.image_id
        elif died is not None:
            assert told.lost_at == f"level {died + 1}" and len(marks[died]) == 1, "the dropped prefix is shown"
            assert not any(marks[died + 1 :])
        else:
            assert told.lost_at in ("collision", "rank")
    assert (set(best.values()) == {None}) == (k == 40)


def test_the_reason_is_a_collision_where_images_share_an_identifier(catalog: Any) -> None:
    retriever = guided(catalog, 0.0)
    query = next(
        f"query {n}" for n in range(200) if retriever.search([f"query {n}"], 1)[0].hits[0].image_id in ("i0", "copy")
    )
    there = retriever.search([query], 1)[0].hits[0].image_id
    told = retriever.explain(query, ({"i0", "copy"} - {there}).pop(), num_beams=1, k=1)
    assert (told.rank, told.lost_at) == (None, "collision")
    assert told.levels[-1].prefixes[0].num_images == 2


def test_what_cannot_be_explained(catalog: Any) -> None:
    retriever = generative(catalog, Writer())
    with pytest.raises(UsageError, match="no searchable image has the id 'nobody'"):
        retriever.explain("words", "nobody")
    with pytest.raises(UsageError, match="empty"):
        retriever.explain("  ")
    assert not two_tower(catalog).has_explanation
    with pytest.raises(UsageError, match="does not search level by level"):
        two_tower(catalog).explain("1 1")
    catalog.remove([row.image_id for row in IMAGES])
    told = retriever.explain("words")
    assert told.levels == [] and told.hits == []
    catalog.add([image("bare", [], (1, 1))])
    assert retriever.explain("words", "bare").lost_at == "no identifier"


def test_restricted_searches_are_not_observed(catalog: Any) -> None:
    """`observe` is for explanations: an ordinary search gives the same with and without it."""
    retriever = guided(catalog, 1.0)
    with retriever.opened() as (_, index):
        batch, seen = QueryBatch(["x", "y"], retriever.text_vectors), []
        plain = retriever.beams(batch, index.trie, 3)
        watched = retriever.beams(batch, index.trie, 3, None, lambda *tables: seen.append(tables))
    assert plain.leaves.equal(watched.leaves) and plain.scores.equal(watched.scores)
    assert len(seen) == index.trie.depth and all(nodes.shape == score.shape for nodes, _, score in seen)
    assert np.isfinite(retriever.search(["x"], 2, restrict=Restriction(only=["i3"]))[0].hits[0].score)
