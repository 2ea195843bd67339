"""T5's decoder for beams: a query is encoded once and its beams share the cross-attention keys and values.

transformers' own forward wants one encoder row per beam. Here the beams of a query are further *query positions* of the
cross-attention, so nothing is repeated in memory and the same code serves decoding (one token more, with a cache) and
scoring (whole sequences, differentiable). It reads the weights of a `T5ForConditionalGeneration`, or an mT5's, and owns
none. It does not know tries, identifiers or losses.

    B queries   b beams   T tokens at once   P tokens before   S query tokens   H heads   W model width
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class KeyValues(NamedTuple):
    keys: Tensor
    values: Tensor


class State:
    """What decoding remembers of B queries."""

    def __init__(self, cross: list[KeyValues], query_mask: Tensor):
        self.cross = cross
        """per layer, (B, H, S, d)"""
        self.query_mask = query_mask
        """(B, 1, 1, S) True at real tokens"""
        self.past: list[KeyValues] | None = None
        """per layer, (B, b, H, P, d)"""


def encode(model: Any, mask: Tensor, *, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None) -> State:
    """mask (B, S), and either input_ids (B, S) or inputs_embeds (B, S, W) → the state before the first token."""
    hidden = model.encoder(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=mask).last_hidden_state
    cross = []
    for block in model.decoder.block:
        attention = block.layer[1].EncDecAttention
        cross.append(KeyValues(_heads(attention.k(hidden), attention), _heads(attention.v(hidden), attention)))
    return State(cross, mask.bool()[:, None, None, :])


def decode(model: Any, state: State, tokens: Tensor, parents: Tensor | None = None, remember: bool = False) -> Tensor:
    """tokens (B, b, T) that follow what the state remembers → hidden (B, b, T, W), ready for the output head.

    parents (B, b): the remembered beam that each new beam continues. `remember`: keep keys and values in the state.
    """
    decoder = model.decoder
    past = [_reordered(layer, parents) for layer in state.past] if state.past is not None else None
    hidden = decoder.dropout(model.shared(tokens))
    bias = _self_bias(decoder.block[0].layer[0].SelfAttention, tokens.shape[2], past[0].keys.shape[3] if past else 0)
    kept = []
    for index, block in enumerate(decoder.block):
        layer_past = past[index] if past is not None else None
        hidden, layer_kept = _self_attention(block.layer[0], hidden, bias, layer_past)
        hidden = _cross_attention(block.layer[1], hidden, state.cross[index], state.query_mask)
        hidden = block.layer[-1](hidden)
        kept.append(layer_kept)
    if remember:
        state.past = kept
    hidden = decoder.dropout(decoder.final_layer_norm(hidden))
    scales = getattr(model.config, "scale_decoder_outputs", False)  # mT5 knows no such switch
    return hidden * model.model_dim**-0.5 if scales else hidden


def _self_attention(layer: Any, hidden: Tensor, bias: Tensor, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
    attention = layer.SelfAttention
    normed = layer.layer_norm(hidden)
    shape = (*normed.shape[:3], attention.n_heads, attention.key_value_proj_dim)
    query, key, value = (part(normed).view(shape).transpose(2, 3) for part in (attention.q, attention.k, attention.v))
    if past is not None:
        key, value = torch.cat([past.keys, key], dim=3), torch.cat([past.values, value], dim=3)
    out = _attend(attention, query, key, value, bias.to(query.dtype))  # (B, b, H, T, d)
    return hidden + layer.dropout(attention.o(out.transpose(2, 3).flatten(3))), KeyValues(key, value)


def _cross_attention(layer: Any, hidden: Tensor, cross: KeyValues, query_mask: Tensor) -> Tensor:
    attention = layer.EncDecAttention
    num_queries, num_beams, length, width = hidden.shape
    normed = layer.layer_norm(hidden).view(num_queries, num_beams * length, width)
    out = _attend(attention, _heads(attention.q(normed), attention), cross.keys, cross.values, query_mask)
    out = out.transpose(1, 2).reshape(num_queries, num_beams, length, -1)
    return hidden + layer.dropout(attention.o(out))


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """T5 adds a position bias and does not scale by the width."""
    dropout = attention.dropout if attention.training else 0.0
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=1.0)


def _heads(x: Tensor, attention: Any) -> Tensor:
    """(B, S, H·d) → (B, H, S, d)"""
    return x.view(*x.shape[:2], attention.n_heads, attention.key_value_proj_dim).transpose(1, 2)


def _self_bias(attention: Any, length: int, past: int) -> Tensor:
    """(H, T, P + T): the relative position bias, -inf on what a token may not see yet."""
    device = attention.relative_attention_bias.weight.device
    here = torch.arange(past, past + length, device=device)[:, None]
    there = torch.arange(past + length, device=device)[None, :]
    bucket = attention._relative_position_bucket(
        there - here,
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias = attention.relative_attention_bias(bucket).permute(2, 0, 1)
    return bias.masked_fill(there > here, float("-inf"))


def _reordered(past: KeyValues, parents: Tensor | None) -> KeyValues:
    """(B, b', H, P, d) → (B, b, H, P, d)"""
    if parents is None:
        return past
    rows = torch.arange(len(parents), device=parents.device)[:, None]
    return KeyValues(past.keys[rows, parents], past.values[rows, parents])
