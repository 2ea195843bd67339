"""Semantic identifiers against plain loops over images and captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.api import Corpus, FitContext
from genret.components.identifiers.semantic import SemanticIdentifier
from genret.errors import GenretError

WORDS = ("red", "green", "square", "circle", "dog", "cat")


def context() -> FitContext:
    nothing: Any = None
    return FitContext(0, torch.device("cpu"), Path(), nothing, lambda row: None)


def unit(rows: int, seed: int, width: int = 6) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def captioned(captions: list[list[str]], seed: int = 0) -> Corpus:
    """Image i has captions[i]; the captions of the whole corpus stand in no order of images."""
    pairs = [(text, image) for image, texts in enumerate(captions) for text in texts]
    pairs = pairs[1::2] + pairs[::2]
    return Corpus(
        [f"image {i}" for i in range(len(captions))],
        unit(len(captions), seed),
        captions=[text for text, _ in pairs],
        text_features=unit(len(pairs), seed + 1),
        owners=torch.tensor([image for _, image in pairs], dtype=torch.int64),
    )


def fitted(train: Corpus, **options: Any) -> SemanticIdentifier:
    identifier = SemanticIdentifier(SemanticIdentifier.Config(**options))
    identifier.fit(train, {}, context())
    return identifier


def texts(identifier: SemanticIdentifier, corpus: Corpus) -> list[list[str]]:
    found = identifier.identify(corpus)
    assert found.codes is None and found.texts is not None and len(found.texts) == len(found.owners)
    owners = found.owners.tolist()
    assert owners == sorted(owners) and set(owners) == set(range(len(corpus.image_ids))), "at least one each, in order"
    return [
        [text for text, owner in zip(found.texts, owners, strict=True) if owner == image]
        for image in range(len(corpus.image_ids))
    ]


def described(train: Corpus, vector: np.ndarray, neighbours: int, per_image: int) -> list[str]:
    """The definition in plain loops, with vectors of the precision that is kept."""
    images, captions = (t.half().float().numpy() for t in (train.features, train.text_features))
    owned = [[row for row, owner in enumerate(train.owners.tolist()) if owner == image] for image in range(len(images))]
    bearing = [image for image in range(len(images)) if owned[image]]
    nearest = sorted(bearing, key=lambda image: -float(images[image] @ vector))[:neighbours]
    fitting = sorted((row for image in nearest for row in owned[image]), key=lambda row: -float(captions[row] @ vector))
    different: list[str] = []
    for row in fitting:
        if train.captions[row] not in different:
            different.append(train.captions[row])
    return different[:per_image]


@settings(deadline=None, max_examples=60)
@given(
    captions=st.lists(st.lists(st.sampled_from(WORDS), max_size=4, unique=True), min_size=1, max_size=12).filter(any),
    neighbours=st.integers(1, 14),
    per_image=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_new_images_take_over_what_fits_them_best(captions, neighbours, per_image, seed):
    train = captioned(captions, seed)
    identifier = fitted(train, neighbours=neighbours, per_image=per_image)
    new = Corpus([f"new {i}" for i in range(5)], unit(5, seed + 9))
    expected = [described(train, vector, neighbours, per_image) for vector in new.features.numpy()]
    assert texts(identifier, new) == expected
    # images of the fit have their own, unless they have none
    own = texts(identifier, train)
    for image in range(len(captions)):
        of_it = [train.captions[row] for row in range(len(train.captions)) if int(train.owners[row]) == image]
        missing = described(train, train.features[image].numpy(), neighbours, per_image)
        assert own[image] == (of_it[:per_image] or missing)


def test_captions_of_the_asked_images_are_never_looked_at():
    train = captioned([["a red dog"], ["a green cat"]])
    identifier = fitted(train)
    new = captioned([["the truth"], ["nothing but the truth"]], seed=4)._replace(image_ids=["x", "y"])
    assert texts(identifier, new) == texts(identifier, new.without_captions())
    assert texts(identifier, train._replace(captions=["lies"] * 2)) == [["a red dog"], ["a green cat"]]


def test_views_of_a_picture_keep_its_captions_and_images_may_share_one():
    train = captioned([["a dog", "an animal"], ["an animal"]])
    identifier = fitted(train)
    found = texts(identifier, train._replace(features=unit(2, 77)))
    assert [sorted(of_it) for of_it in found] == [["a dog", "an animal"], ["an animal"]]


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("  A  Dog\n runs. ", "a dog runs"),
        ("Ｔｗｏ dogs", "two dogs"),
        ("one two three four five six", "one two three four five"),
        ("one two three four five, six", "one two three four five"),
        ("...", ""),
    ],
)
def test_captions_become_plain_text(caption, text):
    identifier = SemanticIdentifier(SemanticIdentifier.Config(max_words=5))
    assert identifier.normalize(caption) == text
    assert identifier.normalize(text) == text


def test_wordings_that_become_one_count_once_and_empty_ones_not_at_all():
    train = captioned([["A dog.", "a dog", "..."], ["  "]])
    identifier = fitted(train)
    assert texts(identifier, train) == [["a dog"], ["a dog"]], "an image without words takes over its neighbour's"
    assert texts(fitted(train, lowercase=False), train)[0] in (["A dog", "a dog"], ["a dog", "A dog"])


def test_save_and_load_give_the_same_captions(tmp_path):
    train = captioned([[f"{a} {b}" for b in WORDS[:3]] for a in WORDS])
    identifier = fitted(train, neighbours=3)
    identifier.save(tmp_path)
    again = SemanticIdentifier(identifier.config)
    again.load(tmp_path)
    new = Corpus([str(i) for i in range(40)], unit(40, 5))
    assert texts(again, new) == texts(identifier, new)
    assert texts(again, train) == texts(identifier, train)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_what_is_missing_or_damaged_is_explained(tmp_path):
    train = captioned([["a dog"], ["a cat"]])
    for bare in (train.without_captions(), train._replace(captions=["", "..."])):
        with pytest.raises(GenretError, match="made of training captions"):
            fitted(bare)
    with pytest.raises(GenretError, match="not fitted yet"):
        SemanticIdentifier().identify(train)
    fitted(train).save(tmp_path)
    facts = json.loads((tmp_path / "captions.json").read_text())
    for broken in ({}, facts | {"texts": ["a dog"]}, facts | {"image_ids": None}):
        (tmp_path / "captions.json").write_text(json.dumps(broken))
        with pytest.raises(GenretError, match=r"no usable identifier model.*train --run DIR --resume"):
            SemanticIdentifier().load(tmp_path)
    (tmp_path / "captions.json").write_text(json.dumps(facts))
    (tmp_path / "captions.safetensors").write_bytes(b"no tensors")
    with pytest.raises(GenretError, match="no usable identifier model"):
        SemanticIdentifier().load(tmp_path)
