"""Requests and answers, as the OpenAPI document describes them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

MAX_QUERY = 1000
"""Characters of one query."""
MAX_QUERIES = 64
"""Queries in one batch request."""
MAX_K = 200
"""Most pictures of one search."""
MAX_BEAMS = 200
"""Widest search that a request may ask for."""


Opaque = Annotated[
    str, Field(pattern=r"^[0-9]{1,18}$", description="The opaque id of a picture, as an answer named it.")
]
Where = Annotated[str, Field(max_length=2000, description="A filter over metadata, such as `year > 2020`.")]


def has_words(text: str) -> bool:
    r"""As the pattern `\S` of the OpenAPI document has it."""
    return re.search(r"\S", text, re.ASCII) is not None


def _words(text: str) -> str:
    if not has_words(text):
        raise ValueError("give words")
    return text


Words = Annotated[
    str, Field(min_length=1, max_length=MAX_QUERY, json_schema_extra={"pattern": r"\S"}), AfterValidator(_words)
]
NumBeams = Annotated[int, Field(ge=1, le=MAX_BEAMS)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would take true for 1
            raise ValueError("neither true nor false is expected here")
        return value


class SearchOptionsModel(Strict):
    k: int = Field(24, ge=1, le=MAX_K)
    """How many pictures."""
    num_beams: NumBeams | None = None
    """Beams of the search; more is slower and finds more. Default: the recipe's."""
    min_confidence: float | None = Field(None, ge=0, le=1)
    """Nothing is found if the calibrated confidence is below this."""
    where: Where = ""


class SearchRequest(SearchOptionsModel):
    q: str = Field("", max_length=MAX_QUERY)
    """What the picture shows, in words."""
    like: list[Opaque] = Field([], max_length=20)
    """Pictures that the result is to resemble; with `q`, both count."""
    unlike: list[Opaque] = Field([], max_length=20)
    """Pictures that are left out with similar ones."""
    only: list[Opaque] | None = Field(None, max_length=10_000)
    """Only these pictures."""
    without: list[Opaque] = Field([], max_length=10_000)
    """Not these pictures."""
    unlike_symbols: int = Field(2, ge=1, le=100)
    """Number of first codes that similar pictures share, for `unlike`."""


class BatchRequest(SearchOptionsModel):
    queries: list[Words] = Field(min_length=1, max_length=MAX_QUERIES)
    """The queries, in words."""


class Thumb(BaseModel):
    id: str
    """Opaque id"""
    image_id: str
    """The id in the run's catalog; of indexed files their path"""
    uri: str
    """Where the picture lives, as shown to people"""
    metadata: dict[str, Any]
    thumbnail: str
    """Address of a small WebP copy"""
    file: str
    """Address of the picture itself"""
    width: int | None
    """Of the thumbnail, in pixels; null without one"""
    height: int | None


class HitReply(Thumb):
    rank: int
    """From 1"""
    score: float
    """Higher is better"""
    identifier: list[str] | None
    """The symbols by which it was reached; null for retrievers without identifiers"""


class SearchReply(BaseModel):
    query: str
    hits: list[HitReply]
    num_beams: int | None
    elapsed_ms: float
    """This query's share of the model step"""
    confidence: float | None


class BatchReply(BaseModel):
    results: list[SearchReply]
    """In the order asked"""


class ImageReply(Thumb):
    split: str | None
    """The dataset's split; null for pictures that were added"""
    captions: list[str]
    identifiers: list[list[str]]
    """The symbols of each of its identifiers"""


class ImagesReply(BaseModel):
    images: list[Thumb]
    next: str | None
    """The `cursor` of the next page; null on the last"""
    total: int
    """Pictures that fit the filter"""


class RemovedReply(BaseModel):
    id: str
    undo: str
    """Send this to /v1/images/restore within ten minutes to bring the picture back"""


class RestoreRequest(Strict):
    undo: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")


class RestoredReply(BaseModel):
    id: str
    """The picture's new opaque id"""


class PathsRequest(Strict):
    paths: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(min_length=1, max_length=1000)
    """Files or folders of the server, below those that it was started with"""


class RunReply(BaseModel):
    name: str
    retriever: str
    images: int
    num_beams: int | None
    """Default beam width; null for retrievers without beams"""
    has_confidence: bool
    identifier: str | None
    figures: dict[str, Any] | None
    """The evaluation at the end of training"""


class TokenReply(BaseModel):
    token: str
    """For the header `X-Genret-Token` of calls that change something; valid for twelve hours"""


class StatusReply(BaseModel):
    status: Literal["ok", "ready"]
