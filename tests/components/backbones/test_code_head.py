"""The code head held against the quantizer's own soft choice, written out code by code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from genret.api import Identifiers, Vokens
from genret.components.backbones.t5 import T5Backbone
from genret.decode.beam import beam_search
from genret.decode.trie import Trie
from genret.errors import GenretError, UsageError

CAPTIONS = ["two dogs in the snow", "a red car", "a boy jumps into the water"]
VOKENS = Vokens((7, 5, 6))
SMALL = {"d_model": 32, "d_ff": 48, "num_layers": 0, "num_decoder_layers": 1, "num_heads": 4, "vocab_size": 100}


@pytest.fixture
def backbone(bert_folder: Path) -> T5Backbone:
    made = T5Backbone(T5Backbone.Config(**SMALL, encoder=str(bert_folder), code_head=24))
    vectors = torch.randn(18, 10, generator=torch.Generator().manual_seed(1))
    made.build(VOKENS, vectors, CAPTIONS, seed=0)
    made.module.eval()
    return made


def some(backbone: T5Backbone, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and their tokens, (rows, 3) each."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.stack([torch.randint(0, size, (rows,), generator=generator) for size in VOKENS.sizes], dim=1)
    return codes, backbone.tokens(Identifiers(torch.arange(rows), codes=codes))


@torch.no_grad()
def expected(backbone: T5Backbone, query: str, codes: list[int]) -> list[torch.Tensor]:
    """−s/2 ‖u − Σ e − e_k‖² of each level's codes, after a softmax."""
    head = backbone.module["codes"]
    states, mask = backbone._encoder([query], torch.device("cpu"))
    left = head.read(states, mask)[0]
    found = []
    for level, code in enumerate(codes):
        book = head.vectors[backbone.level_tokens(level)]
        distance = torch.stack([(left - vector).square().sum() for vector in book])
        found.append((-0.5 * head.log_scale[level].exp() * distance).log_softmax(0))
        left = left - book[code]
    return found


def test_it_begins_as_the_quantizers_soft_choice(backbone):
    codes, tokens = some(backbone, 3)
    logits = backbone.logits(CAPTIONS, tokens)
    levels = [backbone.level_tokens(level) for level in range(3)]
    scores = backbone.score(CAPTIONS, tokens[:, None], levels)
    for row, caption in enumerate(CAPTIONS):
        for level, wanted in enumerate(expected(backbone, caption, codes[row].tolist())):
            torch.testing.assert_close(logits[row, level, levels[level]].log_softmax(0), wanted)
            torch.testing.assert_close(scores[row, 0, level], wanted[codes[row, level]])


def test_an_untrained_search_finds_what_the_distances_find(backbone):
    codes, tokens = some(backbone, 40)
    trie = Trie.build(tokens)
    beams = beam_search(backbone, CAPTIONS, trie, 40)
    leaves = {tuple(row): leaf for leaf, row in enumerate(trie.tokens_of(torch.arange(trie.num_leaves)).tolist())}
    for row, caption in enumerate(CAPTIONS):
        sums = {
            leaves[tuple(own.tolist())]: float(
                sum(level[code] for level, code in zip(expected(backbone, caption, one.tolist()), one, strict=True))
            )
            for own, one in zip(tokens, codes, strict=True)
        }
        best = sorted(sums, key=lambda leaf: -sums[leaf])
        assert beams.leaves[row, :10].tolist() == best[:10]
        assert beams.scores[row, :10].tolist() == pytest.approx([sums[leaf] for leaf in best[:10]], abs=1e-4)


@torch.no_grad()
def test_what_it_reads_is_told_before_the_first_step(backbone, bert_folder):
    read = backbone.module["codes"].read(*backbone._encoder(CAPTIONS, torch.device("cpu")))
    torch.testing.assert_close(backbone.query_vectors(backbone.prefill(CAPTIONS)), read)
    plain = T5Backbone(T5Backbone.Config(**SMALL, encoder=str(bert_folder)))
    plain.build(VOKENS, None, CAPTIONS, seed=0)
    with pytest.raises(UsageError, match=r"trained with backbone\.code_head"):
        plain.query_vectors(plain.prefill(CAPTIONS))


def test_steps_equal_teacher_forcing_with_the_decoder_let_in(backbone):
    """The decoder's own logits take part as the gates open; beams swap places on the way."""
    with torch.no_grad():
        backbone.module["codes"].gate.copy_(torch.tensor([0.5, -1.0, 2.0, 1.0]))
    _, tokens = some(backbone, 6)
    sequences = tokens.view(2, 3, 3)
    state = backbone.prefill(CAPTIONS[:2])
    backbone.step(state, None, None, None)
    backbone.step(state, sequences[:, :, 0], torch.zeros(2, 3, dtype=torch.long), None)
    swap = torch.tensor([[2, 0, 0], [1, 1, 2]])
    third = backbone.step(state, sequences[:, :, 1], swap, backbone.level_tokens(2))
    rows = torch.arange(2)
    for beam in range(3):
        parent = swap[:, beam]
        history = torch.stack([sequences[rows, parent, 0], sequences[rows, beam, 1], sequences[rows, beam, 2]], 1)
        whole = backbone.logits(CAPTIONS[:2], history)[:, 2, backbone.level_tokens(2)]
        torch.testing.assert_close(third[:, beam], whole)


def test_saved_and_loaded_it_is_the_same(backbone, tmp_path):
    _, tokens = some(backbone, 3)
    backbone.save(tmp_path)
    other = T5Backbone(backbone.config)
    other.load(tmp_path, VOKENS)
    torch.testing.assert_close(other.logits(CAPTIONS, tokens), backbone.logits(CAPTIONS, tokens))
    (tmp_path / "codes.safetensors").write_bytes(b"damaged")
    with pytest.raises(GenretError, match="no usable generator"):
        T5Backbone(backbone.config).load(tmp_path, VOKENS)


def test_it_needs_code_vectors_and_an_encoder(bert_folder):
    with pytest.raises(ValidationError, match="name one or set it to 0"):
        T5Backbone.Config(code_head=8)
    backbone = T5Backbone(T5Backbone.Config(**SMALL, encoder=str(bert_folder), code_head=24))
    with pytest.raises(UsageError, match=r"backbone\.code_head needs code vectors"):
        backbone.build(VOKENS, None, CAPTIONS, seed=0)
