"""The addresses of the page. Every one is a plain link or form; the script only adds comfort."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from genret.errors import GenretError, UsageError
from genret.lab.explain.side_by_side import side_by_side
from genret.serve.errors import Refused, refusal_of
from genret.serve.page import html
from genret.serve.page.views import BRANCHES, Codebooks, Rivals, level_views, side_view, thumbs
from genret.serve.replies import image_reply, search_replies, thumb
from genret.serve.routes.explain import explained
from genret.serve.routes.search import search_one, search_picture, unless_gone
from genret.serve.schemas import MAX_BEAMS, MAX_K, MAX_QUERY, SearchReply, SearchRequest
from genret.toolbox.words import query_words

router = APIRouter(include_in_schema=False)
PER_PAGE = 24
LAST_PAGE = MAX_K // PER_PAGE
MOST = LAST_PAGE * PER_PAGE
ORDERS: dict[str, Callable[[Any], Any]] = {
    "name": lambda image: html.title_of(image).casefold(),
    "newest": lambda image: -int(image.id),
}
"""Other orders of a whole answer, which then has `MOST` pictures on all its pages together."""
Page = Callable[..., Awaitable[Response]]


def page(view: Page) -> Page:
    """Errors are shown on a page, not as JSON."""

    @wraps(view)
    async def answered(request: Request, **values: Any) -> Response:
        if not request.app.state.engine.ready:
            failed = request.app.state.engine.failed
            return html.render(request, "error.html", 503, message=failed or "", is_loading=failed is None)
        try:
            return await view(request, **values)
        except (Refused, GenretError) as error:
            refused = _refused(error)
            return html.render(request, "error.html", refused.status_code, message=refused.message, is_loading=False)

    return answered


class Asked:
    """The state of a search page, which its address holds."""

    most = MOST

    def __init__(self, request: Request):
        query = request.query_params
        for name, most in (("q", MAX_QUERY), ("where", 2000)):
            if len(query.get(name, "")) > most:
                raise Refused(422, f"`{name}` has at most {most} characters")
        self.q = query.get("q", "").strip()
        self.where = query.get("where", "").strip()
        self.sort = query.get("sort", "")
        self.scores = query.get("scores", "") == "1"
        self.like, self.unlike = query.getlist("like")[:20], query.getlist("unlike")[:20]
        self.beams = _number(query.get("beams", ""), MAX_BEAMS)
        self.page = _number(query.get("page", ""), LAST_PAGE) or 1
        self.cursor = query.get("cursor", "")

    @property
    def parts(self) -> dict[str, Any]:
        """Everything but the page."""
        names = ("q", "where", "sort", "scores", "beams", "like", "unlike")
        return {name: getattr(self, name) for name in names}

    @property
    def searches(self) -> bool:
        return bool(self.q or self.like)

    def to(self, **changes: Any) -> str:
        return html.link("/", self.parts, **changes)


def _number(text: str, most: int) -> int | None:
    return min(most, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 and int(text) else None


@router.get("/")
@page
async def search_page(request: Request) -> Response:
    state, asked = request.app.state, Asked(request)
    values: dict[str, Any] = {
        "asked": asked, "problem": "", "reply": None, "images": [], "following": None, "named": {},
        "is_waiting": False, "total": await run_in_threadpool(state.listing.count),
    }  # fmt: skip
    try:
        if asked.like or asked.unlike:
            rows = await run_in_threadpool(state.listing.rows, _ids([*asked.like, *asked.unlike]))
            values["named"] = {str(row.key): thumb(state.listing, row) for row in rows}
        if asked.searches:
            if asked.where:
                await run_in_threadpool(state.listing.check, asked.where)
            return StreamingResponse(
                _in_two_parts(request, asked, values), media_type="text/html", headers={"Cache-Control": "no-store"}
            )
        sort = asked.sort if asked.sort in ("oldest", "name") else "newest"
        listed = await run_in_threadpool(state.listing.page, asked.where, sort, PER_PAGE, asked.cursor)
        images = await run_in_threadpool(lambda: [thumb(state.listing, row) for row in listed.rows])
        values |= {"images": images, "following": listed.next, "total": listed.total}
    except (Refused, GenretError) as error:
        refused = _refused(error)
        return html.render(request, "search.html", refused.status_code, **values | {"problem": refused.message})
    return html.render(request, "search.html", **values)


async def _in_two_parts(request: Request, asked: Asked, values: dict[str, Any]) -> AsyncIterator[str]:
    """The page of a search: what does not depend on it is sent at once, so that the browser has read its style and
    script when the pictures come. What is wrong only then, such as a full queue, is said in the page."""
    searching = asyncio.ensure_future(_found(request, asked))
    try:
        await asyncio.sleep(0.001)  # the model begins first; it takes longer than all that a browser does meanwhile
        first, last = html.text_of(request, "search.html", **values | {"is_waiting": True}).split(html.LATER)
        yield first
        try:
            reply, more = await searching
            values |= {"reply": reply, "images": reply.hits, "following": asked.page + 1 if more else None}
        except (Refused, GenretError) as error:
            values["problem"] = _refused(error).message
        yield html.text_of(request, "results.html", **values) + last
    finally:
        searching.cancel()


def _refused(error: Exception) -> Refused:
    refused = refusal_of(error)
    assert refused is not None
    return refused


async def _found(request: Request, asked: Asked) -> tuple[SearchReply, bool]:
    """One page of a search, and whether there are more."""
    listing, end = request.app.state.listing, asked.page * PER_PAGE
    is_ordered = asked.sort in ORDERS
    want = MOST if is_ordered else end
    wanted = SearchRequest(
        q=asked.q, k=want, where=asked.where, num_beams=asked.beams, like=_ids(asked.like), unlike=_ids(asked.unlike)
    )
    found = await search_one(request, wanted)
    if is_ordered:
        reply = (await run_in_threadpool(search_replies, listing, [found]))[0]
        reply.hits = sorted(reply.hits, key=ORDERS[asked.sort])[end - PER_PAGE : end]
    else:
        shown = found._replace(hits=found.hits[end - PER_PAGE :])
        reply = (await run_in_threadpool(search_replies, listing, [shown]))[0]
    return reply, len(found.hits) >= end + is_ordered and asked.page < LAST_PAGE


def _ids(names: list[str]) -> list[str]:
    for name in names:
        if not (name.isascii() and name.isdigit() and len(name) <= 18):
            raise UsageError(f"'{name[:40]}' names no picture; links of the page have the right names")
    return names


@router.post("/picture")
@page
async def picture_search(
    request: Request, image: Annotated[UploadFile, File()], where: Annotated[str, Form(max_length=2000)] = ""
) -> Response:
    """The part of the search page that shows what is like a picture, for the script."""
    reply = await search_picture(request, image, PER_PAGE, where)
    return html.render(request, "found.html", asked=Asked(request), reply=reply, images=reply.hits)


@router.get("/image/{name}")
@page
async def image_page(request: Request, name: str) -> Response:
    state = request.app.state
    (name,) = _ids([name])
    image = await run_in_threadpool(lambda: image_reply(state.listing, state.listing.row(name)))
    alone = request.query_params.get("part") != "1"
    return html.render(request, "image.html" if alone else "details.html", image=image, asked=Asked(request))


@router.get("/explain")
@page
async def explain_page(request: Request) -> Response:
    state, asked = request.app.state, Asked(request)
    name = request.query_params.get("image", "")
    values: dict[str, Any] = {"told": None, "right": None, "levels": [], "hits": {}, "opened": None}
    if name:
        values["right"] = await run_in_threadpool(lambda: thumb(state.listing, state.listing.row(_ids([name])[0])))
    if asked.q:
        told = await explained(request, asked.q, name or None, asked.beams)
        values["told"] = told
        values["opened"] = opened = _number(request.query_params.get("level", ""), 10_000)
        values["levels"] = await run_in_threadpool(level_views, state.listing, told, opened)
        values["hits"] = await run_in_threadpool(thumbs, state.listing, [hit.image_id for hit in told.hits])
    return html.render(request, "explain.html", asked=asked, **values)


@router.get("/codebook")
@page
async def codebook_page(request: Request) -> Response:
    state = request.app.state
    symbols = [part for part in request.query_params.get("prefix", "").split(".") if part][:64]
    books = _kept(request, "codebooks", Codebooks)
    node, known = await run_in_threadpool(books.node, state.listing, symbols)
    number, last = Asked(request).page, -(-len(node.children) // BRANCHES) or 1
    number = min(number, last)
    shown = node.children[BRANCHES * (number - 1) : BRANCHES * number]
    values = {"node": node, "known": known, "shown": shown, "number": number, "last": last}
    return html.render(request, "codebook.html", asked=Asked(request), **values)


@router.get("/compare")
@page
async def compare_page(request: Request) -> Response:
    state, asked = request.app.state, Asked(request)
    rivals = _kept(request, "rivals", lambda: Rivals(state.run))
    names = await run_in_threadpool(rivals.names)
    name = request.query_params.get("with", names[0])
    values: dict[str, Any] = {"names": names, "name": name, "both": None, "sides": []}
    if asked.q:
        if name not in names:
            raise UsageError("there is no finished run of this name beside the one that is served")
        words = query_words(asked.q, "the query")

        def both() -> Any:
            own = (state.run.folder.name, lambda query, k: state.run.search(query, k))
            return side_by_side(words, own, (name, rivals.search(name)), 12)

        values["both"] = told = await unless_gone(request, state.engine.call(both))
        sides = [told.left, told.right]
        values["sides"] = await run_in_threadpool(lambda: [side_view(state.listing, side) for side in sides])
    return html.render(request, "compare.html", asked=asked, **values)


def _kept(request: Request, name: str, make: Callable[[], Any]) -> Any:
    """A part of the page that lives as long as the server."""
    parts = request.app.state
    if not hasattr(parts, name):
        setattr(parts, name, make())
    return getattr(parts, name)


@router.get("/static/{name}")
async def static_file(request: Request, name: str) -> Response:
    if name not in html.STATIC:
        raise Refused(404, "there is no such file")
    # pages themselves are not compressed: they hold a secret, the token, beside words of the address (BREACH)
    packed = "gzip" in request.headers.get("accept-encoding", "")
    data = await asyncio.to_thread(html.packed if packed else html.static, name)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    return Response(data, 200, headers | ({"Content-Encoding": "gzip"} if packed else {}), html.STATIC[name])


@router.get("/favicon.ico")
async def favicon(request: Request) -> Response:
    return await static_file(request, "icon.svg")
