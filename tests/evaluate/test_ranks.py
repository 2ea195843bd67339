"""Ranks that are kept with a run: round trip, pairing whatever the order, damage and figures from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret.errors import GenretError
from genret.evaluate.metrics import MISSED, recalls, scores_of
from genret.evaluate.ranks import FOLDER, beams, ranks_path, read_ranks, write_ranks
from genret.lab.compare.paired import paired
from genret.lab.compare.run_summary import Figure, measured, name_of, over_seeds
from genret.toolbox.text_table import TextTable

IMAGES = ["a.png", "b.png", "c.png"]
QUERIES = ["a dog", "a cat", "a cat", "nothing"]
RELEVANT = [0, 1, 2, 2]


def write(run: Path, order: list[int], ranks: list[int], images: list[str] = IMAGES) -> None:
    run.mkdir(exist_ok=True)
    queries, relevant = [QUERIES[i] for i in order], [RELEVANT[i] for i in order]
    write_ranks(run, "test", queries, relevant, images, {beams(5): np.array(ranks, np.int64)[order]})


def test_round_trip_and_pairing(tmp_path: Path) -> None:
    """Two catalogs may list the same captions in different orders; one wording may ask for two images."""
    write(tmp_path / "one", [0, 1, 2, 3], [1, 2, 3, MISSED])
    write(tmp_path / "two", [3, 1, 0, 2], [5, 6, 7, 8])
    one, two = (read_ranks(tmp_path / name, "test", beams(5)) for name in ("one", "two"))
    assert one is not None and two is not None and one.ranks.tolist() == [1, 2, 3, MISSED]
    rows = paired([one, two])
    assert rows is not None and sorted(zip(*(row.tolist() for row in rows), strict=True)) == [
        (1, 5), (2, 6), (3, 7), (MISSED, 8),
    ]  # fmt: skip
    assert (
        read_ranks(tmp_path / "one", "dev", beams(5)) is None and read_ranks(tmp_path / "one", "test", "dense") is None
    )
    assert [path.name for path in (tmp_path / "one" / FOLDER).iterdir()] == ["test.5-beams.safetensors"]


def test_other_queries_or_images_do_not_pair(tmp_path: Path) -> None:
    write(tmp_path / "one", [0, 1, 2, 3], [1, 2, 3, 4])
    write(tmp_path / "fewer", [0, 1, 2], [1, 2, 3, 4])
    write(tmp_path / "more-images", [0, 1, 2, 3], [1, 2, 3, 4], [*IMAGES, "d.png"])
    write(tmp_path / "renamed", [0, 1, 2, 3], [1, 2, 3, 4], ["x.png", "b.png", "c.png"])
    found = {run.name: read_ranks(run, "test", beams(5)) for run in tmp_path.iterdir()}
    for name in ("fewer", "more-images", "renamed"):
        assert paired([found["one"], found[name]]) is None, name  # type: ignore[list-item]


def test_damage_is_told(tmp_path: Path) -> None:
    write(tmp_path / "one", [0, 1, 2, 3], [1, 2, 3, 4])
    path = ranks_path(tmp_path / "one", "test", beams(5))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(GenretError, match=r"test\.5-beams\.safetensors is damaged"):
        read_ranks(tmp_path / "one", "test", beams(5))


@given(st.lists(st.integers(1, 30) | st.just(MISSED), min_size=1, max_size=40), st.none() | st.integers(1, 12))
def test_measures_of_queries_average_to_those_of_runs(ranks: list[int], num_beams: int | None) -> None:
    rows = np.array(ranks, np.int64)
    *found, reciprocal, gain = measured(rows, num_beams).mean(axis=0)
    for value, (k, recall) in zip(found, recalls(rows, num_beams=num_beams).items(), strict=True):
        assert np.isnan(value) if recall is None else value == pytest.approx(recall), k
    scores = scores_of(rows, np.zeros(len(rows), np.int64), num_beams=num_beams)
    assert reciprocal == pytest.approx(scores.mrr)
    assert np.isnan(gain) if scores.ndcg_at_10 is None else gain == pytest.approx(scores.ndcg_at_10)


def test_figures_over_seeds() -> None:
    assert over_seeds([50.0]) == Figure(50.0, None) and over_seeds([50.0]).text() == "50.0"
    two = over_seeds([50.0, 53.0])
    assert two.mean == 51.5 and two.spread == pytest.approx(3 / 2**0.5) and two.text() == "51.5 ± 2.1"


def test_tables_as_markdown() -> None:
    table = TextTable("Title", ["a | b", "n"], [["x\ny", "1"]], 1, ["A note."])
    assert table.markdown() == "Title\n\n| a \\| b | n |\n| --- | ---: |\n| x y | 1 |\n\nA note.\n"


def test_slots_in_words() -> None:
    from genret.api import Config
    from genret.recipe.schema import Slot

    class Tower(Config):
        type: str = "timm"
        model: str = "lite0"

    class Paired(Config):
        image: Tower = Tower()
        root: str = "/data/flickr8k"
        epochs: int = 3

    assert name_of(Slot(type="paired", options=Paired())) == "paired lite0 flickr8k" and name_of(None) == "–"
