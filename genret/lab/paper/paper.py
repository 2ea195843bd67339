"""The paper's tables as data: the runs, and the authors' figures. The files are `tables/*.yaml`.

Li et al., arXiv 2407.17274. Figures are R@1, R@5 and R@10 in percent, of Flickr30K's 1K test unless said otherwise.
"""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

from pydantic import Field

from genret.api import Config
from genret.errors import UnknownName
from genret.recipe.plain_yaml import parse
from genret.recipe.schema import Protocol

DataSet = Literal["emoji", "flickr8k", "flickr30k", "coco"]
DATA = "data"
"""Placeholder in a row's recipes for the data set's recipe."""
PLAIN: dict[DataSet, list[str]] = {
    "emoji": [
        *("dataset.keywords=false", "encoder.captions=null", "encoder.memory=null", "rerank=null"),
        *("train.epochs=24", "train.rank_from=22", "train.evaluate_every=5"),
    ]
}
"""Overrides of every row: the same data, encoder and epochs for all, without what avg.yaml has beyond the paper."""
REPORTED_ON = {"flickr30k": "Flickr30K, 1K test", "coco": "MS-COCO, 5K test"}
Shows = Literal["quality", "speed", "sizes", "pairs"]
"""Tables of recalls, with speeds beside them, speeds by catalog size, and pairs of images."""


class PaperRow(Config):
    name: str
    """The paper's name."""
    recipes: list[str] = ["avg.yaml", DATA]
    """Recipe files, merged in order; `data` is the data set's recipe."""
    own: list[str] = []
    """Recipe keys that define the method; the data set's recipe, written for AVG, does not change them."""
    set: list[str] = []
    """Overrides, in the format of `--set`."""
    beams: int | None = Field(None, ge=1)
    """Number of beams; null: the recipe's."""
    paper: dict[DataSet, list[float | None]] = {}
    """R@1, R@5, R@10 as reported, by data set."""
    paper_speed: float | None = None
    """Queries per second as reported."""
    optional: bool = False
    """If weights are missing: this row is skipped, with the reason; without `optional`, the command fails at once."""
    only: list[DataSet] = []
    """Data sets for which the row makes sense; empty: all."""
    note: str | None = None
    """A note on the row."""


class PaperCase(Config):
    """A pair of images in Figure 5."""

    shared: int = Field(ge=0)
    """Length of their common prefix, in vokens."""
    about: str
    """The paper's description."""


class PaperTable(Config):
    title: str
    """Introduction of the table."""
    shows: Shows = "quality"
    """Kind of output."""
    protocols: list[Protocol] = []
    """Protocols for every row; empty: the recipe's own."""
    compare: Literal["order", "first", "neighbours"]
    """Which rows are compared: by the paper's order, each with the first, each with the next."""
    on: dict[DataSet, list[str]] = {}
    """Overrides of all rows for a data set."""
    rows: list[PaperRow]
    """In display order."""
    sizes: list[int] = []
    """Catalog sizes at which speed is measured, in addition to the run's own."""
    paper_speed_on: str = ""
    """Hardware of the reported speeds."""
    cases: list[PaperCase] = []
    """The paper's pairs."""

    @property
    def file_name(self) -> str:
        """`table3`, `figure4`: the name on the command line and of output files."""
        return self.title.partition(":")[0].replace(" ", "").lower()

    def rows_on(self, data: str) -> list[PaperRow]:
        return [row for row in self.rows if not row.only or data in row.only]


def tables() -> list[str]:
    """Names of all tables and figures that can be made."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def read_table(name: str) -> PaperTable:
    """The table or figure of this name; `table 3`, `Table3` and `3` are accepted too."""
    wanted = re.sub(r"[\s_-]+", "", name).lower()
    wanted = f"table{wanted}" if wanted.isdigit() else wanted
    if wanted not in tables():
        raise UnknownName("table", name, tables())
    return PaperTable.model_validate(parse((_folder() / f"{wanted}.yaml").read_text(encoding="utf-8")).value)


def reported_on(data: DataSet, table: PaperTable) -> DataSet:
    """The data set whose paper figures are shown beside ours: the same if reported, otherwise Flickr30K."""
    return data if any(data in row.paper for row in table.rows) else "flickr30k"


def _folder() -> Traversable:
    return files("genret.lab.paper") / "tables"
