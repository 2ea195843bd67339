"""Tree attention: all beams of a query are positions of one row and share the prompt's keys and values.

The forward pass of transformers needs one row per beam, with the prompt's cache repeated and reordered at every step.
Here a token attends, by an explicit mask, to the prompt and its own ancestors, and has the position that it has in its
own sequence. So a prompt is encoded once, reordering beams moves no cache, and the same code serves decoding and
scoring (whole sequences, differentiable). It runs the decoder of a transformers causal language model and owns no
weights.

    B queries   b beams   T tokens of a sequence   S tokens of the longest prompt   P positions so far   W model width
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


class TreeState:
    """Decoding state of B queries."""

    def __init__(self, hidden: Tensor, cache: Any, positions: Tensor, seen: Tensor):
        self.hidden = hidden
        """(B, 1, W) of the prompts' last tokens"""
        self.cache = cache
        """every layer's keys and values of P positions, of all beams so far, dropped ones included"""
        self.positions = positions
        """(B, P) the position of each token in its own sequence"""
        self.seen = seen
        """(B, b, P) True at the prompt and the ancestors of each beam's next token"""


def read(decoder: Any, prompts: Tensor, mask: Tensor) -> TreeState:
    """prompts (B, S) padded on the left, mask (B, S) True at real tokens → the state before the first token."""
    mask = mask.bool()
    positions = _prompt_positions(mask)
    cache = DynamicCache()  # no model config: sliding layers must not drop beams as old positions
    hidden = _forward(decoder, prompts, positions, positions, _prompt_sees(mask), cache)
    return TreeState(hidden[:, -1:], cache, positions, mask[:, None])


def extend(decoder: Any, state: TreeState, tokens: Tensor, parents: Tensor | None) -> Tensor:
    """tokens (B, b), each the child of beam `parents` (B, b) of before → their hidden states (B, b, W)."""
    ancestors = state.seen
    if parents is not None:
        ancestors = ancestors.gather(1, parents[..., None].expand(-1, -1, ancestors.shape[2]))
    itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device).expand(len(tokens), -1, -1)
    state.seen = torch.cat([ancestors.expand(-1, tokens.shape[1], -1), itself], dim=2)
    here = (state.positions[:, -1:] + 1).expand_as(tokens)  # all beams have the same length
    state.positions = torch.cat([state.positions, here], dim=1)
    return _forward(decoder, tokens, here, state.positions, state.seen, state.cache)


def sequences(decoder: Any, prompts: Tensor, mask: Tensor, tokens: Tensor) -> Tensor:
    """tokens (B, b, T) after prompts (B, S) → hidden (B, b, T + 1, W): before the first token, and after each."""
    num_queries, num_beams, length = tokens.shape
    mask = mask.bool()
    prompt = _prompt_positions(mask)
    after = torch.arange(1, length + 1, device=mask.device).repeat(num_beams)
    positions = torch.cat([prompt, prompt[:, -1:] + after], dim=1)
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    family = torch.block_diag(*[causal] * num_beams).expand(num_queries, -1, -1)  # a beam attends to itself only
    top = torch.nn.functional.pad(_prompt_sees(mask), (0, num_beams * length))
    bottom = torch.cat([mask[:, None].expand(-1, num_beams * length, -1), family], dim=2)
    visible = torch.cat([top, bottom], dim=1)
    hidden = _forward(decoder, torch.cat([prompts, tokens.flatten(1)], dim=1), positions, positions, visible)
    first, rest = hidden[:, prompts.shape[1] - 1], hidden[:, prompts.shape[1] :]
    first = first[:, None, None].expand(-1, num_beams, -1, -1)
    return torch.cat([first, rest.view(num_queries, num_beams, length, -1)], dim=2)


def _prompt_positions(mask: Tensor) -> Tensor:
    return (mask.long().cumsum(1) - 1).clamp_min(0)


def _prompt_sees(mask: Tensor) -> Tensor:
    """(B, S) → (B, S, S). Padding attends to itself, so that no softmax is empty."""
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return (causal & mask[:, None]) | torch.eye(length, dtype=torch.bool, device=mask.device)


def _forward(decoder: Any, tokens: Tensor, here: Tensor, there: Tensor, visible: Tensor, cache: Any = None) -> Tensor:
    """tokens (B, Q) at positions `here` (B, Q), keys at `there` (B, P), visible (B, Q, P) → hidden (B, Q, W)."""
    return decoder(
        input_ids=tokens,
        position_ids=here,
        attention_mask=_masks(decoder, here, there, visible),
        use_cache=cache is not None,
        **{cache_argument(decoder): cache},
    ).last_hidden_state


def cache_argument(model: Any) -> str:
    """The name of a transformers model's cache argument: `cache` since 5.24, in models that have been renamed."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def _masks(decoder: Any, here: Tensor, there: Tensor, visible: Tensor) -> Tensor | dict[str, Tensor]:
    """The additive masks (B, 1, Q, P) that transformers uses unchanged: one, or one per kind of layer."""
    config = decoder.config
    dtype = decoder.get_input_embeddings().weight.dtype

    def additive(seen: Tensor) -> Tensor:
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)[:, None]

    window = getattr(config, "sliding_window", None)
    near = visible if window is None else visible & (here[:, :, None] - there[:, None] < window)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:  # Mistral: all layers slide; the others have no window
        return additive(near)
    masks = {kind: additive(near if kind == "sliding_attention" else visible) for kind in kinds}
    return masks if len(masks) > 1 else masks[kinds.pop()]
