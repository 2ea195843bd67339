"""The inputs of the losses in a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from genret.api.described import described

if TYPE_CHECKING:
    from torch import Tensor


@described
class TokenizerBatch(NamedTuple):
    """The input of a loss of stage `tokenizer` (paper 3.1)."""

    image: Tensor
    """(B, D) v_i, unit rows"""
    text: Tensor | None
    """(B, D) v_t, one caption of each image. Some images have none: losses with `needs_text` receive only the images
    that have one, in all fields alike, and are skipped if there are none."""
    latent: Tensor
    """(B, D_code) z(v_i), the vector that is quantized"""
    partial: Tensor
    """(B, M, D_code) the partial sums ẑ^(d), d = 1..M"""
    reconstruction: Tensor
    """(B, D) v̂_i = MLP(ẑ^(M)), straight-through"""
    assignments: Sequence[Tensor] = ()
    """Per level (B, K), −‖r_m − e_k‖² of the residual to each code, differentiable; only if a loss needs them."""


@described
class SoftTarget(NamedTuple):
    """A distribution over some tokens for each example."""

    tokens: Tensor
    """(K,)"""
    probabilities: Tensor
    """(B, K)"""


@described
class GeneratorBatch(NamedTuple):
    """The input of a loss of stage `generator` (paper 3.2)."""

    logits: Sequence[Tensor] | None
    """Per position (B, C_l), teacher-forced: of the tokens `columns[l]`, in their order, or of all V. None in steps
    whose losses all compare candidates (`needs_candidates`)"""
    targets: Tensor
    """(B, L) tokens of the positive identifier, -1 pads"""
    columns: Sequence[Tensor | None]
    """Per position (C_l,), sorted, the tokens over which probabilities are normalized (None: the whole vocabulary)."""
    candidate_scores: Tensor | None = None
    """(B, b) log-probability sums of beam-searched identifiers, -inf where there is none; only if a loss needs them."""
    positive: Tensor | None = None
    """(B,) the index of the positive candidate"""
    teacher: Sequence[SoftTarget] = ()
    """Per level, the teacher's soft assignment given the target's codes so far; only if a loss needs it."""
    image_logits: Tensor | None = None
    """(B, L, V) teacher-forced from the image vectors instead of the queries; only if a loss needs them."""
    caption_log_probs: Tensor | None = None
    """(B,) log p(query | image); only if a loss needs it."""
    image_targets: Tensor | None = None
    """(B, L) tokens of the image's own identifier, the targets of `image_logits`; None: `targets`."""
