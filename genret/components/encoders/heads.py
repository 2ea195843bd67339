"""Maps image and text vectors to a shared space, by two small networks or as they are; and the contrastive loss.

Works on vectors only, not on images, texts or towers. N training images, D width of the shared space.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEFAULT_TEMPERATURE = 0.07
"""Initial value of CLIP's learned temperature (arXiv 2103.00020, 2.5)."""
MAX_SCALE = 100.0
"""Upper bound of the inverse temperature, as in CLIP (arXiv 2103.00020, 2.5)."""


class Head(nn.Module):
    """(B, D_in) → (B, D) unit rows: standardized input, a linear map plus, if `hidden`, a two-layer network."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, dim: int, hidden: int, dropout: float):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, dim)
        self.mlp = None
        if hidden:
            layers = [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)]
            self.mlp = nn.Sequential(*layers)

    def standardize(self, features: Tensor) -> None:
        """Sets mean and standard deviation from (N, D_in)."""
        deviation, mean = torch.std_mean(features.float(), dim=0, correction=0)
        self.mean.copy_(mean)
        # a lower bound, so that the noise of nearly constant dimensions is not amplified
        self.deviation.copy_(deviation.clamp_min(1e-3 * float(deviation.mean()) + 1e-8))

    def standardized(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean) / self.deviation

    def forward(self, features: Tensor) -> Tensor:
        inputs = self.dropout(self.standardized(features))
        outputs = self.linear(inputs)
        if self.mlp is not None:
            outputs = outputs + self.mlp(inputs)
        return F.normalize(outputs.float(), dim=-1)


class Heads(nn.Module):
    """Both heads and the learned temperature."""

    def __init__(
        self,
        image_width: int,
        text_width: int,
        dim: int,
        hidden: int,
        dropout: float,
        temperature: float = DEFAULT_TEMPERATURE,
    ):
        super().__init__()
        self.image = Head(image_width, dim, hidden, dropout)
        self.text = Head(text_width, dim, hidden, dropout)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=MAX_SCALE)


class JointSpace(nn.Module):
    """The space of two towers that were trained together; only the temperature is learned."""

    def __init__(self, temperature: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def image(self, features: Tensor) -> Tensor:
        return F.normalize(features.float(), dim=-1)

    def text(self, features: Tensor) -> Tensor:
        return F.normalize(features.float(), dim=-1)

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=MAX_SCALE)


Space = Heads | JointSpace


def info_nce(images: Tensor, texts: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE with several positives: for each row the mean of -log p over its positives, both ways.

    images, texts (B, D) unit rows; same (B, B) bool, symmetric, true on the diagonal. With no other positives this is
    CLIP's loss; the mean over positives is L_out of supervised contrastive learning (arXiv 2004.11362, Eqn. 2).
    """
    with torch.autocast(images.device.type, enabled=False):
        logits = scale * images.float() @ texts.float().T
        share = same.float() / same.sum(1, keepdim=True)
        forward = -(share * logits.log_softmax(1)).sum(1).mean()
        backward = -(share * logits.T.log_softmax(1)).sum(1).mean()
    return (forward + backward) / 2


def caption_groups(texts: Tensor) -> Tensor:
    """(T, D) vectors of captions → (T,) ids that are equal for captions with the same vector."""
    words = texts.detach().float().cpu().contiguous().view(torch.int32).to(torch.int64)  # bits, hashed below
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator) | 1
    sums = torch.cat([(chunk * factors).sum(1) for chunk in words.split(8192)]) if len(words) else words.new_zeros(0)
    return torch.unique(sums, return_inverse=True)[1]


def next_of_group(groups: Tensor) -> Tensor:
    """(T,) ids → (T,) for each the next row of the same group, after the last one the first; itself where alone."""
    order = torch.argsort(groups, stable=True)
    _, counts = torch.unique_consecutive(groups[order], return_counts=True)
    ends = counts.cumsum(0) - 1
    following = torch.arange(1, len(groups) + 1)
    following[ends] = ends - counts + 1
    return torch.empty_like(order).index_copy_(0, order, order[following])


def text_to_image_recall(
    images: Tensor, texts: Tensor, owners: Tensor, ks: tuple[int, ...] = (1, 5, 10)
) -> list[float]:
    """The share of texts (T, D) whose image (row `owners` of (N, D)) is in the top k; ties count as misses."""
    hits = torch.zeros(len(ks), device=images.device)
    for start in range(0, len(texts), 1024):
        scores = texts[start : start + 1024] @ images.T
        right = scores.gather(1, owners[start : start + 1024, None].to(scores.device))
        rank = (scores >= right).sum(1)
        hits += torch.stack([(rank <= k).sum() for k in ks])
    return [float(hit) / max(1, len(texts)) for hit in hits]
