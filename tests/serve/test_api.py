"""The API as programs use it; the run itself says what is right."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from genret import Run
from genret.api import Record, Restriction
from genret.catalog.place import place_of
from genret.catalog.store import Catalog

QUERY = "a red square"


def names(reply) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [hit["image_id"] for hit in reply.json()["hits"]]


def events(reply) -> list[dict]:
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/x-ndjson", reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


def picture(seed: int = 0, kind: str = "PNG") -> bytes:
    """One that the world's encoder knows by its colour; no picture of the catalog has the same bytes."""
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (seed, 0, 0)).save(out, kind)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------ searching
@pytest.mark.parametrize("method", ["get", "post"])
def test_it_searches_as_the_run_does(client, run, method):
    asked = {"q": QUERY, "k": 5, "num_beams": 7}
    found = client.get("/v1/search", params=asked) if method == "get" else client.post("/v1/search", json=asked)
    alone = run.search(QUERY, 5, num_beams=7)
    assert names(found) == [hit.image_id for hit in alone.hits]
    reply = found.json()
    assert reply["query"] == QUERY and reply["num_beams"] == 7
    for said, hit in zip(reply["hits"], alone.hits, strict=True):
        assert (said["identifier"], said["rank"], said["uri"]) == (hit.identifier, hit.rank, hit.uri)
        assert said["score"] == pytest.approx(hit.score, abs=1e-5) and said["metadata"] == dict(hit.metadata)
        small = client.get(said["thumbnail"])
        opened = Image.open(io.BytesIO(small.content))
        assert opened.size == (said["width"], said["height"])
        assert small.headers["content-type"] == f"image/{str(opened.format).lower()}"


def test_a_batch_is_each_query_alone(client, run):
    queries = [QUERY, "a dog", "a green circle"]
    found = client.post("/v1/search/batch", json={"queries": queries, "k": 4}).json()["results"]
    assert [one["query"] for one in found] == queries
    for one, alone in zip(found, run.search(queries, 4), strict=True):
        assert [hit["image_id"] for hit in one["hits"]] == [hit.image_id for hit in alone.hits]


def test_concurrent_queries_share_steps_and_get_their_own_answers(run, serving):
    client = serving(run, batch_ms=200)
    queries = [f"{colour} {shape}" for colour in ("red", "green", "blue") for shape in ("square", "circle", "dog")]
    with ThreadPoolExecutor(len(queries)) as pool:
        found = list(pool.map(lambda q: names(client.get("/v1/search", params={"q": q, "k": 3})), queries))
    assert found == [[hit.image_id for hit in one.hits] for one in run.search(queries, 3)]
    steps = client.get("/metrics").text.split("genret_batch_size_count ")[1].split()[0]
    assert float(steps) < len(queries)


def test_restrictions(client, run):
    first, second, *_ = client.get("/v1/search", params={"q": QUERY, "k": 20}).json()["hits"]
    limited = [
        ("without", Restriction(without=[first["image_id"]])),
        ("unlike", Restriction(unlike=[first["image_id"]])),
    ]
    for field, restriction in limited:
        found = client.post("/v1/search", json={"q": QUERY, "k": 20, field: [first["id"]]})
        assert names(found) == [hit.image_id for hit in run.search(QUERY, 20, restrict=restriction).hits]
    assert names(client.post("/v1/search", json={"q": QUERY, "only": [second["id"]]})) == [second["image_id"]]
    filtered = f'image_id = "{second["image_id"]}"'
    assert names(client.get("/v1/search", params={"q": QUERY, "where": filtered})) == [second["image_id"]]


