"""`check_backbone`: vocabulary, training, decoding and saving of a language model.

B queries   b beams   L tokens   V vocabulary
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genret.api import Backbone, Corpus, Identifiers, Vokens
from genret.errors import GenretError
from genret.search.tokenization import columns_of, tokenize_identifiers
from genret.testing.config import check_config, made
from genret.testing.world.corpus import WIDTH, make_world
from genret.testing.world.expect import Checked, same
from genret.testing.world.miniature import expect_better_than_chance, seeded, train_and_search
from genret.testing.world.table import Table

QUERIES = ("a dog in the sea", "snow", "one kitchen with a horse and a boat in it")
"""Queries of different lengths, to test padding."""
TOLERANCE = 1e-4


def check_backbone(backbone: type[Backbone], /, **options: Any) -> None:
    """Checks a language model with these options against its contract; `ContractError` says what to change.

    The same seed makes the same model; tokens, levels and vocabulary agree; a query's logits depend neither on the
    queries beside it nor on later targets; `step` and `score` agree with `logits`; parameters get gradients; a loaded
    model scores like the saved one; identifiers of vokens, of different lengths and of text can be generated; a
    miniature training beats chance. Options should make the model small.
    """
    check_config(backbone, **options)
    checked, train = Checked(backbone), make_world().train
    for scheme in _schemes():
        check_scheme(checked, backbone, options, scheme, train)
    with checked.doing("it was trained to write identifiers"):
        recall = train_and_search(train, Table(), made(backbone, options))
    advice = "Check that gradients reach every weight and that the queries' words do"
    expect_better_than_chance(checked, len(train.features), recall, advice)


class Scheme:
    """Some target identifiers for a backbone."""

    def __init__(self, what: str, vokens: Vokens, codes: Sequence[Sequence[int]] = (), texts: Sequence[str] = ()):
        self.what, self.vokens = what, vokens
        owners = torch.arange(len(codes) or len(texts))
        self.identifiers = Identifiers(owners, torch.tensor(codes) if codes else None, list(texts) or None)


def _schemes() -> list[Scheme]:
    short = [[0, -1, -1], [1, 2, -1], [4, 4, 4], [1, 3, 2]]
    return [
        Scheme("symbols of two levels", Vokens((6, 4)), [[0, 3], [5, 0], [5, 1], [2, 2]]),
        Scheme("symbols shared by all levels, in different lengths", Vokens((5, 5, 5), True, True), short),
        Scheme("text", Vokens(), texts=["a dog in the sea", "17", "171", "snow with one cat"]),
    ]


def check_scheme(
    checked: Checked, backbone: type[Backbone], options: dict[str, Any], scheme: Scheme, train: Corpus
) -> None:
    first, second = made(backbone, options), made(backbone, options)
    width = WIDTH if backbone.reads_features else 0
    with checked.doing(f"build() was called for {scheme.what}"):
        for one, state in ((first, 1), (second, 2)):
            seeded(state)
            one.build(scheme.vokens, None, iter(train.captions), 0, width)
    checked.expect(isinstance(first.module, nn.Module), "module is no torch.nn.Module after build()")
    checked.expect(
        any(weight.requires_grad for weight in first.module.parameters()),
        "module has no trainable weight after build()",
    )
    first.module.eval(), second.module.eval()
    targets = check_tokens(checked, first, scheme)
    with torch.no_grad():
        logits = _logits(checked, first, targets)
        checked.expect(
            same(_logits(checked, second, targets), logits, TOLERANCE),
            "two builds with one seed give different models; call torch.manual_seed(seed) first in build()",
        )
        check_independence(checked, first, targets, logits)
        check_steps(checked, first, targets, logits)
        check_query_vectors(checked, first)
    check_scores(checked, first, targets, logits)
    check_files(checked, first, made(backbone, options), scheme, targets, logits)
    check_features(checked, first, targets)


def check_tokens(checked: Checked, backbone: Backbone, scheme: Scheme) -> Tensor:
    """Checks that tokens of identifiers are among `level_tokens`; returns targets (B, L) with end tokens."""
    with checked.doing(f"tokens() was called with {scheme.what}"):
        tokens = backbone.tokens(scheme.identifiers)
    count, vocab = len(scheme.identifiers.owners), backbone.vocab_size
    checked.tensor(tokens, "tokens()", (count, "L"), torch.int64)
    checked.expect(
        bool((tokens >= -1).all()) and bool((tokens < vocab).all()),
        f"tokens() holds ids outside 0 .. vocab_size - 1 ({vocab - 1}); -1 pads",
    )
    checked.expect(
        0 <= backbone.end_token < vocab and not bool((tokens == backbone.end_token).any()),
        "tokens() holds the end symbol, or end_token lies outside the vocabulary; it is added where needed",
    )
    checked.expect(bool((tokens[:, 0] >= 0).all()), "tokens() has rows without any token")
    checked.expect(
        len({tuple(row) for row in tokens.tolist()}) == count, "tokens() gives different identifiers the same tokens"
    )
    for level in range(tokens.shape[1] + 1):
        columns = backbone.level_tokens(level)
        here = tokens[:, level : level + 1]
        here = here[here >= 0]
        if level >= len(scheme.vokens.sizes):
            last = "after the last level" if scheme.vokens.sizes else "for identifiers of text"
            checked.expect(columns is None, f"level_tokens({level}) answers {last}; return None")
            continue
        checked.expect(columns is not None, f"level_tokens({level}) is None; return the level's token ids, sorted")
        assert columns is not None
        checked.tensor(columns, f"level_tokens({level})", ("C",), torch.int64)
        checked.expect(bool((columns[1:] > columns[:-1]).all()), f"level_tokens({level}) is not sorted, or has doubles")
        may_end = scheme.vokens.variable and level > 0
        checked.expect(
            len(columns) == scheme.vokens.sizes[level] + may_end,
            f"level_tokens({level}) has {len(columns)} ids for {scheme.vokens.sizes[level]} codes"
            f"{' and the end symbol' if may_end else ''}; give one id to each",
        )
        checked.expect(
            bool(torch.isin(here, columns.cpu()).all()), f"tokens() writes ids at level {level} that level_tokens lacks"
        )
    return tokenize_identifiers(backbone, scheme.identifiers, False)[: len(QUERIES)]


def _logits(checked: Checked, backbone: Backbone, targets: Tensor) -> Tensor:
    with checked.doing("logits() was called"):
        found = backbone.logits(QUERIES, targets)
    return checked.tensor(found, "logits()", (*targets.shape, backbone.vocab_size))


def check_independence(checked: Checked, backbone: Backbone, targets: Tensor, logits: Tensor) -> None:
    there = targets >= 0
    for row, query in enumerate(QUERIES):
        alone = backbone.logits([query], targets[row : row + 1])[0]
        checked.expect(
            same(alone[there[row]], logits[row][there[row]], TOLERANCE),
            "a query's logits change with the queries beside it; mask the padding",
        )
    changed = targets.clone()
    last = there.sum(1) - 1
    rows = torch.arange(len(targets))
    changed[rows, last] = targets.flip(0)[rows, last.flip(0)]
    again = backbone.logits(QUERIES, changed)
    before = torch.arange(targets.shape[1])[None] <= last[:, None]
    checked.expect(
        same(again[before], logits[before], TOLERANCE),
        "logits() at a position change with the target at this or a later position; shift the targets by one and mask "
        "what comes later",
    )


def check_steps(checked: Checked, backbone: Backbone, targets: Tensor, logits: Tensor) -> None:
    """Reordered beams give the same logits as teacher forcing."""
    count, length = targets.shape
    with checked.doing("prefill() and step() were called"):
        state = backbone.prefill(QUERIES)
        first = backbone.step(state, None, None, None)
    checked.tensor(first, "step() at the beginning", (count, 1, backbone.vocab_size))
    checked.expect(
        same(first[:, 0], logits[:, 0], TOLERANCE),
        "the first step() says otherwise than logits(); begin both from the same start symbol",
    )
    # two beams: a query's own target, and another query's; from the second step on they swap at each step
    written = targets.clamp_min(0)
    beams = torch.stack([written, written.flip(0)], dim=1)  # (B, 2, L)
    columns = torch.arange(1, backbone.vocab_size, 3)
    swap = torch.tensor([[1, 0]]).expand(count, 2)
    parents = torch.zeros(count, 2, dtype=torch.int64)
    for position in range(1, length):
        symbols = beams[:, :, position - 1]
        with checked.doing(f"step() {position + 1} was called with two beams that change places"):
            stepped = backbone.step(state, symbols, parents, columns)
        checked.tensor(stepped, "step()", (count, 2, len(columns)))
        for beam in range(2):
            forced = backbone.logits(QUERIES, beams[:, beam])[:, position, columns]
            checked.expect(
                same(stepped[:, beam], forced, TOLERANCE),
                f"step() {position + 1} says otherwise than logits(); state has to follow `parents` (the beam of the "
                "step before that each continues), and columns choose from the vocabulary's logits",
            )
        beams, parents = beams.flip(1), swap


def check_scores(checked: Checked, backbone: Backbone, targets: Tensor, logits: Tensor) -> None:
    sequences = torch.stack([targets, targets.flip(0)], dim=1)
    for kind in ("vocab", "level"):
        columns = columns_of(backbone, kind, targets.shape[1])  # type: ignore[arg-type]
        with checked.doing("score() was called"):
            found = backbone.score(QUERIES, sequences, columns)
        checked.tensor(found, "score()", sequences.shape)
        checked.expect(found.requires_grad, "score() has no gradient; losses compare candidates by it")
        checked.expect(
            bool((found.detach()[sequences < 0] == 0).all()),
            "score() is not 0 at pads (-1); mask them with masked_fill",
        )
        with checked.doing("level_logits() was called"):
            levels = backbone.level_logits(QUERIES, targets, columns)
        for position, wanted in enumerate(columns):
            target = targets[:, position]
            here = logits[:, position].float()
            there = target >= 0
            asked = (here if wanted is None else here[:, wanted])[there]
            checked.expect(
                same(levels[position].detach().float()[there], asked, TOLERANCE),
                f"level_logits() at position {position} are not logits() of columns[{position}], in their order",
            )
            if wanted is not None:
                masked = torch.full_like(here, -torch.inf)
                masked[:, wanted] = here[:, wanted]
                here = masked
            expected = here.log_softmax(-1).gather(1, target.clamp_min(0)[:, None])[:, 0]
            expected = expected.masked_fill(target < 0, 0.0)
            checked.expect(
                same(found[:, 0, position].detach(), expected, TOLERANCE),
                f"score() at position {position} is not logits()' log-probability over columns[{position}]",
            )
    total: Any = found.sum()
    total.backward()
    checked.expect(
        any(weight.grad is not None and bool(weight.grad.any()) for weight in backbone.module.parameters()),
        "no gradient of score() reaches the model's weights",
    )
    backbone.module.zero_grad()


def check_files(
    checked: Checked, backbone: Backbone, other: Backbone, scheme: Scheme, targets: Tensor, logits: Tensor
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "saved"
        folder.mkdir()
        with checked.doing("save() was called"):
            backbone.save(folder)
        checked.plain_files(folder)
        with checked.doing("load() was called in a new object"):
            other.load(folder, scheme.vokens)
    checked.expect(not other.module.training, "load() leaves the model in training mode; call module.eval()")
    checked.expect(
        same(other.tokens(scheme.identifiers), backbone.tokens(scheme.identifiers)),
        "after save() and load() identifiers have other tokens; save the tokenizer and where the symbols begin",
    )
    with torch.no_grad():
        checked.expect(
            same(_logits(checked, other, targets), logits, TOLERANCE),
            "after save() and load() logits() differ; save all weights, the new rows among them",
        )


def check_features(checked: Checked, backbone: Backbone, targets: Tensor) -> None:
    """Checks `reads_features` against behaviour."""
    vectors = torch.nn.functional.normalize(torch.randn(len(targets), WIDTH), dim=-1)
    if not backbone.reads_features:
        try:
            backbone.feature_logits(vectors, targets)
        except (NotImplementedError, GenretError):
            return
        except Exception:
            checked.fail("feature_logits() is there, but reads_features is False; set it to True, or leave it out")
        checked.fail("feature_logits() answers, but reads_features is False; set it to True")
    with checked.doing("feature_logits() was called (reads_features is True)"):
        found = backbone.feature_logits(vectors, targets)
    checked.tensor(found, "feature_logits()", (*targets.shape, backbone.vocab_size))
    checked.expect(found.requires_grad, "feature_logits() has no gradient")
    with checked.doing("caption_log_probs() was called (reads_features is True)"):
        said = backbone.caption_log_probs(vectors, QUERIES)
    checked.tensor(said, "caption_log_probs()", (len(QUERIES),))
    checked.expect(
        said.requires_grad and bool((said <= 0).all()),
        "caption_log_probs() has no gradient, or is above 0; return log-probability sums",
    )


def check_query_vectors(checked: Checked, backbone: Backbone) -> None:
    """Checks `has_query_vectors` against behaviour; an option may turn them off."""
    try:
        vectors = backbone.query_vectors(backbone.prefill(QUERIES))
    except (NotImplementedError, GenretError) as error:
        checked.expect(
            not (backbone.has_query_vectors and isinstance(error, NotImplementedError)),
            "has_query_vectors is True, but query_vectors() is not implemented; set it to False",
        )
        return
    except Exception:
        checked.fail("query_vectors() fails; give it the state of prefill(), or leave it out")
    checked.expect(
        backbone.has_query_vectors, "query_vectors() answers, but has_query_vectors is False; set it to True"
    )
    checked.tensor(vectors, "query_vectors()", (len(QUERIES), "D_code"))
    checked.expect(
        not same(vectors[0], vectors[1], TOLERANCE), "query_vectors() are alike for unlike queries; read the words"
    )
