"""/v1/explain says what `Run.explain` says."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("method", ["get", "post"])
def test_it_explains_as_the_run_does(client, run, method):
    last = client.get("/v1/search", params={"q": "a dog"}).json()["hits"][-1]
    asked = {"q": "a dog", "image": last["id"], "k": 2, "num_beams": 2}
    found = client.get("/v1/explain", params=asked) if method == "get" else client.post("/v1/explain", json=asked)
    assert found.status_code == 200, found.text
    told = run.explain("a dog", last["image_id"], k=2, num_beams=2).as_json()
    said = found.json()
    assert [hit["image_id"] for hit in said["hits"]] == [hit["image_id"] for hit in told["hits"]]
    assert said["hits"][0]["thumbnail"].startswith("/v1/images/")
    assert {key: said[key] for key in told if key != "hits"} == {key: told[key] for key in told if key != "hits"}
    assert said["lost_at"] is not None and said["image_id"] == last["image_id"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"q": " "}, 422),
        ({}, 422),
        ({"q": "a dog", "image": "999999"}, 404),
        ({"q": "a dog", "image": "x"}, 422),
        ({"q": "a dog", "k": 900}, 422),
        ({"q": "a dog", "num_beams": 999}, 422),
        ({"q": "d" * 2000}, 422),
        ({"q": "a dog", "other": 1}, 422),
    ],
)
def test_wrong_questions_are_refused_in_one_sentence(client, asked, status):
    for found in (client.get("/v1/explain", params=asked), client.post("/v1/explain", json=asked)):
        assert found.status_code == status, found.text
        assert found.json()["error"]["message"]


def test_pages_say_errors_to_people(client):
    for path, status in (("/image/999999", 404), ("/codebook?prefix=c0_999", 400), ("/compare?q=a&with=no-run", 400),
                         ("/explain?q=a&image=77777", 404), ("/?like=x", 400), ("/?q=a&where=((", 400)):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == status and answer.headers["content-type"].startswith("text/html")
        assert 'role="alert"' in answer.text, path
    assert client.get("/static/../routes.py").status_code == 404 and client.get("/static/page.py").status_code == 404
    hostile = client.get("/", params={"q": "<script>alert(1)</script>"})
    assert "<script>alert" not in hostile.text and "script-src 'self'" in hostile.headers["content-security-policy"]
    assert "style=" not in hostile.text and " onclick" not in hostile.text
