"""The heaviest pages: 128 beams over six levels, and 256 symbols; at most 60 kB with style and script, no pictures."""

from __future__ import annotations

import gzip

import pytest

from genret.components.retrievers.explanation import ExplainedLevel, ExplainedPrefix, Explanation
from genret.lab.explain.codebook import Node
from genret.serve.page import html
from genret.serve.page.views import Codebooks, thumbs

STATIC = sum(len(html.packed(name)) for name in html.STATIC)


@pytest.fixture
def ids(run) -> list[str]:
    catalog = run.retriever.catalog
    return [row.image_id for row in catalog.lookup(catalog.searchable_keys())]


@pytest.mark.parametrize("address", ["/explain?q=a+dog", "/explain?q=a+dog&level=6"])
def test_a_wide_search_explained(client, ids, monkeypatch, address):
    def prefix(level: int, rank: int) -> ExplainedPrefix:
        symbols = [f"c{depth}_{100 + rank}" for depth in range(level)]
        return ExplainedPrefix(symbols, rank, rank <= 128, rank == 128, -1.0 - rank, -rank, -1.0, 1234, ids[:4])

    levels = [ExplainedLevel(n, 9999, 128, -129.0, [prefix(n, rank) for rank in range(1, 135)]) for n in range(1, 7)]
    hits = client.app.state.run.search("a dog", 10).hits
    told = Explanation("a dog", 128, 0.5, levels, hits)
    monkeypatch.setattr(type(client.app.state.run), "explain", lambda *words, **options: told)
    found = client.get(address)
    assert found.status_code == 200 and found.text.count('class="prefix') - found.text.count('class="prefixes') >= 6 * 5
    assert len(found.content) + STATIC <= 60_000


def test_a_large_codebook(client, ids, monkeypatch):
    children = [Node([f"c0_{n}"], 1234, ids[:6], ["wonderful"] * 8, 0, []) for n in range(256)]
    root = Node([], 99_999, ids[:6], [], 256, children)
    monkeypatch.setattr(Codebooks, "node", lambda self, listing, symbols: (root, thumbs(listing, ids)))
    seen = []
    for page in range(1, 9):
        found = client.get("/codebook", params={"page": page})
        assert found.status_code == 200 and len(found.content) + STATIC <= 60_000
        seen += [n for n in range(256) if f'prefix=c0_{n}"' in found.text]
    assert seen == list(range(256)), "every symbol is on exactly one page"


def test_static_files_are_the_same_packed_and_plain(client):
    for name in html.STATIC:
        plain = client.get(f"/static/{name}", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers and plain.content == html.static(name)
        packed = client.get(f"/static/{name}", headers={"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip" and packed.content == plain.content
        assert gzip.decompress(html.packed(name)) == plain.content
