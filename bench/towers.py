"""The two-tower paradigm, with its text encoder: a query is encoded and compared with the images' vectors.

Encoders have random weights in the shapes of well-known ones and pad queries only to the longest of the batch, which is
faster than the 77 positions that CLIP's own code always computes. Vectors are random, in clusters like those of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModelWithProjection

from bench.models import QUERIES, queries
from genret.components.backbones.tokenizers import train_tokenizer

WIDTH = 512
"""Width of CLIP ViT-B/32's joint space."""
LINKS, EF_CONSTRUCTION, EF_SEARCH = 32, 40, 128
"""FAISS's HNSW: links per node, and candidates examined during construction (FAISS's default) and search."""
CLUSTERS = 2000
ENCODERS = ("CLIP ViT-B/32", "MiniLM-L6")


class TextEncoder:
    """Texts → unit vectors (B, WIDTH)."""

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype, layers: int | None = None):
        torch.manual_seed(0)
        self._tokenizer = train_tokenizer(QUERIES, 256)
        self._device = device
        if name == "MiniLM-L6":
            small: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
            network: Any = BertModel(BertConfig(**small, num_hidden_layers=layers or 6), add_pooling_layer=False)
            self._project: nn.Module = nn.Linear(384, WIDTH)  # into the images' space
        else:
            assert name == "CLIP ViT-B/32"
            shape = CLIPTextConfig(projection_dim=WIDTH, eos_token_id=1)  # other sizes are the defaults
            shape.num_hidden_layers = layers or shape.num_hidden_layers
            network = CLIPTextModelWithProjection(shape)
            self._project = nn.Identity()
        self._network = network.eval().requires_grad_(False).to(device=device, dtype=dtype)
        self._project.requires_grad_(False).to(device=device, dtype=dtype)

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        batch = self._tokenizer(texts, padding=True, return_tensors="pt").to(self._device)
        given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        found = self._network(**given)
        if hasattr(found, "text_embeds"):
            vectors = found.text_embeds
        else:
            mask = given["attention_mask"][..., None].to(found.last_hidden_state.dtype)
            vectors = (found.last_hidden_state * mask).sum(1) / mask.sum(1)
        return nn.functional.normalize(self._project(vectors), dim=-1)

    def timed(self, batch: int) -> Callable[[int], Any]:
        return lambda number: self(queries(batch, number))


def image_vectors(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(count, WIDTH) unit rows in clusters."""
    random = torch.Generator(device).manual_seed(0)
    centres = torch.randn(CLUSTERS, WIDTH, generator=random, device=device)
    vectors = torch.empty(count, WIDTH, device=device, dtype=dtype)
    for part in vectors.split(100_000):  # in place, to save memory
        cluster = torch.randint(CLUSTERS, (len(part),), generator=random, device=device)
        noise = torch.randn(len(part), WIDTH, generator=random, device=device)
        part.copy_(nn.functional.normalize(centres[cluster] + noise, dim=-1))
    return vectors


def exact(encoder: TextEncoder, images: Tensor, batch: int, k: int) -> Callable[[int], Any]:
    """Every image's similarity by one matrix product, then the k highest."""
    return lambda number: (encoder(queries(batch, number)) @ images.T).topk(k)


class HNSW:
    """FAISS's graph over vectors (N, WIDTH), in memory, float32."""

    def __init__(self, images: Tensor):
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        self._graph: Any = faiss.IndexHNSWFlat(WIDTH, LINKS, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = EF_CONSTRUCTION
        self._graph.hnsw.efSearch = EF_SEARCH
        for part in images.split(50_000):
            self._graph.add(np.ascontiguousarray(part.float().cpu().numpy()))
        self.nbytes = len(faiss.serialize_index(self._graph))

    def search(self, vectors: Tensor, k: int) -> Any:
        return self._graph.search(np.ascontiguousarray(vectors.float().cpu().numpy()), k)[1]

    def timed(self, encoder: TextEncoder, batch: int, k: int) -> Callable[[int], Any]:
        return lambda number: self.search(encoder(queries(batch, number)), k)

    def recall(self, images: Tensor, k: int, count: int = 200) -> float:
        """Recall of the exact k nearest neighbours, for queries near images."""
        random = torch.Generator().manual_seed(1)
        near = images[:: max(1, len(images) // count)][:count].float().cpu()
        asked = nn.functional.normalize(near + torch.randn(near.shape, generator=random) / WIDTH**0.5, dim=-1)
        right = (asked.to(images) @ images.T).topk(k).indices.cpu().numpy()
        found = self.search(asked, k)
        return sum(len(np.intersect1d(a, b)) for a, b in zip(right, found, strict=True)) / right.size
