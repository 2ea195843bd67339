"""The application behind a real socket, in this process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from genret import Run
from genret.serve.app import create_app
from genret.serve.network.listen import server_of
from genret.serve.options import ServeOptions


class Served(NamedTuple):
    port: int
    app: Any

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def head(self, method: str, path: str, *lines: str) -> bytes:
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *lines, "", ""]).encode()


@contextlib.contextmanager
def served(run: Run, **options: Any) -> Iterator[Served]:
    given = ServeOptions(**{"port": 0, "rate": 0, **options})
    app = create_app(run, given)
    server = server_of(app, given)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not (server.started and app.state.engine.ready):
        assert time.monotonic() < until and app.state.engine.failed is None
        time.sleep(0.01)
    try:
        yield Served(server.servers[0].sockets[0].getsockname()[1], app)
    finally:
        server.should_exit = True
        thread.join(30)


def answer(connection: socket.socket) -> bytes:
    """Everything until the server closes; what was received before a reset."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)
