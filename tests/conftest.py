"""Tiny random models that see pictures and words together, of the true architectures, saved as the hub has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: more threads would only wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

WORDS = ["a", "red", "green", "blue", "square", "dog", "in", "the", "snow", "two"]
SIDE = 32


def tokenizer_of() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*marks.values(), *WORDS])}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, **marks)


def make_blip(folder: Path, kind: str = "BlipForImageTextRetrieval") -> Path:
    """BLIP with a matching head, or as a captioner."""
    import transformers
    from transformers import BlipConfig, BlipImageProcessor, BlipProcessor

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = size | {"vocab_size": 20, "max_position_embeddings": 16, "encoder_hidden_size": 16, "projection_dim": 16}
    marks = {"bos_token_id": 15, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config=words | marks | {"label_smoothing": 0.0},
        vision_config=size | {"image_size": SIDE, "patch_size": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config)
    return save(folder, model, BlipProcessor(BlipImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer_of()))


def make_git(folder: Path) -> Path:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GitConfig(
        vision_config=size | {"image_size": SIDE, "patch_size": 16}, **size, vocab_size=20,
        max_position_embeddings=16, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    card = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return save(folder, GitForCausalLM(config), GitProcessor(card, tokenizer_of()))


def save(folder: Path, model: Any, processor: Any) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():  # so that pictures and words matter at all
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="session")
def captioners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "blip": make_blip(tmp_path_factory.mktemp("blip-captioner"), "BlipForConditionalGeneration"),
        "git": make_git(tmp_path_factory.mktemp("git")),
    }
