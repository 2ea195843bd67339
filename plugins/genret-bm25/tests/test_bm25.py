"""genret's conformance kit, BM25's formula by hand, and whole runs: trained, searched, reranked, compared."""

import json
import math
import subprocess
import sys
from pathlib import Path

import genret_bm25
import pytest
import torch
from genret_bm25.retriever import BM25Retriever

from genret import Corpus
from genret.testing import check_plugin, check_recipe, check_retriever, train_run
from genret.testing.world import pictures


def test_it_registers():
    assert check_plugin(genret_bm25) == ["retriever bm25"]


@pytest.mark.parametrize("options", [{}, {"neighbours": 1, "captions": 1}, {"b": 0, "k1": 0.5, "captions": 30}])
def test_it_keeps_the_contract(options):
    check_retriever(BM25Retriever, **options)


def test_its_recipe_is_sound():
    pytest.importorskip("genret_starter", reason="recipes/two-tower.yaml trains on the pictures of genret-starter")
    recipe = Path(__file__).parents[1] / "recipe.yaml"
    two_tower = recipe.parents[2] / "recipes" / "two-tower.yaml"
    if not two_tower.is_file():
        pytest.skip("this is no checkout of genret: recipes/two-tower.yaml is not there")
    check_recipe([two_tower, recipe], genret_bm25)


def test_scores_are_the_formulas():
    """Robertson's term weights with Lucene's idf, over three captions."""
    captions = ["red red boat", "blue boat", "green dog near sea"]
    vectors = torch.eye(3)
    one = BM25Retriever()
    one.fit(Corpus(["a", "b", "c"], vectors, None, captions, vectors, torch.arange(3)), None)
    mean = sum(len(text.split()) for text in captions) / 3
    for row, text in enumerate(captions):
        expected = 0.0
        for word in ("red", "boat"):
            containing = sum(word in other.split() for other in captions)
            idf = math.log(1 + (3 - containing + 0.5) / (containing + 0.5))
            count = text.split().count(word)
            expected += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(text.split()) / mean))
        assert one.words.get_scores(["red", "boat"])[row] == pytest.approx(expected, rel=1e-5)


def test_from_training_to_comparison(tmp_path):
    with train_run(tmp_path / "bm25", "retriever: bm25\n", genret_bm25) as run:
        assert (run.folder / "retriever" / "bm25.json").is_file()
        assert run.figures["recall"]["10"] > 100 * 10 / 12, "ten of twelve, by chance"
        assert run.figures["num_beams"] is None and run.figures["two_tower"]["10"] > 0
        hits = run.search("a dog in the sea", k=3).hits
        assert hits[0].metadata["subject"] == "dog" and len(hits) == 3
        (tmp_path / "mine.png").write_bytes(pictures.png("train-35"))
        assert run.index(tmp_path / "mine.png").added == 1
        assert run.search("kitchen with one boat", k=1).hits[0].uri == str(tmp_path / "mine.png")
        assert run.search("wordless xyzzy", k=20).hits[0].score == 0, "no word is known, and everything is found"
    with train_run(tmp_path / "reranked", "{retriever: bm25, rerank: dense}\n", genret_bm25) as run:
        assert run.figures["first_stage"]["1"] is not None
        assert run.figures["recall"]["10"] == run.figures["two_tower"]["10"], "all twelve are reranked"
    train_run(tmp_path / "two-tower", "retriever: two-tower\n").close()
    runs = [str(tmp_path / name) for name in ("bm25", "two-tower")]
    plugins = ["--plugin", pictures.__file__, "--plugin", genret_bm25.__file__]
    command = [sys.executable, "-m", "genret", *plugins, "compare", *runs, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "p_value" in done.stdout or '"p"' in done.stdout, json.loads(done.stdout)
