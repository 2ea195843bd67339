"""T5 for beam search: a query is encoded once and its beams share the cross-attention keys and values.

The forward pass of transformers needs one encoder row per beam and reorders the cache at every step. Here the beams of
a query are *query positions* of the cross-attention, and cached tokens are never moved: a beam is a list of its
ancestors' cache slots. The same layers serve decoding (one token more, with the cache) and scoring (whole sequences,
differentiable). They use the weights of a `T5ForConditionalGeneration` or an mT5 and own none.

    B queries   b beams   T tokens at once   P tokens of a beam so far   S query tokens   H heads   d width of a head
    W model width
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genret.components.backbones.kernels import linear


class KeyValues(NamedTuple):
    keys: Tensor
    values: Tensor


class DecoderState:
    """Decoding state of B queries."""

    def __init__(self, cross: list[KeyValues], query_mask: Tensor):
        self.cross = cross
        """per layer, (B, H, S, d)"""
        self.query_mask = query_mask
        """(B, 1, 1, S) True at real tokens"""
        self.cache: list[Tensor] = []
        """per layer, (places, 2, H d): keys and values of all tokens of all beams so far"""
        self.used = 0
        """cache slots in use"""
        self.ancestors: Tensor | None = None
        """(B, b, P) the cache slots of each beam's tokens"""
        self.bias: Tensor | None = None
        """(1, H, 1, D) self-attention bias by distance, nearest first"""
        self.left: Tensor | None = None
        """(B, b, D) what the codes written so far leave of the query's vector; only with a code head"""

    @property
    def depth(self) -> int:
        """Tokens of each beam so far, the start token included"""
        return 0 if self.ancestors is None else self.ancestors.shape[2]


Attend = Callable[[int, Any, Tensor, Tensor, Tensor], Tensor]
"""(layer, its self-attention, and queries, keys, values (B, n, H d)) → (B, n, H d)"""


