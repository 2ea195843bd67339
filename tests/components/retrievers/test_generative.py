"""What a generative retriever makes of its catalog: end symbols, places of new images, beams that lead to one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from genret.api import Corpus, FitContext, Identifiers, Restriction, Vokens
from genret.catalog.codec import pack_texts
from genret.catalog.store import Catalog, NewImage
from genret.components.identifiers.string import StringIdentifier
from genret.components.retrievers.generative import GenerativeRetriever
from genret.errors import GenretError
from genret.recipe.schema import SearchOptions
from genret.search.tokenization import may_end_early, tokenize_identifiers
from tests.search.fakes import resources

END = 1


class Letters:
    """Texts by their letters' codes; every next letter is as likely as any other."""

    reads_features = False
    is_concurrent = False
    end_token = END
    module = torch.nn.Linear(1, 1)
    vocab_size = 128

    def __init__(self, vokens: Vokens = Vokens()):
        self.vokens = vokens

    def reads(self, query: str) -> bool:
        return True

    def tokens(self, identifiers: Identifiers) -> torch.Tensor:
        if identifiers.codes is not None:
            return torch.where(identifiers.codes < 0, -1, identifiers.codes + 10)
        rows = [torch.tensor([ord(letter) for letter in text]) for text in identifiers.texts or ()]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def level_tokens(self, level: int) -> torch.Tensor | None:
        if level >= len(self.vokens.sizes):
            return None
        end = [END] if self.vokens.variable and level else []
        return torch.tensor([*end, *range(10, 10 + self.vokens.sizes[level])])

    def prefill(self, queries: Sequence[str]) -> int:
        return len(queries)

    def step(self, state: int, symbols: Any, parents: Any, columns: torch.Tensor | None) -> torch.Tensor:
        width = 1 if symbols is None else symbols.shape[1]
        return torch.zeros(state, width, 128 if columns is None else len(columns))


def codes(rows: list[list[int]]) -> Identifiers:
    return Identifiers(torch.arange(len(rows)), codes=torch.tensor(rows))


@pytest.mark.parametrize(
    ("vokens", "identifiers", "expected"),
    [
        (Vokens(), Identifiers(torch.arange(2), texts=["ab", "cd"]), [[97, 98, END], [99, 100, END]]),
        (Vokens(), Identifiers(torch.arange(2), texts=["a", "ab"]), [[97, END, -1], [97, 98, END]]),
        (Vokens((2, 2)), codes([[0, 1]]), [[10, 11]]),
        (Vokens((2, 2), variable=True), codes([[0, 1]]), [[10, 11, END]]),
        (Vokens((2, 2), variable=True), codes([[0, -1], [0, 1]]), [[10, END, -1], [10, 11, END]]),
    ],
)
def test_the_scheme_decides_whether_identifiers_end_with_a_symbol(vokens, identifiers, expected):
    backbone: Any = Letters(vokens)
    assert tokenize_identifiers(backbone, identifiers, end_symbol=False).tolist() == expected
    assert may_end_early(backbone) == (vokens.variable or not vokens.sizes)
    asked = tokenize_identifiers(backbone, identifiers, end_symbol=True)
    assert asked.eq(END).sum(1).tolist() == [1] * len(expected)


def test_a_scheme_that_forgot_to_say_variable_is_told():
    with pytest.raises(GenretError, match="variable=True"):
        tokenize_identifiers(Letters(Vokens((2, 2))), codes([[0, -1], [0, 1]]), end_symbol=False)  # type: ignore[arg-type]


class Retriever(GenerativeRetriever):
    """Without an encoder: no image is like another."""

    def similarity(self, asked: Any, rows: Any, view: Any) -> Any:
        return lambda query, key: np.zeros(len(key), np.float32)


@pytest.fixture
def retriever(tmp_path):
    with Catalog.create(tmp_path / "catalog.sqlite") as catalog:
        retriever = Retriever()
        retriever.connect(resources(catalog, SearchOptions(), identifier=StringIdentifier(), backbone=Letters()))
        yield retriever


def added(retriever: GenerativeRetriever, names: dict[str, list[str]]) -> None:
    rows = [
        NewImage(name, name, name, pack_texts(texts), torch.zeros(2), {"first": name[0]})
        for name, texts in names.items()
    ]
    assert retriever.catalog.add(rows).added == len(names)


def found(retriever: GenerativeRetriever, k: int, num_beams: int, **restriction: Any) -> list[list[str]]:
    results = retriever.search(["x", "y"], k, num_beams=num_beams, restrict=Restriction(**restriction))
    return [[hit.image_id for hit in result.hits] for result in results]


def test_a_search_widens_its_beams_until_k_images_are_found(retriever):
    """All letters are alike, so identifiers rank by length, then alphabet; three images have many short ones."""
    crowd = {name: [f"{name}{letter}" for letter in "klmnopqrst"] for name in "abc"}
    added(retriever, crowd | {name: [name * 3, name * 4] for name in "defgh"})
    assert found(retriever, 3, 3) == [["a", "b", "c"]] * 2
    assert found(retriever, 6, 6) == [["a", "b", "c", "d", "e", "f"]] * 2
    assert found(retriever, 100, 100) == [list("abcdefgh")] * 2
    assert found(retriever, 3, 8)[0][:3] == ["a", "b", "c"]
    assert found(retriever, 5, 5, where="first=a or first=h") == [["a", "h"]] * 2
    assert retriever.search(["x"], 1, num_beams=1)[0].hits[0].identifier == ["ak"]


def test_new_images_are_numbered_by_their_keys_whatever_is_indexed_again(retriever):
    nothing: Any = None
    known = Corpus(["old 1", "old 2"], torch.zeros(2, 2))
    retriever.identifier.fit(known, {}, FitContext(0, torch.device("cpu"), nothing, nothing, lambda row: None))

    def index(*names: str) -> list[str]:
        packed = retriever.identifiers(torch.zeros(len(names), 2), names)
        retriever.catalog.add(
            [NewImage(name, name, name, blobs, torch.zeros(2)) for name, blobs in zip(names, packed, strict=True)]
        )
        return [blob.decode()[1:] for (blob,) in packed]

    assert index("a", "b") == ["2", "3"]
    assert index("a", "c", "b", "d") == ["2", "4", "3", "5"], "those that are there keep theirs and use up none"
    assert sorted(index("old 1", "old 2")) == ["0", "1"]
    assert index("e", "e", "f") == ["8", "8", "9"]
    retriever.catalog.remove(["b"])
    assert index("g", "b") == ["10", "11"]
    rows = retriever.catalog.read_identifiers()
    assert len(set(rows.texts)) == len(rows.texts), "no two images share a number"
