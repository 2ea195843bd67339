"""A finished run, for programs, the command line and pages.

import genret

run = genret.load("avg-1")
for hit in run.search("red heart", k=5).hits:
    print(hit.rank, hit.image_id, hit.score)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from genret.api import Dataset, Evaluator, IndexReport, Query, Restriction, SearchResult, Silent, Ui
from genret.catalog.place import place_of, run_id_of
from genret.catalog.store import Catalog
from genret.errors import GenretError, UsageError
from genret.evaluate.ranks import QueryRanks, read_ranks, write_ranks
from genret.folders import finished_run, read_summary
from genret.plugin.loading import load_plugins
from genret.plugin.registry import Registries
from genret.recipe.compatibility import chance_level
from genret.recipe.components import Components, components
from genret.recipe.load import load_recipe
from genret.recipe.schema import Recipe
from genret.search.thumbnails import Thumbnails
from genret.settings import Settings, load_settings

if TYPE_CHECKING:  # with torch, which takes seconds: a folder that is in step needs none of it
    from genret.evaluate.evaluation import Evaluation
    from genret.search.catalog import CatalogRetriever


def load(run: str | Path) -> Run:
    """Opens a finished run: a folder, or else the name of one in `<home>/runs`. Models are loaded on first use."""
    settings = load_settings()
    return Run(finished_run(Path(run).expanduser(), settings), load_plugins((), settings).registries, settings)


class Run:
    """A recipe, its data, a retriever and its figures. Each part is created once, on first use."""

    def __init__(self, folder: Path, registries: Registries, settings: Settings, parts: Components | None = None):
        """`parts`: the recipe's components if training still has them in memory; else they are loaded."""
        self.folder, self.registries, self.settings = folder, registries, settings
        self._trained = parts

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe that the run was trained with."""
        path = self.folder / "recipe.yaml"
        if not path.exists():
            raise GenretError(
                f"{self.folder} is no run directory: it has no recipe.yaml; name one with --run, or train one first"
            )
        self.registries.function.get("remember")(self.folder, self.registries)
        return load_recipe([path], [], self.registries)

    @cached_property
    def components(self) -> Components:
        """The recipe's components, with the weights that training stored in the run."""
        if self._trained is not None:
            return self._trained
        from genret.kit.device import device_of
        from genret.search.catalog import load_towers

        made, folder, device = components(self.recipe, self.registries), self.folder, device_of(self.settings)
        if made.encoder.finetunes:
            load_towers(made.encoder, folder / "towers")
        made.encoder.load(folder / "encoder")
        made.encoder.to(device)
        if made.identifier is not None:
            made.identifier.load(folder / "identifier")
        if made.backbone is not None and made.identifier is not None:
            made.backbone.load(folder / "generator", made.identifier.vokens)
            made.backbone.module.to(device)
        if made.retriever.learns:
            made.retriever.load(folder / "retriever")
        self.registries.function.get("compare_code")(folder, made.code)
        return made

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset that the run was trained on; no weights are loaded for it."""
        if self._trained is not None:
            return self._trained.dataset
        slot = self.recipe.dataset
        made: Dataset = self.registries.dataset.get(slot.type)(
            slot.options, resolve_weights=self.registries.resolve_weights
        )
        return made

    @cached_property
    def catalog(self) -> Catalog:
        """The images that can be found, and their identifiers; no weights are loaded for it."""
        upgrade = self.registries.function.get("upgrade")
        return Catalog.open(place_of(self.folder), run_id_of(self.folder), upgrade)

    @cached_property
    def retriever(self) -> CatalogRetriever:
        """The retriever that finds the images."""
        from genret.kit.device import device_of
        from genret.search.catalog import CatalogRetriever
        from genret.search.confidence import read_confidence
        from genret.search.resources import Resources

        parts, retriever = self.components, self.components.retriever
        if not isinstance(retriever, CatalogRetriever):
            raise GenretError(
                f"the retriever '{self.recipe.retriever.type}' cannot be opened: derive it from genret.CatalogRetriever"
            )
        resources = Resources(
            catalog=self.catalog,
            thumbnails=Thumbnails(self.folder / "thumbnails"),
            encoder=parts.encoder,
            identifier=parts.identifier,
            backbone=parts.backbone,
            reranker=parts.reranker,
            search=self.recipe.search,
            train=self.recipe.train,
            device=device_of(self.settings),
            folder=self.folder,
        )
        retriever.connect(resources)
        retriever.confidence = read_confidence(self.folder, retriever.signal_names)
        return retriever

    # ----------------------------------------------------------------------------------------------------- searching
    @overload
    def search(self, query: str | Query, k: int = ..., **options: Any) -> SearchResult: ...

    @overload
    def search(self, query: Sequence[str | Query], k: int = ..., **options: Any) -> list[SearchResult]: ...

    def search(
        self,
        query: str | Query | Sequence[str | Query],
        k: int = 10,
        *,
        where: str = "",
        **options: Any,
    ) -> SearchResult | list[SearchResult]:
        """The k best images of a query, or of each of several, best first. `Query`: pictures, words to leave out.

        `where`: a filter over metadata such as `year > 2020`. The other options are those of `Retriever.search`:
        `num_beams` overrides the recipe's, `restrict` selects which images may be found, and a query whose confidence
        is below `min_confidence` finds nothing.
        """
        queries = [query] if isinstance(query, str | Query) else list(query)
        if where and "restrict" in options:
            raise UsageError("give `where` or `restrict`, not both; a Restriction has a field `where`")
        if where:
            options["restrict"] = Restriction(where=where)
        texts = [one for one in queries if isinstance(one, str)]
        if len(texts) < len(queries):
            found = self.registries.function.get("search")(self, queries, k, **options)
        else:
            found = self.retriever.search(texts, k, **options)
        return found[0] if isinstance(query, str | Query) else found

    def explain(self, query: str, image_id: str | None = None, **options: Any) -> Any:
        """How a search goes, level by level, and where an image is lost: see `Retriever.explain`."""
        return self.retriever.explain(query, image_id, **options)

    def index(self, paths: Sequence[Path | str] | Path | str, ui: Ui | None = None, **options: Any) -> IndexReport:
        """Brings the catalog in step with images, and all below folders, without training; the next search includes
        them. Unusable files are skipped and reported. Options: `prune` removes images whose files are gone from the
        folders, `ignore` are patterns of what is passed over, as in `.gitignore`."""
        given = [Path(path) for path in ([paths] if isinstance(paths, Path | str) else paths)]
        report: IndexReport = self.registries.function.get("index")(self, given, ui or Silent(), **options)
        return report

    def remove(self, names: Sequence[str]) -> IndexReport:
        """Removes images by id, by the path of their file, or all that were added from below a folder; unknown names
        are reported as skipped."""
        report: IndexReport = self.registries.function.get("remove")(self, names)
        return report

    def prune(self, folders: Sequence[Path | str]) -> IndexReport:
        """Removes images that were added from below these folders and whose files are gone."""
        report: IndexReport = self.registries.function.get("prune")(self, [Path(folder) for folder in folders])
        return report

    # ------------------------------------------------------------------------------------------------------- figures
    def evaluators(self, also: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Evaluator]:
        """The evaluators that take part in every evaluation, and others by name with their options."""
        also = also or {}
        found: dict[str, Evaluator] = {}
        for name in self.registries.evaluator:
            kind: type[Evaluator] = self.registries.evaluator.get(name)
            if kind.automatic or name in also:
                found[name] = self.registries.watched(kind(kind.Config(**also.get(name, {}))), name)
        if unknown := set(also) - set(found):
            self.registries.evaluator.get(min(unknown))  # raises the error with the known names
        return found

    def evaluate(
        self,
        split: str = "test",
        num_beams: Sequence[int] = (),
        *,
        also: Mapping[str, Mapping[str, Any]] | None = None,
        ui: Ui | None = None,
    ) -> Evaluation:
        """Measures which images of a split are found by their captions, and where the others are lost.

        `num_beams`: beam widths; the last is reported in detail. `also`: further evaluators with their options, such as
        `{"trec": {"folder": "out"}}`. The ranks of single queries are stored in the run.
        """
        from genret.evaluate.run import evaluate

        ui = ui or Silent()
        evaluators = self.evaluators(also)
        about = {
            "protocol": self.recipe.protocol,
            "concepts": self.dataset.concepts,
            "split": split,
            "remark": chance_level(self.recipe, self.registries),
            "guidance": self.recipe.guidance,
            "self_guidance": self.recipe.self_guidance,
            "written_levels": self.recipe.written_levels,
        }
        name = self.dataset.test_split if split == "test" else split
        self.registries.function.get("compare_size")(self, split, self.retriever.catalog.splits().get(name, 0), ui)
        depth = max((one.depth for one in evaluators.values()), default=10)
        found = evaluate(self.retriever, name, num_beams, about, self.settings.features_dir, ui, depth)
        try:
            write_ranks(
                self.folder, split, found.asked.queries, found.asked.relevant, found.asked.image_ids, found.ranks
            )
        except OSError as error:  # a run on a read-only disk can still be evaluated
            ui.warn(f"the ranks of single queries are not kept in {self.folder}: {error.strerror or error}")
        more = {name: one.evaluate(self, found, ui) for name, one in evaluators.items()}
        return replace(found.evaluation, more=more)

    def tables(self, found: Evaluation) -> list[Any]:
        """An evaluation for people, as rich shows it."""
        return list(self.registries.function.get("evaluation")(self, found))

    @property
    def figures(self) -> dict[str, Any] | None:
        """The evaluation at the end of training, as `genret evaluate --json` prints it; None without captions."""
        return self.summary.get("evaluation")

    @property
    def summary(self) -> dict[str, Any]:
        """What training recorded: `seconds` by stage, the `evaluation` at its end."""
        return read_summary(self.folder)

    def ranks(self, split: str, way: str) -> QueryRanks | None:
        """The rank of the positive for every query, by one way of searching; None if that was not measured."""
        return read_ranks(self.folder, split, way)

    # ------------------------------------------------------------------------------------------------------- closing
    def close(self) -> None:
        """Closes the catalog, if it is open."""
        if "catalog" in vars(self):
            self.catalog.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"
