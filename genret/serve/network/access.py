"""Who may come in: Host, Origin, bearer token, the page's token; and the headers of every answer.

Requests of a browser that another site's page has started are refused by Host (DNS rebinding) and by Origin
(cross-site requests); calls that change something also need a token that such a page cannot read.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genret.serve.errors import Refused
from genret.serve.options import LOOPBACK, ServeOptions

TOKEN_SECONDS = 12 * 3600
"""How long a page's token is valid."""
COOKIE = "genret_session"
PAGE_TOKEN = "x-genret-token"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Answered without a token, for health checks."""
READING_POSTS = frozenset({"/v1/search", "/v1/search/batch", "/v1/search/picture", "/v1/explain", "/knn-service"})
"""POST requests that change nothing."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Access:
    """The rules, and the page's tokens; these end with the process."""

    def __init__(self, options: ServeOptions):
        self.options = options
        self._secret = secrets.token_bytes(32)

    def page_token(self) -> str:
        """What a page sends back in `X-Genret-Token` with calls that change something."""
        until = str(int(time.time()) + TOKEN_SECONDS)
        return f"{until}.{self._signed('page ' + until)}"

    @property
    def session(self) -> str:
        """The cookie of a browser that has shown the token once."""
        return self._signed(f"session {self.options.token}")

    def check(self, method: str, path: str, headers: Headers) -> None:
        """`Refused` unless the request may be answered."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self.knows_host(_name_of(host)):
            raise Refused(421, "this server has another name; start it with --allow-host NAME to use this one")
        changes = method not in ("GET", "HEAD", "OPTIONS")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refused(403, "pages of other sites may not ask")
        if changes and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Refused(403, "pages of other sites may not ask")
        bearer = self._is_bearer(headers)
        if self.options.token is not None and path not in OPEN_PATHS and not bearer and not self._is_session(headers):
            raise Refused(401, "a token is needed: Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"})
        if (
            changes
            and path not in READING_POSTS
            and not bearer
            and not self._is_page_token(headers.get(PAGE_TOKEN, ""))
        ):
            raise Refused(
                403, "this changes something: send the page's token (GET /v1/token) as X-Genret-Token", "token"
            )

    def logs_in(self, method: str, path: str, query: bytes) -> bool:
        """Whether this opens the page with the token in its address, which then becomes a cookie."""
        if self.options.token is None or method != "GET" or path != "/" or b"token=" not in query:
            return False
        given = parse_qs(query.decode("latin-1"), max_num_fields=20).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), self.options.token.encode())

    def knows_host(self, name: str) -> bool:
        """Whether a request for this host name is meant for this server."""
        allowed = {*LOOPBACK, self.options.host.lower(), *(one.lower() for one in self.options.allowed_hosts)}
        if name in allowed:
            return True
        return not self.options.is_local and _is_address(name)  # nobody can rebind an address

    def _signed(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    def _is_bearer(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        known = self.options.token
        return known is not None and kind.lower() == "bearer" and hmac.compare_digest(given.encode(), known.encode())

    def _is_session(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.session.encode())

    def _is_page_token(self, given: str) -> bool:
        until, _, signed = given.partition(".")
        if not hmac.compare_digest(signed.encode(), self._signed("page " + until).encode()):
            return False
        return int(until) >= time.time()


class AccessMiddleware:
    def __init__(self, app: ASGIApp, access: Access):
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no web sockets

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        try:
            if self.access.knows_host(_name_of(headers.get("host", ""))) and self.access.logs_in(
                scope["method"], scope["path"], scope["query_string"]
            ):
                await self._remember(send_with_headers)
                return
            self.access.check(scope["method"], scope["path"], headers)
        except Refused as error:
            await error.reply()(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    async def _remember(self, send: Send) -> None:
        cookie = f"{COOKIE}={self.access.session}; HttpOnly; SameSite=Strict; Path=/"
        headers = [(b"location", b"/"), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _name_of(host: str) -> str:
    """The name in a Host header, without the port, in small letters."""
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
