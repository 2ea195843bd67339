"""A small server that speaks the part of the Hugging Face Hub's API that huggingface_hub uses, over real HTTP.

Repositories are lists of commits in memory; large files come by LFS, as on the hub. Every commit keeps all its files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".png", ".jpg", ".webp")


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fail: str | None = None
        """A part of a path: requests of it are answered by 500."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        commits = self.repositories.setdefault(repository, [])
        oid = hashlib.sha1(f"{repository}{len(commits)}".encode()).hexdigest()
        commits.append((oid, files))
        return oid

    def at(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(repository) or []
        if revision == "main":
            return commits[-1] if commits else None
        return next((one for one in commits if one[0] == revision), None)


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def answer(self, body: Any = b"", code: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", headers.pop("length", str(len(data))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if self.server.fail and self.server.fail in path:
            return self.answer({"error": "the server is broken"}, 500)
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if parts[0] == "lfs":
            assert hashlib.sha256(body).hexdigest() == parts[1]
            self.server.objects[parts[1]] = body
            return self.answer()
        if path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if parts[:2] == ["api", "models"]:
            return self.model("/".join(parts[2:4]), parts[4:], body)
        if len(parts) > 4 and parts[2] == "resolve":
            return self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self.answer({"error": "not found"}, 404)

    do_GET = do_POST = do_PUT = do_HEAD = handle_request

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        self.server.commit(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.server.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.answer({"url": f"{self.server.url}/{name}", "name": name})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}"}}} for one in asked["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def model(self, repository: str, rest: list[str], body: bytes) -> None:
        if repository not in self.server.repositories:
            return self.answer({"error": "none"}, 404, X_Error_Code="RepoNotFound")
        verb, revision = rest[0] if rest else "revision", rest[1] if len(rest) > 1 else "main"
        if not (found := self.server.at(repository, revision)):
            return self.answer({"error": "none"}, 404, X_Error_Code="RevisionNotFound")
        oid, files = found
        if verb == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": repository, "sha": oid, "private": True, "tags": [], "siblings": siblings})
        if verb == "tree":
            folders = {name.rpartition("/")[0] for name in files if "/" in name}
            tree: list[Any] = [{"type": "directory", "path": name, "oid": oid} for name in sorted(folders)]
            tree += [{"type": "file", "path": name, "size": len(data), "oid": oid} for name, data in files.items()]
            return self.answer(tree)
        if verb == "preupload":
            modes = [
                {"path": one["path"], "uploadMode": mode_of(one["path"]), "shouldIgnore": False, "oid": None}
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": modes})
        assert verb == "commit"
        return self.make(repository, dict(files), body)

    def make(self, repository: str, files: dict[str, bytes], body: bytes) -> None:
        for line in filter(None, body.splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = self.server.commit(repository, files)
        self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repository}/commit/{oid}"})

    def resolve(self, repository: str, revision: str, name: str) -> None:
        found = self.server.at(repository, revision)
        if not found or name not in found[1]:
            return self.answer({"error": "none"}, 404, X_Error_Code="EntryNotFound")
        data = found[1][name]
        etag = hashlib.sha256(data).hexdigest()
        return self.answer(data, ETag=f'"{etag}"', X_Repo_Commit=found[0], X_Linked_Size=str(len(data)))


def mode_of(name: str) -> str:
    return "lfs" if name.endswith(LFS_SUFFIXES) else "regular"


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
