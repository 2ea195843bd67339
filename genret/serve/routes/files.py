"""The bytes of pictures by opaque id: small copies and the pictures themselves; cached, one range at a time."""

from __future__ import annotations

import io
import re
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image

from genret.errors import BadImage
from genret.kit.images import decode_image, read_bytes
from genret.serve.errors import Refused, documented
from genret.serve.routes.images import ImageId

router = APIRouter(tags=["images"])
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif", "AVIF": "image/avif"}
"""Formats that every browser shows; others are sent as WebP."""
CACHE = "private, max-age=86400, immutable"
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
BINARY = {"schema": {"type": "string", "format": "binary"}}
FILE_REPLIES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture", "content": dict.fromkeys(TYPES.values(), BINARY)},
    206: {"description": "The range asked for", "content": dict.fromkeys(TYPES.values(), BINARY)},
    304: {"description": "The client has this one already"},
}


@router.get(
    "/v1/images/{id}/thumbnail",
    responses={**documented(404, 416, 422, 503), **FILE_REPLIES},
    operation_id="get_thumbnail",
    response_class=Response,
    summary="A small copy",
)
def thumbnail(request: Request, id: ImageId) -> Response:
    listing = request.app.state.listing
    row = listing.row(id)
    small = listing.thumbnail(row.sha256)
    try:
        data = read_bytes(small)
    except BadImage:
        raise Refused(404, "this picture has no thumbnail", "no_file") from None
    return _sent(request, data, "image/webp" if small.suffix == ".webp" else "image/jpeg", f"{row.sha256[:32]}-t")


@router.get(
    "/v1/images/{id}/file",
    responses={**documented(404, 416, 422, 503), **FILE_REPLIES},
    operation_id="get_file",
    response_class=Response,
    summary="The picture itself",
)
def file(request: Request, id: ImageId) -> Response:
    """Only if its bytes are still those that were indexed."""
    listing = request.app.state.listing
    row = listing.row(id)
    data = listing.content(row)
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = TYPES.get(image.format or "")
    except Exception:  # a repaired or exotic picture
        kind = None
    if kind is None:
        out = io.BytesIO()
        decode_image(data, row.uri).save(out, "WEBP", quality=90)
        data, kind = out.getvalue(), "image/webp"
    return _sent(request, data, kind, row.sha256[:32])


def _sent(request: Request, data: bytes, kind: str, tag: str) -> Response:
    headers = {
        "ETag": f'"{tag}"',
        "Cache-Control": CACHE,
        "Accept-Ranges": "bytes",
        "Content-Disposition": "inline",
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    }
    if f'"{tag}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range")
    if wanted is None or request.headers.get("if-range", f'"{tag}"') != f'"{tag}"':
        return Response(data, 200, headers, kind)
    start, end = _range(wanted, len(data))
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], 206, headers, kind)


def _range(wanted: str, size: int) -> tuple[int, int]:
    """The one range of the header as start and end; `Refused` 416 for several, and for one outside the file."""
    match = _RANGE.fullmatch(wanted.strip())
    first, last = match.groups() if match else ("", "")
    if first:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    elif last:
        start, end = max(0, size - int(last)), size
    else:
        start = end = 0
    if start >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Refused(416, f"ask for one range within {size} bytes", headers=headers)
    return start, end
