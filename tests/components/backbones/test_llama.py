"""LlamaBackbone held against transformers' own forward pass and `generate`, for each architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from genret.api import Identifiers, Vokens
from genret.components.backbones.llama import LlamaBackbone
from genret.components.backbones.llama_tree import cache_argument
from genret.components.backbones.tokenizers import train_tokenizer
from genret.components.backbones.vocabulary import untied
from genret.decode.beam import beam_search
from genret.decode.trie import Trie

torch.set_num_threads(1)

CAPTIONS = ["two dogs in the snow", "a red car", "a boy jumps into the water", "dogs play", "the snow falls on a car"]
SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "smollm": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "mistral": MistralConfig(**SIZES, sliding_window=5),
    "qwen2": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=5, layer_types=KINDS),
    "qwen3": Qwen3Config(**SIZES),
    "gemma": GemmaConfig(**SIZES),
    "gemma2": Gemma2Config(
        **SIZES, sliding_window=5, layer_types=KINDS, query_pre_attn_scalar=4, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3": Gemma3TextConfig(**SIZES, sliding_window=5, layer_types=KINDS, query_pre_attn_scalar=4),
}  # fmt: skip
"""Windows are shorter than the prompts, so that they matter."""


VOKENS = Vokens((7, 5, 6))
QUERIES = ["a red car", "the boy and two dogs jump into the water of the snow", "dogs"]


def make_causal(folder: Path, family: str) -> Path:
    tokenizer = train_tokenizer(CAPTIONS, 100)
    config = FAMILIES[family]
    config.vocab_size = len(tokenizer) + 3  # as most models, it has room that the tokenizer does not use
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():  # a fresh model is nearly indifferent; this one has opinions
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def folder(request, tmp_path_factory) -> Path:
    return make_causal(tmp_path_factory.mktemp(request.param), request.param)


def built(folder: Path, **options: Any) -> LlamaBackbone:
    backbone = LlamaBackbone(LlamaBackbone.Config(model=str(folder), **options))
    backbone.build(VOKENS, None, CAPTIONS, seed=0)
    backbone.module.eval()
    return backbone


@pytest.fixture(params=["whole", "lora"])
def backbone(request, folder) -> LlamaBackbone:
    if request.param == "whole":
        return built(folder)
    adapted = built(folder, lora={"r": 3})
    disturb(adapted)
    return adapted


def disturb(backbone: LlamaBackbone) -> None:
    """As if it had been trained: adapters begin as nothing at all."""
    generator = torch.Generator().manual_seed(4)
    for parameter in backbone.module.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def sequences_for(backbone: LlamaBackbone, rows: int, beams: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    codes = torch.stack([torch.randint(0, size, (rows * beams,), generator=generator) for size in VOKENS.sizes], dim=1)
    return backbone.tokens(Identifiers(torch.arange(rows * beams), codes=codes)).view(rows, beams, 3)


def reference(backbone: LlamaBackbone, query: str, written: torch.Tensor) -> torch.Tensor:
    """transformers' own forward on one sequence by itself, unpadded: written (L,) → logits (L + 1, V)."""
    prompt = backbone.tokenizer(f"{query}\n=>")["input_ids"][:-1]
    logits = backbone.module(input_ids=torch.tensor([[*prompt, *written.tolist()]])).logits
    return logits[0, len(prompt) - 1 :]


def close(one: torch.Tensor, two: torch.Tensor) -> None:
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ exactness
def test_logits_equal_transformers(backbone):
    targets = sequences_for(backbone, 3, 1)[:, 0]
    targets[1, 2] = -1
    logits = backbone.logits(QUERIES, targets)
    assert logits.shape == (3, 3, backbone.vocab_size)
    for row, query in enumerate(QUERIES):
        close(logits[row], reference(backbone, query, targets[row, :2]))


def test_score_equals_transformers_log_probabilities(backbone):
    sequences = sequences_for(backbone, 3, 4)
    sequences[0, 1, 2] = -1
    levels = [backbone.level_tokens(level) for level in range(3)]
    for columns in (levels, [None] * 3):
        scores = backbone.score(QUERIES, sequences, columns)
        for row, query in enumerate(QUERIES):
            for beam in range(4):
                logits = reference(backbone, query, sequences[row, beam].clamp_min(0))
                for level, wanted in enumerate(columns):
                    token = sequences[row, beam, level]
                    rivals = logits[level] if wanted is None else logits[level, wanted]
                    expected = logits[level, token] - rivals.logsumexp(0) if token >= 0 else torch.tensor(0.0)
                    close(scores[row, beam, level], expected)


def test_steps_with_reordered_beams_equal_transformers(backbone):
    sequences = sequences_for(backbone, 3, 4)
    state = backbone.prefill(QUERIES)
    first = backbone.step(state, None, None, None)
    second = backbone.step(state, sequences[:, :, 0], torch.zeros(3, 4, dtype=torch.long), None)
    swap = torch.tensor([[2, 0, 0], [1, 3, 2], [0, 1, 3]])  # a beam less
    columns = backbone.level_tokens(2)
    third = backbone.step(state, sequences[:, :3, 1], swap, columns)
    assert (first.shape, second.shape, third.shape) == ((3, 1, 103 - 9), (3, 4, 103 - 9), (3, 3, 6))
    for row, query in enumerate(QUERIES):
        for beam in range(4):
            logits = reference(backbone, query, sequences[row, beam, :1])
            close(first[row, 0], logits[0])
            close(second[row, beam], logits[1])
        for beam in range(3):
            parent = int(swap[row, beam])
            history = torch.stack([sequences[row, parent, 0], sequences[row, beam, 1]])
            close(third[row, beam], reference(backbone, query, history)[2, columns])


