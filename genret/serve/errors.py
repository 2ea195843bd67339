"""Every error of the API has one shape: `{"error": {"code": ..., "message": ...}}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from genret.errors import BadImage, GenretError, UsageError
from genret.kit.text import clean

log = logging.getLogger(__name__)


class ErrorDetail(BaseModel):
    code: str
    """A word for programs, such as `not_found`."""
    message: str
    """One sentence for people."""


class ErrorReply(BaseModel):
    error: ErrorDetail


FORMS = ("/v1/index", "/v1/search/picture")
"""Addresses that take a form with files; others take JSON."""
CODES = {
    400: ("bad_request", "The request means nothing: the message says what to change."),
    401: ("token_needed", "A token is needed: `Authorization: Bearer TOKEN`."),
    403: ("forbidden", "Another site's page asked, or the page token is missing or outdated."),
    404: ("not_found", "There is no such picture, or not any more."),
    405: ("method_not_allowed", "This address has no such method."),
    408: ("too_slow", "The request did not arrive in time."),
    409: ("conflict", "The picture is there already."),
    413: ("too_large", "The request is larger than allowed."),
    415: ("media_type", "The body is of another type than the one expected."),
    416: ("range", "Only one range within the file can be read."),
    421: ("wrong_host", "The Host header names another server."),
    422: ("invalid", "A parameter or the body is invalid: the message says which."),
    429: ("too_many", "Too many requests; `Retry-After` says how many seconds to wait."),
    500: ("internal", "A bug in genret; the server's log has more."),
    503: ("not_ready", "The model is being loaded, or the search took too long."),
}
"""By status: the code and what it means, for the OpenAPI document."""


class Refused(HTTPException):
    """An answer with an error."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(status, message, dict(headers or {}))
        self.message, self.code = message, code or CODES[status][0]

    def reply(self) -> JSONResponse:
        body = {"error": {"code": self.code, "message": clean(self.message)}}
        return JSONResponse(body, self.status_code, {"Cache-Control": "no-store", **(self.headers or {})})


def documented(*statuses: int, is_open: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: what it may answer besides success. `is_open`: without a token, too."""
    always = (403, 413, 421) if is_open else (401, 403, 413, 421)
    return {status: {"model": ErrorReply, "description": CODES[status][1]} for status in sorted({*always, *statuses})}


def refusal_of(error: Exception) -> Refused | None:
    """Errors that a person can cause; None for bugs."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BadImage):
        return Refused(400, str(error), "bad_image")
    if isinstance(error, UsageError):
        return Refused(400, str(error))
    if isinstance(error, GenretError):
        return Refused(503, str(error), "unavailable", {"Retry-After": "1"})
    return None


def handle_errors(app: FastAPI) -> None:
    """Gives every error of `app` the one shape."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return error.reply()

    @app.exception_handler(GenretError)
    async def failed(request: Request, error: GenretError) -> JSONResponse:
        found = refusal_of(error)
        assert found is not None
        return found.reply()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if any(one["loc"][0] == "body" for one in error.errors()) and (wanted := _other_type(request)):
            return Refused(415, f"the body is expected as {wanted}").reply()
        said = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()[:5])
        return Refused(422, said).reply()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        status = error.status_code if error.status_code in CODES else 400
        headers = {"Allow": ", ".join(_methods(request))} if status == 405 else error.headers
        return Refused(status, str(error.detail), headers=headers).reply()

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return Refused(500, "a bug in genret: the server's log says more").reply()


def _methods(request: Request) -> list[str]:
    """What this address takes; several routes may share it."""
    routes = [route for router in request.app.state.routers for route in router.routes if route.include_in_schema]
    exact = [route for route in routes if route.path == request.url.path]
    found = exact or [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in found for method in route.methods})


def _other_type(request: Request) -> str:
    """The media type that the route expects, if the request has another; empty if it fits."""
    wanted = "multipart/form-data" if request.url.path in FORMS else "application/json"
    given = request.headers.get("content-type", wanted).partition(";")[0].strip().lower()
    return "" if given == wanted else wanted
