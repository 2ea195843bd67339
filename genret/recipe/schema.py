"""A recipe after it has been read and validated: frozen options, a component's name and options for each slot."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny

from genret.api import Config, LoopOptions, LossConfig, SearchScore
from genret.recipe.plain_yaml import dump

SLOTS = {
    "retriever": "retriever",
    "dataset": "dataset",
    "texts": "dataset",
    "encoder": "encoder",
    "identifier": "identifier",
    "backbone": "backbone",
    "rerank": "reranker",
}
"""Keys that hold one component, with its kind."""
ORDER = "retriever dataset texts protocol pseudo_queries encoder identifier backbone loss train search rerank"
"""Of a recipe's keys, where it is written out."""
PARTS = ("identifier", "backbone", "loss")
"""Keys that only some retrievers need."""

Protocol = Literal["inductive", "transductive-index", "transductive-pseudo"]


class Slot(Config):
    """A component by name, with its validated options."""

    type: str
    options: SerializeAsAny[Config]


class RetrieverSlot(Slot):
    """The retriever and the attributes of its class; a recipe stores only its type and options."""

    needs: tuple[str, ...] = ()
    has_beams: bool = False


class TrainOptions(LoopOptions):
    """How the generator is trained. Heads and tokenizer have their own such options, inside their components."""

    seed: int = Field(0, ge=0)
    """Seed of all random numbers in the run."""
    epochs: int = Field(20, ge=0)
    """Passes over the training captions; 0 leaves the generator as it was initialized."""
    rank_every: int = Field(1, ge=1)
    """Number of steps between two steps with the rank loss, which needs a beam search."""
    rank_from: int = Field(0, ge=0)
    """Epoch, from 0, in which the rank loss starts."""
    rank_beams: int = Field(10, ge=2)
    """Candidates that the rank loss compares (the paper's b)."""
    target_noise: float = Field(0.0, ge=0)
    """Length of the random noise added to (unit) image vectors before they are quantized again as targets; 0: none."""
    target_samples: int = Field(8, ge=1)
    """Number of noisy variants of each image from which targets are sampled, if `target_noise` is above 0."""
    target_views: bool = False
    """Whether targets are also sampled from the identifiers of an image's augmented views."""
    dense_targets: float = Field(0.0, ge=0, le=1)
    """Share of targets sampled from the training images that are nearest to the caption in the shared space."""
    dense_temperature: float = Field(0.05, gt=0)
    """Temperature of that sampling: lower values favor the nearest image."""
    teacher_temperature: float = Field(0.05, gt=0)
    """Temperature of the teacher's soft assignment to codes; lower puts more on the nearest code."""
    teacher_targets: float = Field(0.0, ge=0, le=1)
    """Share of targets that come from the teacher: codes sampled for the caption's own vector."""
    query_noise: float = Field(0.0, ge=0, le=1)
    """Share of training queries that lose a word or gain one of another query, for robustness to unexpected words."""
    score: Literal["level", "vocab"] = "level"
    """Over what the losses' log-probabilities are normalized: the level's vokens, or the whole vocabulary."""
    written_levels: int | None = Field(None, ge=1)
    """Number of first levels of an identifier that the generator learns and writes; null: all. The rest is taken from
    the catalog, and if several images match, guidance decides."""
    end_symbol: bool = False
    """Whether the generator also writes the end symbol, and its score counts it."""
    dev_queries: int = Field(500, ge=1)
    """Number of development captions searched in every validation; early stopping uses their recall."""
    dev_beams: int = Field(20, ge=10)
    """Beam width of these searches."""


class SearchOptions(Config):
    """How the trained generator searches."""

    num_beams: int = Field(20, ge=1)
    """Identifiers kept at each level; a larger `-k` raises it to k."""
    score: SearchScore = "level"
    """Over what log-probabilities are normalized: the level's vokens, the whole vocabulary or the trie's children."""
    guidance: float = Field(0.0, ge=0)
    """Weight γ of the query's own vector in the beam search: log p − γ/2 ‖z − ẑ‖², ẑ the mean of the vectors below a
    prefix, if code vectors add up (`rq`, `residual-kmeans`); 0: the language model alone."""
    self_guidance: float = Field(0.0, ge=0)
    """Weight γ′ of the same by the vector that the language model itself reads the query as (`backbone.code_head`), so
    that a beam sees where its codes lead; it compares the codes that it writes."""
    length_weight: float = Field(1.0, gt=0, le=1)
    """Weight β of the length of ẑ in guidance, which compares z · ẑ − β/2 ‖ẑ‖²: 1 is the distance; less where a short ẑ
    says only that an image was hard to code."""
    batch_size: int = Field(64, ge=1)
    """Number of queries searched at a time."""


