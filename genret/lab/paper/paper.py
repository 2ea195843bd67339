"""The paper's tables as data: what to run, and what the authors report. The files are `tables/*.yaml`.

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
"""Stands among a row's recipes where the data set's own recipe is laid over."""
REPORTED_ON = {"flickr30k": "Flickr30K, 1K test", "coco": "MS-COCO, 5K test"}
Shows = Literal["quality", "speed", "sizes", "pairs"]
"""Tables of recalls, with speeds beside them, speeds by catalog size, and pairs of images."""


class PaperRow(Config):
    name: str
    """As the paper calls it."""
    recipes: list[str] = ["avg.yaml", DATA]
    """Files of the folder of recipes, laid over one another; `data` is the data set's."""
    own: list[str] = []
    """Keys of the recipe that make the method: in them the data set's recipe, which is written for AVG, has no say."""
    set: list[str] = []
    """Overrides, as `--set` takes them."""
    beams: int | None = Field(None, ge=1)
    """Width of the search; the recipe's own if null."""
    paper: dict[DataSet, list[float | None]] = {}
    """R@1, R@5, R@10 as reported, by data set."""
    paper_speed: float | None = None
    """Queries per second as reported."""
    optional: bool = False
    """Left out, with the reason, where weights are not at hand; other rows then end the command before it begins."""
    only: list[DataSet] = []
    """Data sets for which the row makes sense; empty: all."""
    note: str | None = None
    """What has to be known about the row."""


class PaperCase(Config):
    """A pair of images in Figure 5."""

    shared: int = Field(ge=0)
    """How many vokens they have in common, from the first."""
    about: str
    """What the paper says of it."""


class PaperTable(Config):
    title: str
    """Opens the table."""
    shows: Shows = "quality"
    """What is made of the rows' runs."""
    protocols: list[Protocol] = []
    """Every row under each of them; empty: under the recipe's own."""
    compare: Literal["order", "first", "neighbours"]
    """Which rows are held against each other: by the paper's order, each against the first, each against the next."""
    on: dict[DataSet, list[str]] = {}
    """Overrides of all rows for a data set."""
    rows: list[PaperRow]
    """In the order in which they are shown."""
    sizes: list[int] = []
    """Catalog sizes at which speed is measured, beside the run's own."""
    paper_speed_on: str = ""
    """What the reported speeds were measured on."""
    cases: list[PaperCase] = []
    """The pairs that the paper shows."""

    @property
    def file_name(self) -> str:
        """`table3`, `figure4`: as it is asked for and kept."""
        return self.title.partition(":")[0].replace(" ", "").lower()

    def rows_on(self, data: str) -> list[PaperRow]:
        return [row for row in self.rows if not row.only or data in row.only]


def tables() -> list[str]:
    """Names of all tables and figures that can be made."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def read_table(name: str) -> PaperTable:
    """The table or figure called so; `table 3`, `Table3` and `3` are as good."""
    wanted = re.sub(r"[\s_-]+", "", name).lower()
    wanted = f"table{wanted}" if wanted.isdigit() else wanted
    if wanted not in tables():
        raise UnknownName("table", name, tables())
    return PaperTable.model_validate(parse((_folder() / f"{wanted}.yaml").read_text(encoding="utf-8")).value)


def reported_on(data: DataSet, table: PaperTable) -> DataSet:
    """The data set whose figures of the paper stand beside ours: the same one if it reports on it, else Flickr30K."""
    return data if any(data in row.paper for row in table.rows) else "flickr30k"


def _folder() -> Traversable:
    return files("genret.lab.paper") / "tables"
