"""Image → identifier → tokens → trie → image, for every scheme and every image; what a search finds is what the model's
own scores say of all identifiers one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from genret.api import Corpus, FitContext, Identifier, Identifiers
from genret.components.backbones.t5 import T5Backbone
from genret.components.identifiers.atomic import AtomicIdentifier
from genret.components.identifiers.numeric import NumericIdentifier
from genret.components.identifiers.residual_kmeans import ResidualKMeansIdentifier
from genret.components.identifiers.rq import RQIdentifier, RQTraining
from genret.components.identifiers.semantic import SemanticIdentifier
from genret.components.identifiers.string import StringIdentifier
from genret.components.identifiers.structured import StructuredIdentifier
from genret.decode.beam import beam_search
from genret.search.image_trie import index_trie
from genret.search.ranking import rank_images
from genret.search.tokenization import columns_of, tokenize_identifiers

SCHEMES = {
    "rq": (RQIdentifier, {"codebook_size": 4, "num_levels": 3, "train": RQTraining(epochs=0)}),
    "rq, extra symbol": (
        RQIdentifier,
        {"codebook_size": 3, "num_levels": 2, "collisions": "extra-symbol", "train": RQTraining(epochs=0)},
    ),
    "residual-kmeans": (ResidualKMeansIdentifier, {"codebook_size": 8, "num_levels": 2, "collisions": "balanced"}),
    "structured": (StructuredIdentifier, {"branching": 3, "leaf_size": 4}),
    "numeric": (NumericIdentifier, {}),
    "string": (StringIdentifier, {}),
    "semantic": (SemanticIdentifier, {"neighbours": 3, "per_image": 3}),
    "atomic": (AtomicIdentifier, {}),
}
WORDS = ("a red dog", "two cats", "dogs", "a dog", "snow & ice", "Ein Häuschen")
NUM_IMAGES = 24


def corpus() -> Corpus:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(NUM_IMAGES, 8, generator=generator), dim=-1)
    captions = [f"{WORDS[i % 6]} {i // (k + 2)}" for i in range(NUM_IMAGES) for k in range(2)]
    owners = torch.arange(NUM_IMAGES).repeat_interleave(2)
    return Corpus([f"{i}.png" for i in range(NUM_IMAGES)], features, None, captions, features[owners], owners)


def new_images() -> Corpus:
    return Corpus([f"new {i}.png" for i in range(9)], F.normalize(torch.randn(9, 8), dim=-1), named_before=4)


def fitted(name: str, train: Corpus) -> Identifier:
    scheme, options = SCHEMES[name]
    nothing: Any = None
    identifier = scheme(scheme.Config(**options))
    identifier.fit(train, {}, FitContext(0, torch.device("cpu"), Path(), nothing, lambda row: None))
    return identifier


@pytest.fixture
def setting(request, monkeypatch) -> tuple[Identifier, Corpus, T5Backbone]:
    from genret.kit import loop

    monkeypatch.setattr(loop, "run", lambda *args, **named: None)  # rq: residual k-means will do
    train = corpus()
    identifier = fitted(request.param, train)
    backbone = T5Backbone(T5Backbone.Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, vocab_size=64))
    backbone.build(identifier.vokens, None, ["a red dog", "two cats"], seed=0)
    backbone.module.eval()
    return identifier, train, backbone


def named(identifiers: Identifiers) -> list[tuple[int, object]]:
    """(image, what it is called)"""
    if identifiers.texts is not None:
        return list(zip(identifiers.owners.tolist(), identifiers.texts, strict=True))
    assert identifiers.codes is not None
    return list(zip(identifiers.owners.tolist(), map(tuple, identifiers.codes.tolist()), strict=True))


def joined(first: Identifiers, second: Identifiers, shift: int) -> Identifiers:
    owners = torch.cat([first.owners, second.owners + shift])
    if first.texts is not None:
        return Identifiers(owners, texts=[*first.texts, *second.texts])
    return Identifiers(owners, codes=torch.cat([first.codes, second.codes]))


def everything(identifier: Identifier, train: Corpus) -> tuple[Identifiers, int]:
    """The fit's images, and new ones where the scheme takes any."""
    found = identifier.identify(train)
    if identifier.new_images == "unsupported":
        return found, NUM_IMAGES
    new = new_images()
    return joined(found, identifier.identify(new), NUM_IMAGES), NUM_IMAGES + len(new.image_ids)


@pytest.mark.parametrize("setting", SCHEMES, indirect=True)
def test_every_image_is_reached_by_its_identifiers_and_by_no_other(setting):
    identifier, train, backbone = setting
    identifiers, num_images = everything(identifier, train)
    index = index_trie(backbone, identifiers, np.arange(num_images) * 10, end_symbol=False)
    tokens = tokenize_identifiers(backbone, identifiers, False)
    meant: dict[object, set[int]] = {}
    for image, name in named(identifiers):
        meant.setdefault(name, set()).add(image * 10)
    assert index.trie.num_leaves == len(meant), "different identifiers, different tokens"
    starts, images = index.leaf_images
    for row, (_, name) in enumerate(named(identifiers)):
        leaf = int(index.trie.leaf_of_row[row])
        assert set(images[starts[leaf] : starts[leaf + 1]].tolist()) == meant[name]
        written = index.trie.tokens_of(torch.tensor([leaf]))[0]
        assert written[written >= 0].tolist() == tokens[row][tokens[row] >= 0].tolist()


@pytest.mark.parametrize("score", ["level", "vocab"])
@pytest.mark.parametrize("setting", SCHEMES, indirect=True)
def test_a_search_by_enough_beams_ranks_every_image_by_its_best_identifier(setting, score):
    identifier, train, backbone = setting
    identifiers, num_images = everything(identifier, train)
    index = index_trie(backbone, identifiers, np.arange(num_images), end_symbol=False)
    queries = ["a red dog", "snow"]
    beams = beam_search(backbone, queries, index.trie, index.trie.num_leaves, score)
    ranked = rank_images(beams.leaves.numpy(), beams.scores.numpy(), index.leaf_images)

    tokens = tokenize_identifiers(backbone, identifiers, False)
    columns = columns_of(backbone, score, tokens.shape[1])
    with torch.no_grad():
        scores = backbone.score(queries, tokens[None].expand(2, -1, -1), columns).sum(-1)
    for query in range(2):
        best = torch.full((num_images,), -torch.inf).scatter_reduce(0, identifiers.owners, scores[query], "amax")
        assert sorted(ranked.images[query].tolist()) == list(range(num_images))
        np.testing.assert_allclose(ranked.scores[query], best[ranked.images[query]].numpy(), rtol=1e-4, atol=1e-4)
