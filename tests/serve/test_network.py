"""Attacks that need a real socket: slow clients, endless uploads, many ranges, clients that leave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from genret.serve.network.listen import TimedProtocol
from tests.serve import network

BOUNDARY = "----x"
FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'.encode()
GIGABYTES = 2 * 2**30


@pytest.fixture(scope="module")
def site(trained) -> Iterator[network.Served]:
    before, TimedProtocol.head_seconds = TimedProtocol.head_seconds, 1
    with network.served(trained, timeout=1, max_upload_bytes=8 * 2**20) as found:
        yield found
    TimedProtocol.head_seconds = before


@pytest.fixture(scope="module")
def token(site) -> str:
    return "X-Genret-Token: " + httpx.get(f"{site.address}/v1/token").json()["token"]


def still_works(site) -> None:
    assert httpx.get(f"{site.address}/v1/search", params={"q": "a dog"}).status_code == 200


# ------------------------------------------------------------------------------------------------ uploads without end
def test_two_gigabytes_that_are_announced_are_refused_at_once(site, token):
    with site.connect() as connection:
        connection.sendall(site.head("POST", "/v1/index", FORM, token, f"Content-Length: {GIGABYTES}"))
        began = time.monotonic()
        assert network.answer(connection).startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() - began < 5
    still_works(site)


def test_two_gigabytes_in_pieces_are_refused_while_they_arrive(site, token):
    """The server closes soon after its limit of 8 MB, and keeps none of it in memory."""
    memory = psutil.Process().memory_info().rss
    block, sent = b"x" * 2**20, 0
    with site.connect() as connection:
        connection.sendall(site.head("POST", "/v1/index", FORM, token, "Transfer-Encoding: chunked"))
        connection.sendall(b"%x\r\n%s\r\n" % (len(PART), PART))
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < GIGABYTES:
                connection.sendall(b"%x\r\n%s\r\n" % (len(block), block))
                sent += len(block)
        reply = network.answer(connection)
    assert sent < 64 * 2**20
    assert not reply or reply.startswith(b"HTTP/1.1 413 ")  # a reset may swallow the answer
    assert psutil.Process().memory_info().rss - memory < 100 * 2**20
    still_works(site)


def test_a_large_json_is_refused(site):
    with site.connect() as connection:
        head = ("Content-Type: application/json", f"Content-Length: {2**20 + 1}")
        connection.sendall(site.head("POST", "/v1/search", *head))
        assert network.answer(connection).startswith(b"HTTP/1.1 413 ")


def test_endless_headers(site):
    with site.connect() as connection:
        connection.sendall(site.head("GET", "/healthz")[:-2])
        with contextlib.suppress(ConnectionError):
            for number in range(100):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 2000))
        assert not network.answer(connection).startswith(b"HTTP/1.1 200")
    still_works(site)


# ------------------------------------------------------------------------------------------------ slow clients
@pytest.mark.parametrize("begun", [b"", b"GET /v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_a_head_that_does_not_arrive(site, begun):
    """A byte now and then keeps the connection open nowhere longer than the limit."""
    with site.connect(30) as connection:
        connection.sendall(begun)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 10:
                time.sleep(0.25)
                connection.sendall(b"X" if begun else b"")
                connection.settimeout(0.01)
                try:
                    if not connection.recv(1):
                        break
                except TimeoutError:
                    connection.settimeout(30)
        assert time.monotonic() - began < 4


def test_a_second_head_that_does_not_arrive(site):
    with site.connect(30) as connection:
        connection.sendall(site.head("GET", "/healthz"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /healthz HT")
        began = time.monotonic()
        network.answer(connection)
        assert time.monotonic() - began < 4


def test_a_body_that_does_not_arrive(site):
    with site.connect(30) as connection:
        connection.sendall(site.head("POST", "/v1/search", "Content-Type: application/json", "Content-Length: 100"))
        connection.sendall(b'{"q"')
        began = time.monotonic()
        assert network.answer(connection).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 4


def test_a_hundred_slow_clients_do_not_keep_others_waiting(site):
    with contextlib.ExitStack() as held:
        for _ in range(100):
            connection = held.enter_context(site.connect())
            connection.sendall(b"POST /v1/search HTTP/1.1\r\n")
        began = time.monotonic()
        still_works(site)
        assert time.monotonic() - began < 3


# ------------------------------------------------------------------------------------------------ ranges
def test_ten_thousand_ranges(site):
    one = httpx.get(f"{site.address}/v1/images", params={"limit": 1}).json()["images"][0]
    for path in (one["thumbnail"], one["file"]):
        whole = httpx.get(site.address + path)
        size = len(whole.content)
        many = "bytes=" + ",".join("0-1" for _ in range(10_000))
        for wanted in (
            many,
            "bytes=0-1,3-4",
            f"bytes={size}-",
            "bytes=5-2",
            "bytes=-",
            "bytes=-0",
            "lines=0-1",
            "bytes=x",
        ):
            reply = httpx.get(site.address + path, headers={"Range": wanted})
            assert reply.status_code == 416, wanted[:30]
            assert reply.headers["content-range"] == f"bytes */{size}"
        for wanted, part in (
            ("0-9", slice(0, 10)),
            ("10-", slice(10, None)),
            ("-7", slice(-7, None)),
            ("3-99999999", slice(3, None)),
        ):
            reply = httpx.get(site.address + path, headers={"Range": f"bytes={wanted}"})
            assert reply.status_code == 206 and reply.content == whole.content[part], wanted
        tag = whole.headers["etag"]
        assert httpx.get(site.address + path, headers={"If-None-Match": tag}).status_code == 304
        changed = httpx.get(site.address + path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
        assert changed.status_code == 200 and "immutable" in whole.headers["cache-control"]


@pytest.mark.parametrize("number", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_requests_for_ranges(site, number):
    """One after the other, half of them for two ranges: each is answered within its bounds, and memory stays flat."""
    path = httpx.get(f"{site.address}/v1/images", params={"limit": 1}).json()["images"][0]["thumbnail"]
    request = site.head("GET", path, "Range: bytes=0-1") + site.head("GET", path, "Range: bytes=0-1,2-3")
    process, good, bad = psutil.Process(), 0, 0
    with site.connect() as connection:
        for turn in range(number // 2):
            if turn == 50:
                before = process.memory_info().rss
            connection.sendall(request)
            got = b""
            while got.count(b"HTTP/1.1 ") < 2 or not got.endswith(b"}"):
                got += connection.recv(65536)
            good, bad = good + got.count(b" 206 "), bad + got.count(b" 416 ")
    assert (good, bad) == (number // 2, number // 2)
    assert process.memory_info().rss - before < 20 * 2**20


# ------------------------------------------------------------------------------------------------ clients that leave
def test_queries_of_clients_that_have_left_never_reach_the_model(site):
    engine = site.app.state.engine
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        leave.wait(20)

    from genret.serve.engine import Job

    engine.submit([Job(function=hold)])
    assert entered.wait(10)
    before = engine.metrics.dropped._value.get()
    gone = []
    for number in range(5):
        connection = site.connect()
        connection.sendall(site.head("GET", f"/v1/search?q=gone{number}"))
        gone.append(connection)
    until = time.monotonic() + 10
    while len(engine._waiting) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    for connection in gone:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    time.sleep(0.3)
    leave.set()
    still_works(site)
    assert engine.metrics.dropped._value.get() - before == 5
