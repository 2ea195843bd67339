"""A run on another machine, with the methods of `genret.load`.

run = genret.connect("http://127.0.0.1:8000")
for hit in run.search("red heart", k=5).hits:
    print(hit.rank, hit.image_id, hit.score)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from genret.api import Hit, IndexReport, Restriction, SearchResult, Silent, Skipped, Ui
from genret.errors import GenretError, UsageError, one_line
from genret.kit.text import clean
from genret.toolbox.walk import walk_images

if TYPE_CHECKING:
    from httpx import Client, Response

FILES_AT_A_TIME = 50
BYTES_AT_A_TIME = 128 * 2**20
"""How much one upload holds, below the server's limits."""
BATCH = 64


def connect(url: str, token: str | None = None, timeout: float = 60) -> RemoteRun:
    """Opens a run that `genret serve` serves at `url`. `token`: as the server asks for, default that of the variable
    GENRET_SERVE_TOKEN; `timeout`: seconds for a reply, and until a busy server is given up. Needs the extra `serve`."""
    try:
        import httpx
    except ImportError:
        raise GenretError("genret.connect needs further packages: pip install 'genret[serve]'") from None
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"'{url}' is no address of a server; it begins with http:// or https://")
    token = token or os.environ.get("GENRET_SERVE_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return RemoteRun(httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout))


class RemoteRun:
    """A run behind an address; created by `connect`. Errors of the server are raised as genret's own."""

    def __init__(self, http: Client):
        self._http = http
        self._page_token: str | None = None
        self.about = self._json("GET", "/v1/run")
        """What the server says of its run: `name`, `retriever`, `images`, `num_beams` and more."""

    @property
    def figures(self) -> dict[str, Any] | None:
        """The evaluation at the end of training, as `Run.figures`; None without captions."""
        figures: dict[str, Any] | None = self.about["figures"]
        return figures

    # ----------------------------------------------------------------------------------------------------- searching
    @overload
    def search(self, query: str, k: int = ..., **options: Any) -> SearchResult: ...

    @overload
    def search(self, query: Sequence[str], k: int = ..., **options: Any) -> list[SearchResult]: ...

    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        *,
        where: str = "",
        restrict: Restriction | None = None,
        **options: Any,
    ) -> SearchResult | list[SearchResult]:
        """As `Run.search`; further options are `num_beams` and `min_confidence`. With `restrict`, each query is a
        request of its own."""
        if where and restrict is not None:
            raise UsageError("give `where` or `restrict`, not both; a Restriction has a field `where`")
        options |= {"k": k, "where": where}
        queries = [query] if isinstance(query, str) else list(query)
        if restrict is not None:
            asked = options | self._restriction(restrict)
            found = [_result(self._json("POST", "/v1/search", json=asked | {"q": one})) for one in queries]
        elif isinstance(query, str):
            found = [_result(self._json("POST", "/v1/search", json=options | {"q": query}))]
        else:
            found = []
            for start in range(0, len(queries), BATCH):
                asked = options | {"queries": queries[start : start + BATCH]}
                found += map(_result, self._json("POST", "/v1/search/batch", json=asked)["results"])
        return found[0] if isinstance(query, str) else found

    def search_picture(self, image: Path | str, k: int = 10, *, where: str = "") -> SearchResult:
        """The k images that resemble this one most."""
        with Path(image).expanduser().open("rb") as stream:
            files = {"image": (Path(image).name, stream)}
            return _result(self._json("POST", "/v1/search/picture", data={"k": k, "where": where}, files=files))

    def _restriction(self, one: Restriction) -> dict[str, Any]:
        named = {"without": one.without, "unlike": one.unlike}
        found = {name: self._opaque(ids) for name, ids in named.items()}
        only = None if one.only is None else self._opaque(one.only)
        return {"where": one.where, "only": only, "unlike_symbols": one.unlike_symbols, **found}

    def _opaque(self, image_ids: Sequence[str]) -> list[str]:
        ids = [self._opaque_id(name) for name in image_ids]
        if None in ids:
            shown = clean(image_ids[ids.index(None)])
            raise UsageError(f"no searchable image has the id '{shown}'; ids are the `image_id` of what a search finds")
        return [one for one in ids if one is not None]

    def _opaque_id(self, image_id: str) -> str | None:
        quoted = image_id.replace("\\", "\\\\").replace('"', '\\"')
        found = self._json("GET", "/v1/images", params={"where": f'image_id = "{quoted}"', "limit": 1})["images"]
        return found[0]["id"] if found else None

    def explain(self, query: str, image_id: str | None = None, **options: Any) -> Any:
        """How a search goes, level by level, and where an image is lost, as JSON; options: `num_beams`, `k`."""
        image = None if image_id is None else self._opaque([image_id])[0]
        return self._json("POST", "/v1/explain", json={"q": query, "image": image, **options})

    def images(self, where: str = "", sort: str = "newest") -> Iterator[Mapping[str, Any]]:
        """All images that fit a filter, as the server lists them."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._json(
                "GET", "/v1/images", params={"where": where, "sort": sort, "cursor": cursor, "limit": 200}
            )
            yield from page["images"]
            cursor = page["next"]

    # ------------------------------------------------------------------------------------------------------ changing
    def index(self, paths: Sequence[Path | str] | Path | str, ui: Ui | None = None) -> IndexReport:
        """Sends images of this machine, and all below folders, to the server; unusable files are reported."""
        ui, report = ui or Silent(), IndexReport(0, 0, [])
        given = [Path(path).expanduser() for path in ([paths] if isinstance(paths, Path | str) else paths)]
        absent = [Skipped(str(path), "it does not exist") for path in given if not path.exists()]
        files = list(walk_images([path for path in given if path.exists()]))
        with ui.progress("sending pictures", len(files)) as bar:
            for batch in _batches(files):
                report = report.plus(self._send(batch))
                bar.advance(len(batch))
        return report._replace(skipped=[*absent, *report.skipped])

    def _send(self, files: Sequence[Path]) -> IndexReport:
        skipped = list[Skipped]()
        with ExitStack() as opened:
            parts = []
            for file in files:
                try:
                    parts.append(("files", (file.name, opened.enter_context(file.open("rb")))))
                except OSError as error:
                    skipped.append(Skipped(str(file), f"{file} cannot be read: {error.strerror or error}"))
            if not parts:
                return IndexReport(0, 0, skipped)
            reply = self._request("POST", "/v1/index", files=parts, headers=self._changing())
        last = json.loads(reply.text.splitlines()[-1])
        if last.pop("event") != "done":
            raise GenretError(f"{self._http.base_url}: {last['message']}")
        told = [Skipped(**one) for one in last.pop("skipped")]
        return IndexReport(**last, skipped=[*skipped, *told])

    def remove(self, names: Sequence[str]) -> IndexReport:
        """Removes images by id; unknown ids are reported as skipped."""
        removed, skipped = 0, list[Skipped]()
        for name in names:
            if (opaque := self._opaque_id(name)) is None:
                skipped.append(Skipped(name, "there is no image of this id"))
            else:
                self._json("DELETE", f"/v1/images/{opaque}", headers=self._changing())
                removed += 1
        return IndexReport(0, removed, skipped)

    def _changing(self) -> dict[str, str]:
        """The headers of a call that changes something."""
        if "authorization" in self._http.headers:
            return {}
        return {"X-Genret-Token": self._json("GET", "/v1/token")["token"]}

    # ------------------------------------------------------------------------------------------------------- asking
    def _request(self, method: str, path: str, **options: Any) -> Response:
        import httpx

        until = time.monotonic() + (self._http.timeout.read or 0)
        while True:
            try:
                reply = self._http.request(method, path, **options)
            except httpx.HTTPError as error:
                raise GenretError(f"{self._http.base_url} does not answer: {one_line(error)}") from None
            wait = _seconds(reply.headers.get("retry-after", ""))
            if wait is None or time.monotonic() + wait > until:
                break
            time.sleep(wait)
        if reply.is_success:
            return reply
        try:
            message = clean(reply.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            message = f"it answers {reply.status_code}; is it a server of genret?"
        raise (UsageError if reply.status_code in (400, 422) else GenretError)(f"{self._http.base_url}: {message}")

    def _json(self, method: str, path: str, **options: Any) -> Any:
        try:
            return self._request(method, path, **options).json()
        except ValueError:
            raise GenretError(f"{self._http.base_url} answers no JSON; is it a server of genret?") from None

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> RemoteRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RemoteRun({str(self._http.base_url)!r})"


def _seconds(text: str) -> int | None:
    """Of a Retry-After header, which comes with 429 and 503."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def _result(found: Mapping[str, Any]) -> SearchResult:
    hits = [Hit(**{name: one[name] for name in Hit._fields if name in one}) for one in found["hits"]]
    return SearchResult(found["query"], hits, found["num_beams"], found["elapsed_ms"], found["confidence"])


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    batch, size = list[Path](), 0
    for file in files:
        here = file.stat().st_size if file.exists() else 0
        if batch and (len(batch) == FILES_AT_A_TIME or size + here > BYTES_AT_A_TIME):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += here
    if batch:
        yield batch