class PseudoQueries(Config):
    """Pseudo-queries (generated captions) of the test images, for protocol transductive-pseudo only."""

    file: str | None = None
    """JSON Lines, {"image_id": ..., "caption": ...}, such as a captioner writes; null takes the captions of the
    nearest training images."""
    per_image: int = Field(5, ge=1)
    """Maximum number of captions per test image."""
    neighbours: int = Field(10, ge=1)
    """Number of nearest training images whose captions are considered; the most similar ones are taken."""


class PlainOptions(Config):
    """The part of a recipe that names no component."""

    protocol: Protocol = "inductive"
    """What training may use of the test images. inductive: nothing. transductive-index: their pixels train the
    tokenizer. transductive-pseudo: their pixels and generated captions of them train everything but the heads.
    Their true captions are never trained on."""
    pseudo_queries: PseudoQueries = PseudoQueries()
    train: TrainOptions = TrainOptions()
    search: SearchOptions = SearchOptions()

    def unguided(self) -> tuple[Self, list[str]]:
        """These without what needs code vectors that add up, and the names of the options that were given."""
        off: dict[str, Any] = {"search": {"guidance": 0.0, "self_guidance": 0.0}, "train": {"written_levels": None}}
        plain = {part: getattr(self, part).model_copy(update=none) for part, none in off.items()}
        lost = [f"{part}.{name}" for part, none in off.items() for name in none if getattr(getattr(self, part), name)]
        return self.model_copy(update=plain), lost


class Recipe(PlainOptions):
    """Everything that an experiment depends on, besides its data."""

    retriever: RetrieverSlot
    dataset: Slot
    texts: Slot | None = None
    """A data set whose training captions teach the generator, in place of the captions of `dataset`."""
    encoder: Slot
    identifier: Slot | None = None
    backbone: Slot | None = None
    loss: dict[str, SerializeAsAny[LossConfig]] = {}
    rerank: Slot | None = None
    idle: list[str] = Field([], exclude=True)
    """Options that were given and lost, because the identifier's codes have no vectors that add up."""

    @property
    def has_identifiers(self) -> bool:
        """Whether images are found by identifiers."""
        return "identifier" in self.retriever.needs

    @property
    def num_beams(self) -> int | None:
        """Default beam width of a search; None for retrievers without beams."""
        return self.search.num_beams if self.retriever.has_beams else None

    @property
    def guidance(self) -> float | None:
        """Weight of the query's own vector in the beam search; None if there is no such vector or no beam search."""
        return (self.search.guidance or None) if self.retriever.has_beams else None

    @property
    def self_guidance(self) -> float | None:
        """Weight of the vector that the language model reads the query as; None if it has none or no beam search."""
        return (self.search.self_guidance or None) if self.retriever.has_beams else None

    @property
    def written_levels(self) -> int | None:
        """How many codes of an identifier the language model writes; None: all, or there is no identifier."""
        return self.train.written_levels if self.has_identifiers else None

    def canonical(self) -> dict[str, Any]:
        """All options with their values, as plain JSON data; `load_recipe` reads it back as the same recipe."""
        slots = {key: _plain_slot(getattr(self, key)) for key in SLOTS}
        plain = self.model_dump(mode="json", include=set(PlainOptions.model_fields))
        losses = {name: config.model_dump(mode="json") for name, config in self.loss.items()}
        parts = slots | plain | {"loss": losses}
        return {key: parts[key] for key in ORDER.split()}

    def dump_yaml(self) -> str:
        return dump(self.canonical())


def _plain_slot(slot: Slot | None) -> dict[str, Any] | None:
    return None if slot is None else {"type": slot.type, **slot.options.model_dump(mode="json")}
