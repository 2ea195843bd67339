"""Runs the application with uvicorn, with a time limit for the head of a request, which uvicorn does not have."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from genret.api import Ui
from genret.errors import GenretError
from genret.run import Run
from genret.serve.app import create_app
from genret.serve.options import ServeOptions

HEAD_SECONDS = 10.0
CONNECTIONS = 1000
BACKLOG = 128
MAX_HEAD_BYTES = 64 * 2**10


class TimedProtocol(H11Protocol):
    """Closes a connection whose request line and headers do not arrive in time."""

    head_seconds = HEAD_SECONDS
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        super().connection_lost(error)

    def _watch(self) -> None:
        """The time runs while a request's head is incomplete; further bytes do not extend it."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._forget()
        elif self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self._give_up)

    def _forget(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


def server_of(app: FastAPI, options: ServeOptions) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=options.host,
            port=options.port,
            http=TimedProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=10,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
    )


def listen(run: Run, options: ServeOptions, ui: Ui, new_token: bool) -> None:
    """Serves until interrupted; says where once it can be reached."""
    _ = run.recipe  # a folder that is no run is refused before anything listens
    found = _bound(options)
    port = found.getsockname()[1]
    shown = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{shown}:{port}/"
    if options.token is not None and new_token:
        ui.note(f"token: {options.token}")
        address += f"?token={options.token}"
    ui.result(f"{run.folder.name} is served at {address} (stop with Ctrl+C)")
    app = create_app(run, options)
    server_of(app, options).run(sockets=[found])


def _bound(options: ServeOptions) -> socket.socket:
    """A socket that is bound already, so that a taken port is said in one sentence."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.listen(BACKLOG)  # clients wait from now on instead of being refused
    except OSError as error:
        raise GenretError(
            f"cannot listen at {options.host}:{options.port}: {error.strerror or error}; "
            "choose another --port or --host"
        ) from None
    return bound