def test_gradients_of_scores_equal_those_of_transformers(backbone):
    sequences = sequences_for(backbone, 3, 2)
    trained = {name: p for name, p in backbone.module.named_parameters() if p.requires_grad}
    backbone.score(QUERIES, sequences, [None] * 3).sum().backward()
    own = {name: p.grad.clone() for name, p in trained.items()}
    backbone.module.zero_grad()
    for row, query in enumerate(QUERIES):
        for written in sequences[row]:
            log_probs = reference(backbone, query, written)[:3].log_softmax(-1)
            log_probs.gather(1, written[:, None]).sum().backward()
    for name, parameter in trained.items():
        torch.testing.assert_close(own[name], parameter.grad, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def generate(backbone: LlamaBackbone, query: str, rows: torch.Tensor, num_beams: int):
    """transformers' sequences (b, L) and their scores, under the same constraint."""
    prompt = backbone.tokenizer(f"{query}\n=>")["input_ids"][:-1]
    following: dict[tuple[int, ...], set[int]] = {}
    for row in rows.tolist():
        for d in range(len(row)):
            following.setdefault(tuple(row[:d]), set()).add(row[d])
    out = backbone.module.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        prefix_allowed_tokens_fn=lambda _, ids: sorted(following.get(tuple(ids[len(prompt) :].tolist()), {1})),
        length_penalty=0.0,
        early_stopping=False,
        do_sample=False,
        max_new_tokens=rows.shape[1] + 1,
        eos_token_id=1,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return out.sequences[:, len(prompt) : len(prompt) + rows.shape[1]], out.sequences_scores


def test_beam_search_equals_generate(backbone):
    rows = sequences_for(backbone, 60, 1)[:, 0].unique(dim=0)
    rows = torch.nn.functional.pad(rows, (0, 1), value=1)
    trie = Trie.build(rows)
    found = beam_search(backbone, QUERIES, trie, 6, "vocab")
    for row, query in enumerate(QUERIES):
        sequences, scores = generate(backbone, query, rows, 6)
        assert trie.tokens_of(found.leaves[row]).equal(sequences)
        torch.testing.assert_close(found.scores[row], scores, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ disk
@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_save_and_load_keep_scores_and_ties(folder, tmp_path, form):
    first = built(folder, lora={"r": 3}, save=form)
    disturb(first)
    sequences = sequences_for(first, 3, 4)
    levels = [first.level_tokens(level) for level in range(3)]
    before = first.score(QUERIES, sequences, levels)
    first.save(tmp_path)
    close(first.score(QUERIES, sequences, levels), before)  # saving changes nothing
    again = LlamaBackbone(first.config)
    again.load(tmp_path, VOKENS)
    close(again.score(QUERIES, sequences, levels), before)
    files = {path.name for path in tmp_path.iterdir()}
    assert ("model.safetensors" in files) == (form == "merged")
    assert ("adapter_model.safetensors" in files) == (form == "adapter")
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    if form == "merged":  # a plain model, for transformers as for us
        plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        prompt = torch.tensor([first.tokenizer("a red car\n=>")["input_ids"]])
        close(plain(prompt).logits, first.module(prompt).logits)
        assert untied(plain) != plain.config.tie_word_embeddings


def test_a_fully_trained_model_is_saved_and_loaded(folder, tmp_path):
    first = built(folder)
    disturb(first)
    first.save(tmp_path)
    again = LlamaBackbone(first.config)
    again.load(tmp_path, VOKENS)
    targets = sequences_for(first, 3, 1)[:, 0]
    close(again.logits(QUERIES, targets), first.logits(QUERIES, targets))
    assert untied(again.module) == untied(first.module)


def test_mixed_precision_differs_by_rounding_alone(backbone):
    """As `train.bf16` has it; decoding and scoring go through the same operations."""
    sequences = sequences_for(backbone, 3, 4)
    full = backbone.score(QUERIES, sequences, [None] * 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = backbone.score(QUERIES, sequences, [None] * 3)
        mixed.sum().backward()
        with torch.no_grad():
            state = backbone.prefill(QUERIES)
            backbone.step(state, None, None, None)
            stepped = backbone.step(state, sequences[:, :, 0], torch.zeros(3, 4, dtype=torch.long), None)
    assert mixed.isfinite().all() and stepped.isfinite().all()
    assert (mixed - full).abs().max() < 0.05 * full.abs().max()
    own = stepped.float().log_softmax(-1).gather(2, sequences[:, :, 1:2])[..., 0]
    assert (own - full[:, :, 1]).abs().max() < 0.05 * full.abs().max()


def test_the_cache_goes_by_the_name_that_a_model_knows() -> None:
    """transformers renamed it in 5.24, model by model; the old word warns there, which is an error in these tests."""

    class Before:
        def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...

    class Since:
        def forward(self, input_ids: Any, cache: Any = None) -> None: ...

    assert cache_argument(Before()) == "past_key_values"
    assert cache_argument(Since()) == "cache"
