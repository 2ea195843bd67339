"""`genret serve`."""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from genret.cli.options import RunOption, user_path
from genret.cli.state import state_of
from genret.errors import GenretError, UsageError, one_line

NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def add(cli: typer.Typer) -> None:
    cli.command("serve", short_help="Search in a browser, and by an API.")(serve)


def serve(
    context: typer.Context,
    run: RunOption = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="GENRET_SERVE_TOKEN",
            help="Token that every request must carry, of 16 characters or more; @FILE reads it from a file. "
            "[default: none at this machine's own addresses, else a new one, which is shown]",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name by which clients know this server. Repeatable."),
    ] = None,
    index_folder: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            parser=user_path,
            help="Folder of this machine from which clients may add pictures by path. Repeatable.",
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nobody may add or remove pictures.")] = False,
    batch_ms: Annotated[
        float,
        typer.Option(min=0, max=1000, metavar="MS", help="How long a query waits for others to be searched with."),
    ] = 4,
    max_batch: Annotated[int, typer.Option(min=1, max=1024, metavar="N", help="Most queries in one model step.")] = 32,
    max_queue: Annotated[int, typer.Option(min=1, metavar="N", help="Most queries that wait; more get 429.")] = 256,
    rate: Annotated[
        float, typer.Option(min=0, metavar="N", help="Searches and changes per second and client; 0: no limit.")
    ] = 100,
) -> None:
    """Serve a finished run: a page to search with, and an API for programs.

    It listens on this machine only, unless --host says otherwise; then every request needs a token. What another
    process indexes is found without a restart.

    \b
    Examples:
      genret serve
      genret serve --run avg-1 --port 9000
      genret serve --host 0.0.0.0 --token @/run/secrets/genret --allow-host pictures.example.org

    \b
    Next: open the address that is printed; docs/serve.md describes the API.
    """
    state = state_of(context)
    if any(find_spec(name) is None for name in NEEDED):
        raise GenretError("genret serve needs further packages: pip install 'genret[serve]'")
    from genret.serve.options import LOOPBACK, ServeOptions

    given = _token_of(token)
    made = secrets.token_urlsafe(24) if given is None and host not in LOOPBACK else None
    options = ServeOptions(
        host=host, port=port, token=given or made, allowed_hosts=tuple(allow_host or ()),
        index_folders=tuple(index_folder or ()), allow_changes=not read_only, batch_ms=batch_ms, max_batch=max_batch,
        max_queue=max_queue, rate=rate, burst=max(1, int(4 * rate)),
    )  # fmt: skip
    for folder in options.index_folders:
        if not folder.is_dir():
            raise UsageError(f"--index-folder {folder} is no folder")
    with state.ui() as ui, state.open(run) as opened:
        from genret.serve.network.listen import listen

        listen(opened, options, ui, new_token=made is not None)


def _token_of(given: str | None) -> str | None:
    if given is None:
        return None
    if given.startswith("@"):
        path = user_path(given[1:])
        try:
            given = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token @{path} cannot be read: {one_line(error)}") from None
    if len(given) < 16 or not given.isascii() or not given.isprintable() or " " in given:
        raise UsageError(
            "--token needs 16 or more letters, digits and signs without spaces; leave it out for a new one"
        )
    return given