def encode(
    model: Any, mask: Tensor, *, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
) -> DecoderState:
    """mask (B, S), and either input_ids (B, S) or inputs_embeds (B, S, W) → the state before the first token."""
    encoder = model.encoder
    query_mask = mask.bool()[:, None, None, :]
    if inputs_embeds is None:
        inputs_embeds = encoder.embed_tokens(input_ids)
    place = torch.arange(mask.shape[1], device=mask.device)
    if len(encoder.block):  # no layers: the states of another model are used as they are
        bias = _bias(encoder, place - place[:, None]).masked_fill(~query_mask, -torch.inf)  # (B, H, S, S)

    def attend(_: int, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _attend(attention, _heads(query, attention), _heads(key, attention), _heads(value, attention), bias)

    hidden = _stack(encoder, inputs_embeds, attend, None)
    cross = []
    for block in model.decoder.block:
        attention = block.layer[1].EncDecAttention
        key, value = linear(hidden, attention.k.weight), linear(hidden, attention.v.weight)
        cross.append(KeyValues(_heads(key, attention), _heads(value, attention)))
    return DecoderState(cross, query_mask)


def decode(model: Any, state: DecoderState, tokens: Tensor) -> Tensor:
    """Whole sequences: tokens (B, b, T), the start token first → hidden (B, b, T, W), scaled for the output head."""
    num_queries, num_beams, length = tokens.shape
    place = torch.arange(length, device=tokens.device)
    distance = place - place[:, None]
    bias = _bias(model.decoder, distance).masked_fill(distance > 0, -torch.inf)  # (1, H, T, T)

    def attend(_: int, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (
            _heads(part.view(num_queries * num_beams, length, -1), attention) for part in (query, key, value)
        )
        return _attend(attention, query, key, value, bias).view(num_queries, num_beams * length, -1)

    hidden = _decoder(model, state, tokens.flatten(1), attend)
    return hidden.view(num_queries, num_beams, length, -1)


@torch.no_grad()
def step(model: Any, state: DecoderState, tokens: Tensor, parents: Tensor | None) -> Tensor:
    """One token more: tokens (B, b), each the child of beam `parents` (B, b) of before → hidden (B, b, W)."""
    here = torch.arange(state.used, state.used + tokens.numel(), device=tokens.device).view(*tokens.shape, 1)
    if state.ancestors is None:
        state.ancestors = here
    else:
        known = state.ancestors
        if parents is not None:
            known = known.gather(1, parents[..., None].expand(-1, -1, known.shape[2]))
        state.ancestors = torch.cat([known, here], dim=2)
    length = state.ancestors.shape[2]
    _make_room(model, state, tokens.numel(), length)
    assert state.bias is not None
    bias = state.bias[..., :length].flip(-1)
    ancestors, written = state.ancestors.flatten(), slice(state.used, state.used + tokens.numel())

    def attend(index: int, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        cache = state.cache[index]
        cache[written, 0], cache[written, 1] = key.flatten(0, 1), value.flatten(0, 1)
        family = cache.index_select(0, ancestors).view(tokens.numel(), length, 2, -1)
        keys, values = (_heads(part, attention) for part in family.unbind(2))
        out = _attend(attention, _heads(query.reshape(tokens.numel(), 1, -1), attention), keys, values, bias)
        return out.view(query.shape)

    hidden = _decoder(model, state, tokens, attend)
    state.used += tokens.numel()
    return hidden


def _make_room(model: Any, state: DecoderState, count: int, length: int) -> None:
    """Grows the cache for `count` more tokens and beams of `length` tokens, in powers of two to do so rarely."""
    like = state.cross[0].keys
    if state.bias is None or state.bias.shape[3] < length:
        state.bias = _bias(model.decoder, -torch.arange(max(16, 2 * length), device=like.device)[None])
    have = len(state.cache[0]) if state.cache else 0
    if state.used + count <= have:
        return
    # A query has one beam at the first step and its full number from the second on.
    size = state.used + 4 * count if have else count
    grown = [like.new_empty(size, 2, keys.shape[1] * keys.shape[3]) for keys, _ in state.cross]
    for new, old in zip(grown, state.cache, strict=False):
        new[: state.used] = old[: state.used]
    state.cache = grown


def _decoder(model: Any, state: DecoderState, tokens: Tensor, attend: Attend) -> Tensor:
    """tokens (B, n) → hidden (B, n, W)."""
    hidden = _stack(model.decoder, model.shared(tokens), attend, state)
    scales = getattr(model.config, "scale_decoder_outputs", False)  # mT5 lacks this setting
    return hidden * model.model_dim**-0.5 if scales else hidden


def _stack(stack: Any, hidden: Tensor, attend: Attend, state: DecoderState | None) -> Tensor:
    """The layers of encoder or decoder: hidden (B, n, W) → (B, n, W). Cross-attention uses the keys and values of
    `state`."""
    hidden = stack.dropout(hidden)
    for index, block in enumerate(stack.block):
        layer = block.layer[0]
        attention, normed = layer.SelfAttention, _norm(layer.layer_norm, hidden)
        parts = (linear(normed, part.weight) for part in (attention.q, attention.k, attention.v))
        hidden = hidden + layer.dropout(linear(attend(index, attention, *parts), attention.o.weight))
        if state is not None:
            layer = block.layer[1]
            attention, normed = layer.EncDecAttention, _norm(layer.layer_norm, hidden)
            query = _heads(linear(normed, attention.q.weight), attention)
            out = _attend(attention, query, *state.cross[index], state.query_mask)
            hidden = hidden + layer.dropout(linear(out, attention.o.weight))
        hidden = hidden + _feed_forward(block.layer[-1], hidden)
    return stack.dropout(_norm(stack.final_layer_norm, hidden))


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    inner, normed = layer.DenseReluDense, _norm(layer.layer_norm, hidden)
    if hasattr(inner, "wi_0"):  # T5 v1.1: gated
        wide = linear(normed, inner.wi_0.weight, inner.act) * linear(normed, inner.wi_1.weight)
    else:
        wide = linear(normed, inner.wi.weight, inner.act)
    return layer.dropout(linear(inner.dropout(wide), inner.wo.weight))


def _norm(layer: Any, hidden: Tensor) -> Tensor:
    # Under autocast the hidden states are bfloat16 and the weights are not; transformers norms in the wider type, too.
    return F.rms_norm(hidden.to(layer.weight.dtype), layer.weight.shape, layer.weight, layer.variance_epsilon)


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """(n, H, T, d) each → (n, T, H d). T5 adds a position bias and does not scale by the width."""
    dropout = attention.dropout if attention.training else 0.0
    mask = mask if mask.dtype == torch.bool else mask.to(query.dtype)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=1.0)
    return out.transpose(1, 2).flatten(2)


def _heads(x: Tensor, attention: Any) -> Tensor:
    """(n, T, H d) → (n, H, T, d)"""
    return x.view(*x.shape[:2], attention.n_heads, attention.key_value_proj_dim).transpose(1, 2)


def _bias(stack: Any, distance: Tensor) -> Tensor:
    """distance (T, P) of keys from queries → the relative position bias of the stack's self-attention, (1, H, T, P)."""
    attention = stack.block[0].layer[0].SelfAttention
    bucket = attention._relative_position_bucket(
        distance,
        bidirectional=not attention.is_decoder,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    return attention.relative_attention_bias(bucket).permute(2, 0, 1)[None]
