"""How an image gets a sequence of symbols that a language model can learn to write."""

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
"""What an identifier scheme makes of images that it was not fitted on: an identifier that follows from the picture, one
that says nothing of it (so that it can only be guessed), or none."""


@described
class Corpus(NamedTuple):
    """Images as an identifier scheme sees them: vectors in the shared space and, where the protocol allows, texts."""

    image_ids: Sequence[str]
    """N ids, unique"""
    features: Tensor
    """(N, D) unit rows: what search will quantize."""
    views: Tensor | None = None
    """(N, W, D) augmented views, training images only."""
    captions: Sequence[str] = ()
    """T texts, of training images alone"""
    text_features: Tensor | None = None
    """(T, D) unit rows; row t is `captions[t]`."""
    owners: Tensor | None = None
    """(T,) the image that caption t describes; an image may have none."""
    named_before: int = 0
    """How many images were named since the fit: schemes that count go on from there."""
    taken: Tensor | None = None
    """(R', M) codes that other images of the catalog bear, -1 pads; given only to schemes that avoid collisions."""

    def without_captions(self) -> Corpus:
        """The images alone: all that may be known of searched ones."""
        return self._replace(captions=(), text_features=None, owners=None)


@described
class Vokens(NamedTuple):
    """The symbols that a scheme adds to the vocabulary."""

    sizes: tuple[int, ...] = ()
    """`sizes[m]` codes at level m."""
    shared: bool = False
    """All levels use one codebook (the paper's Eqn. 2) and so the same rows of the vocabulary."""
    variable: bool = False
    """Some identifiers end before the last level; all then carry the end symbol."""
    learned: int | None = None
    """How many levels, from the first, are codebooks, which should be used evenly; the rest number what those do not
    tell apart. None: all levels."""

    @property
    def num_symbols(self) -> int:
        return max(self.sizes, default=0) if self.shared else sum(self.sizes)

    def offset(self, level: int) -> int:
        """Index of the level's code 0 among the scheme's symbols."""
        return 0 if self.shared else sum(self.sizes[:level])

    def name(self, level: int, code: int) -> str:
        return f"c{level}_{code}"


@described
class Identifiers(NamedTuple):
    """R identifiers of N images. Exactly one of `codes` and `texts` is set."""

    owners: Tensor
    """(R,) the image that identifier r names; an image may occur several times, and two images may share a name."""
    codes: Tensor | None = None
    """(R, M) int64 new symbols, one per level, -1 after the end of a shorter identifier."""
    texts: Sequence[str] | None = None
    """R strings that the backbone's own tokenizer cuts."""


@described
class Additive(NamedTuple):
    """Codes whose vectors add up to what they stand for."""

    target: Tensor
    """(B, D_code) what the codes of each of B vectors should add up to"""
    books: Sequence[Tensor]
    """per level (K, D_code); further levels only tell images apart"""


class Identifier(Component, ABC):
    """Gives every image a sequence of symbols that a language model can learn to write."""

    kind = "identifier"

    new_images: ClassVar[NewImages] = "content_based"
    """What `identify` makes of images that `fit` never saw."""
    uses_tokenizer_losses: ClassVar[bool] = False
    """Whether `fit` descends the losses of stage `tokenizer`; elsewhere they are noted as unused."""
    has_teacher: ClassVar[bool] = False
    """Whether `code_probabilities` answers."""
    has_code_vectors: ClassVar[bool] = False
    """Whether `code_vectors` answers."""
    is_additive: ClassVar[bool] = False
    """Whether `additive` answers."""
    vokens: Vokens = Vokens()

    @property
    def avoids_collisions(self) -> bool:
        """Whether `identify` wants to know the codes that are taken (`Corpus.taken`)."""
        return False

    @abstractmethod
    def fit(self, train: Corpus, losses: Mapping[str, Loss], context: FitContext) -> None:
        """Learns the scheme from the training images. `losses`: the recipe's tokenizer losses by name, weight > 0."""

    @abstractmethod
    def identify(self, corpus: Corpus) -> Identifiers:
        """Identifiers of any images, at least one each, deterministic, ordered by image; `GenretError` if the scheme
        cannot identify new ones. An image of the fit keeps the identifier it had there (unless others have taken it,
        `Corpus.taken`)."""

    def reconstruct(self, codes: Tensor) -> Tensor | None:
        """(R, M) → (R, D) unit rows, what the codes still say of the vector; None if they say nothing."""
        return None

    def code_probabilities(self, features: Tensor, codes: Tensor, temperature: float) -> list[Tensor] | None:
        """How the scheme would code these vectors if it were allowed to hesitate: the dense teacher of a generator.

        features (B, D) unit rows, codes (B, M) whose first m - 1 columns are what level m follows; lower temperatures
        are surer. Returns M tensors (B, K), rows summing to 1, or None for schemes without such a measure.
        """
        return None

    def additive(self, features: Tensor) -> Additive | None:
        """Of schemes whose codes' vectors add up: what those of these vectors (B, D) should come to; else None."""
        return None

    def code_vectors(self) -> Tensor | None:
        """(S, D_code) the learned vector of each symbol, or None. Copied into the backbone's new rows."""
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes what `fit` learned (safetensors, JSON)."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""