def test_by_a_picture_the_picture_itself_is_nearest(client, run):
    row = run.retriever.catalog.lookup(run.retriever.catalog.searchable_keys()[:1])[0]
    data = run.dataset.read(next(one for one in run.dataset.records("test") if one.image_id == row.image_id))
    found = client.post("/v1/search/picture", files={"image": ("x.png", data)}, data={"k": 3})
    assert names(found)[0] == row.image_id and found.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-3)
    alike = names(client.get("/v1/search", params={"like": str(row.key), "k": 3}))
    assert alike[:2] == names(found)[1:3] and row.image_id not in alike
    told = client.post("/knn-service", content=json.dumps({"image": base64.b64encode(data).decode(), "num_images": 1}))
    assert told.json()[0]["id"] == row.key and told.json()[0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_as_clip_retrievals_client_asks(client, run):
    """Its `ClipClient.query` sends this body, without a content type."""
    asked = {
        "text": QUERY, "image": None, "image_url": None, "embedding_input": None, "deduplicate": True,
        "use_safety_model": True, "use_violence_detector": True, "indice_name": "laion5B-L-14", "use_mclip": False,
        "aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image", "num_images": 4, "num_result_ids": 40,
    }  # fmt: skip
    found = client.post("/knn-service", content=json.dumps(asked))
    assert found.status_code == 200, found.text
    assert [hit["image_path"] for hit in found.json()] == [hit.uri for hit in run.search(QUERY, 4).hits]
    first = found.json()[0]
    assert client.get(first["url"]).status_code == 200 and set(first) >= {"id", "url", "similarity", "caption"}
    assert client.get("/indices-list").json() == [run.folder.name]
    for wrong in (
        {},
        {"text": QUERY, "image": "AAAA"},
        {"image_url": "http://127.0.0.1/x.png"},
        {"image": "no base64!"},
    ):
        assert client.post("/knn-service", json=wrong).status_code == 400


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"q": "  "}, 400, "give words"),
        ({"q": "x" * 1001}, 422, "1000 characters"),
        ({"q": "x", "k": 201}, 422, "equal to 200"),
        ({"q": "x", "k": 0}, 422, "k:"),
        ({"q": "x", "num_beams": 201}, 422, "equal to 200"),
        ({"q": "x", "where": "colour ="}, 400, "at character"),
        ({"q": "x", "where": "colur = red"}, 400, "unknown key"),
        ({"q": "x", "min_confidence": 0.5}, 400, "calibrate"),
        ({"q": "x", "like": "999999"}, 404, "not there"),
        ({"q": "x", "other": "1"}, 422, "other"),
    ],
)
def test_what_is_wrong_is_said_in_one_shape(client, asked, status, said):
    reply = client.get("/v1/search", params=asked)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(reply.json()) == {"error"} and set(error) == {"code", "message"} and said in error["message"]
    assert len(error["message"].splitlines()) == 1


@pytest.mark.parametrize("field", ["k", "num_beams", "min_confidence", "unlike_symbols"])
def test_true_is_no_number(client, field):
    assert client.post("/v1/search", json={"q": "x", field: True}).status_code == 422


# ------------------------------------------------------------------------------------------------ pictures
@pytest.mark.parametrize("sort", ["newest", "oldest", "name"])
def test_pages_hold_every_picture_once(client, run, sort):
    catalog, found, cursor = run.retriever.catalog, [], ""
    while cursor is not None:
        page = client.get("/v1/images", params={"sort": sort, "limit": 5, "cursor": cursor}).json()
        assert len(page["images"]) <= 5 and page["total"] == len(catalog.searchable_keys())
        found, cursor = found + page["images"], page["next"]
    rows = catalog.lookup(catalog.searchable_keys())
    expected = sorted(rows, key=lambda row: row.image_id if sort == "name" else row.key, reverse=sort == "newest")
    assert [one["image_id"] for one in found] == [row.image_id for row in expected]


def test_lists_are_filtered(client, run):
    name = run.retriever.catalog.lookup(run.retriever.catalog.searchable_keys()[:1])[0].image_id
    page = client.get("/v1/images", params={"where": f'image_id = "{name}"'}).json()
    assert [one["image_id"] for one in page["images"]] == [name] and page["total"] == 1 and page["next"] is None


