"""Models with random weights in the shapes of well-known ones; speed does not depend on the weights.

They are made like a user's model: a folder in Hugging Face's layout, opened by a genret backbone that extends its
vocabulary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
    T5Config,
    T5ForConditionalGeneration,
)

from bench.identifiers import CODEBOOK_SIZE, NUM_LEVELS
from genret.api import Backbone, Vokens
from genret.components.backbones.llama import LlamaBackbone
from genret.components.backbones.t5 import T5Backbone
from genret.components.backbones.tokenizers import train_tokenizer

_WHO = [
    "a young man in a blue shirt",
    "two dogs",
    "an elderly woman with a red umbrella",
    "three children",
    "a cyclist",
]
_DOES = ["is standing on a ladder cleaning a window", "are playing in the snow", "walks across a busy street", "jumps"]
_WHERE = ["in front of a shop", "near a river with mountains behind", "while others are watching", "on a sunny day"]
QUERIES = [f"{who} {does} {where}" for where in _WHERE for does in _DOES for who in _WHO]
"""80 captions of 6 to 20 words, about as long as Flickr30k's."""

VOKENS = Vokens((CODEBOOK_SIZE,) * NUM_LEVELS)

SHAPES: dict[str, Any] = {
    "t5-tiny": T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=512),
    "t5-small": T5Config(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, vocab_size=32128),
    "t5-base": T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, vocab_size=32128),
    "llama-tiny": LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=512
    ),
    "llama-1b": LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, vocab_size=128256, tie_word_embeddings=True,
    ),
    "qwen3-1.7b": Qwen3Config(
        hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
        head_dim=128, vocab_size=151936, tie_word_embeddings=True,
    ),
}  # fmt: skip
"""google-t5/t5-small, google-t5/t5-base, meta-llama/Llama-3.2-1B and Qwen/Qwen3-1.7B; the tiny ones are for tests."""


def queries(batch: int, number: int) -> list[str]:
    """The queries of round `number`, different from the previous round's."""
    return [QUERIES[(number * batch + i) % len(QUERIES)] for i in range(batch)]


class Model(NamedTuple):
    name: str
    backbone: Any
    level_tokens: list[Tensor]
    """M tensors (K,), each level's tokens"""

    @property
    def device(self) -> torch.device:
        return self.level_tokens[0].device

    @property
    def network(self) -> PreTrainedModel:
        """The transformers model whose weights the backbone uses, for baselines without genret."""
        module = self.backbone.module
        return module["t5"] if isinstance(self.backbone, T5Backbone) else module


def model(
    name: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    vokens: Vokens = VOKENS,
    options: dict[str, Any] | None = None,
    trains: bool = False,
    **changes: Any,
) -> Model:
    """A model of the shape `name`, its vocabulary extended by the identifiers' codes.

    `options`: of genret's backbone. `trains`: whether it is to be trained. `changes`: of the shape.
    """
    torch.manual_seed(0)
    shape = SHAPES[name].from_dict(SHAPES[name].to_dict() | changes)
    is_t5 = isinstance(shape, T5Config)
    shape.pad_token_id, shape.eos_token_id, shape.bos_token_id = 0, 1, None
    shape.decoder_start_token_id = 0
    with device:  # random weights of a large model are drawn much faster on a GPU
        network: Any = T5ForConditionalGeneration(shape) if is_t5 else AutoModelForCausalLM.from_config(shape)
    kind: Any = T5Backbone if is_t5 else LlamaBackbone
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        train_tokenizer(QUERIES, 256).save_pretrained(folder)
        del network
        backbone: Backbone = kind(kind.Config(model=folder, **(options or {})))
        backbone.build(vokens, None, QUERIES, seed=0)
    backbone.module.to(device=device, dtype=dtype)
    if not trains:
        backbone.module.eval().requires_grad_(False)
    return Model(name, backbone, [_tokens(backbone, level) for level in range(len(vokens.sizes))])


def _tokens(backbone: Backbone, level: int) -> Tensor:
    tokens = backbone.level_tokens(level)
    assert tokens is not None
    return tokens


class RandomScores:
    """A model without cost: its scores are precomputed, so that only the search itself is timed.

    `alike`: all beams of a query get the same scores, so that results do not depend on the order of beams.
    """

    def __init__(self, batch: int, num_beams: int, device: torch.device, seed: int = 0, alike: bool = False):
        random = torch.Generator(device).manual_seed(seed)
        shape = (NUM_LEVELS, batch, 1 if alike else num_beams, CODEBOOK_SIZE)
        self.logits = torch.randn(shape, generator=random, device=device).expand(-1, -1, num_beams, -1).contiguous()

    def prefill(self, queries: Sequence[str]) -> list[int]:
        return [0]

    def step(self, state: list[int], symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None) -> Tensor:
        logits = self.logits[state[0], :, : 1 if symbols is None else symbols.shape[1]]
        state[0] += 1
        return logits
