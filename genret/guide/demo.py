"""`genret demo`: trains the smallest run that can be measured, by the ordinary training, then asks and answers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genret.cli.options import JsonOption, user_path
from genret.cli.state import state_of

if TYPE_CHECKING:
    from genret.api import Screen
    from genret.run import Run
    from genret.settings import Settings

RECIPE = Path(__file__).with_name("demo.yaml")
ASKED = 5
"""Captions that are asked: evenly spaced over all, not chosen."""
SHOWN = 3


def add(cli: typer.Typer) -> None:
    cli.command("demo", short_help="Train and ask a small run, in about a minute.")(demo)


def demo(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=user_path, help="Folder of the run. [default: <home>/runs/demo-<n>]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a small run in about a minute (400 emoji, no GPU, no network), ask it, and show how good it is.

    The pictures and pretrained weights are those of the package genret-starter. What is left is an ordinary run:
    search, evaluate or explain it, or add pictures of your own.

    \b
    Example:
      genret demo
    """
    from genret.commands.run_folders import fresh_run, new_run
    from genret.recipe.load import load_recipe
    from genret.run import Run
    from genret.training import train

    state = state_of(context)
    with state.ui(as_json) as ui:
        recipe = load_recipe([RECIPE], [], state.registries)
        state.run = folder = fresh_run(run) if run else new_run([RECIPE], state.settings)
        ui.note("Trains on 400 emoji as two designers drew them, and searches them as a third one drew them.")
        summary = train(recipe, folder, state.registries, state.settings, _Brief(ui))
        with Run(folder, state.registries, state.settings) as opened:
            answers = asked(opened, ui)
        if as_json:
            ui.document(summary.as_json() | {"asked": answers})
            return
        assert summary.evaluation is not None, "the pictures of the demo have captions"
        for table in (figures(summary.evaluation), table_of(answers)):
            ui.table(table)
        ui.result(last_words(folder, sum(summary.seconds.values()), answers, state.settings))


class _Brief:
    """The training's screen without its tables and remarks, which `genret evaluate` and `genret report` show."""

    def __init__(self, ui: Screen):
        self.progress, self.warn = ui.progress, ui.warn
        self._note = ui.note

    def note(self, text: str) -> None:
        if text.endswith(" s") or text.endswith(": reused"):  # a stage is done
            self._note(text)

    def table(self, renderable: Any) -> None:
        return None

    def result(self, text: str) -> None:
        return None


def asked(run: Run, ui: Screen) -> list[dict[str, Any]]:
    """Some captions of the searched split, and what the run and the dense search with the same vectors find."""
    import numpy as np

    from genret.evaluate.queries import query_set
    from genret.search.dense import dense_ranks, dense_search

    catalog, split = run.retriever.catalog, run.dataset.test_split
    whole = query_set(run.retriever, split, run.settings.features_dir, ui.progress)
    some = whole.chosen(np.unique(np.linspace(0, len(whole.queries) - 1, ASKED).astype(np.int64)))
    dense = dense_search(some.query_features, some.features, SHOWN).rows.numpy()
    dense_places = dense_ranks(some.query_features, some.features, some.relevant)
    found = run.search(some.queries, k=10)
    answers = list[dict[str, Any]]()
    for number, (query, result) in enumerate(zip(some.queries, found, strict=True)):
        right = some.image_ids[some.relevant[number]]
        two_tower = [some.image_ids[row] for row in dense[number] if row >= 0]
        answers.append({
            "query": query,
            "right": right,
            "found": [hit.image_id for hit in result.hits[:SHOWN]],
            "place": next((hit.rank for hit in result.hits if hit.image_id == right), None),
            "two_tower": two_tower,
            "two_tower_place": int(dense_places[number]),
        })  # fmt: skip
    ids = {image for answer in answers for image in (answer["right"], *answer["found"], *answer["two_tower"])}
    rows = catalog.lookup(catalog.keys_of(sorted(ids)))
    names = {row.image_id: f"{row.metadata.get('emoji', '')} {row.metadata.get('name', row.image_id)}" for row in rows}
    return [answer | {"names": {image: names[image].strip() for image in sorted(ids)}} for answer in answers]


def figures(evaluation: dict[str, Any]) -> Any:
    """The recalls of the run beside those of the two towers."""
    from rich.table import Table

    table = Table(title=f"Of {evaluation['num_queries']} names, the right picture is", title_justify="left")
    for heading in ("", "first", "among the first 5", "among the first 10"):
        table.add_column(heading, justify="right" if heading else "left")
    beams = evaluation["num_beams"]
    for name, key in (
        (f"for genret, which writes its identifier ({beams} beams)", "recall"),
        ("for a two-tower search with the same vectors", "two_tower"),
    ):
        values = (evaluation[key][k] for k in ("1", "5", "10"))
        table.add_row(name, *("–" if value is None else f"{value:.0f} %" for value in values))
    return table


def table_of(answers: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Asked (the right picture is marked)", title_justify="left")
    for heading in ("name", f"genret's first {SHOWN}", "place", f"two-tower's first {SHOWN}", "place"):
        table.add_column(heading, overflow="fold")
    for answer in answers:
        cells = [
            "\n".join(f"{answer['names'][image]}{' ✓' if image == answer['right'] else ''}" for image in answer[key])
            for key in ("found", "two_tower")
        ]
        place = "not in 10" if answer["place"] is None else str(answer["place"])
        words = (answer["query"], cells[0], place, cells[1], str(answer["two_tower_place"]))
        table.add_row(*map(Text, words), end_section=True)
    return table


def last_words(folder: Path, seconds: float, answers: list[dict[str, Any]], settings: Settings) -> str:
    """What this was, and what comes next."""
    from genret.commands.run_folders import run_option

    option = run_option(folder, settings)
    query = shlex.quote(next((one["query"] for one in answers if one["place"] == 1), answers[0]["query"]))
    steps = [
        (f"genret search {query}{option} --sheet found.png", "the pictures themselves"),
        (f"genret explain {query}{option}", "how the search goes, and where pictures are lost"),
        (f"genret index FOLDER{option}", "adds your own pictures"),
        ("genret train recipes/avg.yaml", "the embedded default, whole: a quarter of an hour"),
    ]
    width = max(len(command) for command, _ in steps)
    return (
        f"\n{folder} was trained and measured in {seconds:.0f} s: vectors of pictures and of names, an identifier of\n"
        "four codes for each picture, and a language model that reads a name and writes an identifier. It is small on\n"
        "purpose, and the two towers find more; docs/results.md has what larger runs reach, and what they do not.\n"
        "Next:  " + "\n       ".join(f"{command:<{width}}  {what}" for command, what in steps)
    )
