"""/v1/explain: one search, level by level; the same function as `Run.explain`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from genret.api import SearchResult
from genret.components.retrievers.explanation import Explanation
from genret.serve.errors import documented
from genret.serve.replies import search_replies
from genret.serve.routes.search import unless_gone
from genret.serve.schemas import MAX_K, HitReply, NumBeams, Opaque, Strict, Words
from genret.toolbox.words import query_words

router = APIRouter(tags=["search"])
ERRORS = documented(400, 404, 422, 429, 503)
BODY_ERRORS = documented(400, 404, 408, 415, 422, 429, 503)


class ExplainRequest(Strict):
    q: Words
    """What the picture shows, in words."""
    image: Opaque | None = None
    """A picture that is followed through the levels."""
    k: int = Field(10, ge=1, le=MAX_K)
    """How many pictures."""
    num_beams: NumBeams | None = None
    """Beams of the search. Default: the recipe's."""


class PrefixReply(BaseModel):
    symbols: list[str]
    rank: int
    """From 1, by score, among the candidates of its level"""
    is_kept: bool
    is_right: bool
    """Whether it leads to the picture asked for"""
    score: float
    """`log_prob` plus `guidance`"""
    log_prob: float
    guidance: float
    num_images: int
    """Pictures below"""
    image_ids: list[str]
    """A few of them"""


class LevelReply(BaseModel):
    level: int
    """From 1"""
    num_candidates: int
    num_kept: int
    cutoff: float
    """The score of the last prefix kept"""
    prefixes: list[PrefixReply]


class ExplainReply(BaseModel):
    query: str
    num_beams: int
    guidance: float
    """The weight of the query's own vector; 0: the language model alone"""
    levels: list[LevelReply]
    hits: list[HitReply]
    image_id: str | None
    """The picture asked for"""
    rank: int | None
    right_score: float | None
    lost_at: str | None
    """Why the picture asked for is not among the hits: `level 1` …, `rank`, `collision`, `rerank`, `no identifier`"""


@router.get("/v1/explain", responses=ERRORS, operation_id="explain", summary="A search, level by level")
async def explain_get(request: Request, asked: Annotated[ExplainRequest, Query()]) -> ExplainReply:
    return await _reply(request, asked)


@router.post("/v1/explain", responses=BODY_ERRORS, operation_id="explain_json", summary="A search, level by level")
async def explain_post(request: Request, asked: ExplainRequest) -> ExplainReply:
    return await _reply(request, asked)


async def explained(
    request: Request, query: str, image: str | None = None, num_beams: int | None = None, k: int = 10
) -> Explanation:
    """In the model's thread; `image`: an opaque id."""
    state = request.app.state
    words = query_words(query, "the query")
    row = None if image is None else await run_in_threadpool(state.listing.row, image)

    def work() -> Explanation:
        found: Explanation = state.run.explain(words, row and row.image_id, num_beams=num_beams, k=k)
        return found

    told: Explanation = await unless_gone(request, state.engine.call(work))
    return told


async def _reply(request: Request, asked: ExplainRequest) -> ExplainReply:
    told = await explained(request, asked.q, asked.image, asked.num_beams, asked.k)
    found = SearchResult(told.query, told.hits, told.num_beams, 0.0)
    hits = (await run_in_threadpool(search_replies, request.app.state.listing, [found]))[0].hits
    return ExplainReply(**{**told.as_json(), "hits": hits})
