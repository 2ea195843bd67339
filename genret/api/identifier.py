"""How an image gets a sequence of codes that a language model can learn to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from genret.api.component import Component
from genret.api.context import FitContext
from genret.api.described import described
from genret.api.loss import Loss

if TYPE_CHECKING:
    from torch import Tensor

NewImages = Literal["content_based", "assigned", "unsupported"]
"""The identifier of an image that the scheme was not fitted on: content-based (it follows from the image), assigned
(it does not depend on the image's content, so it can only be guessed), or unsupported (there is none)."""


@described
class Corpus(NamedTuple):
    """Images as an identifier scheme sees them: vectors in the shared space and, if the protocol allows, captions."""

    image_ids: Sequence[str]
    """N ids, unique"""
    features: Tensor
    """(N, D) unit rows: the vectors that search quantizes."""
    views: Tensor | None = None
    """(N, W, D) augmented views, training images only."""
    captions: Sequence[str] = ()
    """T texts, of training images alone"""
    text_features: Tensor | None = None
    """(T, D) unit rows; row t is `captions[t]`."""
    owners: Tensor | None = None
    """(T,) the image that caption t describes; an image may have none."""
    named_before: int = 0
    """Number of images identified since the fit: schemes that count continue from there."""
    taken: Tensor | None = None
    """(R', M) codes of other images in the catalog, -1 pads; given only to schemes that avoid collisions."""

    def without_captions(self) -> Corpus:
        """The images alone, without captions: all that may be known of test images."""
        return self._replace(captions=(), text_features=None, owners=None)


@described
class Vokens(NamedTuple):
    """The vokens that a scheme adds to the vocabulary."""

    sizes: tuple[int, ...] = ()
    """`sizes[m]` codes at level m."""
    shared: bool = False
    """All levels use one codebook (the paper's Eqn. 2) and so the same rows of the vocabulary."""
    variable: bool = False
    """Some identifiers end before the last level; all of them then end with the end symbol."""
    learned: int | None = None
    """The number of first levels that are codebooks, which should be used evenly; later levels only resolve collisions.
    None: all levels."""

    @property
    def num_symbols(self) -> int:
        return max(self.sizes, default=0) if self.shared else sum(self.sizes)

    def offset(self, level: int) -> int:
        """Index of the level's code 0 among the scheme's vokens."""
        return 0 if self.shared else sum(self.sizes[:level])

    def name(self, level: int, code: int) -> str:
        return f"c{level}_{code}"


@described
class Identifiers(NamedTuple):
    """R identifiers of N images. Exactly one of `codes` and `texts` is set."""

    owners: Tensor
    """(R,) the image of identifier r; an image may occur several times, and two images may share an identifier."""
    codes: Tensor | None = None
    """(R, M) int64 codes, one per level, -1 after the end of a shorter identifier."""
    texts: Sequence[str] | None = None
    """R strings that the backbone's own tokenizer splits into tokens."""


@described
class Additive(NamedTuple):
    """Codes whose vectors add up to the vector that they represent."""

    target: Tensor
    """(B, D_code) the target sum of the code vectors, for each of B vectors"""
    books: Sequence[Tensor]
    """Per level (K, D_code); further levels only resolve collisions"""


class Identifier(Component, ABC):
    """Gives every image a sequence of codes that a language model can learn to write."""

    kind = "identifier"

    new_images: ClassVar[NewImages] = "content_based"
    """What `identify` does with images that `fit` never saw."""
    uses_tokenizer_losses: ClassVar[bool] = False
    """Whether `fit` minimizes the losses of stage `tokenizer`; otherwise they are noted as unused."""
    num_spaces: ClassVar[int] = 1
    """How many spaces the vectors must have a part of (`Encoder.num_spaces`)."""
    has_teacher: ClassVar[bool] = False
    """Whether `code_probabilities` answers."""
    has_code_vectors: ClassVar[bool] = False
    """Whether `code_vectors` answers."""
    is_additive: ClassVar[bool] = False
    """Whether `additive` answers."""
    vokens: Vokens = Vokens()

    @property
    def avoids_collisions(self) -> bool:
        """Whether `identify` needs the codes that are in use (`Corpus.taken`)."""
        return False

    @abstractmethod
    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        """Learns the scheme from the training images. `losses`: the recipe's tokenizer losses by name, weight > 0."""

    @abstractmethod
    def identify(self, corpus: Corpus) -> Identifiers:
        """Identifiers of any images, at least one each, deterministic, ordered by image; `GenretError` if the scheme
        cannot identify new images. An image of the fit keeps the identifier it had there (unless another image has it
        now, `Corpus.taken`)."""

    def reconstruct(self, codes: Tensor) -> Tensor | None:
        """(R, M) → (R, D) unit rows, the vector that the codes represent; None if they represent none."""
        return None

    def code_probabilities(self, features: Tensor, codes: Tensor, temperature: float) -> list[Tensor] | None:
        """Soft assignment of these vectors to the codes of each level: the dense teacher of a generator.

        features (B, D) unit rows, codes (B, n) of all or the first n levels; the first m - 1 columns are the prefix of
        level m. Lower temperatures give sharper distributions. Returns at least n tensors (B, K), rows summing to 1, or
        None for schemes without distances.
        """
        return None

    def additive(self, features: Tensor) -> Additive | None:
        """For schemes whose code vectors add up: the target sums of these vectors (B, D); else None."""
        return None

    def code_vectors(self) -> Tensor | None:
        """(S, D_code) the learned vector of each voken, or None. Copied into the backbone's new rows."""
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `fit` learned (safetensors, JSON)."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""