def test_one_picture_whole(client, run):
    hit = client.get("/v1/search", params={"q": QUERY, "k": 1}).json()["hits"][0]
    one = client.get(f"/v1/images/{hit['id']}").json()
    record = next(one for one in run.dataset.records("test") if one.image_id == hit["image_id"])
    assert one["captions"] == list(record.captions) and one["split"] == "test"
    assert hit["identifier"] in one["identifiers"]
    assert client.get(one["file"]).content == run.dataset.read(record)


def test_removing_and_undoing(client, run):
    before = names(client.get("/v1/search", params={"q": QUERY, "k": 9}))
    hit = client.get("/v1/search", params={"q": QUERY, "k": 1}).json()["hits"][0]
    whole = client.get(f"/v1/images/{hit['id']}").json()
    gone = client.delete(f"/v1/images/{hit['id']}").json()
    assert names(client.get("/v1/search", params={"q": QUERY, "k": 8})) == before[1:]
    for path in ("", "/thumbnail", "/file"):
        assert client.get(f"/v1/images/{hit['id']}{path}").status_code == 404
    assert client.delete(f"/v1/images/{hit['id']}").status_code == 404
    back = client.post("/v1/images/restore", json={"undo": gone["undo"]}).json()
    assert names(client.get("/v1/search", params={"q": QUERY, "k": 9})) == before
    again = client.get(f"/v1/images/{back['id']}").json()
    addresses = {"id", "thumbnail", "file"}
    assert {k: v for k, v in again.items() if k not in addresses} == {
        k: v for k, v in whole.items() if k not in addresses
    }
    assert client.post("/v1/images/restore", json={"undo": gone["undo"]}).status_code == 404, "only once"


def test_a_removal_that_was_made_good_otherwise_is_a_conflict(client, run):
    client.post("/v1/index", files=[("files", ("noise.png", picture()))])
    one = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    gone = client.delete(f"/v1/images/{one['id']}").json()
    client.post("/v1/index", files=[("files", ("noise.png", picture()))])
    assert client.post("/v1/images/restore", json={"undo": gone["undo"]}).status_code == 409


# ------------------------------------------------------------------------------------------------ adding
def test_uploads_are_found_and_told(client, run):
    many = [("files", (f"p{i}.png", picture(i))) for i in range(3)]
    *progress, done = events(client.post("/v1/index", files=[*many, ("files", ("no.png", b"no picture"))]))
    stages = ["looking through pictures"] * 3 + ["indexing pictures"] * 3
    assert [(one["stage"], one["done"]) for one in progress] == list(zip(stages, [1, 2, 3] * 2, strict=True))
    assert {one["total"] for one in progress} == {3}
    assert done["event"] == "done" and done["added"] == 3
    assert [one["path"] for one in done["skipped"]] == ["no.png"]
    newest = client.get("/v1/images", params={"limit": 3}).json()["images"]
    assert {one["metadata"]["file"] for one in newest} == {"p0.png", "p1.png", "p2.png"}
    assert client.get(newest[0]["file"]).content in {picture(i) for i in range(3)}
    assert events(client.post("/v1/index", files=many))[-1]["unchanged"] == 3, "the same pictures again"


def test_what_another_process_adds_and_removes_is_seen_at_once(client, run, tmp_path):
    (tmp_path / "new.png").write_bytes(picture(5))
    with Run(run.folder, run.registries, run.settings, run.components) as other:
        other.index(tmp_path / "new.png")
        found = client.post("/v1/search/picture", files={"image": ("x.png", picture(5))}, data={"k": 1})
        assert names(found) == [str(tmp_path / "new.png")]
        other.remove([str(tmp_path / "new.png")])
        found = client.post("/v1/search/picture", files={"image": ("x.png", picture(5))}, data={"k": 1})
        assert names(found) != [str(tmp_path / "new.png")]


