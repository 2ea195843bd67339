"""Every error that the OpenAPI document states for an operation is one that the operation gives, and no other."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from genret.errors import GenretError
from genret.serve.app import create_app
from genret.serve.options import ServeOptions

OWN = "127.0.0.1:8000"
JSON, TEXT = ("content-type", "application/json"), ("content-type", "text/plain")
FORM = ("content-type", "multipart/form-data; boundary=x")
Asked = tuple[str, str, list[tuple[str, str]], bytes]
"""Method, path with query, headers, body."""


def form(name: str, data: bytes) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
    return head.encode() + data + b"\r\n--x--\r\n"


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    return out.getvalue()


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def good(operations: dict[str, tuple[str, str]], image: str) -> dict[str, Asked]:
    """A request of each operation that is answered with success, or needs no more than a state."""
    bodies = {
        "search_json": body(q="a dog"),
        "search_batch": body(queries=["a dog"]),
        "explain_json": body(q="a dog"),
        "restore_image": body(undo="x" * 16),
        "index_paths": body(paths=["/"]),
        "knn_service": body(text="a dog"),
        "search_picture": form("image", png()),
        "index_files": form("files", png()),
    }
    queries = {"search": "?q=dog", "explain": "?q=dog"}
    made = {}
    for name, (method, path) in operations.items():
        headers = [] if name not in bodies else [FORM] if name in ("search_picture", "index_files") else [JSON]
        made[name] = method, path.replace("{id}", image) + queries.get(name, ""), headers, bodies.get(name, b"")
    return made


WRONG: dict[int, dict[str, Callable[[Asked], Asked]]] = {
    400: {
        **dict.fromkeys(
            ("search", "list_images"),
            lambda one: (one[0], f"{one[1]}&where=((".replace("images&", "images?"), *one[2:]),
        ),
        **dict.fromkeys(
            ("search_json", "search_batch", "explain_json", "restore_image", "index_paths"),
            lambda one: (*one[:3], b"\xff"),
        ),
        "explain": lambda one: (one[0], "/v1/explain?q=%1D", *one[2:]),
        "knn_service": lambda one: (*one[:3], b"{}"),
        "search_picture": lambda one: (*one[:3], form("image", b"no picture")),
        "index_files": lambda one: (*one[:3], b"--y"),
    },
    404: {
        **dict.fromkeys(
            ("get_image", "remove_image", "get_thumbnail", "get_file"),
            lambda one: (one[0], one[1].replace("/1", "/999999", 1).replace("/v999999", "/v1"), *one[2:]),
        ),
        "search": lambda one: (one[0], f"{one[1]}&like=999999", *one[2:]),
        "search_json": lambda one: (*one[:3], body(like=["999999"])),
        "explain": lambda one: (one[0], f"{one[1]}&image=999999", *one[2:]),
        "explain_json": lambda one: (*one[:3], body(q="x", image="999999")),
        "restore_image": lambda one: one,
    },
    415: dict.fromkeys(
        (
            "search_json",
            "search_batch",
            "explain_json",
            "restore_image",
            "index_paths",
            "search_picture",
            "index_files",
        ),
        lambda one: (*one[:2], [TEXT], one[3]),
    ),
    416: dict.fromkeys(("get_thumbnail", "get_file"), lambda one: (*one[:2], [("range", "bytes=0-1,2-3")], b"")),
    422: {
        **dict.fromkeys(("search", "explain"), lambda one: (one[0], f"{one[1]}&k=0", *one[2:])),
        "list_images": lambda one: (one[0], f"{one[1]}?limit=0", *one[2:]),
        **dict.fromkeys(
            ("search_json", "search_batch", "explain_json", "restore_image", "index_paths"),
            lambda one: (*one[:3], body(other=1)),
        ),
        "knn_service": lambda one: (*one[:3], body(text="a", num_images=0)),
        "search_picture": lambda one: (*one[:3], form("other", png())),
        "index_files": lambda one: (*one[:3], form("other", png())),
        **dict.fromkeys(
            ("get_image", "remove_image", "get_thumbnail", "get_file"),
            lambda one: (one[0], "/".join("x" if part.isdigit() else part for part in one[1].split("/")), *one[2:]),
        ),
    },
}
"""By status and operation: how its good request is made one that gets this answer."""


async def status_of(app: Any, asked: Asked, *headers: tuple[str, str], arrives: bool = True) -> int:
    """The answer's status. `arrives`: else the body does not."""
    method, target, own, content = asked
    path, _, query = target.partition("?")
    given = dict([("host", OWN), ("content-length", str(len(content))), *own, *headers])
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()], "http_version": "1.1",
        "scheme": "http", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 50000), "root_path": "",
    }  # fmt: skip
    statuses, sent = [], False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent or not arrives:
            await asyncio.sleep(60)
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]


