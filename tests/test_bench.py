"""The benchmark's own code, tiny: rivals find what they should, sums are right, the page shows what was measured."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import catalog, decoding, everyday, page, paradigms, plot, report, search, static
from bench.generate import DictTrie, disagreements
from bench.identifiers import CODEBOOK_SIZE, NUM_LEVELS, identifiers, tokens_of
from bench.logic import BEAMS, _differ, _ours, _theirs
from bench.measure import Rival, alternate, cost_of
from bench.models import Model, RandomScores, model, queries
from genret.decode.trie import Trie
from genret_starter.concepts import base_of
from genret_starter.renderings import available
from tests.threads import torch_threads

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def tiny() -> Model:
    return model("t5-tiny", CPU)


# ------------------------------------------------------------------------------------------------ catalogs
@pytest.mark.parametrize("distribution", ["uniform", "skewed"])
def test_identifiers_are_distinct_and_in_no_order(distribution: str) -> None:
    codes = identifiers(2000, distribution)  # type: ignore[arg-type]
    assert codes.shape == (2000, NUM_LEVELS) and int(codes.min()) >= 0 and int(codes.max()) < CODEBOOK_SIZE
    rows = [tuple(row) for row in codes.tolist()]
    assert len(set(rows)) == 2000 and rows != sorted(rows)
    assert torch.equal(codes, identifiers(2000, distribution))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ STATIC
def test_static_finds_all_identifiers_in_order() -> None:
    """Against brute force: with a beam for each identifier, nothing is lost on the way."""
    vocab, count, random = 64, 60, np.random.default_rng(0)
    rows = np.stack([key // (9, 3, 1) % 3 * (7, 20, 5) for key in random.permutation(27)])  # shared prefixes
    rows = np.concatenate([rows, random.integers(vocab, size=(count - 27, 3))])
    assert len({tuple(row) for row in rows}) == count
    index = static.build(static.sort_rows(rows, vocab), vocab)
    logits = torch.randn(3, vocab, generator=torch.Generator().manual_seed(0))  # no near ties
    codes, scores = static.search(index, lambda depth, width: logits[depth].expand(1, width, -1), count)
    log_probs = logits.log_softmax(-1)
    totals = log_probs[0, rows[:, 0]] + log_probs[1, rows[:, 1]] + log_probs[2, rows[:, 2]]
    best = totals.sort(descending=True)
    assert torch.allclose(scores[0], best.values, atol=1e-5)
    assert codes[0].tolist() == rows[best.indices].tolist()


def test_genret_and_static_find_the_same() -> None:
    codes, drawn = identifiers(5000), [RandomScores(2, BEAMS, CPU, seed, alike=True) for seed in range(4)]
    trie = Trie.build(codes)
    index = static.build(static.sort_rows(codes.numpy(), CODEBOOK_SIZE), CODEBOOK_SIZE)
    ours, theirs = _ours(trie, drawn), _theirs(index, drawn)
    for number in range(2):
        codes_found, scores = theirs(number)
        assert _differ(trie, ours(number), (codes_found, scores)) == 0
        assert _differ(trie, ours(number), (codes_found.flip(1), scores)) > BEAMS, "a difference is noticed"


# ------------------------------------------------------------------------------------------------ transformers
def test_genret_and_generate_find_the_same(tiny: Model) -> None:
    tokens = tokens_of(identifiers(3000), tiny.level_tokens)
    assert disagreements(tiny, Trie.build(tokens), DictTrie(tokens), queries(3, 0), 8) == 0
    others = DictTrie(tokens[:1500])
    assert disagreements(tiny, Trie.build(tokens), others, queries(3, 0), 8) > 0, "a difference is noticed"


def test_the_llama_shape_is_compared_alike() -> None:
    net = model("llama-tiny", CPU)
    tokens = tokens_of(identifiers(1000), net.level_tokens)
    assert disagreements(net, Trie.build(tokens), DictTrie(tokens), queries(3, 1), 5) == 0


def test_floors_call_the_model_once_per_level(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    step = tiny.backbone.step

    def counted(state, symbols, parents, columns):  # type: ignore[no-untyped-def]
        logits = step(state, symbols, parents, columns)
        calls.append(tuple(logits.shape))
        return logits

    monkeypatch.setattr(tiny.backbone, "step", counted)
    search.own_calls(tiny, 2, 5)(0)
    assert calls == [(2, 1, CODEBOOK_SIZE), *[(2, 5, CODEBOOK_SIZE)] * (NUM_LEVELS - 1)]
    calls.clear()
    trie = Trie.build(tokens_of(identifiers(3000), tiny.level_tokens))
    search.genret_search(tiny, trie, queries(2, 0), 5)
    assert calls == [(2, 1, CODEBOOK_SIZE), *[(2, 5, CODEBOOK_SIZE)] * (NUM_LEVELS - 1)], "a search makes the same"
    search.transformers_calls(tiny, 2, 5)(0)


# ------------------------------------------------------------------------------------------------ measuring
def test_rivals_take_turns() -> None:
    turns: list[tuple[str, int]] = []
    rivals = [Rival(name, lambda number, name=name: turns.append((name, number))) for name in "abc"]  # type: ignore
    timings = alternate(rivals, CPU, rounds=4)
    assert [turn[0] for turn in turns] == list("abc" + "abc" + "bca" + "cab" + "abc")
    assert [timing.rounds for timing in timings] == [4, 4, 4]
    assert all(timing.low <= timing.median <= timing.high for timing in timings)


def test_time_is_limited_but_not_below_some_rounds() -> None:
    (timing,) = alternate([Rival("slow", lambda _: time.sleep(0.02))], CPU, rounds=100, seconds=0.01, at_least=3)
    assert timing.rounds == 3 and 0.02 <= timing.median < 0.2


def test_cost_sees_memory_and_objects_that_come_and_go() -> None:
    def work() -> int:
        held = np.ones(8_000_000), [object() for _ in range(100_000)]  # 64 MB
        time.sleep(0.5)  # on a busy machine the watcher may wait long for its turn
        return len(held)

    # What was freed before stays with the process, and new arrays are laid there: in a long session of tests it was all
    # of the 64 MB. Here at least 80 MB: freeing the first array teaches malloc to keep arrays of such a size together.
    np.ones(4_000_000)
    *left, kept = [np.ones(2_500_000) for _ in range(5)]
    left.clear()
    cost = cost_of(work)
    assert cost.result == 2 and cost.seconds >= 0.5 and len(kept)
    assert 60e6 < cost.peak_bytes < 120e6 and 100_000 <= cost.peak_objects < 300_000


# ------------------------------------------------------------------------------------------------ reporting
def test_bars_pass_and_fail() -> None:
    assert report.Bar("most", 1.1, 1.1).passed and not report.Bar("most", 1.11, 1.1).passed
    assert report.Bar("least", 3.0, 3, at_least=True).passed and not report.Bar("least", 2.9, 3, at_least=True).passed
    shown = report.bar_table([report.Bar("most", 2, 1.1)._asdict() | {"passed": False}])
    assert "| most | 2 × | ≤ 1.1 × | **fail** |" in shown


def test_lines_cross_where_they_do() -> None:
    facts = {"system": "two-tower, exact", "backbone": "CLIP ViT-B/32", "batch": 1}
    rows = [facts | {"images": size, "ms": 20 + size / 10_000} for size in (1000, 100_000, 300_000)]
    rows.append({"system": "AVG", "backbone": "t5-base", "batch": 1, "images": 300_000, "ms": 100.0})
    (found,) = paradigms.crossings(rows)
    assert found["lines cross at images"] == "0.8M" and found["beyond what was measured"] is True


def test_the_figure_has_a_curve_for_each_system(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"system": system, "backbone": "any", "batch": batch, "images": size, "ms": 10.0, "queries_per_s": 100.0}
        for system, batch in itertools.product(("AVG", "two-tower, exact", "two-tower, HNSW", "GRACE"), (1, 16))
        for size in (1000, 100_000)
    ]
    assert plot.draw({"paradigms": {"rows": rows}}, tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {system}, any -->" in drawn for system in ("AVG", "two-tower, exact", "two-tower, HNSW", "GRACE"))
    assert not plot.draw({}, tmp_path / "nothing.svg")


def test_numbers_keep_three_digits() -> None:
    assert [report.number(x) for x in (0.0123456, 3.14159, 31.4159, 314.159, 31415.9, 7e-5, 12)] == [
        "0.0123", "3.14", "31.4", "314", "31,416", "7.0e-05", "12",
    ]  # fmt: skip
    assert [report.short(size) for size in (10, 1000, 300_000, 10_000_000)] == ["10", "1k", "0.3M", "10M"]


def test_the_page_shows_the_results_as_they_are() -> None:
    """`python -m bench.page` has nothing to change."""
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert page.filled(text) == text
    assert text.count("<!-- bench: ") == text.count("<!-- /bench -->") == len(page.BLOCK.findall(text))


# ------------------------------------------------------------------------------------------------ the command
def test_the_command_leaves_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "decoding-cpu.json"
    decoding.main(["--quick", "--only", "logic,building,shapes,guidance,written", "--threads", "1", "--out", str(out)])
    known = json.loads(out.read_text())
    assert list(known) == ["logic", "building", "shapes", "guidance", "written"]
    assert known["logic"]["measured"]["threads"] == 1 and known["logic"]["measured"]["commit"]
    assert known["logic"]["checks"]["beams that differ, no tie explaining it"] == {"10k": 0}
    assert {row["system"] for row in known["building"]["rows"]} == {"genret", "STATIC, re-stated"}
    floors = [row["to_floor"] for row in known["shapes"]["rows"] if "floor" in row["system"]]
    assert min(floors) == 1 and len(floors) == 6, "the faster of two floors, for each of three shapes"
    printed = capsys.readouterr()
    assert "## Search logic alone" in printed.out and "== shapes" in printed.err
    assert out.with_suffix(".md").read_text().count("## ") == 5
    assert {row["system"] for row in known["guidance"]["rows"]} == {"genret", "genret, guided"}
    named = {f"genret, {some} of 32 levels written" for some in ("all", "6")}
    assert {row["system"] for row in known["written"]["rows"]} == named
    written = page.content("decoding-cpu logic", out.parent)
    assert "STATIC, re-stated" in written and "Measured on" in written
    assert "bounds are met" in page.content("bars", out.parent)


def test_an_unknown_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no section sise; take some of logic, building"):
        decoding.main(["--quick", "--only", "sise", "--out", str(tmp_path / "none.json")])


def test_catalogs_are_loaded_and_followed(tmp_path: Path) -> None:
    section = catalog.measured(str(tmp_path / "catalog.sqlite"), 3000, 100, 2, tmp_path)
    assert section.checks == {"images that the running searcher sees of 3,202": "3,202"}
    assert {"bare SELECT", "load into the trie", "see 100 images"} <= {row["system"] for row in section.rows}
    assert all(row["seconds"] > 0 for row in section.rows)


def test_the_papers_table_stands_beside_ours() -> None:
    rows = [
        {"system": "AVG", "backbone": "t5-base", "images": 300_000, "batch": batch, "queries_per_s": 8.0 * batch}
        for batch in (1, 16)
    ]
    clip = {"system": "two-tower, exact", "backbone": "CLIP ViT-B/32", "images": 300_000, "batch": 1}
    rows.append(clip | {"queries_per_s": 4.0})
    table = page.paper_table({"rows": rows}).splitlines()
    assert table[3:] == [
        "| CLIP ViT-B/32, exact search | 4.32 | 4 |  |",
        "| AVG, t5-base | 16.8 | 8 | 128 |",
        "| AVG against CLIP | 3.89 × | 2 × |  |",
    ]


# ------------------------------------------------------------------------------------------------ everyday queries
def test_everyday_queries_have_answers_among_the_searched_emoji() -> None:
    both = [everyday.queries(half) for half in everyday.HALVES]
    lists = [*both, everyday.queries("more")]
    known = {base_of(key) for key in available("noto")}
    words = [one.query for half in lists for one in half]
    assert len(words) == len(set(words)) >= 400 and abs(len(both[0]) - len(both[1])) <= 1
    assert all(one.answers & known for half in lists for one in half)
    assert "cup of tea" in {one.query for one in both[0]} and everyday.concept("👋🏽") == "👋"


def test_everyday_counts() -> None:
    asked = [everyday.Everyday("tea", frozenset("🍵")), everyday.Everyday("hello", frozenset("👋"))]
    filler = ["🐶"] * 9
    assert everyday.counts(asked, [["🍵"], [*filler, "👋🏽"]]) == {"first": 1, "among_ten": 2, "missed": []}
    assert everyday.counts(asked, [[*filler, "🐶", "🍵"], []]) == {
        "first": 0,
        "among_ten": 0,
        "missed": ["tea", "hello"],
    }
