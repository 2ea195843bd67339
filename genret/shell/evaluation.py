"""An evaluation as tables in a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from genret.api import Evaluator, Ui
from genret.errors import UsageError
from genret.evaluate.evaluation import Evaluation
from genret.evaluate.ledger import folded
from genret.evaluate.metrics import CUTOFFS, Recalls
from genret.folders import is_finished
from genret.run import Run
from genret.toolbox.text_table import TextTable


def tables(run: Run, found: Evaluation) -> list[Any]:
    """The measures with their baselines, the ledger, and the figures of each evaluator."""
    shown: list[Any] = [_recall_table(found), *([_ledger_table(found)] if found.ledger else [])]
    for name, figures in found.more.items():
        kind: type[Evaluator] = run.registries.evaluator.get(name)
        evaluator = kind(kind.Config.model_construct())  # showing figures needs no options
        for one in evaluator.tables(figures, found.split):
            shown.append(one.rich() if isinstance(one, TextTable) else Text(str(one)))
    return shown


def compare_size(run: Run, split: str, now: int, ui: Ui) -> None:
    """Warns if images of a split that training measured have been removed; `UsageError` if all have."""
    before = run.figures if is_finished(run.folder) else None
    if not before or before["split"] != split or now >= (images := before["num_images"]):
        return
    if not now:
        raise UsageError(
            f"split '{split}' has none of its {images} images: all have been removed from {run.folder}; its figures "
            "from before stand in summary.json there, and to measure anew it has to be trained again"
        )
    ui.warn(
        f"split '{split}' has only {now} of its {images} images; the others have been removed from {run.folder}; with "
        "fewer images, each is easier to find"
    )


def _recall_table(found: Evaluation) -> Table:
    protocol = found.protocol + (f", {found.concepts}" if found.concepts else "")
    table = Table(
        title=f"{found.num_queries:,} queries over {found.num_images:,} images, split '{found.split}' ({protocol})",
        caption="recall in %; two-tower: dense search with the same encoder; ceiling: by what the codes still say"
        + _how(found)
        + (f"\n{found.remark}" if found.remark else ""),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for heading in (*(f"R@{k}" for k in CUTOFFS), "MRR", "nDCG@10", "median rank"):
        table.add_column(heading, justify="right")
    searched = found.measures and found.measures["searched"]
    for width, figures in sorted(found.by_num_beams.items()):
        _add(table, f"generated, {width} beams", figures, searched if width == found.num_beams else None)
    if not found.by_num_beams and found.recall != found.two_tower:
        _add(table, "searched", found.recall, searched)
    if found.first_stage is not None:
        _add(table, "  before reranking" + (f", {found.num_beams} beams" if found.num_beams else ""), found.first_stage)
    if (alone := found.drowned_out) is not None:
        _add(table, "  the language model drowned out, guidance alone", alone["recall"], alone)
        if alone["first_stage"] is not None:
            _add(table, "    before reranking", alone["first_stage"])
    if found.reranked is not None:
        _add(table, f"  those images in dense order, {found.num_beams} beams", found.reranked)
    if found.identifier_recall is not None:
        _add(table, f"  identifier-level, collisions counted as hits, {found.num_beams} beams", found.identifier_recall)
    if found.ceiling is not None:
        _add(table, "ceiling of the identifiers", found.ceiling)
    _add(table, "two-tower", found.two_tower, found.measures and found.measures["two_tower"])
    if found.shared_captions is not None:
        shared = found.shared_captions
        table.add_section()
        title = f"{shared['queries']:,} queries caption several images: any of them"
        _add(table, f"{title}, searched", shared["searched"]["recall"], shared["searched"])
        _add(table, "  share of them found (true recall)", shared["searched"]["true_recall"])
        _add(table, "  any of them, two-tower", shared["two_tower"]["recall"], shared["two_tower"])
    return table


def _how(found: Evaluation) -> str:
    """What contributes to the search besides a language model that writes whole identifiers."""
    how = []
    if found.guidance:
        how.append(f"the query's own vector adds to the beams' scores, guidance {found.guidance:g}")
    if found.self_guidance:
        how.append(f"so does the vector that the language model reads it as, self-guidance {found.self_guidance:g}")
    if found.written_levels:
        how.append(f"levels that the language model writes: {found.written_levels}")
    return f"\ngenerated: {'; '.join(how)}" if how else ""


def _ledger_table(found: Evaluation) -> Table:
    table = Table(title=f"Where R@{max(CUTOFFS)} goes, in points", title_justify="left")
    table.add_column("")
    table.add_column("points", justify="right")
    for row in folded([row.as_json() for row in found.ledger]):
        table.add_row(row["stage"], f"{0 - row['lost']:+.2f}" if "lost" in row else f"{row['recall']:.2f}")
    return table


def _add(table: Table, name: str, recalls: Recalls, scores: dict[str, Any] | None = None) -> None:
    """scores: the other measures, if they are known."""
    cells = [_cell(recalls[str(k)], 1) for k in CUTOFFS]
    known = scores or {}
    rest = [_cell(known.get(key), digits) for key, digits in (("mrr", 3), ("ndcg_at_10", 3), ("median_rank", 1))]
    table.add_row(name, *cells, *(rest if scores else ["", "", ""]))


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
