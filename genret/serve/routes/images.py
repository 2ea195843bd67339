"""/v1/images: lists, one picture with everything known of it, its removal and the undoing of it."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from genret.serve.errors import Refused, documented
from genret.serve.listing import Sort, whole
from genret.serve.replies import image_reply, thumb
from genret.serve.schemas import ImageReply, ImagesReply, RemovedReply, RestoredReply, RestoreRequest, Where

router = APIRouter(tags=["images"])
ImageId = Annotated[str, Path(pattern=r"^[0-9]{1,18}$", description="The opaque id of a picture")]


@router.get("/v1/images", responses=documented(400, 422, 503), operation_id="list_images", summary="List pictures")
def list_images(
    request: Request,
    where: Annotated[Where, Query()] = "",
    sort: Annotated[Sort, Query()] = "newest",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str, Query(pattern=r"^[0-9]{0,18}$", description="The `next` of the page before")] = "",
) -> ImagesReply:
    listing = request.app.state.listing
    page = listing.page(where, sort, limit, cursor)
    return ImagesReply(images=[thumb(listing, row) for row in page.rows], next=page.next, total=page.total)


@router.api_route("/v1/images/restore", methods=["GET", "HEAD", "PUT", "PATCH", "DELETE"], include_in_schema=False)
def restore_otherwise() -> None:
    """Without this, `restore` would be read as the id of a picture."""
    raise Refused(405, "this address takes POST alone", headers={"Allow": "POST"})


@router.get(
    "/v1/images/{id}", responses=documented(404, 422, 503), operation_id="get_image", summary="One picture, whole"
)
def get_image(request: Request, id: ImageId) -> ImageReply:
    listing = request.app.state.listing
    return image_reply(listing, listing.row(id))


@router.delete(
    "/v1/images/{id}", responses=documented(404, 422, 429, 503), operation_id="remove_image", summary="Remove a picture"
)
def remove_image(request: Request, id: ImageId) -> RemovedReply:
    """Removes it from what is searched; its file stays where it is."""
    state = request.app.state
    changes_allowed(request)
    row = state.listing.row(id)
    kept = whole(state.listing, row)
    if not state.run.remove([row.image_id]).removed:
        raise Refused(404, "there is no such picture, or not any more")
    name = secrets.token_urlsafe(12)
    state.undo.keep(name, kept)
    return RemovedReply(id=id, undo=name)


@router.post(
    "/v1/images/restore",
    responses=documented(400, 404, 408, 409, 415, 422, 429, 503),
    operation_id="restore_image",
    summary="Undo a removal",
)
def restore_image(request: Request, asked: RestoreRequest) -> RestoredReply:
    state = request.app.state
    changes_allowed(request)
    image = state.undo.take(asked.undo)
    if not state.run.retriever.catalog.add([image]).added:
        raise Refused(409, "the picture is there already")
    return RestoredReply(id=str(state.listing.keys_of([image.image_id])[0]))


def changes_allowed(request: Request) -> None:
    if not request.app.state.options.allow_changes:
        raise Refused(403, "this server was started with --read-only", "read_only")
