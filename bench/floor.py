"""The lower bound of a search's time: its model calls alone, without trie, scores or beam selection.

Two variants: genret's, where a query's beams share its keys and values, and transformers' cached ones, with one row for
each beam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from bench.models import Model, queries
from genret.components.backbones.llama_tree import cache_argument
from genret.components.backbones.t5 import T5Backbone

Run = Callable[[int], Any]


def own_calls(model: Model, batch: int, num_beams: int) -> Run:
    """`Backbone.prefill` and one `step` for each level, for the columns that a search asks for."""
    written = [tokens[:num_beams].expand(batch, -1) for tokens in model.level_tokens]
    stay = torch.arange(num_beams, device=model.device).expand(batch, -1)
    backbone = model.backbone

    @torch.no_grad()
    def run(number: int) -> None:
        state = backbone.prefill(queries(batch, number))
        backbone.step(state, None, None, model.level_tokens[0])
        for level, columns in enumerate(model.level_tokens[1:]):
            parents = torch.zeros_like(stay) if level == 0 else stay
            backbone.step(state, written[level], parents, columns)

    return run


def transformers_calls(model: Model, batch: int, num_beams: int) -> Run:
    """What `generate` computes: the whole vocabulary's logits of every beam, with cached keys and values."""
    calls = _encoder_decoder if isinstance(model.backbone, T5Backbone) else _decoder_only
    written = [tokens[:num_beams].repeat(batch)[:, None] for tokens in model.level_tokens]

    @torch.no_grad()
    def run(number: int) -> None:
        calls(model, queries(batch, number), num_beams, written)

    return run


def _encoder_decoder(model: Model, texts: list[str], num_beams: int, written: list[Tensor]) -> None:
    network: Any = model.network
    batch = model.backbone.tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
    hidden = network.encoder(**_known(batch)).last_hidden_state.repeat_interleave(num_beams, dim=0)
    mask = batch["attention_mask"].repeat_interleave(num_beams, dim=0)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    last = torch.full_like(written[0], network.config.decoder_start_token_id)
    for following in written:
        network(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden), attention_mask=mask, decoder_input_ids=last,
            use_cache=True, **{cache_argument(network): cache},
        )  # fmt: skip
        last = following


def _decoder_only(model: Model, texts: list[str], num_beams: int, written: list[Tensor]) -> None:
    network: Any = model.network
    batch = prompts(model, texts)
    cache = DynamicCache()
    known = {cache_argument(network): cache}
    network(**batch, **known, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(num_beams)
    mask = batch["attention_mask"].repeat_interleave(num_beams, dim=0)
    for token in written[:-1]:
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = mask.sum(1, keepdim=True) - 1
        network(input_ids=token, attention_mask=mask, position_ids=positions, use_cache=True, **known)


def prompts(model: Model, texts: list[str]) -> dict[str, Tensor]:
    """The prompts that a decoder-only backbone reads, padded on the left: input_ids and attention_mask."""
    written = [model.backbone.config.prompt.replace("{query}", text) for text in texts]
    tokenizer = model.backbone.tokenizer
    batch = tokenizer(written, padding=True, padding_side="left", return_tensors="pt", add_special_tokens=False)
    return _known(batch.to(model.device))


def _known(batch: Any) -> dict[str, Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}
