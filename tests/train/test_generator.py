"""Stage 2 on a toy corpus: it learns, its candidates are the model's own, and a killed training resumes to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genret.api import Identifiers, Silent, Vokens
from genret.components.backbones.t5 import T5Backbone
from genret.components.losses.generator import RankLoss, TokenLoss
from genret.decode.beam import beam_search
from genret.errors import UsageError
from genret.kit import checkpoint, loop
from genret.recipe.schema import TrainOptions
from genret.search.image_trie import index_trie
from genret.search.tokenization import tokenize_identifiers
from genret.train import generator
from genret.train.candidates import synonyms_of, with_candidates
from genret.train.generator import Development, Examples, fit_generator, recalls
from genret.train.targets import Targets

torch.set_num_threads(1)
WORDS = ["dog", "cat", "car", "boy", "sea", "sun"]
CAPTIONS = [f"a {one} and a {two}" for one in WORDS for two in WORDS]
CODES = torch.tensor([[i, j] for i in range(6) for j in range(6)])
VOKENS = Vokens((6, 6))


def job(folder: Path, losses, epochs: int = 30, end_symbol: bool = False, **train):
    backbone = T5Backbone(T5Backbone.Config(d_model=32, d_ff=64, num_layers=2, num_heads=4, vocab_size=80, dropout=0.0))
    backbone.build(VOKENS, None, CAPTIONS, seed=0)
    identifiers = Identifiers(torch.arange(36), codes=CODES)
    index = index_trie(backbone, identifiers, np.arange(36), end_symbol)
    targets = Targets(identifiers, 36, torch.arange(36)[:, None], torch.ones(36, 1))
    examples = Examples(CAPTIONS, targets, tokenize_identifiers(backbone, identifiers, end_symbol), index.trie)
    options = TrainOptions(**({"epochs": epochs, "batch_size": 12, "lr": 5e-3, "bf16": False, "rank_beams": 5} | train))
    options = options.model_copy(update={"dev_beams": 10, "end_symbol": end_symbol})
    development = Development(CAPTIONS, np.arange(36), index.trie, index.leaf_images)
    context = loop.FitContext(0, torch.device("cpu"), folder, Silent().progress, lambda row: None)
    result = fit_generator(backbone, examples, losses, options, development, context)
    return backbone, development, options, result


@pytest.mark.parametrize("end_symbol", [False, True])
def test_it_learns_to_write_the_identifiers(tmp_path, end_symbol):
    losses = {"token": TokenLoss(), "rank": RankLoss()}
    backbone, development, options, result = job(tmp_path, losses, end_symbol=end_symbol, epochs=90, rank_from=60)
    found = recalls(backbone, development, options)
    assert found[1] > 80 and result.best == pytest.approx(sum(found.values()) / 3)


def test_the_rank_loss_alone_learns_too(tmp_path):
    before = job(tmp_path / "a", {"rank": RankLoss()}, epochs=0)
    after = job(tmp_path / "b", {"rank": RankLoss()}, epochs=20)
    assert after[3].best > 2 * sum(recalls(*before[:3]).values()) / 3


def test_candidates_are_the_models_own_beams_with_the_right_one_among_them(tmp_path):
    backbone, development, options, _ = job(tmp_path, {"token": TokenLoss()}, epochs=1)
    target = backbone.tokens(Identifiers(torch.arange(36), codes=CODES))
    seen = []
    real = backbone.score
    backbone.score = lambda queries, sequences, columns: seen.append(sequences) or real(queries, sequences, columns)
    columns = [backbone.level_tokens(0), backbone.level_tokens(1)]
    batch = generator.GeneratorBatch(torch.empty(0), target, columns)
    out = with_candidates(batch, backbone, CAPTIONS, development.trie, options)
    beams = beam_search(backbone, CAPTIONS, development.trie, 5, "level", columns)
    own = development.trie.tokens_of(beams.leaves)
    for row in range(36):
        assert torch.equal(seen[0][row, out.positive[row]], target[row])
        others = [tuple(c.tolist()) for i, c in enumerate(seen[0][row]) if i != out.positive[row]]
        assert set(others) <= {tuple(c.tolist()) for c in own[row]}
        assert len(set(others)) == 4
        missing = tuple(target[row].tolist()) not in {tuple(c.tolist()) for c in own[row]}
        unchanged = torch.isclose(out.candidate_scores[row], beams.scores[row], atol=1e-4)
        assert unchanged.sum() == 4 + (not missing)


def test_other_identifiers_of_the_right_image_are_no_rivals(tmp_path):
    """Six images, each with six identifiers."""
    backbone, development, options, _ = job(tmp_path, {"token": TokenLoss()}, epochs=1)
    codes = Identifiers(torch.arange(6).repeat_interleave(6), codes=CODES)
    targets = Targets(codes, 36, torch.arange(36)[:, None], torch.ones(36, 1))
    assert torch.equal(targets.images(torch.arange(36)), codes.owners)
    synonyms = synonyms_of(targets, development.trie)
    assert torch.equal(synonyms, torch.arange(36).view(6, 6)), "the toy trie's leaves are its rows"
    target = backbone.tokens(codes)
    batch = generator.GeneratorBatch(torch.empty(0), target, [backbone.level_tokens(0), backbone.level_tokens(1)])
    own = synonyms[targets.images(torch.arange(36))]
    out = with_candidates(
        batch, backbone, CAPTIONS, development.trie, options.model_copy(update={"rank_beams": 20}), own
    )
    beams = beam_search(backbone, CAPTIONS, development.trie, 20, "level", batch.columns)
    for row in range(36):
        rivals = torch.isfinite(out.candidate_scores[row])
        rivals[out.positive[row]] = False
        assert torch.isfinite(out.candidate_scores[row, out.positive[row]])
        assert set((beams.leaves[row, rivals] // 6).tolist()).isdisjoint({row // 6})
        others = beams.leaves[row] // 6 != row // 6
        others[out.positive[row]] = False
        assert rivals.sum() == others.sum()
    single = Targets(Identifiers(torch.arange(36), codes=CODES), 36, torch.arange(36)[:, None], torch.ones(36, 1))
    assert synonyms_of(single, development.trie) is None


def test_every_nth_step_compares_candidates(tmp_path, monkeypatch):
    """Three steps an epoch, numbered over all of them."""
    steps, turns = [], []
    taught, compared = TokenLoss.__call__, RankLoss.__call__
    monkeypatch.setattr(TokenLoss, "__call__", lambda self, batch: steps.append(1) or taught(self, batch))
    monkeypatch.setattr(RankLoss, "__call__", lambda self, batch: turns.append(len(steps) - 1) or compared(self, batch))
    job(tmp_path, {"token": TokenLoss(), "rank": RankLoss()}, epochs=4, rank_from=1, rank_every=4)
    assert len(steps) == 12 and turns == [4, 8]


def test_a_killed_training_resumes_to_the_same_bits(tmp_path, monkeypatch):
    losses = {"token": TokenLoss(), "rank": RankLoss()}
    straight, *_, expected = job(tmp_path / "straight", losses, epochs=4, rank_from=1, rank_every=2)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: 0.0)
    real, steps = TokenLoss.__call__, []

    def killing(self, batch):
        steps.append(1)
        if len(steps) in (5, 7):
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(TokenLoss, "__call__", killing)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            job(tmp_path / "stopped", losses, epochs=4, rank_from=1, rank_every=2)
    resumed, *_, result = job(tmp_path / "stopped", losses, epochs=4, rank_from=1, rank_every=2)
    assert result == expected
    for key, value in straight.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[key]), key


def test_without_any_loss_there_is_nothing_to_learn(tmp_path):
    with pytest.raises(UsageError, match=r"loss\.token or loss\.rank"):
        job(tmp_path, {})


def test_noisy_queries_lose_or_gain_one_word_of_another_query():
    torch.manual_seed(0)
    queries = [f"a{row} b{row} c{row}" for row in range(400)]
    known = {word for query in queries for word in query.split()}
    changed = [(old.split(), new.split()) for old, new in zip(queries, generator.noisy(queries, 0.5), strict=True)]
    fewer = [new for old, new in changed if len(new) == 2 and set(new) < set(old)]
    more = [new for old, new in changed if len(new) == 4 and [w for w in new if w in old][:3] and set(new) <= known]
    same = [new for old, new in changed if new == old]
    assert len(fewer) + len(more) + len(same) == 400
    assert 60 < len(fewer) < 140 and 60 < len(more) < 140
    assert generator.noisy(queries, 0.0) == queries
    assert generator.noisy(["dog"], 1.0) == ["dog dog"]
