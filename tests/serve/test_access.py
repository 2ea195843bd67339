"""Who may come in. Each test is an attack, with the request that is allowed beside it."""

from __future__ import annotations

import time

import pytest

from genret.serve.network.access import COOKIE, Access
from genret.serve.options import ServeOptions

TOKEN = "a-token-of-enough-letters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OWN = "127.0.0.1:8000"


# ------------------------------------------------------------------------------------------------ DNS rebinding
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_its_own_names(client, host):
    assert client.get("/v1/images", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:8000", "127.0.0.1@evil",
        "10.0.0.1", "0.0.0.0:8000", "[::2]", "", "localhost evil", "2130706433",
    ],
)  # fmt: skip
def test_dns_rebinding(client, host):
    """A page of evil.example whose name now leads here: the browser sends that name as Host."""
    for path in ("/v1/images", "/v1/token", "/", "/healthz", "/v1/images/1/thumbnail"):
        reply = client.get(path, headers={"Host": host})
        assert reply.status_code == 421, (path, host)
        assert reply.json()["error"]["code"] == "wrong_host"


def test_further_names_and_addresses_elsewhere(run, serving):
    client = serving(
        run, base="http://pictures.example", host="0.0.0.0", token=TOKEN, allowed_hosts=("Pictures.example",)
    )
    assert client.get("/v1/images", headers=BEARER).status_code == 200
    assert client.get("/v1/images", headers={"Host": "192.168.7.7:8000", **BEARER}).status_code == 200, "an address"
    assert client.get("/v1/images", headers={"Host": "evil.example", **BEARER}).status_code == 421


# ------------------------------------------------------------------------------------------------ cross-site requests
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example",
        "null",
        "http://127.0.0.1:9000",
        "http://127.0.0.1",
        "http://localhost:8000",
    ],
)
def test_cross_site_requests(client, origin):
    """A form or a script of another site; the browser states its origin."""
    one = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    requests = [
        ("POST", "/v1/search", {"json": {"q": "x"}}),
        ("POST", "/v1/index", {"files": [("files", ("a.png", b"x"))]}),
        ("POST", "/knn-service", {"content": b'{"text": "x"}', "headers": {"Content-Type": "text/plain"}}),
        ("DELETE", f"/v1/images/{one['id']}", {}),
        ("POST", "/v1/images/restore", {"json": {"undo": "x" * 10}}),
        ("GET", "/v1/token", {}),
    ]
    for method, path, options in requests:
        headers = {"Host": OWN, "Origin": origin, **options.pop("headers", {})}
        reply = client.request(method, path, headers=headers, **options)
        assert reply.status_code == 403, (method, path)
    assert client.get(f"/v1/images/{one['id']}").status_code == 200, "it is still there"
    reply = client.post("/v1/search", json={"q": "x"}, headers={"Host": OWN, "Origin": f"http://{OWN}"})
    assert reply.status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_browsers_that_send_no_origin_say_where_the_request_comes_from(client, site):
    assert client.post("/v1/search", json={"q": "x"}, headers={"Sec-Fetch-Site": site}).status_code == 403
    assert client.post("/v1/search", json={"q": "x"}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_no_other_site_may_read(client):
    for reply in (client.get("/v1/images"), client.options("/v1/images"), client.get("/v1/token")):
        assert not [name for name in reply.headers if name.startswith("access-control-")]
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"


# ------------------------------------------------------------------------------------------------ the page's token
def changes(client) -> list[tuple[str, str, dict]]:
    one = client.get("/v1/images", params={"limit": 1}, headers=BEARER).json()["images"][0]
    return [
        ("DELETE", f"/v1/images/{one['id']}", {}),
        ("POST", "/v1/images/restore", {"json": {"undo": "x" * 10}}),
        ("POST", "/v1/index", {"files": [("files", ("a.png", b"x"))]}),
        ("POST", "/v1/index/paths", {"json": {"paths": ["/"]}}),
    ]


@pytest.mark.parametrize("forged", [None, "", "x", "9999999999.abc", "9999999999", ".", "9999999999." + "0" * 64, "é"])
def test_changes_need_the_pages_token(run, serving, forged):
    client = serving(run)
    headers = {} if forged is None else {"X-Genret-Token": forged.encode()}
    for method, path, options in changes(client):
        reply = client.request(method, path, headers=headers, **options)
        assert reply.status_code == 403 and reply.json()["error"]["code"] == "token", (method, path)


def test_a_token_ends(run, serving, monkeypatch):
    client = serving(run)
    token = client.get("/v1/token").json()["token"]
    method, path, _ = changes(client)[0]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 + 2)
    assert client.request(method, path, headers={"X-Genret-Token": token}).status_code == 403
    monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 - 2)
    assert client.request(method, path, headers={"X-Genret-Token": token}).status_code == 200


