"""TREC files read by another program give the measures of the rankings that were written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG

from genret.errors import GenretError
from genret.evaluate.metrics import pair_ranks, scores_of
from genret.lab.trec import escaped, write_qrels, write_run, write_topics

IDS = ["my cat.png", "z", "ä/ö\u00a0ü", "50% off", "a\tb\nc", "line\u2028end", "A", "日本.jpg", "%20", "b"]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_others_measure_the_same(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("trec")
    num_queries = data.draw(st.integers(1, 4))
    ranked = np.array([data.draw(st.permutations(range(len(IDS))))[:7] for _ in range(num_queries)])
    # whole numbers, so that many are equal; the order given is the one that counts
    scores = [sorted((data.draw(st.integers(-3, 0)) for _ in range(7)), reverse=True) for _ in range(num_queries)]
    relevant = [data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)) for _ in range(num_queries)]
    queries = [f"query {q}" for q in range(num_queries)]
    write_run(folder / "run.trec", queries, [[IDS[row] for row in rows] for rows in ranked], scores, "my run")
    write_qrels(folder / "qrels.trec", queries, [[IDS[row] for row in rows] for rows in relevant])
    run = list(ir_measures.read_trec_run(str(folder / "run.trec")))
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.trec")))
    assert {unquote(line.doc_id) for line in run} <= set(IDS) and {unquote(q.query_id) for q in qrels} == set(queries)
    found = ir_measures.calc_aggregate([Success @ 1, Success @ 5, RR, nDCG @ 10], qrels, run)
    ours = scores_of(pair_ranks(ranked, relevant), relevant)
    assert ours.recall["1"] == pytest.approx(100 * found[Success @ 1])
    assert ours.recall["5"] == pytest.approx(100 * found[Success @ 5])
    assert ours.mrr == pytest.approx(found[RR])
    assert ours.ndcg_at_10 == pytest.approx(found[nDCG @ 10])


@given(st.text(min_size=1, max_size=12).filter(lambda text: text.encode(errors="ignore").decode() == text))
def test_escaping_is_one_word_and_comes_back(name):
    assert escaped(name).split() == [escaped(name)]
    assert unquote(escaped(name)) == name


def test_lines(tmp_path: Path):
    write_run(tmp_path / "new" / "r", ["q"], [["a b", "c", "d"]], [[-1.5, -1.5, -7.0]], "tag")
    lines = [line.split(" ") for line in (tmp_path / "new" / "r").read_text().splitlines()]
    assert [line[:4] + line[5:] for line in lines] == [
        ["q", "Q0", "a%20b", "1", "tag"],
        ["q", "Q0", "c", "2", "tag"],
        ["q", "Q0", "d", "3", "tag"],
    ]
    scores = [np.float32(line[4]) for line in lines]
    assert scores[0] == -1.5 and scores[0] > scores[1] > -1.5001 and scores[2] == -7.0
    write_qrels(tmp_path / "q", ["q"], [["a b"]])
    assert (tmp_path / "q").read_text() == "q 0 a%20b 1\n"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "run"
    write_run(path, ["q"], [["a"]], [[1.0]], "t")
    before = path.read_text()
    with pytest.raises(ValueError):
        write_run(path, ["q", "r"], [["a"], ["b"]], [[1.0]], "t")
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["run"]
    with pytest.raises(GenretError, match="cannot write"):
        write_qrels(path / "below", ["q"], [["a"]])


def test_topics_are_the_queries_of_the_run(tmp_path: Path):
    """A line each, id and words, as ir_datasets reads TSV topics."""
    write_topics(tmp_path / "topics.tsv", ["q0", "q 1"], ["a dog", "two\tdogs\n in \x1b[31m snow"])
    lines = [line.split("\t") for line in (tmp_path / "topics.tsv").read_text().splitlines()]
    assert lines == [["q0", "a dog"], ["q%201", "two dogs in [31m snow"]]
