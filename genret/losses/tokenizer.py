"""The terms of the tokenizer's objective (paper 3.1, Eqns. 3–6), each a mean over the batch."""

from __future__ import annotations

from torch import Tensor

from genret.interfaces import Loss, TokenizerBatch


class ReconLoss(Loss):
    """‖v_i − v̂_i‖² (Eqn. 3): the codes keep what the encoder saw."""

    stage = "tokenizer"

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        return (batch.image - batch.reconstruction).square().sum(-1).mean()


class CommitLoss(Loss):
    """Σ_d ‖z(v_i) − sg(ẑ^(d))‖² (Eqn. 4): every level brings the sum nearer.

    The paper writes v_i for z(v_i); the two are the same where the latent space is the feature space. The codebook's
    side of this term is the quantizer's own business: moving averages, or a gradient of the mirrored term.
    """

    stage = "tokenizer"

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        return (batch.latent[:, None] - batch.partial.detach()).square().sum(-1).sum(-1).mean()


class AlignLoss(Loss):
    """‖v̂_i − v_t‖² (Eqn. 5): the reconstruction also lies near a caption's vector."""

    stage = "tokenizer"
    needs_text = True

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        assert batch.text is not None, "needs_text promises a caption vector for each image"
        return (batch.reconstruction - batch.text).square().sum(-1).mean()
