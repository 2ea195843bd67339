"""The ledger by hand, on random traces, and on traces of a plain beam search over random trees."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret.evaluate.ledger import Trace, attribute, folded, ledger

NEVER = int(np.iinfo(np.int64).max)
K, BEAMS, LEVELS = 2, 4, 3


class Query(dict):
    """One query's part of a trace; by default all is well."""

    def __init__(self, **changes):
        well = {"dense": 1, "ceiling": 1, "prefix": [1, 1, 1], "identifier": 1, "image": 1, "forced": -1.0}
        super().__init__(well | {"scores": [-1.0, -2.0, -3.0, -4.0], "reranked": changes.get("image", 1)} | changes)


def trace_of(queries: list[Query], reranked: bool = True) -> Trace:
    def column(name, kind=np.int64):
        return np.array([query[name] for query in queries], dtype=kind)

    return Trace(
        dense_ranks=column("dense"),
        ceiling_ranks=column("ceiling"),
        prefix_ranks=column("prefix").reshape(len(queries), -1),
        identifier_ranks=column("identifier"),
        image_ranks=column("image"),
        forced_scores=column("forced", np.float32),
        beam_scores=column("scores", np.float32),
        reranked_ranks=column("reranked") if reranked else None,
    )


def lost(queries: list[Query], k: int = K) -> dict[str, int]:
    return {row.stage: row.queries for row in ledger(trace_of(queries), k) if row.is_change and row.queries}


GONE = {"identifier": NEVER, "image": NEVER}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), {}),
        (Query(ceiling=3, **GONE, prefix=[NEVER] * 3, forced=-9.0), {"quantization": 1}),
        (Query(dense=3, ceiling=1), {"quantization": -1}),
        (Query(ceiling=3), {"quantization": 1, "recovered": -1}),
        # never among the two best of its level
        (Query(**GONE, prefix=[3, NEVER, NEVER], forced=-9.0), {"level 1": 1}),
        (Query(**GONE, prefix=[2, 4, NEVER], forced=-9.0), {"level 2": 1}),
        (Query(**GONE, prefix=[2, 2, NEVER], forced=-9.0), {"level 3": 1}),
        # the last such level counts, even after a worse one
        (Query(**GONE, prefix=[4, 2, NEVER], forced=-9.0), {"level 3": 1}),
        # found, but too far behind
        (Query(prefix=[1, 2, 3], identifier=3, image=3, forced=-3.0), {"level 3": 1}),
        (Query(prefix=[4, 4, 4], identifier=4, image=7, forced=-4.0), {"level 1": 1}),
        # pruned though it beats the second identifier found (-2.0); an equal score would not have helped
        (Query(**GONE, prefix=[1, NEVER, NEVER], forced=-1.5), {"beam": 1}),
        (Query(**GONE, prefix=[1, NEVER, NEVER], forced=-2.0), {"level 2": 1}),
        # fewer identifiers found than k: any other would have been among them
        (Query(**GONE, prefix=[NEVER] * 3, forced=-50.0, scores=[-1.0, -np.inf, -np.inf, -np.inf]), {"beam": 1}),
        # among the two best identifiers, behind other images of these
        (Query(prefix=[1, 1, 2], identifier=2, image=3, forced=-2.0), {"collision": 1}),
        (Query(identifier=1, image=5), {"collision": 1}),
        (Query(identifier=1, image=5, reranked=1), {"collision": 1, "rerank": -1}),
        (Query(reranked=3), {"rerank": 1}),
    ],
)
def test_each_cause(query, expected):
    assert lost([query]) == expected


def test_a_beam_narrower_than_k():
    query = Query(**GONE, prefix=[NEVER] * 3, forced=-50.0)
    assert lost([query], k=10) == {"beam": 1}


