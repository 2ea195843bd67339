"""The contract: what each kind of component must implement, one short file per kind. Read `retriever.py` first.

A recipe names one component for each slot. `recipe/components.py` builds them, `train/` runs them in stages, and
everything that searches is a `Retriever`. Each component nests a frozen pydantic `Config`: the options that a recipe
may set.

Shape letters, used in every docstring of the project:

    B queries or examples in a batch    N images            D width of the shared feature space
    M levels of an identifier           K codes per level   S symbols that an identifier scheme adds
    L tokens of an identifier, end symbol included          V tokens of the vocabulary
    b beams                             R identifiers (an image may have several)

Nothing here imports torch, so that `genret --help` stays fast.
"""

from genret.api.backbone import Backbone
from genret.api.batches import GeneratorBatch, SoftTarget, TokenizerBatch
from genret.api.component import Component, Config, LoopOptions
from genret.api.context import FitContext
from genret.api.data import Dataset, Query, Record
from genret.api.encoder import CaptionedImages, Encoder, Pairs
from genret.api.evaluator import Evaluator
from genret.api.identifier import Additive, Corpus, Identifier, Identifiers, NewImages, Vokens
from genret.api.loss import Loss, LossConfig
from genret.api.progress import Bar, Progress, Screen, Silent, Ui
from genret.api.reranker import Candidates, Reranker, RerankerConfig
from genret.api.retriever import (
    Hit,
    IndexReport,
    QueryBatch,
    Restriction,
    Retriever,
    SearchResult,
    SearchScore,
    Skipped,
)

__all__ = [
    "Additive",
    "Backbone",
    "Bar",
    "Candidates",
    "CaptionedImages",
    "Component",
    "Config",
    "Corpus",
    "Dataset",
    "Encoder",
    "Evaluator",
    "FitContext",
    "GeneratorBatch",
    "Hit",
    "Identifier",
    "Identifiers",
    "IndexReport",
    "LoopOptions",
    "Loss",
    "LossConfig",
    "NewImages",
    "Pairs",
    "Progress",
    "Query",
    "QueryBatch",
    "Record",
    "Reranker",
    "RerankerConfig",
    "Restriction",
    "Retriever",
    "Screen",
    "SearchResult",
    "SearchScore",
    "Silent",
    "Skipped",
    "SoftTarget",
    "TokenizerBatch",
    "Ui",
    "Vokens",
]
