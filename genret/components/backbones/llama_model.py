"""Builds or loads the network of a decoder-only backbone, and checks that genret computes it exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from genret.errors import GenretError, one_line
from genret.toolbox.weights import check_loaded, has_weights

LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Kinds of layers that cache keys and values, as tree attention needs it."""


def small(options: Any, vocab_size: int) -> Any:
    """A random LLaMA of the sizes that `LlamaBackbone.Config` gives, with embedding and head tied."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=options.d_model,
        intermediate_size=options.d_ff,
        num_hidden_layers=options.num_layers,
        num_attention_heads=options.num_heads,
        attention_dropout=options.dropout or 0.0,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def opened(folder: Path, options: Any) -> tuple[Any, Any]:
    """Tokenizer and model of a local folder; errors of the libraries are not caught."""
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    own = {} if options.dropout is None else {"attention_dropout": options.dropout}
    has_weights(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    if tokenizer.eos_token_id is None:
        raise GenretError(f"{folder}: the tokenizer has no end symbol (eos_token), which identifiers may need")
    model: Any
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, options.dtype), use_safetensors=True, output_loading_info=True, **own, **local
    )
    model, report = loaded
    check_loaded(model, report, folder)
    return tokenizer, model


def checkpoint_layers(model: Any) -> None:
    """Turns on gradient checkpointing: layers are recomputed in the backward pass."""
    new = hasattr(model, "activation_checkpointing_enable")  # its name in transformers 5
    enable = model.activation_checkpointing_enable if new else model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def fitting(model: Any) -> Iterator[None]:
    """Turns any error of a trial run into one that names the supported models."""
    try:
        if strange := set(getattr(model.config, "layer_types", None) or ()) - LAYER_TYPES:
            raise ValueError(f"it has layers of {', '.join(sorted(strange))}")
        yield
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise GenretError(
            f"backbone.model: the architecture {type(model).__name__} does not fit ({one_line(error)}); take a LLaMA, "
            "Mistral, Qwen2, Qwen3, SmolLM or Gemma"
        ) from error
