"""Matching and captioning models against transformers' own forward passes, pair by pair."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from genret.api import Candidates
from genret.components.rerankers.itm import ITMReranker
from genret.components.rerankers.reverse import ReverseReranker
from genret.errors import BadImage, GenretError

QUERIES = ["a red square", "two dog in the snow", "blue"]
ROWS = torch.tensor([[4, 9, 2, -1], [9, 4, 7, 1], [-1, -1, -1, -1]])


def picture(key: int) -> Image.Image:
    """Pictures of some sizes by key, the same every time."""
    noise = torch.randint(256, (20 + key, 30, 3), generator=torch.Generator().manual_seed(key), dtype=torch.uint8)
    return Image.fromarray(noise.numpy())


def candidates(read: Any, caption_log_probs: Any = None) -> Candidates:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, 8, generator=generator)
    return Candidates(QUERIES, torch.zeros(3, 8), ROWS, features, torch.zeros(3, 4), read, caption_log_probs)


def made(kind: Any, folder: Path | None, **options: Any) -> Any:
    named = {} if folder is None else {"model": str(folder)}
    return kind(kind.Config(**named, bf16=False, **options))


def loaded(folder: Path) -> tuple[Any, Any]:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    return model, transformers.AutoProcessor.from_pretrained(folder)


def by_pairs(folder: Path, read: Any, of: Any) -> Tensor:
    """(B, C) by one forward of the whole model for each pair, unpadded."""
    model, processor = loaded(folder)
    expected = torch.full(ROWS.shape, -torch.inf)
    for b, query in enumerate(QUERIES):
        for c, key in enumerate(ROWS[b].tolist()):
            if key >= 0:
                pixels = processor.image_processor(images=read(key), return_tensors="pt")["pixel_values"]
                ids = processor.tokenizer(query, return_tensors="pt")["input_ids"]
                with torch.no_grad():
                    expected[b, c] = of(model, pixels, ids)
    return expected


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_matching_is_transformers_own(blip: Path, batch_size: int) -> None:
    def difference(model: Any, pixels: Tensor, ids: Tensor) -> Tensor:
        no, yes = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).itm_score[0]
        return yes - no

    expected = by_pairs(blip, picture, difference)
    found = made(ITMReranker, blip, batch_size=batch_size).score(candidates(picture))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected[ROWS >= 0].std() > 0.01, "the model tells pairs apart"


@pytest.mark.parametrize("name", ["blip", "git"])
def test_captions_probability_is_transformers_own_loss(captioners: dict[str, Path], name: str) -> None:
    def log_prob(model: Any, pixels: Tensor, ids: Tensor) -> Tensor:
        if name == "blip":
            ids[:, 0] = model.config.text_config.bos_token_id
        loss = model(pixel_values=pixels, input_ids=ids, labels=ids).loss  # mean over all tokens but the first
        return -loss * (ids.shape[1] - 1)

    expected = by_pairs(captioners[name], picture, log_prob)
    found = made(ReverseReranker, captioners[name], batch_size=2).score(candidates(picture))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found[ROWS >= 0] < 0).all() and expected[ROWS >= 0].std() > 0.01


def test_reverse_by_the_runs_own_generator() -> None:
    """Whatever the generator says of each pair's vector and words lands at that pair's place."""

    def log_probs(features: Tensor, captions: Any) -> Tensor:
        return features.sum(-1) - torch.tensor([float(len(caption)) for caption in captions])

    asked = candidates(None, log_probs)
    expected = asked.features.sum(-1) - torch.tensor([[float(len(query))] for query in QUERIES])
    expected[ROWS < 0] = -torch.inf
    torch.testing.assert_close(made(ReverseReranker, None, batch_size=3).score(asked), expected)
    with pytest.raises(GenretError, match=r"loss\.reverse .* rerank\.model$"):
        made(ReverseReranker, None).score(candidates(None))


def test_each_picture_is_opened_once(blip: Path) -> None:
    opened: list[int] = []

    def read(key: int) -> Image.Image:
        opened.append(key)
        return picture(key)

    made(ITMReranker, blip, batch_size=2).score(candidates(read))
    assert sorted(opened) == sorted({key for key in ROWS.flatten().tolist() if key >= 0})


def test_spoilt_pictures_are_reported_and_not_judged(blip: Path, caplog: pytest.LogCaptureFixture) -> None:
    def read(key: int) -> Image.Image:
        if key in (9, 2):
            raise BadImage(f"{key}.webp is empty (0 bytes)")
        return picture(key)

    reranker = made(ITMReranker, blip, batch_size=1)
    whole = reranker.score(candidates(picture))
    with caplog.at_level(logging.WARNING):
        found = reranker.score(candidates(read))
    lost = (ROWS == 9) | (ROWS == 2) | (ROWS < 0)
    assert torch.isneginf(found[lost]).all()
    torch.testing.assert_close(found[~lost], whole[~lost])
    (line,) = caplog.messages
    assert line == "rerank: 2 of 5 candidates cannot be looked at and come last: 2.webp is empty (0 bytes)"


def test_words_may_begin_with_blips_own_symbol(blip: Path) -> None:
    """As BLIP's authors evaluate; transformers' forward, given the same tokens, is the reference."""

    def difference(model: Any, pixels: Tensor, ids: Tensor) -> Tensor:
        ids[:, 0] = model.config.text_config.vocab_size - 1
        no, yes = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).itm_score[0]
        return yes - no

    expected = by_pairs(blip, picture, difference)
    found = made(ITMReranker, blip, enc_token=True).score(candidates(picture))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, made(ITMReranker, blip).score(candidates(picture)))


def test_no_candidates_at_all(blip: Path) -> None:
    nothing = candidates(None)._replace(rows=torch.full((3, 4), -1))
    assert torch.isneginf(made(ITMReranker, blip).score(nothing)).all()


def test_unusable_models_are_refused_in_one_sentence(blip: Path, captioners: dict[str, Path], tmp_path: Path) -> None:
    asked = candidates(picture)
    with pytest.raises(GenretError, match=r"holds BlipForConditional\w+, but .* wants BlipForImageTextRetrieval"):
        made(ITMReranker, captioners["blip"]).score(asked)
    with pytest.raises(GenretError, match="there is no model folder"):
        made(ITMReranker, tmp_path / "none").score(asked)
    with pytest.raises(GenretError, match="safetensors"):
        bare = shutil.copytree(blip, tmp_path / "bare")
        (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
        made(ITMReranker, bare).score(asked)
    with pytest.raises(GenretError, match=r"lacks the weights of \d+ layers"):
        from safetensors.torch import load_file, save_file

        maimed = shutil.copytree(blip, tmp_path / "maimed")
        kept = {key: value for key, value in load_file(maimed / "model.safetensors").items() if "itm_head" not in key}
        save_file(kept, maimed / "model.safetensors", {"format": "pt"})
        made(ITMReranker, maimed).score(asked)
    with pytest.raises(ValidationError):
        ITMReranker.Config(weight=1.5)


def test_nothing_is_loaded_before_it_is_needed(tmp_path: Path) -> None:
    made(ITMReranker, tmp_path / "none").to(torch.device("cpu"))
