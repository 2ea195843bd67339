"""A run's catalog follows folders of pictures: the functions behind `Run.index`, `Run.remove` and `Run.prune`.

Models are loaded only if there is something to encode.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from genret.api import IndexReport, Record, Skipped, Ui
from genret.errors import BadImage
from genret.kit.images import read_bytes
from genret.pictures.ignored import Ignored
from genret.pictures.plan import File, Plan, file_at, make_plan
from genret.pictures.seen import Seen
from genret.run import Run
from genret.toolbox.facts import record_of
from genret.toolbox.walk import printable, walk_images


def index(run: Run, paths: Sequence[Path], ui: Ui, prune: bool = False, ignore: Sequence[str] = ()) -> IndexReport:
    """Brings the catalog in step with files and folders. `prune`: also removes images whose files are gone from the
    folders. `ignore`: patterns as in `.gitignore`, relative to each folder, of what is passed over."""
    began = time.time_ns()
    there = [path for path in paths if path.expanduser().exists()]
    folders = [path for path in there if path.expanduser().is_dir()]
    files = {printable(path): file_at(path) for path in walk_images(there, Ignored(folders, ignore))}
    skipped = [Skipped(str(path), "it does not exist") for path in paths if path not in there]
    skipped += [Skipped(str(path), "it holds no pictures") for path in there if not files]
    seen = Seen(run.folder)
    with ui.progress("looking through pictures", len(files)) as bar:
        plan = make_plan(files, folders, run.catalog, seen, bar.advance)
    report = IndexReport(0, 0, skipped, 0, len(plan.moved), plan.unchanged)
    if plan.moved:
        report = report._replace(removed=_move(run, plan, files))
    try:
        if plan.fresh:
            report = report.plus(_encode(run, plan, ui))
    finally:  # what was done before an interruption is not read again
        _remember(run, plan, files, seen, began)
    if prune and plan.missing:
        return report.plus(run.retriever.remove(plan.missing))
    return report._replace(missing=len(plan.missing))


def _move(run: Run, plan: Plan, files: dict[str, File]) -> int:
    """Gives images that moved the ids of their new files → how many other images had been there and are gone."""
    records = {old: record_of(files[new].path) for old, new in plan.moved.items()}
    return run.catalog.rename(records)


def _encode(run: Run, plan: Plan, ui: Ui) -> IndexReport:
    skipped = list[Skipped]()
    with ui.progress("indexing pictures", len(plan.fresh)) as bar:

        def images() -> Iterator[tuple[Record, Callable[[], bytes]]]:
            for file in plan.fresh.values():
                try:
                    yield record_of(file.path), partial(read_bytes, file.path)
                except BadImage as error:
                    skipped.append(Skipped(str(file.path), str(error)))
                bar.advance(1)

        report = run.retriever.index(images())
    return report._replace(skipped=[*report.skipped, *skipped])


def _remember(run: Run, plan: Plan, files: dict[str, File], seen: Seen, began: int) -> None:
    # of a changed file that could not be taken, the catalog has the old content
    contents = run.catalog.contents_of([*(plan.fresh.keys() - plan.changed)]) | plan.contents
    known = [(name, stamp, sha256) for name, sha256 in contents.items() if (stamp := files[name].stamp) is not None]
    seen.store(known, began, [*plan.moved.keys() - files.keys(), *plan.missing])


def remove(run: Run, names: Sequence[str]) -> IndexReport:
    """Removes images by id, by the path of their file, or all that were added from below a folder; unknown names are
    reported as skipped."""
    known, added = run.catalog.keys_of(names) >= 0, list(run.catalog.added_images())
    wanted, unknown = list[str](), list[Skipped]()
    for name, is_id in zip(names, known.tolist(), strict=True):
        path = printable(Path(name).expanduser().absolute())
        below = path.rstrip(os.sep) + os.sep
        found = [name] if is_id else [one for one in added if one == path or one.startswith(below)]
        wanted += found
        unknown += [] if found else [Skipped(name, "there is no image of this id, file or folder")]
    report = run.retriever.remove(wanted) if wanted else IndexReport(0, 0, [])
    return report._replace(skipped=[*unknown, *report.skipped])


def prune(run: Run, folders: Sequence[Path]) -> IndexReport:
    """Removes images that were added from below these folders and whose files are gone."""
    roots = [folder.expanduser().absolute() for folder in folders if folder.expanduser().is_dir()]
    starts = tuple(printable(root).rstrip(os.sep) + os.sep for root in roots)
    gone = [one for one in run.catalog.added_images() if one.startswith(starts) and not os.path.lexists(one)]
    return run.retriever.remove(gone) if gone else IndexReport(0, 0, [])