@pytest.fixture
def seen(run, serving, monkeypatch) -> dict[str, set[int]]:
    """The errors that each operation has given, to requests that ask for each kind of trouble."""
    client = serving(run)
    app, document = client.app, client.get("/v1/openapi.json").json()
    token = ("x-genret-token", app.state.access.page_token())
    operations = {
        one["operationId"]: (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    }
    image = client.get("/v1/images", params={"limit": 1}).json()["images"][0]["id"]
    requests = good(operations, image)
    found: dict[str, set[int]] = {name: set() for name in operations}
    document_says.update(
        {
            one["operationId"]: {int(status) for status in one["responses"] if int(status) >= 400}
            for methods in document["paths"].values()
            for one in methods.values()
        }
    )

    def ask(app: Any, name: str, asked: Asked, *headers: tuple[str, str], **options: Any) -> None:
        found[name].add(client.portal.call(lambda: status_of(app, asked, *headers, **options)))

    guarded = create_app(run, ServeOptions(rate=0, token="a-token-of-enough-letters"))
    unready = create_app(run, ServeOptions(rate=0))
    limited = create_app(run, ServeOptions(rate=0.001, burst=1))
    slow = serving(run, timeout=0.05).app
    for name, asked in requests.items():
        ask(guarded, name, asked, token)
        ask(app, name, asked, ("origin", "http://evil.example"))
        ask(app, name, asked, ("host", "evil.example"))
        ask(app, name, asked, ("content-length", str(2**40)), token)
        ask(unready, name, asked, ("x-genret-token", unready.state.access.page_token()))
        for _ in range(2):
            ask(limited, name, asked, ("x-genret-token", limited.state.access.page_token()))
        if asked[3]:
            ask(slow, name, asked, ("x-genret-token", slow.state.access.page_token()), arrives=False)
    for kinds in WRONG.values():
        for name, change in kinds.items():
            ask(app, name, change(requests[name]), token)
    kept = client.delete(f"/v1/images/{image}", headers=dict([token])).json()["undo"]
    for undo in (kept, kept):
        row = app.state.undo._kept[undo]
        ask(app, "restore_image", (*requests["restore_image"][:3], body(undo=undo)), token)
        app.state.undo._kept[undo] = row
    monkeypatch.setattr(app.state.listing, "count", broken)
    ask(app, "metrics", requests["metrics"])
    return found


document_says: dict[str, set[int]] = {}


def broken() -> int:
    raise GenretError("the database is away")


def test_each_documented_error_is_seen_and_no_other(seen):
    wrong = {name: (sorted(document_says[name] - seen[name]), sorted(seen[name] - document_says[name] - {200}))
             for name in seen if seen[name] - {200} != document_says[name]}  # fmt: skip
    assert wrong == {}, "documented and not seen, seen and not documented"
    assert {400, 401, 403, 404, 408, 409, 413, 415, 416, 421, 422, 429, 503} == set.union(*seen.values()) - {200}
