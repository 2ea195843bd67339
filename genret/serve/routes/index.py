"""/v1/index adds pictures, and tells how far it is while it works, one JSON document per line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, UploadFile
from fastapi.responses import StreamingResponse

from genret.api import IndexReport
from genret.errors import GenretError
from genret.serve.errors import Refused, documented
from genret.serve.routes.images import changes_allowed
from genret.serve.schemas import PathsRequest
from genret.serve.uploads import Told, add_files

log = logging.getLogger(__name__)
router = APIRouter(tags=["index"])
NDJSON = "application/x-ndjson"
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            'Lines of JSON: `{"event": "progress", "stage", "done", "total"}` any number of times, then `{"event": '
            '"done", "added", "updated", "moved", "unchanged", "missing", "removed", "skipped": [{"path", "reason"}]}` '
            'or `{"event": "error", "message"}`'
        ),
        "content": {NDJSON: {"schema": {"type": "string"}}},
    }
}
ERRORS = documented(400, 408, 415, 422, 429, 503)
Work = Callable[[Callable[[dict[str, Any]], None]], IndexReport]


@router.post(
    "/v1/index",
    responses={**ERRORS, **STREAM},
    operation_id="index_files",
    response_class=StreamingResponse,
    summary="Add pictures by sending them",
)
async def index_files(
    request: Request, files: Annotated[list[UploadFile], File(description="Pictures", min_length=1)]
) -> StreamingResponse:
    state = request.app.state
    changes_allowed(request)
    if len(files) > state.options.max_upload_files:
        raise Refused(422, f"at most {state.options.max_upload_files} pictures at once")
    given = [(one.filename or "picture", one.file) for one in files]
    return await _streamed(request, lambda tell: add_files(state.run, given, state.options.max_file_bytes, tell))


@router.post(
    "/v1/index/paths",
    responses={**ERRORS, **STREAM},
    operation_id="index_paths",
    response_class=StreamingResponse,
    summary="Add pictures of the server by path",
)
async def index_paths(request: Request, asked: PathsRequest) -> StreamingResponse:
    """Only below the folders that the server was started with (`--index-folder`)."""
    state = request.app.state
    changes_allowed(request)
    paths = [_allowed(path, state.options.index_folders) for path in asked.paths]
    return await _streamed(request, lambda tell: state.run.index(paths, Told(tell)))


def _allowed(given: str, folders: tuple[Path, ...]) -> Path:
    """The path with all links followed; `Refused` 403 outside the folders."""
    try:
        path = Path(given).resolve()
    except (OSError, ValueError, RuntimeError):
        raise Refused(400, "this is no path") from None
    if not path.is_absolute() or not any(path.is_relative_to(folder.resolve()) for folder in folders):
        raise Refused(403, "this server may not read there; start it with --index-folder DIR", "outside")
    return path


async def _streamed(request: Request, work: Work) -> StreamingResponse:
    """Runs `work` in a thread and sends what it tells; one at a time, 429 meanwhile."""
    state = request.app.state
    if state.indexing.locked():
        raise Refused(429, "pictures are being added already; try again soon", None, {"Retry-After": "2"})
    await state.indexing.acquire()
    loop, events = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

    def tell(event: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    def worked() -> dict[str, Any]:
        try:
            report = work(tell)
        except GenretError as error:
            return {"event": "error", "message": str(error)}
        except Exception as error:
            log.error("adding pictures", exc_info=error)
            return {"event": "error", "message": f"unexpected {type(error).__name__}: the server's log says more"}
        return {"event": "done", **report._asdict(), "skipped": [one._asdict() for one in report.skipped]}

    async def finish() -> None:
        try:
            last = await asyncio.to_thread(worked)
        finally:
            state.indexing.release()  # before the end is told, so that the client may go on at once
        events.put_nowait(last)
        events.put_nowait(None)

    task = asyncio.create_task(finish())  # goes on if the client leaves, so that nothing is half added
    state.tasks.add(task)
    task.add_done_callback(state.tasks.discard)

    async def lines() -> AsyncIterator[bytes]:
        while (event := await events.get()) is not None:
            yield json.dumps(event).encode() + b"\n"

    return StreamingResponse(lines(), media_type=NDJSON, headers={"X-Accel-Buffering": "no"})
