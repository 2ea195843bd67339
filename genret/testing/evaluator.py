"""`check_evaluator`: figures are plain data, reproducible and can be shown."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genret.api import Evaluator, Silent
from genret.evaluate.evaluation import Evaluated
from genret.evaluate.run import evaluate
from genret.run import Run
from genret.testing.config import check_config, made
from genret.testing.world.expect import Checked
from genret.testing.world.run import NAME, RECIPES, watched_run
from genret.toolbox.text_table import TextTable


def check_evaluator(evaluator: type[Evaluator], /, **options: Any) -> None:
    """Checks an evaluator with these options against its contract; `ContractError` says what to change.

    It measures two miniature runs, a two-tower and a generative one: figures are plain JSON data under its own name, or
    None; the same twice; tables are text or lines, also for None; its inputs are not modified; it does not fail if
    nothing could be searched.
    """
    check_config(evaluator, **options)
    checked = Checked(evaluator)
    check_flags(checked, evaluator)
    for recipe in RECIPES:
        with tempfile.TemporaryDirectory() as name:
            with watched_run(Path(name), recipe) as run:
                check_figures(checked, made(evaluator, options), run)
            what = f"it took part in a training (retriever {recipe})"
            with checked.doing(what), watched_run(Path(name), recipe, evaluator) as run:
                check_part(checked, evaluator, run, options)


def check_flags(checked: Checked, evaluator: type[Evaluator]) -> None:
    checked.expect(isinstance(evaluator.automatic, bool), f"automatic is {evaluator.automatic!r}; say True or False")
    checked.expect(
        isinstance(evaluator.depth, int) and evaluator.depth >= 1,
        f"depth is {evaluator.depth!r}; say how many images of each query it wants to see, at least 1",
    )
    required = [name for name, field in evaluator.Config.model_fields.items() if field.is_required()]
    checked.expect(
        not (evaluator.automatic and required),
        f"it takes part in every evaluation, but its option {required[:1]} has no default; give it one, or set "
        "automatic to False",
    )


def check_part(checked: Checked, evaluator: type[Evaluator], run: Run, options: dict[str, Any]) -> None:
    """Its figures are among a run's own, under its name."""
    if evaluator.automatic:
        checked.expect(NAME in run.summary["evaluation"], "its figures are not among those of the run")
    found = run.evaluate(also={NAME: options})
    checked.expect(NAME in found.more, "its figures are not among those of an evaluation that asks for them")
    run.tables(found)


def check_figures(checked: Checked, one: Evaluator, run: Run) -> None:
    found = evaluated(run, one)
    before = snapshot(found)
    with checked.doing("evaluate() was called"):
        figures = one.evaluate(run, found, Silent())
    checked.expect(
        all(map(np.array_equal, snapshot(found), before)),
        "evaluate() changes what was found in place; work on a copy: other evaluators see it, too",
    )
    check_plain(checked, figures)
    with checked.doing("evaluate() was called again"):
        again = one.evaluate(run, evaluated(run, one), Silent())
    checked.expect(
        json.dumps(again) == json.dumps(figures),
        "evaluate() gives other figures for the same run; draw what it draws from np.random.default_rng(0)",
    )
    with checked.doing("evaluate() was called where nothing could be searched (index, first and answer are None)"):
        nothing = replace(found, index=None, first=None, answer=None)
        check_plain(checked, one.evaluate(run, nothing, Silent()))
    for given in (figures, None):
        with checked.doing(f"tables() was called with {'None' if given is None else 'its figures'}"):
            check_tables(checked, one.tables(given, run.dataset.test_split))


def evaluated(run: Run, one: Evaluator) -> Evaluated:
    about = {"protocol": run.recipe.protocol, "concepts": run.dataset.concepts}
    split, features = run.dataset.test_split, run.settings.features_dir
    return evaluate(run.retriever, split, (), about, features, Silent(), max(10, one.depth))


def snapshot(found: Evaluated) -> list[Any]:
    """Copies of all arrays that an evaluator gets."""
    parts: list[Any] = [found.asked.keys, found.asked.relevant, found.asked.features, found.asked.query_features]
    parts += [*found.ranks.values(), *(found.first or ()), *(found.answer or ())]
    return [np.asarray(part).copy() for part in parts]


def check_plain(checked: Checked, figures: Any) -> None:
    checked.expect(
        figures is None or isinstance(figures, dict),
        f"evaluate() returns a {type(figures).__name__}; return a dict of JSON data, or None (nothing to say)",
    )
    for path, value in _walked(figures, ""):
        checked.expect(
            value is None or type(value) in (bool, int, float, str, dict, list),
            f"evaluate(){path} is a {type(value).__name__}; turn it into plain data: float(x), x.tolist()",
        )
        checked.expect(
            not isinstance(value, float) or math.isfinite(value),
            f"evaluate(){path} is {value}, which JSON does not know; write None where there is no figure",
        )


def _walked(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, part in value.items():
            yield (f"{path}, the key {key!r},", key if isinstance(key, str) else object())
            yield from _walked(part, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from _walked(part, f"{path}[{place}]")


def check_tables(checked: Checked, tables: Any) -> None:
    checked.expect(
        isinstance(tables, list) and all(isinstance(one, TextTable | str) for one in tables),
        "tables() holds something else than genret.toolbox.text_table.TextTable and lines of text; "
        "return a list of those",
    )
    for one in tables:
        if isinstance(one, TextTable):
            widths = {len(row) for row in (one.headings, *one.rows)}
            checked.expect(
                len(widths) == 1, f"a table of tables() has {sorted(widths)} cells in its rows; give all as many"
            )
            cells = [cell for row in (one.headings, *one.rows) for cell in row]
            checked.expect(all(isinstance(cell, str) for cell in cells), "a cell of tables() is no text; write str(x)")
            one.rich(), one.markdown()
