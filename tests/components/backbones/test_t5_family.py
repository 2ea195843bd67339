"""T5, T5 v1.1 (as flan-T5 is) and mT5: loaded, grown, searched and saved as transformers has them.

The models are tiny and random, in folders as the hub's are: what `config.json` says there differs from what
transformers 5 writes, and their heads are tied (T5) or have weights of their own (the others).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

from genret.api import Identifiers, Vokens
from genret.components.backbones import plain_t5
from genret.components.backbones.plain_t5 import PlainT5
from genret.components.backbones.t5 import T5Backbone
from genret.components.backbones.tokenizers import train_tokenizer
from genret.decode.beam import beam_search
from genret.decode.trie import Trie
from genret.errors import GenretError

torch.set_num_threads(1)

CAPTIONS = ["two dogs in the snow", "a red car", "a boy jumps into the water"]
VOKENS = Vokens((7, 5, 6))
SIZES: dict[str, Any] = {
    "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "t5": (T5ForConditionalGeneration, T5Config, {"feed_forward_proj": "relu"}, True),
    "t5-v1.1": (T5ForConditionalGeneration, T5Config, {"feed_forward_proj": "gated-gelu"}, False),
    "mt5": (MT5ForConditionalGeneration, MT5Config, {"feed_forward_proj": "gated-gelu"}, False),
}


class Pretrained(NamedTuple):
    folder: Path
    model: Any
    """As it was before it was written."""
    tied: bool


@pytest.fixture(scope="module", params=FAMILIES)
def pretrained(request, tmp_path_factory) -> Pretrained:
    kind, config, options, tied = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = train_tokenizer(CAPTIONS, 90)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = kind(config(**SIZES, **options, vocab_size=len(tokenizer) + 5, tie_word_embeddings=tied)).eval()
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    facts = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": tied}
    facts.pop("scale_decoder_outputs", None)  # the hub's files are older
    (folder / "config.json").write_text(json.dumps(facts))
    return Pretrained(folder, model, tied)


def built(pretrained: Pretrained) -> T5Backbone:
    backbone = T5Backbone(T5Backbone.Config(model=str(pretrained.folder)))
    backbone.build(VOKENS, None, CAPTIONS, seed=0)
    backbone.module.eval()
    return backbone


def codes(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in VOKENS.sizes], dim=1)


def inputs(backbone: T5Backbone) -> dict[str, torch.Tensor]:
    return dict(backbone.tokenizer(CAPTIONS, padding=True, return_tensors="pt"))


def test_words_keep_their_logits(pretrained):
    """What the model knew of its own words is there after growing, to the bit that matters."""
    backbone = built(pretrained)
    words = torch.tensor([[5, 9, 12], [20, 3, 7], [8, 8, 4]])
    start = torch.zeros_like(words[:, :1])
    own = pretrained.model(**inputs(backbone), decoder_input_ids=torch.cat([start, words[:, :-1]], 1)).logits
    logits = backbone.logits(CAPTIONS, words)
    assert logits.shape[-1] == own.shape[-1] + VOKENS.num_symbols
    torch.testing.assert_close(logits[..., : own.shape[-1]], own, atol=1e-4, rtol=1e-4)
    t5 = backbone.t5
    for table in (t5.shared, t5.encoder.embed_tokens, t5.decoder.embed_tokens):
        assert torch.equal(table.weight[: own.shape[-1]], pretrained.model.shared.weight)
    assert (t5.lm_head.weight.data_ptr() == t5.shared.weight.data_ptr()) == pretrained.tied
    assert type(t5) is type(pretrained.model)


def test_new_symbols_have_the_logits_of_transformers(pretrained):
    backbone = built(pretrained)
    targets = backbone.tokens(Identifiers(torch.arange(3), codes=codes(3)))
    start = torch.zeros_like(targets[:, :1])
    own = backbone.t5(**inputs(backbone), decoder_input_ids=torch.cat([start, targets[:, :-1]], 1)).logits
    torch.testing.assert_close(backbone.logits(CAPTIONS, targets), own, atol=1e-4, rtol=1e-4)


def test_beam_search_equals_generate(pretrained):
    backbone = built(pretrained)
    rows = backbone.tokens(Identifiers(torch.arange(60), codes=codes(60))).unique(dim=0)
    rows = torch.nn.functional.pad(rows, (0, 1), value=backbone.end_token)
    following: dict[tuple[int, ...], set[int]] = {}
    for row in rows.tolist():
        for d in range(len(row)):
            following.setdefault((0, *row[:d]), set()).add(row[d])
    out = backbone.t5.generate(
        **inputs(backbone),
        num_beams=6,
        num_return_sequences=6,
        prefix_allowed_tokens_fn=lambda _, ids: sorted(following.get(tuple(ids.tolist()), {0})),
        length_penalty=0.0,
        early_stopping=False,
        do_sample=False,
        max_new_tokens=5,
        return_dict_in_generate=True,
        output_scores=True,
    )
    trie = Trie.build(rows)
    found = beam_search(backbone, CAPTIONS, trie, 6, "vocab")
    assert trie.tokens_of(found.leaves).equal(out.sequences[:, 1:5].view(3, 6, 4))
    torch.testing.assert_close(found.scores, out.sequences_scores.view(3, 6), atol=1e-4, rtol=1e-4)


def test_save_and_load(pretrained, tmp_path):
    backbone = built(pretrained)
    targets = backbone.tokens(Identifiers(torch.arange(3), codes=codes(3)))
    backbone.save(tmp_path)
    again = T5Backbone(backbone.config)
    again.load(tmp_path, VOKENS)
    assert isinstance(backbone.t5, type(pretrained.model)) and isinstance(again.t5, PlainT5)
    assert torch.equal(again.logits(CAPTIONS, targets), backbone.logits(CAPTIONS, targets))
    t5 = again.t5
    assert (t5.lm_head.weight.data_ptr() == t5.shared.weight.data_ptr()) == pretrained.tied
    again.save(tmp_path / "anew")
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path, tmp_path / "anew"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_unusual_generators_are_left_to_transformers(pretrained, tmp_path):
    backbone = built(pretrained)
    backbone.save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"dense_act_fn": "silu"}))
    again = T5Backbone(backbone.config)
    again.load(tmp_path, VOKENS)
    assert isinstance(again.t5, type(pretrained.model))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_buckets_of_distances_are_those_of_transformers(bidirectional):
    distance = torch.arange(-300, 300)[None]
    given = {"bidirectional": bidirectional, "num_buckets": 32, "max_distance": 128}
    expected = T5Attention._relative_position_bucket(distance, **given)
    assert torch.equal(plain_t5._Attention._relative_position_bucket(distance, **given), expected)


def test_relatives_that_compute_otherwise_are_refused(tmp_path):
    UMT5ForConditionalGeneration(UMT5Config(**SIZES, vocab_size=90)).save_pretrained(tmp_path)
    train_tokenizer(CAPTIONS, 90).save_pretrained(tmp_path)
    with pytest.raises(GenretError, match=r"umt5.*T5 v1\.1, flan-T5 or mT5"):
        built(Pretrained(tmp_path, None, True))