def test_paths_of_the_server_only_where_allowed(run, serving, tmp_path):
    (allowed := tmp_path / "allowed").mkdir()
    (outside := tmp_path / "outside").mkdir()
    for folder in (allowed, outside):
        (folder / "one.png").write_bytes(picture(7))
    (allowed / "link.png").symlink_to(outside / "one.png")
    client = serving(run, index_folders=(allowed,))
    client.headers["X-Genret-Token"] = client.get("/v1/token").json()["token"]
    refused = [str(outside), f"{allowed}/../outside", f"{allowed}/link.png", "one.png", "/", f"{allowed}x", "\0"]
    for path in refused:
        reply = client.post("/v1/index/paths", json={"paths": [path]})
        assert reply.status_code in (400, 403), path
    assert events(client.post("/v1/index/paths", json={"paths": [str(allowed / "one.png")]}))[-1]["added"] == 1
    assert (
        serving(run, token="0123456789abcdef")
        .post("/v1/index/paths", json={"paths": [str(allowed)]}, headers={"Authorization": "Bearer 0123456789abcdef"})
        .status_code
        == 403
    ), "not without the option"


def test_a_server_that_only_reads(run, serving):
    client = serving(run, allow_changes=False)
    client.headers["X-Genret-Token"] = client.get("/v1/token").json()["token"]
    one = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    assert client.delete(f"/v1/images/{one['id']}").status_code == 403
    assert client.post("/v1/index", files=[("files", ("a.png", picture()))]).status_code == 403


# ------------------------------------------------------------------------------------------------ the server itself
def test_health_metrics_and_the_run(client, run):
    assert client.get("/healthz").json() == {"status": "ok"} and client.get("/readyz").json() == {"status": "ready"}
    client.get("/v1/search", params={"q": QUERY})
    figures = client.get("/metrics").text
    assert 'genret_requests_total{method="GET",route="/v1/search",status="200"} 1.0' in figures
    assert f"genret_images {len(run.retriever.catalog.searchable_keys())}.0" in figures
    about = client.get("/v1/run").json()
    assert about["name"] == run.folder.name and about["retriever"] == "generative"
    assert about["images"] == len(run.retriever.catalog.searchable_keys())


def test_a_run_that_cannot_be_loaded_is_not_ready(run):
    from fastapi.testclient import TestClient

    from genret.serve.app import create_app

    (run.folder / "catalog.sqlite").unlink()
    app = create_app(run)
    with TestClient(app, "http://127.0.0.1:8000") as client:
        app.state.engine._thread.join(60)
        assert client.get("/healthz").status_code == 200
        for path in ("/readyz", "/v1/search?q=x", "/v1/images", "/v1/run"):
            reply = client.get(path)
            assert reply.status_code == 503 and reply.headers["retry-after"] == "2"
            assert "there is no catalog" in reply.json()["error"]["message"]


def test_a_bug_is_no_leak(client, run, monkeypatch):
    monkeypatch.setattr(client.app.state.listing, "count", lambda: 1 / 0)
    client._transport.raise_app_exceptions = client._transport.raise_server_exceptions = False
    reply = client.get("/v1/run")
    assert reply.status_code == 500 and reply.json()["error"]["code"] == "internal"
    assert "division" not in reply.text and "Traceback" not in reply.text


def test_a_picture_that_has_moved_is_told_with_its_new_name(client, run):
    first = client.get("/v1/search", params={"q": "a picture", "k": 5}).json()["hits"][0]
    row = run.retriever.catalog.lookup([int(first["id"])])[0]
    assert client.get("/v1/images", params={"where": "color = 'new'"}).status_code == 400
    moved = Record(row.image_id, "elsewhere.png", (), {**row.metadata, "color": "new"})
    with Catalog.open(place_of(run.folder)) as other:  # as another process does
        assert other.rename({row.image_id: moved}) == 0
    again = client.get("/v1/search", params={"q": "a picture", "k": 5}).json()["hits"][0]
    assert (again["id"], again["uri"], again["metadata"]["color"]) == (first["id"], "elsewhere.png", "new")
    assert client.get(f"/v1/images/{first['id']}").json()["uri"] == "elsewhere.png"
    assert client.get("/v1/images", params={"where": "color = 'new'"}).json()["total"] == 1
