"""The endpoints of clip-retrieval's backend, for programs written for it (github.com/rom1504/clip-retrieval)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from genret.api import Query, Restriction, SearchResult
from genret.kit.images import decode_image
from genret.serve.errors import Refused, documented
from genret.serve.replies import search_replies
from genret.serve.routes.search import search_one, similar, unless_gone
from genret.serve.schemas import MAX_K, MAX_QUERY, SearchRequest, Strict

router = APIRouter(tags=["clip-retrieval"], strict_content_type=False)  # its client states no type


class KnnRequest(Strict):
    """What clip-retrieval's client sends. Fields that are not here are ignored, as are filters that genret lacks."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    text: Annotated[str, Field(max_length=MAX_QUERY)] | None = None
    """Words"""
    image: str | None = None
    """A picture, base64"""
    image_url: str | None = None
    """Refused: this server fetches nothing"""
    embedding_input: list[float] | None = None
    """Refused: vectors of other models mean nothing here"""
    num_images: int = Field(40, ge=1, le=1000)
    num_result_ids: int | None = Field(None, ge=1)
    """Without effect: ids and metadata are always sent together"""


class KnnHit(BaseModel):
    id: int
    similarity: float
    """The search's score; of generative runs a log-probability, so negative"""
    url: str
    """Address of the picture on this server"""
    image_path: str
    caption: str | None


@router.post(
    "/knn-service",
    responses=documented(400, 408, 422, 429, 503),
    operation_id="knn_service",
    summary="Search as clip-retrieval does",
)
async def knn_service(request: Request, asked: KnnRequest) -> list[KnnHit]:
    state = request.app.state
    if asked.image_url is not None or asked.embedding_input is not None:
        raise Refused(400, "image_url and embedding_input are not taken: send `text`, or `image` in base64")
    if (asked.text is None or not asked.text.strip()) == (asked.image is None):
        raise Refused(400, "send `text`, or `image` in base64, and not both")
    k = min(asked.num_images, MAX_K)
    if asked.image is None:
        found = await search_one(request, SearchRequest(q=asked.text or "", k=k))
    else:
        found = await _by_picture(request, asked.image, k)
    reply = (await run_in_threadpool(search_replies, state.listing, [found]))[0]
    return [
        KnnHit(
            id=int(hit.id), similarity=hit.score, url=str(request.base_url).rstrip("/") + hit.file,
            image_path=hit.uri, caption=_caption(hit.metadata),
        )
        for hit in reply.hits
    ]  # fmt: skip


@router.get("/indices-list", responses=documented(503), operation_id="indices_list", summary="The run's name")
def indices_list(request: Request) -> list[str]:
    return [request.app.state.run.folder.name]


async def _by_picture(request: Request, encoded: str, k: int) -> SearchResult:
    state = request.app.state
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "`image` is not base64") from None
    picture = await run_in_threadpool(decode_image, data, "the picture")
    call = state.engine.call(similar(state.run, Query(image=picture), k, Restriction()))
    found: SearchResult = await unless_gone(request, call)
    return found


def _caption(metadata: dict[str, object]) -> str | None:
    return next((str(metadata[key]) for key in ("caption", "title", "name") if metadata.get(key)), None)
