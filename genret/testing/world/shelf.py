"""Catalogs of the world's images, and retrievers over them with the resources of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from genret.api import Record
from genret.catalog.store import Catalog
from genret.recipe.schema import SearchOptions, TrainOptions
from genret.search.catalog import CatalogRetriever
from genret.search.resources import Resources
from genret.search.thumbnails import Thumbnails
from genret.testing.world.corpus import make_world
from genret.testing.world.miniature import Trained, train_backbone
from genret.testing.world.pictures import WorldEncoder, png, record
from genret.testing.world.table import NearestTable

SEARCH = SearchOptions(num_beams=12, batch_size=50)


@cache
def _writer() -> tuple[NearestTable, Trained]:
    """An identifier scheme and a language model trained to generate its identifiers."""
    train = make_world().train
    return NearestTable(train), train_backbone(train, NearestTable(train))


def pictures(rows: Iterable[int], group: str = "train") -> list[tuple[Record, Callable[[], bytes]]]:
    """Images in the form of `Retriever.index`."""
    return [(record(group, row), partial(png, f"{group}-{row}")) for row in rows]


class Shelf:
    """Creates catalogs below a folder and closes them at the end."""

    def __init__(self, folder: Path, needs: tuple[str, ...]):
        self.folder, self.needs = folder, needs
        self._open: list[Catalog] = []

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for catalog in self._open:
            catalog.close()

    def catalog(self) -> Catalog:
        """A new, empty catalog."""
        self._open.append(Catalog.create(self.folder / f"{len(self._open)}.sqlite", "the kit"))
        return self._open[-1]

    def connected(self, retriever: CatalogRetriever, catalog: Catalog) -> Any:
        """The retriever over this catalog, with the components that it declares to need."""
        identifier, backbone, train = None, None, TrainOptions()
        if "identifier" in self.needs or "backbone" in self.needs:
            scheme, trained = _writer()
            train = trained.options
            identifier = scheme if "identifier" in self.needs else None
            backbone = trained.backbone if "backbone" in self.needs else None
        retriever.connect(
            Resources(
                catalog=catalog,
                thumbnails=Thumbnails(self.folder / "thumbnails"),
                encoder=WorldEncoder(),
                identifier=identifier,
                backbone=backbone,
                reranker=None,
                search=SEARCH,
                train=train,
                device=torch.device("cpu"),
            )
        )
        return retriever
