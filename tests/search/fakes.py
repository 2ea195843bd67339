"""A language model of known probabilities, and retrievers over it that need no weights."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from genret.api import Identifiers, Vokens
from genret.catalog.codec import pack_codes
from genret.catalog.store import Catalog, NewImage
from genret.components.retrievers.generative import GenerativeRetriever
from genret.components.retrievers.two_tower import TwoTowerRetriever
from genret.recipe.schema import SearchOptions, TrainOptions
from genret.search.resources import Resources
from genret.search.thumbnails import Thumbnails

END = 1
FIRST = 10
VOKENS = Vokens((3, 3, 4), variable=True)
NOTHING: Any = None


class Writer:
    """Symbol c of any level is token 10 + c; logits are a fixed function of the query and what was written before."""

    reads_features = False
    is_concurrent = False
    end_token = END
    vocab_size = FIRST + max(VOKENS.sizes)
    module = torch.nn.Linear(1, 1)

    def __init__(self, during: Callable[[], None] = lambda: None):
        self.during = during
        """Called while a search is under way."""

    def reads(self, query: str) -> bool:
        return True

    def tokens(self, identifiers: Identifiers) -> torch.Tensor:
        assert identifiers.codes is not None
        return torch.where(identifiers.codes < 0, -1, identifiers.codes + FIRST)

    def level_tokens(self, level: int) -> torch.Tensor | None:
        if level > len(VOKENS.sizes):
            return None
        symbols = range(FIRST, FIRST + VOKENS.sizes[level]) if level < len(VOKENS.sizes) else ()
        return torch.tensor([*([END] if level else []), *symbols])

    def prefill(self, queries: Sequence[str]) -> Any:
        return {"queries": list(queries), "prefixes": [[()] for _ in queries]}

    def step(self, state: Any, symbols: Any, parents: Any, columns: torch.Tensor | None) -> torch.Tensor:
        self.during()
        if symbols is not None:
            state["prefixes"] = [
                [(*old[parent], symbol) for symbol, parent in zip(row, sources, strict=True)]
                for old, row, sources in zip(state["prefixes"], symbols.tolist(), parents.tolist(), strict=True)
            ]
        rows = zip(state["queries"], state["prefixes"], strict=True)
        table = torch.tensor([[self.logits(query, prefix) for prefix in prefixes] for query, prefixes in rows])
        return table if columns is None else table[..., columns]

    @staticmethod
    @cache
    def logits(query: str, prefix: tuple[int, ...]) -> list[float]:
        draw = random.Random(repr((query, prefix)))
        return [draw.gauss(0, 2) for _ in range(Writer.vocab_size)]

    def log_probability(self, query: str, codes: Sequence[int]) -> float:
        """The definition: symbols normalized over their level, the end symbol among them."""
        tokens = [*(FIRST + code for code in codes), END]
        total = 0.0
        for level, token in enumerate(tokens):
            logits, rivals = self.logits(query, tuple(tokens[:level])), self.level_tokens(level)
            assert rivals is not None
            total += logits[token] - math.log(sum(math.exp(logits[rival]) for rival in rivals.tolist()))
        return total


class Scheme:
    vokens = VOKENS
    new_images = "content_based"
    avoids_collisions = False


class Generative(GenerativeRetriever):
    """Without an encoder: no image is like another."""

    def similarity(self, asked: Any, rows: Any, view: Any) -> Any:
        return lambda query, key: np.zeros(len(key), np.float32)


class TwoTower(TwoTowerRetriever):
    """A query is its own vector: numbers between blanks."""

    def amend(self, found: Any, *rest: Any) -> Any:
        return found

    def text_vectors(self, queries: Sequence[str]) -> torch.Tensor:
        rows = torch.tensor([[float(number) for number in query.split()] for query in queries])
        return torch.nn.functional.normalize(rows, dim=1)


def resources(catalog: Catalog, search: SearchOptions, **parts: Any) -> Resources:
    """Of a catalog alone, but for `parts`."""
    nothing = dict.fromkeys(("thumbnails", "encoder", "identifier", "backbone", "reranker"), NOTHING)
    device, train = torch.device("cpu"), TrainOptions()
    nothing["thumbnails"] = Thumbnails(Path("no-thumbnails"))
    return Resources(**{**nothing, **parts}, catalog=catalog, search=search, train=train, device=device)


def generative(catalog: Catalog, writer: Any = None, **options: Any) -> Generative:
    retriever = Generative()
    parts = {"identifier": Scheme(), "backbone": writer or Writer()}
    retriever.connect(resources(catalog, SearchOptions(**options), **parts))
    return retriever


def two_tower(catalog: Catalog, index: Literal["exact", "hnsw"] = "exact") -> TwoTower:
    retriever = TwoTower(TwoTower.Config(index=index))
    retriever.connect(resources(catalog, SearchOptions()))
    return retriever


def in_memory() -> Catalog:
    return Catalog.create("sqlite://")


def image(
    name: str, identifiers: Sequence[Sequence[int]], vector: Sequence[float] = (1, 0), picture: str = "", **facts: Any
) -> NewImage:
    """With identifiers of one to three codes."""
    rows = torch.tensor([[*codes, *[-1] * (3 - len(codes))] for codes in identifiers], dtype=torch.int64)
    unit = torch.nn.functional.normalize(torch.tensor(vector, dtype=torch.float32), dim=0)
    return NewImage(name, f"{name}.png", picture or name, pack_codes(rows.view(-1, 3)), unit, facts)


def on_disk(folder: Path, images: Sequence[NewImage] = ()) -> Catalog:
    catalog = Catalog.create(folder / "catalog.sqlite")
    catalog.add(images)
    return catalog
