"""The server itself: health, metrics, the run it serves, the page's token."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from genret.serve.errors import documented
from genret.serve.schemas import RunReply, StatusReply, TokenReply

router = APIRouter(tags=["server"])


async def when_ready(request: Request) -> None:
    """`Refused` 503 until the model is loaded; only the model's thread loads it."""
    request.app.state.engine.check_ready()


@router.get("/healthz", responses=documented(is_open=True), operation_id="healthz", summary="Is the process alive?")
async def healthz() -> StatusReply:
    return StatusReply(status="ok")


@router.get("/readyz", responses=documented(503, is_open=True), operation_id="readyz", summary="Is the model loaded?")
async def readyz(request: Request) -> StatusReply:
    await when_ready(request)
    return StatusReply(status="ready")


@router.get(
    "/metrics",
    responses={
        **documented(503),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Figures for Prometheus"},
    },
    operation_id="metrics",
    response_class=Response,
    summary="Figures for Prometheus",
)
def metrics(request: Request) -> Response:
    state = request.app.state
    if state.engine.ready:
        state.metrics.images.set(state.listing.count())
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get(
    "/v1/run",
    responses=documented(503),
    dependencies=[Depends(when_ready)],
    operation_id="get_run",
    summary="The run that is served",
)
def get_run(request: Request) -> RunReply:
    state = request.app.state
    run, retriever = state.run, state.run.retriever
    return RunReply(
        name=run.folder.name,
        retriever=run.recipe.retriever.type,
        images=state.listing.count(),
        num_beams=retriever.num_beams,
        has_confidence=retriever.confidence is not None,
        identifier=None if run.recipe.identifier is None else run.recipe.identifier.type,
        figures=run.figures,
    )


@router.get("/v1/token", responses=documented(), operation_id="get_token", summary="A token for calls that change")
async def get_token(request: Request) -> TokenReply:
    """Pages of other sites cannot read this answer."""
    return TokenReply(token=request.app.state.access.page_token())
