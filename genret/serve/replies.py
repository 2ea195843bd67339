"""From rows of the catalog and results of a search to answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genret.api import SearchResult
from genret.catalog.rows import ImageRow
from genret.serve.listing import Listing
from genret.serve.schemas import HitReply, ImageReply, SearchReply, Thumb


def thumb_facts(listing: Listing, row: ImageRow) -> dict[str, Any]:
    """The fields of a `Thumb`."""
    width, height = listing.thumbnail_size(row.sha256) or (None, None)
    address = f"/v1/images/{row.key}"
    return {
        "id": str(row.key), "image_id": row.image_id, "uri": row.uri, "metadata": row.metadata,
        "thumbnail": f"{address}/thumbnail", "file": f"{address}/file", "width": width, "height": height,
    }  # fmt: skip


def thumb(listing: Listing, row: ImageRow) -> Thumb:
    return Thumb(**thumb_facts(listing, row))


def image_reply(listing: Listing, row: ImageRow) -> ImageReply:
    return ImageReply(
        **thumb_facts(listing, row),
        split=row.split,
        captions=listing.captions_of(row.key),
        identifiers=listing.identifiers_of(row.key),
    )


def search_replies(listing: Listing, results: Sequence[SearchResult]) -> list[SearchReply]:
    """Pictures that were removed since the search are left out."""
    rows = iter(listing.named([hit.image_id for result in results for hit in result.hits]))
    replies = []
    for result in results:
        hits = []
        for hit in result.hits:
            if (row := next(rows)) is not None:
                facts = thumb_facts(listing, row)
                hits.append(HitReply(**facts, rank=hit.rank, score=hit.score, identifier=hit.identifier))
        replies.append(
            SearchReply(
                query=result.query, hits=hits, num_beams=result.num_beams, elapsed_ms=result.elapsed_ms,
                confidence=result.confidence,
            )
        )  # fmt: skip
    return replies
