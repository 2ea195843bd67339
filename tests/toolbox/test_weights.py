"""Damaged weights are refused by file and tensor: a model of random or endless weights ranks images at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genret.api import Vokens
from genret.components.backbones.t5 import T5Backbone
from genret.errors import GenretError
from genret.toolbox import saving
from genret.toolbox.weights import reads

SMALL = {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 100}


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    backbone = T5Backbone(T5Backbone.Config(**SMALL))
    backbone.build(Vokens((4, 4)), None, ["a red dog", "two dogs"], 0)
    backbone.save(tmp_path)
    return tmp_path


def opened(folder: Path) -> Any:
    backbone = T5Backbone(T5Backbone.Config(**SMALL))
    backbone.load(folder, Vokens((4, 4)))
    return backbone


def test_a_whole_generator_opens(generator: Path) -> None:
    assert opened(generator).module is not None


@pytest.mark.parametrize("part", ["EncDecAttention.k", "DenseReluDense.wo"])
def test_missing_tensors_are_named(generator: Path, part: str) -> None:
    tensors = load_file(generator / "model.safetensors")
    gone = next(name for name in tensors if part in name and name.startswith("decoder"))
    save_file(
        {key: value for key, value in tensors.items() if key != gone}, generator / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(GenretError, match="lacks the weights") as said:
        opened(generator)
    assert gone in str(said.value) and str(generator) in str(said.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_named(generator: Path, value: float) -> None:
    tensors = load_file(generator / "model.safetensors")
    name = next(name for name in tensors if "SelfAttention.q" in name)
    tensors[name][0, 0] = value
    save_file(tensors, generator / "model.safetensors", {"format": "pt"})
    with pytest.raises(GenretError, match="not finite") as said:
        opened(generator)
    assert name in str(said.value)


def test_fitted_parts_are_held_to_the_same(tmp_path: Path) -> None:
    saving.save(tmp_path, "heads", {"image": torch.tensor([1.0, float("nan")])}, {})
    with (
        pytest.raises(GenretError, match=r"heads\.safetensors is damaged: its tensor image"),
        saving.reading(tmp_path, "x"),
    ):
        saving.load(tmp_path, "heads")


def test_a_query_is_read_if_more_of_its_letters_are_known_than_missed() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "心", "red", "he", "##art", "a", "."]
    raw = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("心", "isolated")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    for query, is_read in {
        "red heart": True, "heart ❤": True, "心": True, "红心": False, "a 🐶": False, "❤": False, "": False,
    }.items():  # fmt: skip
        assert reads(tokenizer, query) == is_read, query
