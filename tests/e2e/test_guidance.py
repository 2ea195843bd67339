"""A run with `search.guidance`, trained, searched and evaluated as a user would; definition: decode/test_guide.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from genret.api import Restriction, Silent
from genret.components.retrievers.spelling import by_image
from genret.components.retrievers.trace import forced_scores, leaves_of, trace
from genret.evaluate.queries import query_set
from genret.plugin.loading import load_plugins
from genret.run import Run
from genret.settings import Settings

WEIGHT = 40.0


@pytest.fixture(scope="module")
def guided(tiny: Any) -> Path:
    """The same models: guidance is a matter of search, so nothing is trained anew."""
    answer = tiny.genret("train", tiny.recipe, "--set", f"search.guidance={WEIGHT}", "--run", tiny.root / "guided")
    assert answer.code == 0, answer.err
    assert answer.err.count("generator: reused") == 1 and answer.err.count("identifier: reused") == 1
    return tiny.root / "guided"


@pytest.fixture(scope="module")
def short(tiny: Any) -> Path:
    """A language model that learns and writes the first two of three levels, by every loss and a teacher."""
    options = ["train.written_levels=2", f"search.guidance={WEIGHT}", "loss.distill.weight=1"]
    sets = [word for option in [*options, "train.teacher_targets=0.5"] for word in ("--set", option)]
    answer = tiny.genret("train", tiny.recipe, *sets, "--run", tiny.root / "short")
    assert answer.code == 0, answer.err
    assert "generator: reused" not in answer.err and answer.err.count("identifier: reused") == 1
    return tiny.root / "short"


@pytest.mark.parametrize("name", ["guided", "short"])
def test_search_evaluation_and_definition_agree(tiny: Any, name: str, request: pytest.FixtureRequest) -> None:
    settings = Settings(home=tiny.home, device="cpu", num_threads=1)
    run = request.getfixturevalue(name)
    retriever: Any = Run(run, load_plugins((), settings).registries, settings).retriever
    asked = query_set(retriever, "test", settings.features_dir, Silent().progress)
    _, identifiers = by_image(retriever.catalog.read_identifiers(split="test"))
    with retriever.catalog.snapshot() as view:
        index = retriever.build_index(view, asked.keys)
        leaves = leaves_of(index, asked.right_keys)

        def searched() -> Any:  # with more beams than identifiers
            return asked.rows(
                trace(retriever, view, index, asked.batch, asked.right_keys, 50, Silent().progress).ranked
            )

        found = searched()
        retriever.options = retriever.options.model_copy(update={"guidance": 0.0})
        alone = searched()
        retriever.options = retriever.options.model_copy(update={"guidance": WEIGHT})
        forced = forced_scores(retriever, index, asked.batch, leaves, Silent().progress)

    # what is left of the query's vector, by the network's own books
    network, codes = retriever.identifier.network, identifiers.codes
    assert codes is not None
    with torch.no_grad():
        target = network.latent(asked.query_features)
        points = sum(network.quantizer.book(level)[codes[:, level]] for level in range(codes.shape[1]))
        drawn = -WEIGHT / 2 * torch.cdist(target, points).square()  # (Q, N)
    written = retriever.written_levels
    assert written == (2 if name == "short" else None)
    tokens, owners = retriever.backbone.tokens(identifiers)[:, :written], identifiers.owners.tolist()
    columns = [retriever.backbone.level_tokens(level) for level in range(tokens.shape[1])]
    for query in range(len(asked.queries)):
        of_words = retriever.backbone.score([asked.queries[query]], tokens[None], columns).sum(-1)[0]
        plain = dict(zip(alone.images[query].tolist(), alone.scores[query].tolist(), strict=True))
        for image, score in zip(found.images[query].tolist(), found.scores[query].tolist(), strict=True):
            if image >= 0:
                assert plain[image] == pytest.approx(float(of_words[owners.index(image)].detach()), abs=1e-3)
                assert score == pytest.approx(plain[image] + float(drawn[query, image]), abs=1e-3)

    for query, right in enumerate(asked.relevant.tolist()):
        place = found.images[query].tolist().index(right)
        assert forced[query] == pytest.approx(float(found.scores[query, place]), abs=1e-3)

    only = Restriction(only=asked.image_ids)  # the catalog has another split as well
    for result, images in zip(
        retriever.search(asked.queries, 8, num_beams=50, restrict=only), found.images, strict=True
    ):
        names = [asked.image_ids[image] for image in images if image >= 0][:8]
        assert [hit.image_id for hit in result.hits] == names


def test_commands(tiny: Any, guided: Path, short: Path) -> None:
    found = tiny.genret("search", "a red square", "--run", guided, "-k", 3, "--json").document
    assert len(found["hits"]) == 3
    figures = tiny.genret("evaluate", "--run", guided, "--num-beams", "1,10", "--json").document
    plain = tiny.genret("evaluate", "--run", tiny.run, "--num-beams", "1,10", "--json").document
    assert figures["two_tower"] == plain["two_tower"]
    assert (figures["guidance"], plain["guidance"]) == (WEIGHT, None)
    assert "drowned_out" not in plain
    said = tiny.genret("evaluate", "--run", guided).out
    assert "the language model drowned out, guidance alone" in " ".join(said.split())
    assert "the query's own vector adds to the beams' scores, guidance 40" in " ".join(said.split())
    assert figures["written_levels"] is None
    assert tiny.genret("evaluate", "--run", short, "--json").document["written_levels"] == 2
    said = " ".join(tiny.genret("evaluate", "--run", short).out.split())
    assert "guidance 40; levels that the language model writes: 2" in said
    compared = tiny.genret("compare", tiny.run, guided, "--json").document
    assert [one["guidance"] for one in compared["runs"]] == [None, WEIGHT]
    answer = tiny.genret("report", guided, "--out", tiny.root / "guided.html", "--queries", 1)
    assert answer.code == 0, answer.err
    assert (
        "with the query&#39;s own vector added to the beams&#39; scores (guidance 40)"
        in (tiny.root / "guided.html").read_text()
    )
    assert "the language model drowned out, guidance alone" in (tiny.root / "guided.html").read_text()
    answer = tiny.genret("report", short, "--out", tiny.root / "short.html", "--queries", 1)
    assert answer.code == 0, answer.err
    assert "writes the first 2 symbols of the pictures&#39; identifiers" in (tiny.root / "short.html").read_text()


def test_with_the_language_model_drowned_out(tiny: Any, guided: Path) -> None:
    """A search is the dense search by what identifiers keep: nothing is lost at a level, nothing recovered. Every
    evaluation of a guided run says what that finds."""
    drowned = tiny.root / "drowned"
    answer = tiny.genret("train", tiny.recipe, "--set", "search.guidance=1000000", "--run", drowned, "--json")
    figures = answer.document["evaluation"]
    assert figures["identifier_recall"] == figures["ceiling"]
    alone = figures["drowned_out"]
    assert figures["recall"] == alone["recall"] and alone["first_stage"] is None
    assert alone["mrr"] == figures["measures"]["searched"]["mrr"]
    other = tiny.genret("evaluate", "--run", guided, "--json").document
    assert other["drowned_out"] == alone, "γ does not matter to it"
    assert other["recall"] != alone["recall"], "the language model says something"
    lost = {row["stage"]: row["queries"] for row in figures["ledger"]}
    assert [count for stage, count in lost.items() if stage.startswith("level") or stage == "recovered"] == [0] * 4
