"""Templates, and the few things that they cannot say themselves."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from genret.kit.images import content_hash
from genret.kit.text import clean
from genret.serve.schemas import MAX_BEAMS

STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


@cache
def static(name: str) -> bytes:
    """One of the files of `STATIC`."""
    return files("genret.serve.page").joinpath("static", name).read_bytes()


@cache
def packed(name: str) -> bytes:
    """The same, compressed by gzip."""
    return gzip.compress(static(name), mtime=0)


@cache
def versioned(name: str) -> str:
    """The address of a static file, with a key of its content, so that browsers may keep it."""
    return f"/static/{name}?v={content_hash(static(name))[:12]}"


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("genret.serve.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    made.globals |= {"static": versioned, "link": link}
    made.filters |= {"title_of": title_of, "number": number, "short_path": short_path}
    return made


LATER = "<!--later-->"
"""Where the second part of a page goes that is sent in two."""


def render(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A template as an answer."""
    return HTMLResponse(text_of(request, template, **values), status, {"Cache-Control": "no-store"})


def text_of(request: Request, template: str, **values: Any) -> str:
    """A template with its values; every one knows the run and what it can do."""
    state = request.app.state
    ready = state.engine.ready
    retriever = state.run.retriever if ready else None
    return (
        environment()
        .get_template(template)
        .render(
            run_name=state.run.folder.name,
            page_token=state.access.page_token(),
            may_change=state.options.allow_changes and ready,
            explains=retriever is not None and retriever.has_explanation,
            has_codes=retriever is not None and bool(state.run.components.identifier),
            max_beams=MAX_BEAMS,
            later=LATER,
            **values,
        )
    )


def link(path: str, parts: Mapping[str, Any], **changes: Any) -> str:
    """An address with the parts that say something; `changes` replace parts, None removes one."""
    told = {name: value for name, value in {**parts, **changes}.items() if value not in (None, "", [], False)}
    words = urlencode({name: 1 if value is True else value for name, value in told.items()}, doseq=True)
    return f"{path}?{words}" if words else path


def title_of(image: Any) -> str:
    """What people call a picture: its name, or the last part of where it lives."""
    name = image.metadata.get("name")
    return str(name) if name else PurePosixPath(image.uri.replace("\\", "/")).name or image.image_id


def short_path(uri: str) -> str:
    """The last parts of a long path."""
    parts = uri.replace("\\", "/").split("/")
    return uri if len(parts) <= 4 else "…/" + "/".join(parts[-3:])


def number(value: float, digits: int = 2) -> str:
    """With a typographic minus sign."""
    return f"{value:,.{digits}f}".replace("-", "−")
