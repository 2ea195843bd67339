"""An evaluation as people read it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from genret.evaluate.metrics import CUTOFFS, Recalls

if TYPE_CHECKING:
    from genret.evaluate.run import Evaluation


def evaluation_tables(found: Evaluation) -> list[Any]:
    """The recalls with their baselines, then the ledger."""
    return [_recall_table(found), *([_ledger_table(found)] if found.ledger else [])]


def _recall_table(found: Evaluation) -> Table:
    protocol = found.protocol + (f", {found.concepts}" if found.concepts else "")
    table = Table(
        title=f"{found.num_queries:,} queries over {found.num_images:,} images, split '{found.split}' ({protocol})",
        caption="recall in %; two-tower: dense search with the same encoder; ceiling: by what the codes still say"
        + (f"\n{found.remark}" if found.remark else ""),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    for k in CUTOFFS:
        table.add_column(f"R@{k}", justify="right")
    for width, figures in sorted(found.by_num_beams.items()):
        _add(table, f"generated, {width} beams", figures)
    if not found.by_num_beams and found.recall != found.two_tower:
        _add(table, "searched", found.recall)
    if found.first_stage is not None:
        _add(table, "  before reranking" + (f", {found.num_beams} beams" if found.num_beams else ""), found.first_stage)
    if found.reranked is not None:
        _add(table, f"  those images in dense order, {found.num_beams} beams", found.reranked)
    if found.identifier_recall is not None:
        _add(table, f"  identifiers instead of images, {found.num_beams} beams", found.identifier_recall)
    if found.ceiling is not None:
        _add(table, "ceiling of the identifiers", found.ceiling)
    _add(table, "two-tower", found.two_tower)
    return table


def _ledger_table(found: Evaluation) -> Table:
    table = Table(title=f"Where R@{max(CUTOFFS)} goes, in points", title_justify="left")
    table.add_column("")
    table.add_column("points", justify="right")
    for row in found.ledger:
        table.add_row(row.stage, f"{0 - row.points:+.2f}" if row.is_change else f"{row.points:.2f}")
    return table


def _add(table: Table, name: str, figures: Recalls) -> None:
    cells = ("–" if (value := figures[str(k)]) is None else f"{value:.1f}" for k in CUTOFFS)
    table.add_row(name, *cells)