def test_rows_points_and_json():
    queries = [
        *(Query() for _ in range(5)),
        Query(**GONE, prefix=[1, 3, NEVER], forced=-9.0),
        Query(ceiling=3, **GONE, prefix=[3] * 3, forced=-9.0),
        Query(dense=9, ceiling=9, **GONE, prefix=[3] * 3, forced=-9.0),
    ]
    rows = ledger(trace_of(queries), K)
    assert [row.stage for row in rows] == [
        *("dense", "quantization", "level 1", "level 2", "level 3", "beam", "collision", "recovered"),
        *("reached", "rerank", "final"),
    ]
    named = {row.stage: row for row in rows}
    assert named["dense"].points == named["dense"].recall == 87.5
    assert (named["quantization"].points, named["quantization"].recall) == (12.5, 75.0)
    assert named["level 2"].share == pytest.approx(100 / 7)
    assert named["reached"].queries == 5 and named["final"].recall == 62.5
    document = json.loads(json.dumps([row.as_json() for row in rows]))
    assert document[0] == {"stage": "dense", "queries": 7, "recall": 87.5}
    assert document[3] == {"stage": "level 2", "queries": 1, "recall": 62.5, "lost": 12.5, "share": 100 / 7}
    without = ledger(trace_of(queries, reranked=False), K)
    assert [row.stage for row in without][-2:] == ["reached", "final"]


def test_nothing_found_at_all():
    rows = ledger(trace_of([Query(dense=9, ceiling=9, **GONE, prefix=[NEVER] * 3, forced=-9.0)]), K)
    assert all(row.queries == 0 and row.share is None for row in rows)


# ----------------------------------------------------------------------------------------------------- random traces
rank = st.one_of(st.integers(1, 6), st.just(NEVER))


@st.composite
def queries(draw):
    """As a beam search could leave it: what is gone stays gone, the last prefix is the identifier."""
    scores = sorted((-float(draw(st.integers(0, 9))) for _ in range(BEAMS)), reverse=True)
    alive = draw(st.integers(0, LEVELS))
    prefix = [draw(st.integers(1, BEAMS)) if level < alive else NEVER for level in range(LEVELS)]
    identifier = prefix[-1]
    image = draw(st.integers(identifier, identifier + 3)) if identifier < NEVER else NEVER
    forced = scores[identifier - 1] if identifier < NEVER else -float(draw(st.integers(0, 9))) - 0.5
    return Query(
        dense=draw(rank),
        ceiling=draw(rank),
        prefix=prefix,
        identifier=identifier,
        image=image,
        forced=forced,
        scores=scores,
        reranked=draw(rank),
    )


def cause_of(query: Query, k: int) -> str:
    """The definition, read aloud."""
    if query["identifier"] == NEVER and (k > BEAMS or query["forced"] > query["scores"][k - 1]):
        return "beam"
    if query["identifier"] <= k:
        return "collision"
    level = 1
    for number, place in enumerate(query["prefix"], 1):
        if place <= k:
            level = number + 1
    assert level <= LEVELS
    return f"level {level}"


@settings(deadline=None, max_examples=300)
@given(st.lists(queries(), min_size=1, max_size=12), st.integers(1, 6), st.booleans())
def test_sums_exactly_and_counts_every_query_once(many, k, reranked):
    trace = trace_of(many, reranked)
    rows = ledger(trace, k)
    named = {row.stage: row for row in rows}
    changes = [row for row in rows if row.is_change]
    final = trace.reranked_ranks if reranked else trace.image_ranks
    assert named["dense"].queries == sum(query["dense"] <= k for query in many)
    assert named["reached"].queries == sum(query["image"] <= k for query in many)
    assert named["final"].queries == int((final <= k).sum())
    assert named["dense"].queries - sum(row.queries for row in changes) == named["final"].queries
    assert named["dense"].points - sum(row.points for row in changes) == pytest.approx(named["final"].points)
    assert named["quantization"].queries == sum((q["dense"] <= k) - (q["ceiling"] <= k) for q in many)
    causes = [cause_of(q, k) for q in many if q["ceiling"] <= k < q["image"]]
    for stage in ("level 1", "level 2", "level 3", "beam", "collision"):
        assert named[stage].queries == causes.count(stage)
    assert named["recovered"].queries == -sum(q["image"] <= k < q["ceiling"] for q in many)


