"""Base of rerankers that read images: a model of transformers scores pairs of an image and a text.

Each candidate image is read and encoded once, then scored with every query that it is a candidate of.

B queries   C candidates   P images   n pairs   L tokens of the longest query
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from genret.api import Candidates, Reranker, RerankerConfig
from genret.errors import BadImage, GenretError
from genret.kit.device import autocast
from genret.toolbox.weights import check_loaded, has_weights, loading, model_folder, read_json

log = logging.getLogger(__name__)


class PictureConfig(RerankerConfig):
    candidates: int = Field(20, ge=1)
    """Number of top images of the first stage to rescore; each costs a forward pass. A larger `-k` raises it to k."""
    revision: str | None = None
    """Commit of a hub model, so that a recipe always loads the same weights."""
    batch_size: int = Field(32, ge=1)
    """Batch size of the model, in images and in pairs of image and query."""
    bf16: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: if the processor supports bfloat16 natively."""


class Words(NamedTuple):
    """Tokens of some texts, padded at the end."""

    ids: Tensor
    """(n, L)"""
    mask: Tensor
    """(n, L) 1 at real tokens"""


class PictureReranker(Reranker):
    """Scores pairs of image and query; subclasses define the model."""

    architectures: tuple[str, ...]
    """Classes of transformers that can be loaded, by their name in `config.json`."""
    _model: Any = None
    _processor: Any = None
    device = torch.device("cpu")

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """(P, 3, S, S) → the states that `judge` needs of each image, (P, ...)"""

    @abstractmethod
    def judge(self, states: Tensor, words: Words) -> Tensor:
        """n images (n, ...) and n texts → (n,) scores, higher is better."""

    def to(self, device: torch.device) -> None:
        self.device = device
        if self._model is not None:
            self._model.to(device)

    def score(self, candidates: Candidates) -> Tensor:
        rows = candidates.rows
        scores = torch.full(rows.shape, -torch.inf)
        with torch.inference_mode(), autocast(self.device, self.config.bf16):
            words = self._words(candidates.queries)
            for keys, pictures in self._pictures(candidates):
                states = self.encode(self._pixels(pictures))
                query, place = torch.isin(rows, keys).nonzero(as_tuple=True)
                picture = torch.searchsorted(keys, rows[query, place])
                for part in torch.arange(len(query)).split(self.config.batch_size):
                    some = Words(*(table[query[part]].to(self.device) for table in words))
                    found = self.judge(states[picture[part].to(self.device)], some)
                    scores[query[part], place[part]] = found.float().cpu()
        return scores

    def _pictures(self, candidates: Candidates) -> Iterator[tuple[Tensor, list[Image.Image]]]:
        """The candidates' images, `batch_size` at a time, with their keys in ascending order."""
        unreadable: list[str] = []
        keys = candidates.rows[candidates.rows >= 0].unique()
        for some in keys.split(self.config.batch_size):
            read: dict[int, Image.Image] = {}
            for key in some.tolist():
                try:
                    read[key] = candidates.read(key)
                except BadImage as error:  # one damaged image must not end a search
                    unreadable.append(str(error))
            if read:
                yield torch.tensor(list(read)), list(read.values())
        if unreadable:
            count = f"{len(unreadable)} of {len(keys)} candidates" if len(keys) > 1 else "the only candidate"
            log.warning("rerank: %s cannot be looked at and come last: %s", count, unreadable[0])

    def _pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        self.load()
        pixels: Tensor = self._processor.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return pixels.to(self.device)

    def _words(self, queries: Sequence[str]) -> Words:
        self.load()
        settings = self._model.config
        longest = getattr(settings, "text_config", settings).max_position_embeddings
        found = self._processor.tokenizer(
            list(queries), padding=True, truncation=True, max_length=longest, return_tensors="pt", padding_side="right"
        )
        return Words(found["input_ids"], found["attention_mask"])

    # ------------------------------------------------------------------------------------------------ the model
    @property
    def model(self) -> Any:
        self.load()
        return self._model

    def load(self) -> None:
        if self._model is None:
            folder = model_folder(self.resolve_weights(self.config.model), self.config.revision)
            self._processor, model = _load(folder, self.architectures)
            self._model = model.eval().requires_grad_(False).to(self.device)


def _load(folder: Path, architectures: Sequence[str]) -> tuple[Any, Any]:
    """Processor and model of a folder; missing weights are an error, since those layers would be random."""
    import transformers

    named = (read_json(folder / "config.json") or {}).get("architectures") or ["nothing"]
    if named[0] not in architectures:
        wanted = " or ".join(architectures)
        raise GenretError(f"rerank.model: {folder} holds {named[0]}, but this reranker wants {wanted}")
    has_weights(folder)
    with loading(f"the model in {folder}"):
        processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        model, report = getattr(transformers, named[0]).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    check_loaded(model, report, folder)
    return processor, model
