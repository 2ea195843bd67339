"""What training sees of the searched images under each protocol, and that true captions stay out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from genret.api import Corpus
from genret.errors import GenretError
from genret.recipe.schema import PseudoQueries
from genret.train.protocols import captions_of_neighbours, join, training_corpora


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def corpus(prefix: str, images: int, seed: int, views: int = 1) -> Corpus:
    """Two captions an image, near its vector."""
    features = unit(images, 8, seed=seed)
    owners = torch.arange(images).repeat_interleave(2)
    return Corpus(
        [f"{prefix}{row}" for row in range(images)],
        features,
        features[:, None].expand(-1, views, -1).clone() if views > 1 else None,
        [f"{prefix} caption {row}" for row in range(2 * images)],
        F.normalize(features[owners] + 0.1 * unit(2 * images, 8, seed=seed + 1), dim=-1),
        owners,
    )


TRAIN, SEARCHED = corpus("train", 30, 0, views=3), corpus("searched", 7, 5)


def no_texts(texts: object) -> torch.Tensor:
    raise AssertionError("nothing had to be encoded")


def test_inductive_sees_nothing() -> None:
    found = training_corpora("inductive", PseudoQueries(), TRAIN, SEARCHED, no_texts)
    assert found.tokenizer is TRAIN and found.generator is TRAIN


def test_transductive_index_sees_pixels_in_the_tokenizer_alone() -> None:
    found = training_corpora("transductive-index", PseudoQueries(), TRAIN, SEARCHED, no_texts)
    assert found.generator is TRAIN
    assert list(found.tokenizer.image_ids) == [*TRAIN.image_ids, *SEARCHED.image_ids]
    assert torch.equal(found.tokenizer.features, torch.cat([TRAIN.features, SEARCHED.features]))
    assert found.tokenizer.captions == TRAIN.captions and found.tokenizer.owners is TRAIN.owners
    assert found.tokenizer.views is not None
    assert torch.equal(found.tokenizer.views[30:], SEARCHED.features[:, None].expand(-1, 3, -1))


def test_transductive_pseudo_never_holds_a_true_caption() -> None:
    found = training_corpora("transductive-pseudo", PseudoQueries(), TRAIN, SEARCHED, no_texts)
    assert found.generator is found.tokenizer
    assert found.generator.owners is not None and found.generator.text_features is not None
    assert set(found.generator.captions) == set(TRAIN.captions), "made-up captions are training captions"
    assert len(found.generator.captions) == len(found.generator.owners) == len(found.generator.text_features)
    assert set(found.generator.owners.tolist()) == set(range(37)), "every image has something to be found by"


def test_neighbours_captions_are_those_of_a_brute_force_search() -> None:
    options = PseudoQueries(per_image=2, neighbours=3)
    made = captions_of_neighbours(TRAIN, SEARCHED, options)
    assert TRAIN.text_features is not None and TRAIN.owners is not None
    for image in range(7):
        vector = SEARCHED.features[image]
        near = sorted(range(30), key=lambda row: -float(TRAIN.features[row] @ vector))[:3]
        captions = [row for row in range(60) if int(TRAIN.owners[row]) in near]
        best = sorted(captions, key=lambda row: -float(TRAIN.text_features[row] @ vector))[:2]
        mine = [place for place, owner in enumerate(made.owners) if owner == image]
        assert [made.texts[place] for place in mine] == [TRAIN.captions[row] for row in best]
        assert torch.equal(made.features[mine], TRAIN.text_features[best])


def test_same_wording_is_taken_once() -> None:
    train = TRAIN._replace(captions=["the same"] * 60)
    made = captions_of_neighbours(train, SEARCHED, PseudoQueries(per_image=5))
    assert made.owners == list(range(7))


def test_the_key_moves_with_what_is_added() -> None:
    keys = {
        training_corpora("inductive", PseudoQueries(), TRAIN, SEARCHED, no_texts).key,
        training_corpora("transductive-index", PseudoQueries(), TRAIN, SEARCHED, no_texts).key,
        training_corpora("transductive-pseudo", PseudoQueries(), TRAIN, SEARCHED, no_texts).key,
        training_corpora("transductive-pseudo", PseudoQueries(per_image=1), TRAIN, SEARCHED, no_texts).key,
    }
    assert len(keys) == 4


def test_chance_agreement_is_remarked() -> None:
    searched = SEARCHED._replace(captions=[TRAIN.captions[0].upper()] * 14)
    options = PseudoQueries(per_image=60, neighbours=30)
    found = training_corpora("transductive-pseudo", options, TRAIN, searched, no_texts)
    assert found.remark is not None and "7 of 420 made-up captions" in found.remark


def written(path: Path, *rows: object) -> PseudoQueries:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return PseudoQueries(file=str(path), per_image=2)


def test_captions_from_a_file(tmp_path: Path) -> None:
    rows = [{"image_id": f"searched{image}", "caption": f"made up {place}"} for place in range(3) for image in (4, 1)]
    options = written(tmp_path / "p.jsonl", *rows, {"image_id": "elsewhere", "caption": "a dog"})
    found = training_corpora("transductive-pseudo", options, TRAIN, SEARCHED, lambda texts: unit(len(texts), 8, seed=9))
    assert found.generator.captions[60:] == ["made up 0", "made up 1"] * 2
    assert found.generator.owners is not None
    assert found.generator.owners[60:].tolist() == [31, 31, 34, 34]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image_id": "searched3", "caption": "Searched   CAPTION 6."}, "its true caption"),
        ("{not json", "p.jsonl:2: should be"),
        ({"image_id": "searched3"}, "p.jsonl:2: should be"),
        ({"image_id": 3, "caption": "a dog"}, "should be texts"),
        ({"image_id": "searched3", "caption": "  "}, "not empty"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, row: object, said: str) -> None:
    options = written(tmp_path / "p.jsonl", {"image_id": "searched1", "caption": "fine"}, row)
    with pytest.raises(GenretError, match=r"pseudo_queries\.file") as refused:
        training_corpora("transductive-pseudo", options, TRAIN, SEARCHED, lambda texts: unit(len(texts), 8, seed=9))
    assert said in str(refused.value)


def test_files_without_use(tmp_path: Path) -> None:
    for options in (PseudoQueries(file=str(tmp_path / "absent")), written(tmp_path / "empty")):
        with pytest.raises(GenretError, match=r"cannot read|no caption of any searched image"):
            training_corpora("transductive-pseudo", options, TRAIN, SEARCHED, no_texts)


def test_shared_ids_are_refused() -> None:
    with pytest.raises(GenretError, match="'train0' occurs among the training and among the searched"):
        join(TRAIN, TRAIN)
