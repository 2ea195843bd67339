"""The parts of a generative retriever and what each must do. Read this file first.

A recipe names one component for each slot; `assemble.py` wires them; `train/` runs them in stages; everything that
searches is a `Retriever`. Each component nests a frozen pydantic `Config`: the options that a recipe may set.

Shape letters, used in every docstring of the project:

    B queries or examples in a batch    N images            D width of the shared feature space
    M levels of an identifier           K codes per level   S symbols that an identifier scheme adds
    L tokens of an identifier, end symbol included          V tokens of the vocabulary
    b beams                             R identifiers (an image may have several)

Nothing here imports torch: `genret --help` must stay quick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

SearchScore = Literal["level", "vocab", "trie"]
NewImages = Literal["described", "numbered", "refused"]
"""What an identifier scheme makes of images that it was not fitted on: an identifier that follows from the picture, one
that says nothing of it (so that it can only be guessed), or none."""


class Config(BaseModel):
    """Options of a component: frozen, typed, no unknown keys. A docstring under an option is its one-line meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Component:
    """Something that a recipe chooses by name. `Config` holds its options, `kind` is its registry.

    Making one is cheap: weights are loaded and files opened when they are first needed.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[Config]] = Config

    def __init__(self, config: Any = None, *, resolve_weights: Callable[[str], str] = str):
        self.config: Any = config if config is not None else self.Config()
        self.resolve_weights = resolve_weights
        """Maps the name of weights that a plugin lends to a local folder; other names come back unchanged."""


class LoopOptions(Config):
    """How a part is trained by gradient descent: heads, tokenizer and generator share these words."""

    epochs: int = Field(10, ge=0)
    """Passes over the training examples; 0 leaves the part as it was initialised."""
    batch_size: int = Field(128, ge=1)
    """Examples per step."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate (AdamW)."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled decay of matrices; vectors and norms are exempt."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of all steps in which the rate rises linearly from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    clip_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 does not clip."""
    evaluate_every: int = Field(1, ge=1)
    """Epochs between looks at the development split."""
    patience: int = Field(0, ge=0)
    """Looks without improvement after which training ends; 0 never ends early. The best weights are kept either way."""
    bf16: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: where the processor multiplies bfloat16 natively."""


class FitContext(NamedTuple):
    """What the outside world lends to a component while it is fitted."""

    seed: int
    device: torch.device
    checkpoint_dir: Path
    """Where an interrupted fit continues from; removed by the stage when the fit is done."""
    progress: Callable[[str, int], Any]
    """`progress(label, total)` is a context manager whose value has `.advance(n)`."""
    log: Callable[[dict[str, Any]], None]
    """Adds one line to the run's `metrics.jsonl`."""


# ----------------------------------------------------------------------------------------------------------------- data
class Record(NamedTuple):
    """One image of a data set, without its pixels."""

    image_id: str
    """Unique within the data set and stable between runs."""
    uri: str
    """Where the picture lives, as shown to people: a path, or `archive.tar:member`."""
    captions: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = {}
    """JSON scalars, e.g. `{"emoji": "🐶"}`; `search --where` filters on them."""


class Dataset(Component, ABC):
    """Captioned images in named splits, streamed: a data set never holds its pictures in memory."""

    kind = "dataset"

    train_split: str = "train"
    dev_split: str = "dev"
    """Choices and early stopping look at this split and no other."""
    test_split: str = "test"
    """The images that a trained run searches; only reported on."""
    concepts: Literal["seen-concepts", "unseen-concepts"] | None = None
    """Set where images of several splits share wordings by nature; results then carry it."""

    @abstractmethod
    def records(self, split: str) -> Iterator[Record]:
        """Yields the images of `split` in an order that never changes; `UnknownName` for an unknown split."""

    @abstractmethod
    def read(self, record: Record) -> bytes:
        """The encoded picture (PNG, JPEG, WebP ...); `BadImage` if it cannot be read."""


