"""A run as an MTEB model: the benchmark's images get identifiers by the run's scheme and are searched with its queries.

The run directory is only read. Each corpus gets an empty copy of it in a temporary folder, filled by the retriever's
`index`, so MTEB always measures the inductive protocol. Queries are searched as `genret search` does it, with the run's
own beams and reranker, and no more beams: a generative run may find fewer images than MTEB's `top_k` of 1,000.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genret.api import Restriction
from genret.catalog.place import run_id_of
from genret.catalog.store import Catalog
from genret.errors import GenretError, UsageError
from genret.folders import finished_run
from genret.kit.files import place_stage
from genret.lab.mteb.about import meta_of
from genret.lab.mteb.tasks import pictures, texts_of
from genret.lab.trec import falling
from genret.plugin.loading import load_plugins
from genret.run import Run
from genret.search.catalog import CatalogRetriever
from genret.settings import Settings, load_settings

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta

logger = logging.getLogger(__name__)


class GenretSearch:
    """A finished run as MTEB's `SearchProtocol`, for text-to-image tasks (`t2i`).

    `mteb.evaluate(GenretSearch("runs/avg-1"), tasks)`. Bound to one run; usable for several corpora in turn.
    """

    def __init__(self, run: Path | str, *, num_beams: int | None = None, settings: Settings | None = None):
        """`run`: a run directory, or the name of one in `<home>/runs`. `num_beams`: instead of the recipe's."""
        self.settings = settings or load_settings()
        self.run = finished_run(Path(run).expanduser(), self.settings)
        self.registries = load_plugins((), self.settings).registries
        self.recipe = Run(self.run, self.registries, self.settings).recipe
        if num_beams is not None and (num_beams < 1 or not self.recipe.retriever.has_beams):
            raise UsageError(f"num_beams={num_beams}: runs with beams take 1 or more, others none")
        self.num_beams = num_beams
        self._folder = Path(tempfile.mkdtemp(prefix="genret-mteb-"))
        self._retriever: CatalogRetriever | None = None
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    @classmethod
    def trained(
        cls,
        task: Any,
        recipes: Sequence[Path | str],
        overrides: Sequence[str] = (),
        *,
        train_split: str = "train",
        num_beams: int | None = None,
        settings: Settings | None = None,
    ) -> GenretSearch:
        """Trains a recipe on the task's own training split, or finds a finished run, and opens it.

        The protocol is the recipe's, inductive unless it says otherwise: searched images get identifiers from the
        tokenizer trained on the training images. Files and overrides are those of `genret train`.
        """
        from genret.lab.mteb.training import train_on

        settings = settings or load_settings()
        run = train_on(task, [Path(file) for file in recipes], overrides, train_split, settings)
        return cls(run, num_beams=num_beams, settings=settings)

    @property
    def mteb_model_meta(self) -> ModelMeta:
        return meta_of(self.run, self.recipe, self.num_beams)

    # ------------------------------------------------------------------------------------------------ MTEB's protocol
    def index(self, corpus: Dataset, *, task_metadata: TaskMetadata, **words: Any) -> None:
        """Gives every image of the corpus an identifier (or a vector, in a two-tower run) in an empty catalog.

        Unreadable images are logged and left out; they count as not found.
        """
        _check(task_metadata)
        self.close()
        empty_copy(self.run, self._folder)
        retriever = Run(self._folder, self.registries, self.settings).retriever
        report = retriever.index(pictures(corpus, task_metadata.name))
        for one in report.skipped:
            logger.warning("%s: %s is left out: %s", task_metadata.name, one.path, one.reason)
        if not report.added:
            raise GenretError(f"no picture of MTEB's task {task_metadata.name} could be indexed; the log says why")
        self._retriever = retriever

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        top_k: int,
        top_ranked: dict[str, list[str]] | None = None,
        **words: Any,
    ) -> dict[str, dict[str, float]]:
        """Query id → image id → score, higher is better; no ties, because MTEB orders these by name.

        `top_ranked`: the only images that each query may find, all of which are then ranked.
        """
        if self._retriever is None:
            raise UsageError("search comes after index: MTEB hands over the corpus first")
        _check(task_metadata)
        texts = dict(zip(queries["id"], texts_of(queries), strict=True))
        found: dict[str, dict[str, float]] = {query_id: {} for query_id in texts}
        among = {query_id: self._known((top_ranked or {}).get(query_id, [])) for query_id in texts}
        # empty queries and queries with nothing to rank find nothing
        asked = {one: text for one, text in texts.items() if text.strip() and (top_ranked is None or among[one])}
        if top_ranked is None:
            results = self._retriever.search(list(asked.values()), k=self._width(top_k), num_beams=self.num_beams)
        else:
            width = max((len(among[query_id]) for query_id in asked), default=1)
            only = [Restriction(only=among[query_id]) for query_id in asked]
            results = self._retriever.search(list(asked.values()), k=width, num_beams=self.num_beams, restrict=only)
        for query_id, result in zip(asked, results, strict=True):
            scores = falling([hit.score for hit in result.hits[:top_k]])
            found[query_id] = {hit.image_id: score for hit, score in zip(result.hits, scores, strict=False)}
        return found

    def _known(self, image_ids: Sequence[str]) -> list[str]:
        """The images that could be indexed."""
        assert self._retriever is not None
        keys = self._retriever.catalog.keys_of(image_ids)
        return [image_id for image_id, key in zip(image_ids, keys.tolist(), strict=True) if key >= 0]

    def close(self) -> None:
        """Drops the corpus and its index."""
        if self._retriever is not None:
            self._retriever.catalog.close()
            self._retriever = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _width(self, top_k: int) -> int:
        """The number of images that a search finds with its own beams, at most `top_k`."""
        assert self._retriever is not None
        widths = [top_k]
        if (beams := self.num_beams or self._retriever.num_beams) is not None:
            widths.append(beams)
        if self._retriever.reranker is not None:
            widths.append(self._retriever.reranker.config.candidates)
        return min(widths)


def empty_copy(run: Path, folder: Path) -> None:
    """A run directory with the same models, by links if possible, and an empty catalog."""
    folder.mkdir(parents=True, exist_ok=True)
    for stage in run.resolve().glob("*/stage.json"):
        try:
            (folder / stage.parent.name).symlink_to(stage.parent, target_is_directory=True)
        except OSError:  # links are not supported here
            place_stage(stage.parent, folder / stage.parent.name)
    for file in (run / "recipe.yaml", run / "environment.json"):
        if file.exists():
            shutil.copyfile(file, folder / file.name)
    Catalog.create(folder / "catalog.sqlite", run_id_of(folder)).close()


def _check(metadata: TaskMetadata) -> None:
    if metadata.category != "t2i":
        raise GenretError(
            f"MTEB's task {metadata.name} is of category '{metadata.category}'; genret finds pictures by words: 't2i'"
        )
