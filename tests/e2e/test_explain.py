"""`genret explain` and `Run.explain` on a trained run."""

from __future__ import annotations

from typing import Any

import genret
from genret.lab.explain.codebook import Codebook
from genret.lab.explain.side_by_side import two_tower_of
from genret.plugin.loading import load_plugins
from genret.settings import Settings

QUERY = "a red square on grey"


def test_the_command_tells_what_the_search_did(tiny: Any, failed: Any) -> None:
    found = tiny.genret("search", QUERY, "-k", 3, "--num-beams", 4, "--json").document
    told = tiny.genret("explain", QUERY, "-k", 3, "--num-beams", 4, "--json").document
    assert [hit["image_id"] for hit in told["hits"]] == [hit["image_id"] for hit in found["hits"]]
    assert [hit["score"] for hit in told["hits"]] == [hit["score"] for hit in found["hits"]]
    assert [level["level"] for level in told["levels"]] == [1, 2, 3]
    last = [prefix for prefix in told["levels"][-1]["prefixes"] if prefix["is_kept"]]
    assert last[0]["symbols"] == found["hits"][0]["identifier"]
    assert last[0]["score"] == found["hits"][0]["score"]

    everything = tiny.genret("search", QUERY, "-k", 50, "--json").document["hits"]
    lost = everything[-1]["image_id"]
    said = tiny.genret("explain", QUERY, "--image", lost, "-k", 1, "--num-beams", 1)
    assert said.code == 0 and "level 1: 1 of" in said.out and f"{lost}: not among the first 1; lost at:" in said.out
    said = tiny.genret("explain", QUERY, "--image", everything[0]["image_id"])
    assert said.code == 0 and f"{everything[0]['image_id']}: rank 1" in said.out
    failed(tiny.genret("explain", QUERY, "--image", "nobody"), 2, "no searchable image has the id 'nobody'")
    failed(tiny.genret("explain", "  "), 2, "empty")


def test_a_run_with_its_codebook_and_its_two_towers(tiny: Any) -> None:
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    with genret.Run(tiny.run, load_plugins((), settings).registries, settings) as run:
        told = run.explain(QUERY, k=2)
        assert told.hits == run.search(QUERY, k=2).hits
        catalog = run.retriever.catalog
        root = Codebook.read(catalog).node(catalog)
        assert root.num_images == len(catalog.searchable_keys()) == sum(child.num_images for child in root.children)
        assert any(child.words for child in root.children), "captions of training images count"
        kept = next(prefix for prefix in told.levels[0].prefixes if prefix.is_kept)
        same = next(child for child in root.children if child.symbols == kept.symbols)
        assert same.num_images == kept.num_images
        dense = two_tower_of(run).search([QUERY], 8)[0]
        vectors = catalog.features_of(catalog.searchable_keys())
        scores = (vectors @ run.retriever.text_vectors([QUERY])[0]).sort(descending=True).values
        assert [round(hit.score, 4) for hit in dense.hits] == [round(score, 4) for score in scores.tolist()[:8]]
