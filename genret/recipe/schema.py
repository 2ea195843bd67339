"""What a recipe is once it has been read and checked: frozen options, a component's name and options for each slot."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializeAsAny

from genret.api import Config, LoopOptions, LossConfig, SearchScore
from genret.recipe.plain_yaml import dump

SLOTS = {
    "retriever": "retriever",
    "dataset": "dataset",
    "encoder": "encoder",
    "identifier": "identifier",
    "backbone": "backbone",
    "rerank": "reranker",
}
"""Keys that hold one component, and its kind."""
PARTS = ("identifier", "backbone", "loss")
"""Keys that some retrievers need and others do not."""

Protocol = Literal["inductive", "transductive-index", "transductive-pseudo"]


class Slot(Config):
    """A component by name, with its validated options."""

    type: str
    options: SerializeAsAny[Config]


class RetrieverSlot(Slot):
    """The retriever, and what its class says of itself; a recipe stores its type and options alone."""

    needs: tuple[str, ...] = ()
    has_beams: bool = False


class TrainOptions(LoopOptions):
    """How the generator is trained. Heads and tokenizer have such options of their own, inside their components."""

    seed: int = Field(0, ge=0)
    """Seed of everything random in the run."""
    epochs: int = Field(20, ge=0)
    """Passes over the training captions; 0 leaves the generator as it was initialized."""
    rank_every: int = Field(1, ge=1)
    """Steps between two steps that compute the rank loss, which needs a beam search."""
    rank_from: int = Field(0, ge=0)
    """Epoch, from 0, in which the rank loss begins."""
    rank_beams: int = Field(10, ge=2)
    """Candidates that the rank loss compares (the paper's b)."""
    target_noise: float = Field(0.0, ge=0)
    """Length of the random noise added to (unit) image vectors before they are quantized anew as targets; 0: none."""
    target_samples: int = Field(8, ge=1)
    """Noisy variants of each image among which targets are drawn, where `target_noise` is above 0."""
    target_views: bool = False
    """Targets are drawn among the identifiers of an image's augmented views, too."""
    dense_targets: float = Field(0.0, ge=0, le=1)
    """Share of targets drawn among the training images that are nearest to the caption in the shared space."""
    dense_temperature: float = Field(0.05, gt=0)
    """Temperature of that draw: the lower, the more the nearest image is preferred."""
    teacher_temperature: float = Field(0.05, gt=0)
    """Temperature of the dense teacher's probabilities of codes; lower puts more on the nearest code."""
    teacher_targets: float = Field(0.0, ge=0, le=1)
    """Share of targets that the teacher writes: codes drawn for the caption's own vector."""
    query_noise: float = Field(0.0, ge=0, le=1)
    """Share of training queries that lose a word or gain one of another query, so that odd words do not mislead."""
    score: Literal["level", "vocab"] = "level"
    """Over what the losses' log-probabilities are normalized: the level's symbols, or the whole vocabulary."""
    written_levels: int | None = Field(None, ge=1)
    """Levels of an identifier that the generator learns and writes, its first ones; null: all. What follows them is
    taken as the catalog has it, and where several images are left guidance chooses."""
    end_symbol: bool = False
    """Whether the generator writes, and its score counts, the end symbol, too."""
    dev_queries: int = Field(500, ge=1)
    """Development captions searched in every validation; early stopping goes by their recall."""
    dev_beams: int = Field(20, ge=10)
    """Beams of these searches."""


class SearchOptions(Config):
    """How the trained generator searches."""

    num_beams: int = Field(20, ge=1)
    """Identifiers kept at each level; `-k` beyond it widens it to k."""
    score: SearchScore = "level"
    """Over what log-probabilities are normalized: the level's symbols, the whole vocabulary or the trie's children."""
    guidance: float = Field(0.0, ge=0)
    """Weight γ of the query's own vector in the beam search, log p − γ/2 ‖z − ẑ‖², ẑ the nearest that a prefix may
    become, where codes' vectors add up (`rq`, `residual-kmeans`); 0: the language model alone."""
    batch_size: int = Field(64, ge=1)
    """Queries searched at a time."""


class PseudoQueries(Config):
    """Made-up captions of the searched images, for protocol transductive-pseudo only."""

    file: str | None = None
    """JSON Lines, {"image_id": ..., "caption": ...}, such as a captioner writes; null makes them from the captions of
    the nearest training images."""
    per_image: int = Field(5, ge=1)
    """Captions of each searched image at most."""
    neighbours: int = Field(10, ge=1)
    """Nearest training images whose captions are considered; those that fit the picture best are taken."""


class PlainOptions(Config):
    """The part of a recipe that names no component."""

    protocol: Protocol = "inductive"
    """What training may know of the searched images: inductive, nothing at all; transductive-index, their pixels may
    train the tokenizer; transductive-pseudo, their pixels and made-up captions of them train everything but the heads.
    Their true captions are never trained on."""
    pseudo_queries: PseudoQueries = PseudoQueries()
    train: TrainOptions = TrainOptions()
    search: SearchOptions = SearchOptions()


class Recipe(PlainOptions):
    """Everything that an experiment depends on, besides its data."""

    retriever: RetrieverSlot
    dataset: Slot
    encoder: Slot
    identifier: Slot | None = None
    backbone: Slot | None = None
    loss: dict[str, SerializeAsAny[LossConfig]] = {}
    rerank: Slot | None = None

    @property
    def has_identifiers(self) -> bool:
        """Whether images are found by identifiers."""
        return "identifier" in self.retriever.needs

    @property
    def num_beams(self) -> int | None:
        """Of a search that names none; None for retrievers without beams."""
        return self.search.num_beams if self.retriever.has_beams else None

    @property
    def guidance(self) -> float | None:
        """Weight of the query's own vector in the beam search; None where there is none, or no beam search."""
        return (self.search.guidance or None) if self.retriever.has_beams else None

    @property
    def written_levels(self) -> int | None:
        """How many symbols of an identifier the language model writes; None: all, or there is none."""
        return self.train.written_levels if self.has_identifiers else None

    def canonical(self) -> dict[str, Any]:
        """Every option spelt out, as plain JSON data; `load_recipe` reads it back as the same recipe."""
        slots = {key: _plain_slot(getattr(self, key)) for key in SLOTS}
        plain = self.model_dump(mode="json", include=set(PlainOptions.model_fields))
        losses = {name: config.model_dump(mode="json") for name, config in self.loss.items()}
        return {
            "retriever": slots["retriever"],
            "dataset": slots["dataset"],
            "protocol": plain["protocol"],
            "pseudo_queries": plain["pseudo_queries"],
            "encoder": slots["encoder"],
            "identifier": slots["identifier"],
            "backbone": slots["backbone"],
            "loss": losses,
            "train": plain["train"],
            "search": plain["search"],
            "rerank": slots["rerank"],
        }

    def dump_yaml(self) -> str:
        return dump(self.canonical())


def _plain_slot(slot: Slot | None) -> dict[str, Any] | None:
    return None if slot is None else {"type": slot.type, **slot.options.model_dump(mode="json")}
