"""Queries of more than words, through a real run: held against the stored vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import genret
from genret import Query, UsageError
from genret.api import Restriction

WORDS = "a red square on grey"


@pytest.fixture(scope="module")
def opened(tiny: Any) -> Iterator[genret.Run]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HOME", tiny.home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
            patch.setenv(f"GENRET_{name}", str(value))
        with genret.load("tiny-1") as run:
            yield run


@pytest.fixture(scope="module")
def dense(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[genret.Run]:
    folder = tmp_path_factory.mktemp("dense") / "run"
    done = tiny.genret("train", tiny.recipe, "--set", "retriever=two-tower", "--run", folder)
    assert done.code == 0, done.err
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HOME", tiny.home), ("DEVICE", "cpu"), ("NUM_THREADS", 1)):
            patch.setenv(f"GENRET_{name}", str(value))
        with genret.load(folder) as run:
            yield run


def stored(run: genret.Run) -> tuple[list[str], np.ndarray]:
    """The searchable images and their vectors."""
    catalog = run.retriever.catalog
    keys = catalog.searchable_keys()
    return [row.image_id for row in catalog.lookup(keys)], catalog.features_of(keys).numpy().astype(np.float64)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def best(names: list[str], scores: np.ndarray) -> list[tuple[str, Any]]:
    return [(names[i], pytest.approx(scores[i], abs=2e-3)) for i in np.argsort(-scores, kind="stable")]


def shown(result: Any) -> list[tuple[str, float]]:
    return [(hit.image_id, hit.score) for hit in result.hits]


@pytest.mark.parametrize("which", ["opened", "dense"])
def test_a_picture(which: str, tiny: Any, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    names, vectors = stored(run)
    file = tiny.data / names[3]
    found = run.search(Query(image=file), k=50)
    assert shown(found) == best(names, vectors @ unit(vectors[3])) and found.hits[0].image_id == names[3]
    assert found.hits[0].score == pytest.approx(1, abs=1e-3)
    assert (found.query, found.num_beams, found.confidence) == (f"like {file.name}", None, None)
    assert all((hit.identifier is None) == (which == "dense") for hit in found.hits)
    with Image.open(file) as image:
        for picture in (str(file), file.read_bytes(), image):
            assert shown(run.search(Query(image=picture), k=50)) == shown(found)


@pytest.mark.parametrize("which", ["opened", "dense"])
def test_words_and_a_picture_and_images_to_be_like(which: str, tiny: Any, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    names, vectors = stored(run)
    words = run.retriever.text_vectors([WORDS])[0].numpy()
    both = run.search(Query(text=WORDS, image=tiny.data / names[2]), k=50)
    assert shown(both) == best(names, vectors @ unit(words + vectors[2])) and both.query == WORDS
    liked = run.search(Query(like=(names[1], names[4])), k=50)
    others = [i for i in range(len(names)) if i not in (1, 4)]
    middle = unit(vectors[1] + vectors[4])
    assert shown(liked) == best([names[i] for i in others], vectors[others] @ middle), "but not themselves"
    only = run.search(Query(like=names[1]), k=50, restrict=Restriction(only=names[2:4]))
    assert {hit.image_id for hit in only.hits} == set(names[2:4])


def test_negative_words_of_a_dense_search_are_subtracted(dense: genret.Run) -> None:
    names, vectors = stored(dense)
    query, *negative = dense.retriever.text_vectors([WORDS, "a circle", "a blue line"]).numpy()
    found = dense.search(Query(text=WORDS, without=("a circle", "a blue line")), k=50)
    scores = vectors @ query - np.max([vectors @ one for one in negative], axis=0)
    assert shown(found) == best(names, scores)
    assert shown(dense.search(Query(text=WORDS, without=("a circle", "a blue line")), k=2)) == shown(found)[:2]


def test_negative_words_of_a_generative_search_reorder_what_it_finds(opened: genret.Run) -> None:
    names, vectors = stored(opened)
    before = dict(shown(opened.search(WORDS, k=50)))
    query, word = opened.retriever.text_vectors([WORDS, "a circle"]).numpy()
    scores = np.array([before[name] for name in names])
    spread = scores.std() / (vectors @ query).std()
    found = opened.search(Query(text=WORDS, without="a circle"), k=50)
    assert shown(found) == best(names, scores - spread * (vectors @ word))
    assert shown(opened.search(Query(text=WORDS, without="a circle"), k=3)) == shown(found)[:3]


def test_batches_of_all_kinds_keep_their_order(opened: genret.Run, tiny: Any) -> None:
    names, _ = stored(opened)
    asked = [
        Query(image=tiny.data / names[0]),
        "a blue circle",
        Query(like=names[1]),
        Query(text=WORDS, without="blue"),
    ]
    alone = [opened.search(one, k=4) for one in asked]
    together = opened.search(asked, k=4)
    assert [one.query for one in together] == [one.query for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert [hit.image_id for hit in one.hits] == [hit.image_id for hit in other.hits]


def test_unlike_images_are_not_found(opened: genret.Run) -> None:
    first = opened.search(WORDS, k=1).hits[0].image_id
    by_query = opened.search(Query(text=WORDS, unlike=first), k=50)
    by_option = opened.search(WORDS, k=50, restrict=Restriction(unlike=(first,)))
    assert shown(by_query) == shown(by_option) and first not in dict(shown(by_query))


@pytest.mark.parametrize("which", ["opened", "dense"])
def test_k_means_what_it_says(which: str, tiny: Any, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(which)
    names, _ = stored(run)
    for asked in (WORDS, Query(image=tiny.data / names[0]), Query(text=WORDS, without="blue")):
        assert run.search(asked, k=0).hits == []
        assert len(run.search(asked, k=10**9).hits) == len(names)
    with pytest.raises(UsageError, match="k is how many images to find, from 0, not -1"):
        run.search(WORDS, k=-1)


def test_any_script_is_a_query(opened: genret.Run) -> None:
    for words in (
        "ein rotes Quadrat",
        "красный квадрат",
        "赤い四角",
        "مربع أحمر",
        "👩🏽‍🌾 ❤️",
    ):  # what the tower makes of it
        found = opened.search(words, k=3)
        assert found.query == words and len(found.hits) == 3


def test_bad_queries_say_what_is_wrong(opened: genret.Run, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"\x89PNG\r\n\x1a\nno")
    for query, said in (
        (Query(image=tmp_path / "nowhere.png"), "nowhere.png cannot be read: No such file"),
        (Query(image=torn), "torn.png is "),
        (Query(image=b""), "the query's picture is empty"),
        (Query(image=7), "a query's picture is a file, bytes or a PIL image, no int"),  # type: ignore[arg-type]
        (Query(like="nobody"), "no searchable image has the id 'nobody'"),
    ):
        with pytest.raises(genret.GenretError, match=said):
            opened.search(query)
    with pytest.raises(UsageError, match="confidence is calibrated for words"):
        opened.search(Query(image=torn), min_confidence=0.5)


# ------------------------------------------------------------------------------------------------ the program
def test_the_program_asks_the_same(tiny: Any, opened: genret.Run, tmp_path: Path) -> None:
    names, _ = stored(opened)
    file = tiny.data / names[0]
    asked: list[tuple[list[Any], Query]] = [
        (["--image", file], Query(image=file)),
        ([WORDS, "--image", file], Query(text=WORDS, image=file)),
        (["--like", names[1]], Query(like=names[1])),
        ([f"{WORDS} -blue", "--without", "a circle"], Query(text=WORDS, without=("blue", "a circle"))),
        (["--", "-blue"], Query(text="-blue")),
    ]
    for words, query in asked:
        found = tiny.genret("search", "--run", tiny.run, "-k", 4, "--json", *words).document
        assert [hit["image_id"] for hit in found["hits"]] == [hit.image_id for hit in opened.search(query, k=4).hits]
        assert found["query"] == str(query)
    lines = f'{{"image": "{file}"}}\n{{"query": "{WORDS}", "without": ["blue"]}}\n{WORDS} -blue\n'
    answers = tiny.genret("search", "--run", tiny.run, "--queries", "-", "-k", 4, stdin=lines).out.splitlines()
    queries = [Query(image=file), Query(text=WORDS, without="blue"), f"{WORDS} -blue"]
    for line, result in zip(answers, opened.search(queries, k=4), strict=True):
        assert [hit["image_id"] for hit in json.loads(line)["hits"]] == [hit.image_id for hit in result.hits]


def test_hits_are_cut_and_sorted(tiny: Any, opened: genret.Run) -> None:
    found = opened.search(WORDS, k=8).hits
    words = ("search", WORDS, "--run", tiny.run, "-k", 8, "--json")
    cut = tiny.genret(*words, "--min-score", found[2].score).document["hits"]
    assert [hit["image_id"] for hit in cut] == [hit.image_id for hit in found[:3]]
    by_name = tiny.genret(*words, "--sort", "name").document["hits"]
    assert [hit["image_id"] for hit in by_name] == sorted(hit.image_id for hit in found)
    assert {hit["image_id"]: hit["rank"] for hit in by_name} == {hit.image_id: hit.rank for hit in found}
    assert tiny.genret("search", WORDS, "--run", tiny.run, "-k", 0, "--json").document["hits"] == []


def test_a_hit_whose_file_is_gone_is_marked(tiny: Any, run: Path, tmp_path: Path) -> None:
    files = [tiny.draw(tmp_path / "mine" / f"{name}.png", "red", "square", name) for name in ("pink", "white")]
    assert tiny.genret("index", "--run", run, *files).code == 0
    files[0].unlink()
    hits = tiny.genret("search", WORDS, "--run", run, "-k", 50, "--json").document["hits"]
    assert [hit["image_id"] for hit in hits if "missing" in hit] == [str(files[0])]
    assert all(hit.get("missing", True) is True for hit in hits)
    table = " ".join(tiny.genret("search", WORDS, "--run", run, "-k", 50).out.split())
    assert table.count("(gone)") == 1
