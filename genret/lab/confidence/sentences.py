"""What to expect of a run whose images have no captions, by sentences that it was not taught.

No figure here is a recall: nobody has said which image a sentence is about. What can be measured is how far the search
agrees with the dense search over the same vectors, its teacher. Queries to try are sentences that have an image to
themselves: each is the other's nearest, after vectors that are near to everything are discounted (CSLS, Conneau et al.
2018, arXiv 1710.04087), and the search finds it first. Whether the image fits, nothing here knows.

    Q sentences   N images   D width
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genret.api import Ui
from genret.errors import GenretError
from genret.evaluate.queries import QuerySet, text_vectors
from genret.kit.files import read_json, write_json
from genret.train.protocols import SENTENCES

if TYPE_CHECKING:
    from genret.run import Run

FILE = "expectations.json"
SEARCHED = 300
"""Maximum number of sentences that are searched for."""
MOST_IMAGES = 20_000
"""Of more images some are drawn, to bound memory: Q · N similarities."""
NEIGHBOURS = 10
EXAMPLES = 5
TRIED = 40
SAME = 1e-4
"""Cosines closer than this are equal: copies of an image are the same answer."""


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """Agreement with the dense search, in percent of the sentences, and example queries."""

    num_sentences: int
    num_images: int
    same_first: float
    """The search's first image is the dense search's first, or a copy of it."""
    first_in_ten: float | None
    """The dense search's first image is among the search's first ten; None for ten images and fewer."""
    examples: list[dict[str, str]]
    """`query` and the `image_id` that it finds first, the clearest ones first"""

    def lines(self) -> list[str]:
        ten = "" if self.first_in_ten is None else f", and has it among its first ten for {self.first_in_ten:.0f} %"
        said = [
            "what to expect: there are no captions, so no recall can be measured; "
            f"for {self.same_first:.0f} % of {self.num_sentences:,} held-out sentences the search finds first what an "
            f"exact search by the same vectors finds first{ten} ({self.num_images:,} pictures)"
        ]
        if self.examples:
            shown = (f'"{one["query"]}" finds {PurePath(one["image_id"]).name}' for one in self.examples)
            said.append("queries to try, which both searches answer alike (do the pictures fit?): " + "; ".join(shown))
        return said


def held_out(run: Run) -> list[str]:
    """The run's held-out sentences; none for a run that learnt from captions."""
    path = run.folder / SENTENCES
    if not path.exists():
        return []
    try:
        found = read_json(path)
    except (OSError, ValueError):
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise GenretError(f"{path} is damaged; make it anew with: genret train --run {run.folder} --resume")
    return found


def sentence_queries(run: Run, ui: Ui) -> QuerySet | None:
    """The held-out sentences over all searchable images, each with its nearest one; None without sentences."""
    texts, retriever = held_out(run), run.retriever
    keys = retriever.catalog.searchable_keys()
    if not texts or not len(keys):
        return None
    keys = np.sort(np.random.default_rng(0).permutation(keys)[:MOST_IMAGES])
    features = retriever.catalog.features_of(keys)
    vectors = text_vectors(retriever, texts, run.settings.features_dir, ui.progress)
    return QuerySet(
        split=run.dataset.test_split,
        keys=keys,
        image_ids=[row.image_id for row in retriever.catalog.lookup(keys)],
        features=features,
        queries=texts,
        relevant=(vectors @ features.T).argmax(dim=1).numpy(),
        query_features=vectors,
    )


def telling(asked: QuerySet) -> QuerySet:
    """The sentences that have an image to themselves, the clearest first, each with that image."""
    rows, images = mutual(asked.query_features, asked.features)
    found = asked.chosen(rows)
    return QuerySet(**vars(found) | {"relevant": images})


def mutual(texts: Tensor, images: Tensor) -> tuple[Any, Any]:
    """texts (Q, D), images (N, D), unit rows → the pairs that are each other's nearest by CSLS, the best first."""
    similarity = texts @ images.T
    to_images = similarity.topk(min(NEIGHBOURS, similarity.shape[1]), dim=1).values.mean(dim=1)
    to_texts = similarity.topk(min(NEIGHBOURS, similarity.shape[0]), dim=0).values.mean(dim=0)
    score = 2 * similarity - to_images[:, None] - to_texts
    best = score.max(dim=1)
    theirs = score.argmax(dim=0)[best.indices] == torch.arange(len(texts))
    rows = theirs.nonzero()[:, 0]
    rows = rows[best.values[rows].argsort(descending=True, stable=True)]
    return rows.numpy(), best.indices[rows].numpy()


def expect(run: Run, asked: QuerySet, clear: QuerySet) -> Expectations:
    """Searches some of the sentences; stores the figures in the run. `clear`: what `telling` found."""
    count = len(asked.keys)
    some = asked.chosen(np.sort(np.random.default_rng(0).permutation(len(asked.queries))[:SEARCHED]))
    row_of = {image_id: row for row, image_id in enumerate(asked.image_ids)}

    def found(queries: QuerySet) -> list[list[int]]:
        answers = run.retriever.search(queries.queries, k=10)
        return [[row_of[hit.image_id] for hit in one.hits if hit.image_id in row_of] for one in answers]

    def among(queries: QuerySet, k: int) -> Any:
        similarity = queries.query_features @ queries.features.T
        enough = similarity.gather(1, torch.from_numpy(queries.relevant)[:, None])[:, 0] - SAME
        hits = found(queries)
        return np.array([any(similarity[q, row] >= enough[q] for row in rows[:k]) for q, rows in enumerate(hits)])

    tried = clear.chosen(np.arange(min(TRIED, len(clear.queries))))
    right = among(tried, 1) if len(tried.queries) else np.zeros(0, bool)
    examples = [
        {"query": tried.queries[row], "image_id": tried.image_ids[tried.relevant[row]]} for row in np.flatnonzero(right)
    ]
    told = Expectations(
        num_sentences=len(some.queries),
        num_images=count,
        same_first=100.0 * float(among(some, 1).mean()),
        first_in_ten=100.0 * float(among(some, 10).mean()) if count > 10 else None,
        examples=examples[:EXAMPLES],
    )
    write_json(run.folder / FILE, asdict(told))
    return told
