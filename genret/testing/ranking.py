"""Checks what a retriever's first stage returns, and its further outputs, for consistency.

B queries   C images found   N images   Q queries   M levels   b beams
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genret.api import QueryBatch, Silent
from genret.kit.arrays import Ints
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ranked
from genret.search.restrict import EVERYTHING, Allowed
from genret.search.trace import MISSED
from genret.testing.world.corpus import make_world
from genret.testing.world.expect import Checked

WORDS = make_world().train.captions[:6]
TOLERANCE = 1e-4


def batch_of(retriever: CatalogRetriever, texts: Sequence[str]) -> QueryBatch:
    return QueryBatch(texts, retriever.text_vectors)


def first_stage(
    checked: Checked, retriever: CatalogRetriever, texts: Sequence[str], k: int, num_beams: int | None, one: Allowed
) -> Ranked:
    with retriever.opened() as (view, index), checked.doing("candidates() was called"):
        batch = batch_of(retriever, texts)
        return retriever.candidates(view, index, batch, k, num_beams, [one] * len(texts))


def check_candidates(checked: Checked, retriever: CatalogRetriever) -> None:
    """Keys of the catalog that may be found, best first, -1 after the last."""
    keys = retriever.catalog.searchable_keys()
    for one in (EVERYTHING, Allowed(only=keys[::4])):
        for k in (1, 5, 100):
            width = None if retriever.num_beams is None else max(retriever.num_beams, k)
            found = first_stage(checked, retriever, WORDS, k, width, one)
            _check_ranked(checked, found, keys, one, k)


def _check_ranked(checked: Checked, found: Any, keys: Ints, allowed: Allowed, k: int) -> None:
    checked.expect(isinstance(found, Ranked), f"candidates() returns a {type(found).__name__}; return genret.Ranked")
    for name, kind in (("images", np.integer), ("scores", np.floating), ("leaves", np.integer)):
        table = getattr(found, name)
        checked.expect(
            isinstance(table, np.ndarray) and table.ndim == 2 and np.issubdtype(table.dtype, kind),
            f"candidates().{name} is {_shown(table)}; return a numpy array ({len(WORDS)}, C) of {kind.__name__}",
        )
        checked.expect(
            table.shape == found.images.shape and len(table) == len(WORDS),
            f"candidates().{name} has the shape {table.shape} for {len(WORDS)} queries; give images, scores and leaves "
            "one shape (B, C)",
        )
    there = found.images >= 0
    checked.expect(
        bool(np.isin(found.images[there], keys).all()),
        "candidates().images holds what is no key of the catalog; return keys (those that build_index() was given), "
        "not rows",
    )
    checked.expect(
        bool(allowed.among(found.images[there]).all()),
        "candidates() returns images that may not be found; `allowed[row].among(keys)` says which may",
    )
    checked.expect(
        bool((there[:, 1:] <= there[:, :-1]).all()), "candidates().images has -1 before the end; it pads after the last"
    )
    checked.expect(
        bool(np.isfinite(found.scores[there]).all()) and bool((found.scores[~there] == -np.inf).all()),
        "candidates().scores is not finite where there is an image, or not -inf where there is none",
    )
    pairs = there[:, 1:]
    checked.expect(
        bool((found.scores[:, :-1] >= found.scores[:, 1:])[pairs].all()), "candidates() is not ordered, best first"
    )
    for row in found.images:
        row = row[row >= 0]
        checked.expect(len(np.unique(row)) == len(row), "candidates() names an image twice; give it once")
    wanted = min(k, int(allowed.among(keys).sum()))
    checked.expect(
        bool((there.sum(1) >= wanted).all()),
        f"candidates() finds {there.sum(1).min()} of {wanted} images that may be found; find min(k, those allowed)",
    )


def _shown(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


# ------------------------------------------------------------------------------------------- further outputs
def check_told(checked: Checked, retriever: CatalogRetriever, queries: Sequence[str]) -> None:
    """Checks flags, signals, exact ranks and trace against the search. Query q is of the image q // 2."""
    check_beams(checked, retriever)
    found = first_stage(checked, retriever, WORDS, 5, retriever.num_beams, EVERYTHING)
    with checked.doing("signals() was called"):
        signals = retriever.signals(found)
    shape = (len(WORDS), len(retriever.signal_names))
    checked.expect(
        signals.shape == shape and bool(np.isfinite(signals).all()),
        f"signals() is {signals.shape}, or not finite; give finite numbers {shape}, one for each of signal_names",
    )
    right = retriever.catalog.keys_of([f"train-{row // 2}" for row in range(len(queries))])
    check_exact_ranks(checked, retriever, queries, right)
    check_trace(checked, retriever, queries, right)


