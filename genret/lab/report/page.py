"""Runs → one HTML page.

It is standalone: images are data URIs, charts inline SVG, and there is no script; its content security policy forbids
everything else. Templates escape all values.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import genret
from genret.api import Ui
from genret.catalog.place import place_of
from genret.catalog.store import Catalog
from genret.errors import GenretError
from genret.kit.files import write_bytes
from genret.kit.text import clean
from genret.lab.explain.codebook import Codebook
from genret.lab.report import sections, words
from genret.lab.report.queries import Sample, sample
from genret.lab.report.sections import RunSections
from genret.lab.report.stored import SPLIT, StoredRun, read_runs
from genret.lab.report.text import percent, plain_number, plural, points, share, signed, value_of
from genret.lab.report.thumbs import ThumbnailUris
from genret.lab.report.vokens import NamedImages, named_images
from genret.plugin.registry import Registries
from genret.run import Run
from genret.settings import Settings
from genret.shell.migrate import upgrade

POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
PICTURES_OF_A_RUN = 70
"""Number of further images: pairs and vokens."""


class Report(NamedTuple):
    path: Path
    bytes: int
    pictures: int
    runs: list[dict[str, Any]]
    """The page's content for each run, for programs"""

    def as_json(self) -> dict[str, Any]:
        return {"report": str(self.path), "bytes": self.bytes, "pictures": self.pictures, "runs": self.runs}


class OpenRun(NamedTuple):
    """Data that need the run's catalog or models; None if unavailable, with the reason in `remarks`."""

    images: NamedImages | None
    sample: Sample | None
    remarks: list[str]
    words: dict[str, list[str]]
    """By voken of the first level: the words of captions that set its images apart"""


def write_report(
    runs: Sequence[Path], out: Path, registries: Registries, settings: Settings, ui: Ui, num_queries: int = 12
) -> Report:
    """Writes the page of one or several finished runs, atomically."""
    stored = read_runs(runs, registries)
    expected = len(stored) * (6 * num_queries + PICTURES_OF_A_RUN)
    made = []
    for one in stored:
        opened = _open(one, registries, settings, ui, num_queries)
        made.append(
            sections.of_run(
                one, opened.images, opened.sample, ThumbnailUris(one.run, expected), opened.remarks, opened.words
            )
        )
    page = render(made)
    data = page.encode("utf-8", "replace")
    _write(out, data)
    return Report(out, len(data), page.count("data:image/webp"), [one.as_json() for one in made])


def render(runs: Sequence[RunSections]) -> str:
    """The page as HTML."""
    style = files("genret.lab.report").joinpath("style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html")
        .render(
            runs=runs,
            together=sections.together(runs),
            style=Markup(style),  # our own file; the policy allows it by its hash
            policy=POLICY.format(digest),
            version=genret.__version__,
            made=datetime.now(UTC).strftime("%Y-%m-%d"),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("genret.lab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters |= {
        "percent": percent,
        "share": share,
        "points": points,
        "signed": signed,
        "number": plain_number,
        "value": value_of,
        "plural": plural,
    }
    environment.globals |= {"words": words}
    return environment


def _open(stored: StoredRun, registries: Registries, settings: Settings, ui: Ui, num_queries: int) -> OpenRun:
    """Reads the catalog, and searches if the models are available."""
    remarks: list[str] = []
    if not stored.has_catalog:
        remarks.append(
            "Only this run's figures were kept, not its models, catalog and pictures: there are no pictures below."
        )
        return OpenRun(None, None, remarks, {})
    images, telling = None, dict[str, list[str]]()
    try:
        with Catalog.open(place_of(stored.run), upgrade=upgrade) as catalog:
            images = named_images(catalog, stored.searched_split)
            if images is not None:
                tree = Codebook.read(catalog).node(catalog)
                telling = {child.symbols[0]: child.words for child in tree.children}
        if not stored.has_models:
            remarks.append("This run's models were not kept, so no query could be followed through a search.")
            return OpenRun(images, None, remarks, telling)
        with Run(stored.run, registries, settings) as run:
            found = sample(stored, run.retriever, num_queries, settings, ui)
    except GenretError as error:
        ui.warn(f"{stored.run}: the report goes without searches: {error}")
        remarks.append(f"The run could not be searched for this report: {error}.")
        return OpenRun(images, None, remarks, telling)
    if found is not None and not found.queries and num_queries and stored.evaluation is not None:
        remarks.append(
            f"The ranks of single queries were not kept, so none are shown; genret evaluate --run {stored.name} keeps "
            "them."
        )
    return OpenRun(images, found, remarks, telling)


def _write(out: Path, data: bytes) -> None:
    try:
        write_bytes(out, data)
    except OSError as error:
        raise GenretError(f"cannot write {out}: {error.strerror or error}; name another file with --out") from None


__all__ = ["SPLIT", "Report", "render", "write_report"]
