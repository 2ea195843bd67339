"""Builds the networks of a T5 backbone from options, a pretrained folder or a saved run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from genret.components.backbones.plain_t5 import PlainT5
from genret.components.backbones.vocabulary import untie
from genret.components.backbones.vocabulary import untied as is_untied
from genret.errors import GenretError
from genret.toolbox.weights import check_loaded, has_weights, loading

ARCHITECTURES = {"t5": "T5ForConditionalGeneration", "mt5": "MT5ForConditionalGeneration"}
"""The `model_type`s that `t5_decoder` computes exactly; T5 v1.1 and flan-T5 are t5 as well."""


def architecture(model_type: str) -> Any:
    """transformers' class, whose import takes seconds."""
    import transformers

    return getattr(transformers, ARCHITECTURES[model_type])


def small(options: Any, vocab_size: int) -> Any:
    """A random T5 v1.1 of the sizes that `T5Backbone.Config` gives, with embedding and head tied."""
    from transformers import T5Config

    config = T5Config(
        vocab_size=vocab_size,
        d_model=options.d_model,
        d_kv=options.d_model // options.num_heads,
        d_ff=options.d_ff,
        num_layers=options.num_layers,
        num_decoder_layers=options.num_decoder_layers or max(1, options.num_layers),
        num_heads=options.num_heads,
        dropout_rate=0.1 if options.dropout is None else options.dropout,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    config.decoder_start_token_id = 0
    return architecture("t5")(config)


def pretrained(folder: Path, dropout: float | None) -> tuple[Any, Any]:
    """Tokenizer and model of a folder; `dropout` None keeps the model's own."""
    has_weights(folder)
    with loading(f"the T5 in {folder}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model = opened(folder)
    if dropout is not None:
        _set_dropout(model, dropout)
    return tokenizer, model


def saved(folder: Path, untied: bool) -> Any:
    """The generator of a run, as quickly as possible; see `opened`."""
    return PlainT5.opened(_settings(folder), folder, untied) or opened(folder, untied)


def _settings(folder: Path) -> Any:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if config.model_type not in ARCHITECTURES:
        raise GenretError(f"{folder} holds a model of type {config.model_type}; take a T5, T5 v1.1, flan-T5 or mT5")
    return config


def opened(folder: Path, untied: bool = False) -> Any:
    """The model of a folder; `untied`: its head has its own weights, regardless of the settings."""
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    model, report = architecture(_settings(folder).model_type).from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **local
    )
    check_loaded(model, report, folder)
    if untied and not is_untied(model):  # transformers 5 ties T5 unless told otherwise
        untie(model, load_file(folder / "model.safetensors")["lm_head.weight"])
    return model


class Projection(nn.Sequential):
    """Projects vectors of another model to T5's width, scaled like the word embeddings that they replace."""

    def __init__(self, width: int, d_model: int, scale: float = 1.0):
        norm = nn.LayerNorm(d_model)
        nn.init.constant_(norm.weight, scale)
        super().__init__(nn.Linear(width, d_model), norm)

    @classmethod
    def load(cls, path: Path) -> Projection:
        state = load_file(path)
        d_model, width = state["0.weight"].shape
        projection = cls(width, d_model)
        projection.load_state_dict(state)
        return projection


def _set_dropout(model: nn.Module, rate: float) -> None:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        elif isinstance(getattr(part, "dropout", None), float):  # attention stores its rate as a number
            vars(part)["dropout"] = rate
