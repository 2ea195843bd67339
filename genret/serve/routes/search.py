"""/v1/search: one query, several, or by a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.concurrency import run_in_threadpool

from genret.api import Query as PictureQuery
from genret.api import Restriction, SearchResult
from genret.kit.images import decode_image
from genret.pictures.queries import search
from genret.run import Run
from genret.serve.engine import Job
from genret.serve.errors import Refused, documented
from genret.serve.replies import search_replies
from genret.serve.schemas import (
    MAX_K,
    BatchReply,
    BatchRequest,
    SearchOptionsModel,
    SearchReply,
    SearchRequest,
    Where,
    has_words,
)
from genret.toolbox.words import query_words

router = APIRouter(tags=["search"])
ERRORS = documented(400, 404, 422, 429, 503)
BODY_ERRORS = documented(400, 404, 408, 415, 422, 429, 503)
BATCH_ERRORS = documented(400, 408, 415, 422, 429, 503)


@router.get("/v1/search", responses=ERRORS, operation_id="search", summary="Search by words")
async def search_get(request: Request, asked: Annotated[SearchRequest, Query()]) -> SearchReply:
    return await _reply(request, asked)


@router.post("/v1/search", responses=BODY_ERRORS, operation_id="search_json", summary="Search by words or pictures")
async def search_post(request: Request, asked: SearchRequest) -> SearchReply:
    return await _reply(request, asked)


@router.post("/v1/search/batch", responses=BATCH_ERRORS, operation_id="search_batch", summary="Several queries at once")
async def search_batch(request: Request, asked: BatchRequest) -> BatchReply:
    state = request.app.state
    jobs = [
        Job(query=query_words(query, "the query"), **_options(asked), restrict=Restriction(asked.where))
        for query in asked.queries
    ]
    results = await unless_gone(request, state.engine.answer(jobs))
    return BatchReply(results=await run_in_threadpool(search_replies, state.listing, results))


@router.post("/v1/search/picture", responses=BATCH_ERRORS, operation_id="search_picture", summary="Search by a picture")
async def search_picture(
    request: Request,
    image: Annotated[UploadFile, File(description="The picture, PNG, JPEG, WebP ...")],
    k: Annotated[int, Form(ge=1, le=MAX_K)] = 24,
    where: Annotated[Where, Form()] = "",
) -> SearchReply:
    state = request.app.state
    data = await image.read(state.options.max_file_bytes + 1)
    if len(data) > state.options.max_file_bytes:
        raise Refused(413, f"a picture may have {state.options.max_file_bytes:,} bytes")
    picture = await run_in_threadpool(decode_image, data, "the picture")
    found = await unless_gone(
        request, state.engine.call(similar(state.run, PictureQuery(image=picture), k, Restriction(where)))
    )
    return (await run_in_threadpool(search_replies, state.listing, [found]))[0]


async def search_one(request: Request, asked: SearchRequest) -> SearchResult:
    """The answer to one request; cancelled if its client leaves."""
    state = request.app.state
    if not has_words(asked.q) and not asked.like:
        raise Refused(400, "give words as q, or pictures as like")
    words = query_words(asked.q, "the query") if has_words(asked.q) else ""
    restrict = Restriction(
        asked.where,
        None if asked.only is None else await _image_ids(request, asked.only),
        await _image_ids(request, asked.without),
        await _image_ids(request, asked.unlike),
        asked.unlike_symbols,
    )
    if asked.like:
        like = await _image_ids(request, asked.like)
        call = state.engine.call(similar(state.run, PictureQuery(text=words, like=like), asked.k, restrict))
        found: SearchResult = await unless_gone(request, call)
        return found
    job = Job(query=words, **_options(asked), restrict=restrict)
    return (await unless_gone(request, state.engine.answer([job])))[0]


def similar(run: Run, query: PictureQuery, k: int, restrict: Restriction) -> Callable[[], SearchResult]:
    """For the model's thread: a query with pictures, as `Run.search` answers it. `query` of the result is its words."""
    return lambda: search(run, [query], k, restrict=restrict)[0]._replace(query=query.text)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, which is cancelled if the client leaves."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refused(408, "the client has left")
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _reply(request: Request, asked: SearchRequest) -> SearchReply:
    found = await search_one(request, asked)
    return (await run_in_threadpool(search_replies, request.app.state.listing, [found]))[0]


def _options(asked: SearchOptionsModel) -> dict[str, Any]:
    return {"k": asked.k, "num_beams": asked.num_beams, "min_confidence": asked.min_confidence}


async def _image_ids(request: Request, names: list[str]) -> list[str]:
    """Opaque ids → ids of the catalog."""
    if not names:
        return []
    listing = request.app.state.listing
    return [row.image_id for row in await run_in_threadpool(listing.rows, names)]