def test_a_token_of_another_server_is_worth_nothing():
    one, other = Access(ServeOptions()), Access(ServeOptions())
    assert one._is_page_token(one.page_token()) and not other._is_page_token(one.page_token())


# ------------------------------------------------------------------------------------------------ the bearer token
@pytest.fixture
def guarded(run, serving):
    client = serving(run, host="0.0.0.0", token=TOKEN)
    client.follow_redirects = False
    return client


PATHS = [
    "/",
    "/v1/search?q=x",
    "/v1/images",
    "/v1/token",
    "/v1/run",
    "/metrics",
    "/v1/openapi.json",
    "/knn-service",
    "/nothing",
]


@pytest.mark.parametrize(
    "given", [None, "Bearer ", "Bearer wrong-token-of-letters", "Basic " + TOKEN, TOKEN, "Bearer " + TOKEN + "x"]
)
def test_nothing_without_the_token(guarded, given):
    headers = {} if given is None else {"Authorization": given}
    for path in PATHS:
        reply = guarded.get(path, headers=headers)
        assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer", path
    for path in ("/healthz", "/readyz"):
        assert guarded.get(path).status_code == 200
    assert guarded.get("/v1/images", headers=BEARER).status_code == 200


def test_the_bearer_token_is_enough_for_changes(guarded):
    method, path, _ = changes(guarded)[0]
    assert guarded.request(method, path, headers=BEARER).status_code == 200


def test_the_token_in_the_pages_address_becomes_a_cookie_once(guarded):
    wrong = guarded.get("/", params={"token": TOKEN[:-1] + "x"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    assert guarded.get("/", params={"token": TOKEN}, headers={"Host": "evil.example"}).status_code == 421
    reply = guarded.get("/", params={"token": TOKEN})
    assert reply.status_code == 303 and reply.headers["location"] == "/"
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    assert guarded.get("/v1/images").status_code == 200, "the client keeps the cookie"
    method, path, _ = changes(guarded)[0]
    assert guarded.request(method, path).status_code == 403, "a cookie alone changes nothing"
    guarded.cookies.clear()
    for forged in ("x", "", "0" * 64, '"'):
        assert guarded.get("/v1/images", headers={"Cookie": f"{COOKIE}={forged}"}).status_code == 401


def test_a_server_elsewhere_without_a_token_is_no_server():
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match="token"):
        ServeOptions(host="0.0.0.0")
    with pytest.raises(ValidationError):
        ServeOptions(token="short")


# ------------------------------------------------------------------------------------------------ every answer
def test_every_answer_has_the_headers(client):
    one = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    paths = [
        "/",
        "/v1/images",
        "/nothing",
        "/v1/images/0",
        one["thumbnail"],
        one["file"],
        "/healthz",
        "/v1/openapi.json",
    ]
    for path in paths:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy, path
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer", path
        assert "server" not in headers
    assert client.get("/v1/images").headers["cache-control"] == "no-store"


def test_no_page_that_loads_scripts_of_others(client):
    assert client.get("/docs").status_code == 404 and client.get("/redoc").status_code == 404


def test_errors_show_no_escape_sequences(client):
    reply = client.get("/v1/search", params={"q": "x", "where": "a\x1b[31m = \u202e"})
    assert reply.status_code == 400 and "\\u001b" not in reply.text and "\x1b" not in reply.json()["error"]["message"]


def test_the_rate_of_a_client_is_limited(run, serving):
    client = serving(run, rate=0.5, burst=5)
    replies = [client.get("/v1/search", params={"q": "x"}) for _ in range(7)]
    assert [one.status_code for one in replies] == [200] * 5 + [429] * 2
    assert 1 <= int(replies[-1].headers["retry-after"]) <= 2
    assert client.get("/v1/images").status_code == 200, "looking is not limited"


def test_rates_are_of_each_client_and_bounded(monkeypatch):
    from genret.serve.network import limits

    rate = limits.Rate(2, 3)
    assert [rate.take("a", 0) == 0 for _ in range(4)] == [True, True, True, False]
    assert rate.take("b", 0) == 0 and rate.take("a", 0) == pytest.approx(0.5)
    assert rate.take("a", 0.5) == 0 and rate.take("a", 0.5) > 0
    monkeypatch.setattr(limits, "CLIENTS", 3)
    for number in range(10):
        rate.take(str(number), 1)
    assert len(rate._clients) <= 4
    assert limits.Rate(0, 1).take("a", 0) == 0
