"""A batch whose queries are searched by several threads finds what each query finds alone."""

import threading

import pytest

from genret.components.retrievers import generative
from genret.testing.world.run import watched_run
from tests.threads import torch_threads

QUERIES = [f"a {size} {color} square" for size in ("red", "small", "large", "dark") for color in ("red", "blue", "x")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with watched_run(tmp_path_factory.mktemp("parts"), "generative") as run:
        yield run


@pytest.fixture
def threads():
    with torch_threads(3):
        yield


@pytest.mark.parametrize("written_levels", [None, 1])  # 1: the last level leaves ties between identifiers
def test_parts_find_what_each_query_finds_alone(run, threads, monkeypatch, written_levels):
    used, search = set(), generative.beam_search
    meeting = threading.Barrier(3, timeout=30)

    def watched(*args, **kwargs):
        thread = threading.current_thread()
        if thread not in used:
            used.add(thread)
            if thread is not threading.main_thread():
                meeting.wait()  # no part is done before all have begun
        return search(*args, **kwargs)

    monkeypatch.setattr(generative, "beam_search", watched)
    monkeypatch.setattr(run.retriever, "written_levels", written_levels)
    found = run.retriever.search(QUERIES, 6)
    assert len(used) == 3 and threading.current_thread() not in used
    for query, result in zip(QUERIES, found, strict=True):
        (alone,) = run.retriever.search([query], 6)
        assert result.query == query
        assert [hit.image_id for hit in result.hits] == [hit.image_id for hit in alone.hits]
        assert [hit.score for hit in result.hits] == pytest.approx([hit.score for hit in alone.hits], abs=1e-5)


def test_a_backbone_that_does_not_say_so_stays_in_one_thread(run, threads, monkeypatch):
    used, search = set(), generative.beam_search

    def watched(*args, **kwargs):
        used.add(threading.current_thread())
        return search(*args, **kwargs)

    monkeypatch.setattr(generative, "beam_search", watched)
    monkeypatch.setattr(type(run.retriever.backbone), "is_concurrent", False)
    run.retriever.search(QUERIES, 6)
    assert used == {threading.current_thread()}