# ------------------------------------------------------------------------------------------- traces of a real search
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_traces_of_a_plain_beam_search(seed, k, num_beams):
    """Random probabilities over all words of three letters; identifiers carry one to three images."""
    random = np.random.default_rng(seed)
    symbols, words = 3, list(itertools.product(range(3), repeat=LEVELS))
    images = [word for word in words for _ in range(random.integers(1, 4))]
    found: list[Query] = []
    for _ in range(6):
        logits = {word[:d]: random.normal(size=symbols) * 2 for word in words for d in range(LEVELS)}

        def step(prefix, symbol, logits=logits):
            return float(np.float32(logits[prefix][symbol] - np.log(np.exp(logits[prefix]).sum())))

        right_image = int(random.integers(len(images)))
        right = images[right_image]
        beam, ranks = [((), 0.0)], []
        for depth in range(LEVELS):
            grown = [((*prefix, s), score + step(prefix, s)) for prefix, score in beam for s in range(symbols)]
            beam = sorted(grown, key=lambda item: -item[1])[:num_beams]
            kept = [prefix for prefix, _ in beam]
            ranks.append(kept.index(right[: depth + 1]) + 1 if right[: depth + 1] in kept else NEVER)
        order = [image for prefix, _ in beam for image, word in enumerate(images) if word == prefix]
        found.append(
            Query(
                dense=int(random.integers(1, 6)),
                ceiling=int(random.integers(1, 6)),
                prefix=ranks,
                identifier=ranks[-1],
                image=order.index(right_image) + 1 if right_image in order else NEVER,
                forced=sum(step(right[:d], right[d]) for d in range(LEVELS)),
                scores=[score for _, score in beam] + [-np.inf] * (5 - len(beam)),
            )
        )
    trace = replace(trace_of(found), beam_scores=np.array([q["scores"][:num_beams] for q in found], dtype=np.float32))
    named = {row.stage: row for row in ledger(trace, k)}
    assert named["reached"].queries == sum(query["image"] <= k for query in found)
    for query, cause in zip(found, attribute(trace, k), strict=True):
        if query["image"] > k and cause == LEVELS:  # pruned: with all beams it would stand before the k-th found
            assert query["identifier"] == NEVER
            assert num_beams < k or query["forced"] > query["scores"][k - 1]
        if query["image"] > k and cause == LEVELS + 1:
            assert query["identifier"] <= k


def test_inconsistent_traces_are_noticed():
    query = Query(prefix=[1, 1, 1], identifier=3, image=3)
    with pytest.raises(AssertionError, match="among the k best found"):
        ledger(trace_of([query]), K)


@pytest.mark.parametrize("levels", [0, 3, 8, 9, 10, 24])
def test_readers_see_the_deep_levels_as_one_row(levels: int) -> None:
    found_until = np.random.default_rng(levels).integers(0, levels + 1, size=200).tolist()
    queries = [
        Query(prefix=[1] * until + [9] * (levels - until), **({} if until == levels else GONE | {"forced": -9.0}))
        for until in found_until
    ]
    rows = [row.as_json() for row in ledger(trace_of(queries), K)]
    seen = folded(rows)
    if levels < 10:
        assert seen == rows
        return
    deep = [row for row in rows if row["stage"] in {f"level {level}" for level in range(9, levels + 1)}]
    (one,) = (row for row in seen if row not in rows)
    assert one["stage"] == f"level 9 to {levels}" and one["recall"] == deep[-1]["recall"] and len(deep) == levels - 8
    for counted in ("queries", "lost", "share"):
        assert one[counted] == pytest.approx(sum(row[counted] for row in deep))
    assert [row for row in seen if row is not one] == [row for row in rows if row not in deep]
    recall = 0.0
    for row in seen:
        recall = recall - row["lost"] if "lost" in row else row["recall"]
        assert row["recall"] == pytest.approx(recall)
