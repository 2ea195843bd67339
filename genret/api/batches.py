"""What losses see of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from genret.api.described import described

if TYPE_CHECKING:
    from torch import Tensor


@described
class TokenizerBatch(NamedTuple):
    """What a loss of stage `tokenizer` sees (paper 3.1)."""

    image: Tensor
    """(B, D) v_i, unit rows"""
    text: Tensor | None
    """(B, D) v_t, a caption of each image. Some images have none: losses with `needs_text` are handed the others alone,
    all fields alike, and are not computed where none is left."""
    latent: Tensor
    """(B, D_code) z(v_i), what is quantized"""
    partial: Tensor
    """(B, M, D_code) the partial sums ẑ^(d), d = 1..M"""
    reconstruction: Tensor
    """(B, D) v̂_i = MLP(ẑ^(M)), straight-through"""
    assignments: Sequence[Tensor] = ()
    """Per level (B, K), −‖r_m − e_k‖² of what is left over to each code, differentiable; only if a loss needs them."""


@described
class SoftTarget(NamedTuple):
    """A distribution over some tokens for each example."""

    tokens: Tensor
    """(K,)"""
    probabilities: Tensor
    """(B, K)"""


@described
class GeneratorBatch(NamedTuple):
    """What a loss of stage `generator` sees (paper 3.2)."""

    logits: Tensor | None
    """(B, L, V) teacher-forced; None in steps whose losses all compare candidates (`needs_candidates`)"""
    targets: Tensor
    """(B, L) tokens of the right identifier, -1 pads"""
    columns: Sequence[Tensor | None]
    """Per position, the tokens over which probabilities are normalized (None: the whole vocabulary)."""
    candidate_scores: Tensor | None = None
    """(B, b) log-probability sums of beam-searched identifiers, -inf where there is none; only if a loss needs them."""
    positive: Tensor | None = None
    """(B,) which candidate is the right one"""
    teacher: Sequence[SoftTarget] = ()
    """Per level, what a dense teacher would write after the target's symbols so far; only if a loss needs it."""
    image_logits: Tensor | None = None
    """(B, L, V) teacher-forced from the pictures' vectors instead of the queries; only if a loss needs them."""
    caption_log_probs: Tensor | None = None
    """(B,) log p(query | picture); only if a loss needs it."""
    image_targets: Tensor | None = None
    """(B, L) tokens of the picture's own identifier, what `image_logits` are forced with; None: `targets`."""