# ------------------------------------------------------------------------------------------------------------- encoders
class Encoder(Component, ABC):
    """Two towers, frozen unless fine-tuned, and, if trainable, two heads that bring their vectors into one space.

    The towers' vectors are cached on disk by picture and by `tower_key`; the heads run on cached vectors.
    """

    kind = "encoder"

    num_views: int = 1
    """Augmented views taken of each *training* image; view 0 is the plain picture."""

    @abstractmethod
    def tower_key(self, modality: Literal["image", "text"]) -> str:
        """Names everything that the tower's vectors depend on: architecture, weights, resolution, pooling."""

    def view_key(self, view: int) -> str:
        """Names a view together with the options that it depends on; the cache tells a picture's views apart by it."""
        return str(view)

    @abstractmethod
    def image_features(self, images: Sequence[Image.Image], view: int = 0) -> Tensor:
        """RGB pictures → (B, D_image) float32 on the CPU."""

    @abstractmethod
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Texts → (B, D_text) float32 on the CPU."""

    @property
    def finetunes(self) -> bool:
        """Whether `fit_towers` is to run before any vector is computed: an option of encoders that support it."""
        return False

    def fit_towers(self, train: Pictures, dev: Pictures, context: FitContext) -> None:
        """Trains the towers themselves on pixels and words.

        What it learns must follow from the option `finetune` (an encoder without one: from all its options), the
        pretrained towers' keys, the data, the seed and the kind of device: the stage is reused by these.
        """
        raise NotImplementedError("an encoder that fine-tunes says how")

    def save_towers(self, folder: Path) -> None:
        """Writes what `fit_towers` changed (safetensors, JSON)."""

    def load_towers(self, folder: Path, key: str) -> None:
        """Reads what `save_towers` wrote; from here on `tower_key` includes `key`, which names these weights."""

    def fit(self, train: Pairs, dev: Pairs, context: FitContext) -> None:
        """Trains the heads. Pretrained joint spaces (CLIP) have none: the default does nothing."""

    def project_images(self, features: Tensor) -> Tensor:
        """(B, D_image) → (B, D), unit rows."""
        return _unit(features)

    def project_texts(self, features: Tensor) -> Tensor:
        """(B, D_text) → (B, D), unit rows."""
        return _unit(features)

    def save(self, folder: Path) -> None:
        """Writes what `fit` learned (safetensors, JSON)."""

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""

    def to(self, device: torch.device) -> None:
        """Moves towers and heads."""


def _unit(rows: Tensor) -> Tensor:
    scaled: Tensor = rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    return scaled


class Pictures(NamedTuple):
    """Captioned images as pixels. Caption t describes image `owners[t]`."""

    read: Sequence[Callable[[], Image.Image]]
    """Opens each picture (RGB) when it is needed; `BadImage` if it cannot be read."""
    captions: Sequence[str]
    owners: Sequence[int]


class Pairs(NamedTuple):
    """Captioned images as vectors. Caption t describes image `owners[t]`."""

    images: Tensor
    """(N, W, D_image): W views of each image; view 0 is the plain picture."""
    texts: Tensor
    """(T, D_text)"""
    owners: Tensor
    """(T,) rows of `images`"""


# ---------------------------------------------------------------------------------------------------------- identifiers
class Corpus(NamedTuple):
    """Images as an identifier scheme sees them: vectors in the shared space and, where the protocol allows, texts."""

    image_ids: Sequence[str]
    features: Tensor
    """(N, D) unit rows: what search will quantize."""
    views: Tensor | None = None
    """(N, W, D) augmented views, training images only."""
    captions: Sequence[str] = ()
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


class Vokens(NamedTuple):
    """The symbols that a scheme adds to the vocabulary: `sizes[m]` codes at level m.

    `shared`: all levels use one codebook (the paper's Eqn. 2) and so the same rows of the vocabulary. `variable`: some
    identifiers end before the last level; all then carry the end symbol. `learned`: how many levels, from the first,
    are codebooks, which should be used evenly; the rest number what those do not tell apart. None: all levels.
    """

    sizes: tuple[int, ...] = ()
    shared: bool = False
    variable: bool = False
    learned: int | None = None

    @property
    def num_symbols(self) -> int:
        return max(self.sizes, default=0) if self.shared else sum(self.sizes)

    def offset(self, level: int) -> int:
        """Index of the level's code 0 among the scheme's symbols."""
        return 0 if self.shared else sum(self.sizes[:level])

    def name(self, level: int, code: int) -> str:
        return f"c{level}_{code}"


class Identifiers(NamedTuple):
    """R identifiers of N images. Exactly one of `codes` and `texts` is set."""

    owners: Tensor
    """(R,) the image that identifier r names; an image may occur several times, and two images may share a name."""
    codes: Tensor | None = None
    """(R, M) int64 new symbols, one per level, -1 after the end of a shorter identifier."""
    texts: Sequence[str] | None = None
    """R strings that the backbone's own tokenizer cuts."""


class Additive(NamedTuple):
    """Codes whose vectors add up to what they stand for."""

    target: Tensor
    """(B, D_code) what the codes of each of B vectors should add up to"""
    books: Sequence[Tensor]
    """per level (K, D_code); further levels only tell images apart"""


class Identifier(Component, ABC):
    """Gives every image a sequence of symbols that a language model can learn to write."""

    kind = "identifier"

    new_images: ClassVar[NewImages] = "described"
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


# ------------------------------------------------------------------------------------------------------------ backbones
class Backbone(Component, ABC):
    """A language model whose vocabulary holds the identifiers' symbols.

    `decode/` and the rank loss use `prefill`, `step` and `score` and nothing else. Tokens are ids of the model's
    vocabulary. State is opaque: only the backbone looks inside.
    """

    kind = "backbone"

    reads_features: ClassVar[bool] = False
    """Whether `feature_logits` and `caption_log_probs` answer."""
    module: torch.nn.Module
    """The trainable model."""
    end_token: int
    vocab_size: int

    @abstractmethod
    def build(
        self, vokens: Vokens, code_vectors: Tensor | None, texts: Iterable[str], seed: int, feature_width: int = 0
    ) -> None:
        """Makes or loads the model and grows its vocabulary by the scheme's symbols.

        `texts`: the training captions, for backbones that train their tokenizer. `feature_width`: D where the model is
        to read image vectors as well, else 0; asked only of backbones that say `reads_features`.
        """

    @abstractmethod
    def tokens(self, identifiers: Identifiers) -> Tensor:
        """R identifiers → (R, L) int64 token ids, -1 after the end; no end symbol."""

    @abstractmethod
    def level_tokens(self, level: int) -> Tensor | None:
        """Token ids that may stand at `level`, sorted: its symbols, and the end symbol where an identifier may be over.
        None where identifiers are made of ordinary tokens, and after the last level."""

    @abstractmethod
    def logits(self, queries: Sequence[str], targets: Tensor) -> Tensor:
        """Teacher forcing, differentiable: targets (B, L), -1 pads → (B, L, V)."""

    @abstractmethod
    def prefill(self, queries: Sequence[str]) -> Any:
        """Reads B queries once and returns the state that `step` continues from."""

    @abstractmethod
    def step(self, state: Any, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None) -> Tensor:
        """One more token for every beam.

        symbols (B, b): the tokens written last, None at the first step (then b = 1); parents (B, b): the beam of the
        previous step that each continues; columns (C,): the tokens whose logits are wanted, None for all.
        Returns (B, b, C) and advances `state` in place.
        """

    @abstractmethod
    def score(self, queries: Sequence[str], sequences: Tensor, columns: Sequence[Tensor | None]) -> Tensor:
        """sequences (B, b, L), -1 pads → log-probabilities (B, b, L), differentiable, 0 at pads.

        Position l is normalised over the tokens `columns[l]` (None: the whole vocabulary); each query is encoded once.
        """

    def feature_logits(self, features: Tensor, targets: Tensor) -> Tensor:
        """`logits` with an image's vector (B, D) in the place of the query: GRACE's image → identifier task."""
        raise NotImplementedError("a backbone that reads features says how")

    def caption_log_probs(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """(B, D) image vectors and a caption each → (B,) log p(caption | image), differentiable (TIGeR's reverse)."""
        raise NotImplementedError("a backbone that reads features says how")

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes model and tokenizer in Hugging Face's `save_pretrained` layout."""

    @abstractmethod
    def load(self, folder: Path, vokens: Vokens) -> None:
        """Reads what `save` wrote."""


# --------------------------------------------------------------------------------------------------------------- losses
class LossConfig(Config):
    weight: float = Field(1.0, ge=0)
    """Factor of this term; 0 means that it is not computed at all."""


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


class Soft(NamedTuple):
    """A distribution over some tokens for each example."""

    tokens: Tensor
    """(K,)"""
    probabilities: Tensor
    """(B, K)"""


class GeneratorBatch(NamedTuple):
    """What a loss of stage `generator` sees (paper 3.2)."""

    logits: Tensor
    """(B, L, V) teacher-forced"""
    targets: Tensor
    """(B, L) tokens of the right identifier, -1 pads"""
    columns: Sequence[Tensor | None]
    """Per position, the tokens over which probabilities are normalised (None: the whole vocabulary)."""
    candidate_scores: Tensor | None = None
    """(B, b) log-probability sums of beam-searched identifiers, -inf where there is none; only if a loss needs them."""
    positive: Tensor | None = None
    """(B,) which candidate is the right one"""
    teacher: Sequence[Soft] = ()
    """Per level, what a dense teacher would write after the target's symbols so far; only if a loss needs it."""
    image_logits: Tensor | None = None
    """(B, L, V) teacher-forced from the pictures' vectors instead of the queries; only if a loss needs them."""
    caption_log_probs: Tensor | None = None
    """(B,) log p(query | picture); only if a loss needs it."""
    image_targets: Tensor | None = None
    """(B, L) tokens of the picture's own identifier, what `image_logits` are forced with; None: `targets`."""


class Loss(Component, ABC):
    """One term of a training objective."""

    kind = "loss"
    Config: ClassVar[type[Config]] = LossConfig

    stage: ClassVar[Literal["tokenizer", "generator"]]
    needs_text: ClassVar[bool] = False
    needs_candidates: ClassVar[bool] = False
    """Whether `GeneratorBatch.candidate_scores` has to be there: a beam search with the current model."""
    needs_teacher: ClassVar[bool] = False
    """Whether `GeneratorBatch.teacher` has to be there."""
    needs_image_logits: ClassVar[bool] = False
    """Whether `GeneratorBatch.image_logits` has to be there; only with backbones that read features."""
    needs_captions: ClassVar[bool] = False
    """Whether `GeneratorBatch.caption_log_probs` has to be there; only with backbones that read features."""
    needs_assignments: ClassVar[bool] = False
    """Whether `TokenizerBatch.assignments` has to be there."""

    @abstractmethod
    def __call__(self, batch: Any) -> Tensor:
        """A `TokenizerBatch` or `GeneratorBatch` → scalar, not yet weighted."""


# ------------------------------------------------------------------------------------------------------------ rerankers
class Candidates(NamedTuple):
    """What a reranker may look at: C candidate images for each of B queries."""

    queries: Sequence[str]
    query_features: Tensor
    """(B, D) unit rows"""
    rows: Tensor
    """(B, C) catalog keys, -1 where there is no candidate"""
    features: Tensor
    """(B, C, D) the candidates' image vectors"""
    scores: Tensor
    """(B, C) what the first stage thought"""
    read: Callable[[int], Image.Image]
    """Opens the picture of a catalog key (its stored thumbnail)."""
    caption_log_probs: Callable[[Tensor, Sequence[str]], Tensor] | None = None
    """The run's own `Backbone.caption_log_probs`, where its generator learnt to read features."""


class RerankerConfig(Config):
    candidates: int = Field(100, ge=1)
    """Images of the first stage that are scored anew, its best ones; `-k` beyond it widens it to k. A generative run
    has no more of them than its beams lead to."""
    weight: float = Field(1.0, ge=0, le=1)
    """Share of the new score, the rest is the first stage's; both are then standardised over a query's candidates. At 1
    the new score stands alone."""


class Reranker(Component, ABC):
    """Scores the candidates of another retriever anew."""

    kind = "reranker"
    Config: ClassVar[type[Config]] = RerankerConfig

    def to(self, device: torch.device) -> None:
        """Moves what there is to move."""

    def load(self) -> None:
        """Loads weights now instead of with the first query, whose time is reported."""

    @abstractmethod
    def score(self, candidates: Candidates) -> Tensor:
        """(B, C), higher is better; -inf for a candidate that cannot be judged, which then comes last."""


# ----------------------------------------------------------------------------------------------------------- retrievers
class Hit(NamedTuple):
    rank: int
    image_id: str
    uri: str
    score: float
    identifier: list[str] | None = None
    metadata: Mapping[str, Any] = {}


class Restriction(NamedTuple):
    """Which images a query may find. What is given holds together; images go by their ids."""

    where: str = ""
    """A filter over the images' metadata; the language is in `catalog/filter.py`."""
    only: Sequence[str] | None = None
    """No others than these; None: all."""
    without: Sequence[str] = ()
    """Not these."""
    unlike: Sequence[str] = ()
    """Not these, and nothing like them: negative feedback on what a search has found. A generative retriever bans
    every identifier that shares its first `unlike_symbols` symbols with one of theirs; a dense one moves the query away
    from them by Rocchio's formula and bans nothing else."""
    unlike_symbols: int = 2
    """How long a beginning identifiers must have in common to be alike; 1 bans most."""


class SearchResult(NamedTuple):
    query: str
    hits: list[Hit]
    num_beams: int | None
    elapsed_ms: float
    confidence: float | None = None
    """Calibrated probability that something like what was asked is there; None where a run has not been calibrated."""


class Skipped(NamedTuple):
    path: str
    reason: str


class IndexReport(NamedTuple):
    added: int
    removed: int
    skipped: list[Skipped]


class Retriever(ABC):
    """Whatever finds images by words. Evaluation, serving and the command line know nothing else."""

    @abstractmethod
    def index(self, images: Iterable[tuple[Record, Callable[[], bytes]]]) -> IndexReport:
        """Adds images without retraining; the next search sees them. Each comes with a function that reads its bytes;
        one that cannot be read or decoded is skipped and reported."""

    @abstractmethod
    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        """Forgets images; unknown ids are reported as skipped."""

    @abstractmethod
    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        num_beams: int | None = None,
        restrict: Restriction | Sequence[Restriction] = Restriction(),
        min_confidence: float | None = None,
    ) -> list[SearchResult]:
        """The k best images of each query, best first; fewer where the catalog has fewer.

        `num_beams`: instead of the recipe's; dense retrievers have none. `restrict`: which images may be found, by all
        queries or by each its own. It is exact: the answer is that of a catalog of these images alone. `UsageError` for
        an id that no searchable image has. `min_confidence`: a query that is less sure finds nothing; `UsageError`
        where a run has not been calibrated.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes everything that `load` needs into a run directory."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, **options: Any) -> Retriever:
        """Opens a finished run directory."""
