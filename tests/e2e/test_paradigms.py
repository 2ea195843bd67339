"""Two towers and rerankers through the real commands: what search returns is what evaluation measures."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

from genret.catalog.store import Catalog
from genret.kit.images import decode_image
from genret.search.thumbnails import Thumbnails

ROOT = Path(__file__).parents[2]
QUERY = "a red square on grey"


class Paradigms:
    """A home of its own that shares the trained parts of `tiny`; runs by name."""

    def __init__(self, tiny: Any, home: Path):
        self.tiny, self.home = tiny, home
        for part in ("artifacts", "features"):
            shutil.copytree(tiny.home / part, home / part)

    def genret(self, *words: object) -> Any:
        return self.tiny.genret(*words, home=self.home)

    def train(self, name: str, *words: object, files: tuple[object, ...] = ()) -> Path:
        """Recipes in `files`, at the tiny size."""
        run = self.home / "runs" / name
        if not run.exists():
            answer = self.genret("train", *files, self.tiny.recipe, *words, "--run", run, "--json")
            assert answer.code == 0, answer.err
        return run

    def two_tower(self, name: str = "two-tower", *words: object) -> Path:
        return self.train(name, *words, files=(ROOT / "recipes/two-tower.yaml",))

    def blip(self, model: Path) -> Path:
        words = (f"rerank.model={model}", "rerank.revision=null", "rerank.candidates=3", "rerank.bf16=false")
        return self.train("blip", *sets(*words), files=(ROOT / "recipes/blip-rerank.yaml",))

    def evaluate(self, run: Path, *words: object) -> dict[str, Any]:
        return dict(self.genret("evaluate", "--run", run, *words, "--json").document)

    def hits(self, run: Path, *words: object, query: str = QUERY) -> list[dict[str, Any]]:
        return list(self.genret("search", query, "--run", run, *words, "--json").document["hits"])


def sets(*words: str) -> tuple[str, ...]:
    return tuple(part for word in words for part in ("--set", word))


def recall_from_trec(folder: Path, k: int) -> float:
    """recall@k by nothing but the two files."""
    right = {line.split()[0]: line.split()[2] for line in (folder / "qrels.trec").read_text().splitlines()}
    within = defaultdict(set)
    for line in (folder / "run.trec").read_text().splitlines():
        query, _, image, rank, *_ = line.split()
        if int(rank) <= k:
            within[query].add(image)
    return 100 * sum(image in within[query] for query, image in right.items()) / len(right)


@pytest.fixture(scope="module")
def paradigms(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Paradigms:
    return Paradigms(tiny, tmp_path_factory.mktemp("paradigms") / "home")


# ------------------------------------------------------------------------------------------------ two towers
def test_two_tower_trains_heads_alone_and_searches_densely(paradigms: Paradigms, tmp_path: Path) -> None:
    run = paradigms.two_tower()
    seconds = json.loads((run / "environment.json").read_text())["seconds"]
    assert "encoder" in seconds and not {"identifier", "targets", "generator"} & set(seconds)
    found = paradigms.evaluate(run, "--trec", tmp_path / "trec")
    assert found["recall"] == found["two_tower"] and found["first_stage"] is None and found["num_beams"] is None
    assert found["ledger"] == [] and found["by_num_beams"] == {}
    for k in (1, 5, 10):
        assert found["recall"][str(k)] == pytest.approx(recall_from_trec(tmp_path / "trec", k))

    hits = paradigms.hits(run, "-k", 50)
    assert len(hits) == 8 and all(hit["identifier"] is None for hit in hits)
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    paradigms.tiny.draw(tmp_path / "mine" / "own.png", "red", "square", "grey")
    assert paradigms.genret("index", tmp_path / "mine", "--run", run, "--json").document["added"] == 1
    again = paradigms.hits(run, "-k", 50)
    assert len(again) == 9 and [hit for hit in again if hit["uri"].endswith("own.png")]
    assert paradigms.evaluate(run)["recall"] == found["recall"], "of the split alone"


def test_hnsw_finds_the_same_and_sees_changes(paradigms: Paradigms, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    exact = paradigms.two_tower("two-tower-exact")
    run = paradigms.two_tower("hnsw", *sets("retriever.index=hnsw"))
    same = [("image_id", "rank"), ("--where", "colour=red")]
    for words in ((), same[1]):
        ids = [[(hit["image_id"], hit["rank"]) for hit in paradigms.hits(one, *words)] for one in (exact, run)]
        assert ids[0] == ids[1] and ids[0]
    found = paradigms.evaluate(run)
    assert found["recall"] == found["two_tower"] == paradigms.evaluate(exact)["recall"]
    paradigms.tiny.draw(tmp_path / "own.png", "red", "square", "grey")
    paradigms.genret("index", tmp_path / "own.png", "--run", run)
    assert any(hit["uri"].endswith("own.png") for hit in paradigms.hits(run, "-k", 50))


# ------------------------------------------------------------------------------------------------ one tower after two
def match(folder: Path, query: str, picture: Any) -> float:
    """BLIP's logits by transformers' own forward."""
    from transformers import AutoProcessor, BlipForImageTextRetrieval

    processor, model = AutoProcessor.from_pretrained(folder), BlipForImageTextRetrieval.from_pretrained(folder).eval()
    pixels = processor.image_processor(images=picture, return_tensors="pt")["pixel_values"]
    words = processor.tokenizer(query, return_tensors="pt")
    with torch.no_grad():
        no, yes = model(words["input_ids"], pixels, attention_mask=words["attention_mask"]).itm_score[0]
    return float(yes - no)


def test_blip_orders_the_candidates_of_two_towers(paradigms: Paradigms, blip: Path, tmp_path: Path) -> None:
    dense, run = paradigms.hits(paradigms.two_tower("plain"), "-k", 8), paradigms.blip(blip)
    hits = paradigms.hits(run, "-k", 2)
    with Catalog.open(run / "catalog.sqlite") as catalog:
        first = [hit["image_id"] for hit in dense[:3]]
        stored = catalog.lookup(catalog.keys_of(first))
    scores = {row.image_id: match(blip, QUERY, Thumbnails(run / "thumbnails").open(row.sha256)) for row in stored}
    best = sorted(first, key=lambda image_id: -scores[image_id])
    assert [hit["image_id"] for hit in hits] == best[:2], "of three candidates, though two were asked for"
    assert [hit["score"] for hit in hits] == pytest.approx([scores[image_id] for image_id in best[:2]], abs=1e-3)
    wider = paradigms.hits(run, "-k", 8)
    assert {hit["image_id"] for hit in wider} == {hit["image_id"] for hit in dense}, "-k beyond the candidates widens"

    found = paradigms.evaluate(run, "--trec", tmp_path / "trec")
    assert found["first_stage"] == found["two_tower"] and found["reranked"] is None
    for k in (1, 5, 10):
        assert found["recall"][str(k)] == pytest.approx(recall_from_trec(tmp_path / "trec", k))
    answer = paradigms.genret("evaluate", "--run", run, "--split", "dev")
    assert answer.code == 0 and "before reranking" in answer.out and "cannot be looked at" not in answer.err


def test_a_search_survives_lost_thumbnails(paradigms: Paradigms, blip: Path, tmp_path: Path) -> None:
    run = shutil.copytree(paradigms.blip(blip), tmp_path / "run")
    whole = paradigms.hits(run, "-k", 3)
    with Catalog.open(run / "catalog.sqlite") as catalog:
        (row,) = catalog.lookup(catalog.keys_of([whole[0]["image_id"]]))
    Thumbnails(run / "thumbnails").path(row.sha256).unlink()
    found = paradigms.hits(run, "-k", 3)
    assert [hit["image_id"] for hit in found] == [hit["image_id"] for hit in (whole[1], whole[2], whole[0])]
    assert found[2]["score"] == found[1]["score"]
    shutil.rmtree(run / "thumbnails")
    dense = paradigms.hits(paradigms.two_tower("plain"), "-k", 3)
    found = paradigms.hits(run, "-k", 3)
    assert [(hit["image_id"], hit["score"]) for hit in found] == [(hit["image_id"], hit["score"]) for hit in dense]


# ------------------------------------------------------------------------------------------------ after a generator
def ledger_of(found: dict[str, Any]) -> dict[str, float]:
    return {row["stage"]: row["recall"] for row in found["ledger"]}


def test_dense_order_after_a_generator(paradigms: Paradigms) -> None:
    plain = paradigms.evaluate(paradigms.train("generative"), "--num-beams", "5,10")
    found = paradigms.evaluate(paradigms.train("dense", *sets("rerank=dense")), "--num-beams", "5,10")
    assert plain["first_stage"] is None
    assert found["first_stage"] == plain["recall"] and found["reranked"] == plain["reranked"] == found["recall"]
    assert found["by_num_beams"]["10"] == found["recall"] and found["by_num_beams"]["5"]["10"] is None
    assert ledger_of(found) == ledger_of(plain)


def test_blip_after_a_generator(paradigms: Paradigms, blip: Path, tmp_path: Path) -> None:
    plain = paradigms.evaluate(paradigms.train("generative"))
    run = paradigms.train("generative-blip", *sets(f"rerank={{type: itm, model: {blip}, weight: 0.4}}"))
    found = paradigms.evaluate(run, "--trec", tmp_path / "trec")
    assert found["first_stage"] == plain["recall"] and found["reranked"] == plain["reranked"]
    assert ledger_of(found)["reached"] == found["first_stage"]["10"]
    assert ledger_of(found)["final"] == found["recall"]["10"]
    for k in (1, 5, 10):
        assert found["recall"][str(k)] == pytest.approx(recall_from_trec(tmp_path / "trec", k))
    ids = {hit["image_id"] for hit in paradigms.hits(paradigms.train("generative"), "-k", 8)}
    hits = paradigms.hits(run, "-k", 8)
    assert {hit["image_id"] for hit in hits} == ids and all(len(hit["identifier"]) == 3 for hit in hits)


def test_captioner_turns_the_question_round(paradigms: Paradigms, captioners: dict[str, Path]) -> None:
    words = sets(f"rerank={{type: reverse, model: {captioners['git']}}}")
    hits = paradigms.hits(paradigms.two_tower("reverse", *words), "-k", 3)
    scores = [hit["score"] for hit in hits]
    assert len(hits) == 3 and scores == sorted(scores, reverse=True) and scores[0] < 0


def test_what_thumbnails_are_like(paradigms: Paradigms, tmp_path: Path) -> None:
    """As large as a matching model needs to see them."""
    from PIL import Image

    run = paradigms.two_tower("thumbnails")
    Image.effect_noise((640, 320), 60).save(tmp_path / "large.png")
    paradigms.genret("index", tmp_path / "large.png", "--run", run)
    sizes = {decode_image(path.read_bytes(), path.name).size for path in (run / "thumbnails").rglob("*.jpg")}
    assert (256, 128) in sizes


def test_the_runs_own_generator_turns_the_question_round(paradigms: Paradigms) -> None:
    """The scores are the saved generator's log p(query | stored vector), whatever way it is opened."""
    from genret.plugin.loading import load_plugins
    from genret.run import Run
    from genret.settings import Settings

    run = paradigms.train("own-reverse", *sets("loss.reverse.weight=1", "rerank=reverse"))
    hits = paradigms.hits(run, "-k", 8)
    settings = Settings(home=paradigms.home, device="cpu", num_threads=1)
    retriever: Any = Run(run, load_plugins((), settings).registries, settings).retriever
    keys = retriever.catalog.keys_of([hit["image_id"] for hit in hits])
    with torch.no_grad():
        scores = retriever.backbone.caption_log_probs(retriever.catalog.features_of(keys), [QUERY] * len(hits))
    assert [hit["score"] for hit in hits] == pytest.approx(scores.tolist(), abs=1e-3)
    found = paradigms.evaluate(run)
    assert ledger_of(found)["reached"] == found["first_stage"]["10"]
    assert ledger_of(found)["final"] == found["recall"]["10"]
