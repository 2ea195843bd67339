"""Limits of each request: size while it arrives, time, rate; and its measurement."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genret.serve.errors import Refused
from genret.serve.metrics import Metrics
from genret.serve.options import ServeOptions

CLIENTS = 10_000
"""How many clients' rates are remembered."""
FORM_BYTES = 64 * 2**10
"""What a form may have besides its files."""
LIMITED = ("/v1/search", "/v1/explain", "/v1/index", "/knn-service")
"""Where the rate is limited, besides calls that change something."""


class Rate:
    """A token bucket per client."""

    def __init__(self, rate: float, burst: int):
        self.rate, self.burst = rate, burst
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> float:
        """0, or the seconds to wait."""
        if not self.rate:
            return 0
        left, before = self._clients.pop(client, (float(self.burst), now))
        left = min(self.burst, left + (now - before) * self.rate)
        wait = 0 if left >= 1 else (1 - left) / self.rate
        self._clients[client] = (left if wait else left - 1), now
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        return wait


class LimitsMiddleware:
    def __init__(self, app: ASGIApp, options: ServeOptions, metrics: Metrics):
        self.app, self.options, self.metrics = app, options, metrics
        self._rate = Rate(options.rate, options.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def send_in_time(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            async with asyncio.timeout(2 * self.options.timeout):  # a client that does not read
                await send(message)

        try:
            self._check_rate(scope)
            await self.app(scope, self._limited(scope, receive), send_in_time)
        except Refused as error:
            await error.reply()(scope, receive, send_in_time)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, scope["method"] if route != "other" else "other", str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _check_rate(self, scope: Scope) -> None:
        if scope["path"].startswith(LIMITED) or scope["method"] not in ("GET", "HEAD"):
            client = (scope.get("client") or ("",))[0]
            if wait := self._rate.take(client, time.monotonic()):
                self.metrics.refused.inc()
                headers = {"Retry-After": str(math.ceil(wait))}
                raise Refused(429, "too many requests from this address", headers=headers)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that refuses what is too large or too slow; `Refused` 413 at once if the size is stated."""
        most = self._most_bytes(scope["path"])
        stated = Headers(scope=scope).get("content-length", "")
        too_large = Refused(413, f"at most {most:,} bytes are taken here", headers={"Connection": "close"})
        if stated.isdigit() and int(stated) > most:
            raise too_large
        size, until, complete = 0, time.monotonic() + 2 * self.options.timeout, False

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()  # waits for the client to leave
            try:
                async with asyncio.timeout(min(self.options.timeout, until - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                headers = {"Connection": "close"}
                raise Refused(408, "the request did not arrive in time", headers=headers) from None
            size += len(message.get("body", b""))
            if size > most:
                raise too_large
            complete = not message.get("more_body", False)
            return message

        return limited

    def _most_bytes(self, path: str) -> int:
        if path == "/v1/index":
            return self.options.max_upload_bytes + FORM_BYTES
        if path == "/v1/search/picture":
            return self.options.max_file_bytes + FORM_BYTES
        return self.options.max_json_bytes
