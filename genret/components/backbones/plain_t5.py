"""A T5's weights without transformers' model class: what `t5_decoder` reads, by the same names.

Only for saved generators of usual kinds: importing that class takes most of the time of a first search.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genret.components.backbones.kernels import gelu_new
from genret.toolbox.plain import filled, table

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "gelu_new": gelu_new}


class PlainT5(nn.Module):
    """Embedding, layers and head of a T5 or mT5; it has no forward pass of its own."""

    def __init__(self, config: Any):
        super().__init__()
        self.config, self.model_dim = config, config.d_model
        self.shared = table(config.vocab_size, config.d_model)
        self.encoder = _Stack(config, config.num_layers, False, self.shared)
        self.decoder = _Stack(config, config.num_decoder_layers, True, self.shared)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    @classmethod
    def opened(cls, config: Any, folder: Path, untied: bool) -> PlainT5 | None:
        """The generator of a folder with these settings of transformers; None if it is unusual or stored otherwise."""
        if config.dense_act_fn not in ACTIVATIONS:
            return None
        with torch.device("meta"):
            model = cls(config)
        untied = untied or not config.tie_word_embeddings
        same = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"] + ["lm_head.weight"] * (not untied)
        if not filled(model, folder, same=dict.fromkeys(same, "shared.weight")):
            return None
        if not untied:
            model.lm_head.weight = model.shared.weight
        return model

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def save_pretrained(self, folder: Path) -> None:
        """Writes what transformers' class writes."""
        from transformers import AutoModelForSeq2SeqLM

        whole: Any = AutoModelForSeq2SeqLM.from_config(self.config)
        whole.load_state_dict(self.state_dict(), assign=True)
        whole.save_pretrained(folder)


class _Stack(nn.Module):
    def __init__(self, config: Any, num_layers: int, is_decoder: bool, embed_tokens: nn.Embedding):
        super().__init__()
        self.embed_tokens = embed_tokens
        self.block = nn.ModuleList(_Block(config, is_decoder, first=number == 0) for number in range(num_layers))
        self.final_layer_norm = _Norm(config)
        self.dropout = nn.Dropout(config.dropout_rate)


class _Block(nn.Module):
    def __init__(self, config: Any, is_decoder: bool, first: bool):
        super().__init__()
        layers = [_Layer(config, SelfAttention=_Attention(config, is_decoder, first))]
        if is_decoder:
            layers.append(_Layer(config, EncDecAttention=_Attention(config, is_decoder, False)))
        self.layer = nn.ModuleList([*layers, _Layer(config, DenseReluDense=_FeedForward(config))])


class _Layer(nn.Module):
    def __init__(self, config: Any, **part: nn.Module):
        super().__init__()
        for name, module in part.items():
            self.add_module(name, module)
        self.layer_norm = _Norm(config)
        self.dropout = nn.Dropout(config.dropout_rate)


class _Norm(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.variance_epsilon = config.layer_norm_epsilon


class _Attention(nn.Module):
    def __init__(self, config: Any, is_decoder: bool, has_bias: bool):
        super().__init__()
        self.n_heads, self.key_value_proj_dim, self.dropout = config.num_heads, config.d_kv, config.dropout_rate
        self.is_decoder = is_decoder
        self.relative_attention_num_buckets = config.relative_attention_num_buckets
        self.relative_attention_max_distance = config.relative_attention_max_distance
        inner = config.num_heads * config.d_kv
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_bias:
            self.relative_attention_bias = table(config.relative_attention_num_buckets, config.num_heads)

    @staticmethod
    def _relative_position_bucket(distance: Tensor, bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
        """Distances of keys from queries → buckets: half of them exact, the other half logarithmic (Raffel et al. 2020,
        section 2.1; Mesh TensorFlow's transformer_layers.py)."""
        later = torch.zeros_like(distance)
        if bidirectional:
            num_buckets //= 2
            later = (distance > 0).to(torch.long) * num_buckets
            distance = distance.abs()
        else:
            distance = -distance.clamp_max(0)
        exact = num_buckets // 2
        share = torch.log(distance.float() / exact) / math.log(max_distance / exact)
        far = (exact + (share * (num_buckets - exact)).to(torch.long)).clamp_max(num_buckets - 1)
        return later + torch.where(distance < exact, distance, far)


class _FeedForward(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        for name in ("wi_0", "wi_1") if config.is_gated_act else ("wi",):
            self.add_module(name, nn.Linear(config.d_model, config.d_ff, bias=False))
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.act = ACTIVATIONS[config.dense_act_fn]