def check_beams(checked: Checked, retriever: CatalogRetriever) -> None:
    said, results = retriever.has_beams, retriever.search(WORDS[:1], 3)
    checked.expect(
        (results[0].num_beams is not None) == said and (retriever.num_beams is not None) == said,
        f"has_beams is {said}, but a search reports num_beams {results[0].num_beams}; leave num_beams as it is",
    )
    few, many = (first_stage(checked, retriever, WORDS, 5, width, EVERYTHING) for width in (1, 36))
    differ = few.images.shape != many.images.shape or not (few.images == many.images).all()
    checked.expect(
        not (said and not differ),
        "has_beams is True, but one beam finds what 36 beams find; set it to False",
    )
    checked.expect(
        not (differ and not said),
        "candidates() looks at num_beams, but has_beams is False; set it to True",
    )


def check_exact_ranks(checked: Checked, retriever: CatalogRetriever, queries: Sequence[str], right: Ints) -> None:
    batch = batch_of(retriever, queries)
    with retriever.opened() as (view, index), checked.doing("exact_ranks() was called"):
        ranks = retriever.exact_ranks(index, batch.vectors, right)
        if ranks is None:
            return
        found = retriever.candidates(view, index, batch, 100, retriever.num_beams, [EVERYTHING] * len(queries))
    own = found.scores[found.images == right[:, None]]
    checked.expect(len(own) == len(queries), "candidates() for more than all images leaves some out")
    above = (found.scores > own[:, None] + TOLERANCE).sum(1) + 1
    upto = (found.scores >= own[:, None] - TOLERANCE).sum(1)
    checked.expect(
        bool(((above <= ranks) & (ranks <= upto)).all()),
        "exact_ranks() says otherwise than a search for all images; count from 1, or return None",
    )


def check_trace(checked: Checked, retriever: CatalogRetriever, queries: Sequence[str], right: Ints) -> None:
    batch, width = batch_of(retriever, queries), retriever.num_beams or 10
    with retriever.opened() as (view, index):
        if not retriever.has_trace:
            try:
                retriever.trace(view, index, batch, right, width, Silent().progress)
            except NotImplementedError:
                return
            except Exception:
                checked.fail("trace() is there, but has_trace is False; set it to True, or leave it out")
            checked.fail("trace() answers, but has_trace is False; set it to True")
        with checked.doing("trace() was called (has_trace is True)"):
            trace = retriever.trace(view, index, batch, right, width, Silent().progress)
            forced = trace.forced_scores()
        found = retriever.candidates(view, index, batch, 1, retriever.num_beams, [EVERYTHING] * len(queries))
    same = min(found.images.shape[1], trace.ranked.images.shape[1])
    checked.expect(
        bool(np.allclose(found.scores[:, :same], trace.ranked.scores[:, :same], atol=TOLERANCE)),
        "trace() finds otherwise than candidates() with as many beams; it is the same search, watched",
    )
    count = len(queries)
    for name in ("identifier_ranks", "prefix_ranks", "beam_scores"):
        table = getattr(trace, name)
        wanted = 1 if name == "identifier_ranks" else 2
        checked.expect(
            table.ndim == wanted and len(table) == count,
            f"trace().{name} is {table.shape} for {count} queries",
        )
    checked.expect(forced.shape == (count,), f"trace().forced_scores() has the shape {forced.shape}; return ({count},)")
    prefixes = trace.prefix_ranks
    checked.expect(
        bool((trace.identifier_ranks >= 1).all()) and bool((prefixes >= 1).all()),
        "trace() has ranks below 1; count from 1, genret.search.trace.MISSED for what has gone",
    )
    gone = prefixes == MISSED
    checked.expect(
        bool((gone[:, 1:] >= gone[:, :-1]).all()) and bool((trace.identifier_ranks[gone[:, -1]] == MISSED).all()),
        "trace() finds an identifier again whose prefix had gone at an earlier level",
    )
