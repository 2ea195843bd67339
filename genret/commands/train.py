"""`genret train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genret.cli.options import Overrides, user_path
from genret.cli.state import state_of
from genret.errors import UsageError


def add(cli: typer.Typer) -> None:
    cli.command("train", short_help="Train a retriever from a recipe.")(train)


def train(
    context: typer.Context,
    recipes: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RECIPE", parser=user_path, help="Recipe files; later ones override earlier ones."),
    ] = None,
    overrides: Overrides = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=user_path, help="Folder of the run. [default: <home>/runs/<recipe>-<n>]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped training.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON document.")] = False,
) -> None:
    """Train a retriever: all stages, from pictures to a searchable run.

    Results of earlier runs (features, heads, tokenizer) are reused. A training that was stopped, even by a crash,
    continues with --resume and ends with the same result.

    \b
    Examples:
      genret train recipes/avg.yaml
      genret train recipes/avg.yaml --set loss.align.weight=0 --set train.seed=1
      genret train recipes/avg.yaml recipes/scale/flickr8k.yaml
      genret train recipes/avg.yaml --run my-run --resume
    \b
    Next: genret search "rainbow"
    """
    from genret.commands.run_folders import fresh_run, new_run, resumable_run
    from genret.recipe.load import load_recipe
    from genret.shell.notes import notes
    from genret.shell.provenance import remember_run

    state = state_of(context)
    files = recipes or []
    if not files and not resume:
        raise UsageError("name a recipe, e.g.: genret train recipes/avg.yaml")
    with state.ui(as_json) as ui:
        if resume:
            folder = resumable_run(run, files, state.settings)
            files = files or [folder / "recipe.yaml"]
            remember_run(folder, state.registries)
        recipe = load_recipe(files, overrides or [], state.registries)
        if not resume:
            folder = fresh_run(run) if run else new_run(files, state.settings)
        state.run = folder
        for note in notes(recipe, state.registries):
            ui.note(f"Note: {note}")
        from genret.training import train as train_run

        summary = train_run(recipe, folder, state.registries, state.settings, ui)
        if as_json:
            ui.document(summary.as_json())
