"""The API as programs use it."""

from __future__ import annotations


def test_it_searches_as_the_run_does(client, run):
    found = client.get("/v1/search", params={"q": "a red square", "k": 5})
    assert found.status_code == 200, found.text
    alone = run.search("a red square", 5)
    assert [hit["image_id"] for hit in found.json()["hits"]] == [hit.image_id for hit in alone.hits]
    assert [hit["identifier"] for hit in found.json()["hits"]] == [hit.identifier for hit in alone.hits]
