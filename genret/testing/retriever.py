"""`check_retriever`: complete and reproducible results, exact restrictions, up to date with the catalog.

B queries   C images found   N images   Q queries asked
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genret.api import Hit, Restriction, Retriever
from genret.errors import GenretError
from genret.recipe.schema import PARTS
from genret.search.catalog import CatalogRetriever
from genret.testing.config import check_config, made
from genret.testing.ranking import check_candidates, check_told
from genret.testing.world.corpus import context, make_world
from genret.testing.world.expect import Checked, same
from genret.testing.world.miniature import expect_better_than_chance, seeded
from genret.testing.world.pictures import png, record
from genret.testing.world.shelf import Shelf, pictures

ALL, SOME, LATER = range(36), range(0, 36, 5), 33
QUERIES = make_world().train.captions
TOLERANCE = 1e-4
"""Tolerance: results of a batch and of single rows may round differently."""


def check_retriever(retriever: type[Retriever], /, *, beats_chance: bool = True, **options: Any) -> None:
    """Checks a retriever with these options against its contract; `ContractError` says what to change.

    Over a catalog of the kit's 36 images: hits are ranked, finite and known; the same each time and in any batch; a
    restricted search gives the results of a catalog of the allowed images alone; added images are found and removed
    ones are not, whichever process did it; each flag is true to behaviour; what `fit` learns is restored from disk.
    Captions find their images more often than chance. `beats_chance=False`: for untrained retrievers, such as those
    with random weights.
    """
    check_config(retriever, **options)
    checked = Checked(retriever)
    checked.expect(
        issubclass(retriever, CatalogRetriever),
        "it is no genret.CatalogRetriever, so no run can open it; derive it from that",
    )
    check_flags(checked, retriever)
    with tempfile.TemporaryDirectory() as name, Shelf(Path(name), retriever.needs) as shelf:
        make = learner(checked, retriever, options, shelf)
        full = filled(checked, make(), shelf, ALL)
        check_candidates(checked, full)
        found = search(checked, full, QUERIES, 10)
        check_hits(checked, full, found)
        check_repeats(checked, full, found)
        check_restrictions(checked, full, make, shelf)
        check_told(checked, full, QUERIES)
        check_changes(checked, make, shelf)
        check_learning(checked, retriever, options, shelf, full, found)
    if beats_chance:
        best = [hits[0].image_id if hits else "" for hits in found]
        right = [image_id == f"train-{row // 2}" for row, image_id in enumerate(best)]
        advice = "Higher scores are better; pass beats_chance=False where a test's weights are random"
        expect_better_than_chance(checked, len(ALL), sum(right) / len(right), advice)


def check_flags(checked: Checked, retriever: type[Retriever]) -> None:
    unknown = [key for key in retriever.needs if key not in PARTS]
    checked.expect(
        isinstance(retriever.needs, tuple) and not unknown,
        f"needs is {retriever.needs!r}; name keys of a recipe, of {', '.join(PARTS)}",
    )
    has_fit = retriever.fit is not Retriever.fit
    checked.expect(
        has_fit or not retriever.learns, "learns is True, but there is no fit(); write one, or set it to False"
    )
    checked.expect(
        retriever.learns or not has_fit,
        "there is a fit(), but learns is False, so nobody calls it; set it to True",
    )


# ------------------------------------------------------------------------------------------------------------ asking
def search(checked: Checked, one: CatalogRetriever, queries: Sequence[str], k: int, **more: Any) -> list[list[Hit]]:
    with checked.doing(f"search() was called for {k} images{' with restrictions' if more else ''}"):
        found = one.search(queries, k, **more)
    checked.expect(len(found) == len(queries), f"search() answers {len(found)} of {len(queries)} queries")
    return [result.hits for result in found]


def filled(checked: Checked, one: CatalogRetriever, shelf: Shelf, rows: Sequence[int]) -> Any:
    """Over a new catalog of these training images; an empty one finds nothing and raises no error."""
    shelf.connected(one, shelf.catalog())
    with checked.doing("search() was called while the catalog was empty"):
        found = one.search(QUERIES[:2], 3)
    checked.expect(not any(result.hits for result in found), "search() finds something in an empty catalog")
    with checked.doing("index() was called"):
        report = one.index(pictures(rows))
    checked.expect(report.added == len(rows), f"index() reports {report.added} of {len(rows)} pictures as added")
    return one


def alike(one: list[list[Hit]], other: list[list[Hit]]) -> bool:
    """The same images by the same scores, except for the order of tied images."""
    return len(one) == len(other) and all(map(_alike, one, other))


def _alike(one: list[Hit], other: list[Hit]) -> bool:
    """Images whose scores are close to the last one's may replace it."""
    mine, theirs = ({hit.image_id: hit.score for hit in hits} for hits in (one, other))
    last = min([*mine.values(), *theirs.values()], default=0.0)
    edge = last + 2 * TOLERANCE * (1 + abs(last))
    return len(one) == len(other) and all(
        np.isclose(score, there.get(image_id, np.nan), rtol=TOLERANCE, atol=TOLERANCE)
        for own, there in ((mine, theirs), (theirs, mine))
        for image_id, score in own.items()
        if score > edge
    )


def check_hits(checked: Checked, one: CatalogRetriever, found: list[list[Hit]]) -> None:
    known = {record("train", row).image_id for row in ALL}
    for hits in (*found, *search(checked, one, QUERIES[:5], 100)):
        ids, scores = [hit.image_id for hit in hits], [hit.score for hit in hits]
        checked.expect(set(ids) <= known, f"search() finds {sorted(set(ids) - known)[:1]}, which is not in the catalog")
        checked.expect(len(set(ids)) == len(ids), "search() finds an image twice; give each once, by its best score")
        checked.expect(
            all(np.isfinite(scores)) and scores == sorted(scores, reverse=True),
            "search() returns scores that are not finite, or not best first",
        )
        checked.expect([hit.rank for hit in hits] == list(range(1, len(hits) + 1)), "ranks do not count from 1")
    for k in (1, 100):
        wanted = min(k, len(ALL))
        counts = {len(hits) for hits in search(checked, one, QUERIES[:5], k)}
        checked.expect(
            counts == {wanted},
            f"a search for {k} of {len(ALL)} images finds {min(counts)} to {max(counts)}; find min(k, N), "
            "whatever their scores",
        )


def check_repeats(checked: Checked, one: CatalogRetriever, found: list[list[Hit]]) -> None:
    seeded(5)
    checked.expect(
        alike(search(checked, one, QUERIES, 10), found),
        "search() answers otherwise when it is asked again; draw nothing in it, and change nothing",
    )
    rows = [7, 3, 60]
    alone = [search(checked, one, [QUERIES[row]], 10)[0] for row in rows]
    together = search(checked, one, [QUERIES[row] for row in rows], 10)
    checked.expect(
        alike(alone, [found[row] for row in rows]) and alike(together, [found[row] for row in rows]),
        "the answer to a query changes with the queries beside it; mask padding, and keep queries apart",
    )


def check_restrictions(checked: Checked, full: CatalogRetriever, make: Callable[[], Any], shelf: Shelf) -> None:
    """The results of a catalog of the allowed images alone: scores do not depend on other images."""
    alone = filled(checked, make(), shelf, SOME)
    allowed = [f"train-{row}" for row in SOME]
    others = [f"train-{row}" for row in ALL if row not in SOME]
    for k in (3, 100):
        wanted = search(checked, alone, QUERIES, k)
        for restriction in (Restriction(only=allowed), Restriction(without=others)):
            found = search(checked, full, QUERIES, k, restrict=restriction)
            outside = [hit.image_id for hits in found for hit in hits if hit.image_id not in allowed]
            checked.expect(not outside, "a restricted search finds what it may not; `allowed` says what each query may")
            checked.expect(
                alike(found, wanted),
                "a restricted search answers otherwise than a catalog of the allowed images alone; let no image's "
                "score depend on the other images, and choose among the allowed ones before the best k",
            )
    each = [Restriction(where=f"row = {row // 2}") if row % 2 else Restriction() for row in range(len(QUERIES))]
    found = search(checked, full, QUERIES, 5, restrict=each)
    checked.expect(
        all([hit.image_id for hit in hits] == [f"train-{row // 2}"] for row, hits in enumerate(found) if row % 2)
        and all(len(hits) == 5 for hits in found[::2]),
        "queries of one batch have each their own restriction; look at `allowed[row]` for query `row`",
    )


# ---------------------------------------------------------------------------------------------------------- changing
def check_changes(checked: Checked, make: Callable[[], Any], shelf: Shelf) -> None:
    one = filled(checked, make(), shelf, range(30))
    before, new = search(checked, one, QUERIES, 100), f"train-{LATER}"
    with checked.doing("index() was called with a picture that cannot be read"):
        report = one.index([(record("train", LATER), lambda: png("no-such-picture"))])
    checked.expect(
        report.added == 0 and len(report.skipped) == 1,
        "index() does not report an unreadable picture as skipped",
    )
    other = shelf.connected(make(), one.catalog)
    with checked.doing("index() was called by another retriever over the same catalog"):
        other.index(pictures([LATER]))
    for finder, who in ((other, "it"), (one, "another process")):
        found = search(checked, finder, QUERIES, 100)
        checked.expect(
            all(new in {hit.image_id for hit in hits} for hits in found),
            f"a picture that {who} has added is not found; keep what is searched in build_index(), which is called for "
            "each version of the catalog, or bring it forward in index_at()",
        )
    with checked.doing("remove() was called"):
        report = other.remove([new, "no-such-image"])
    checked.expect(
        report.removed == 1 and len(report.skipped) == 1, "remove() does not report what it removed and what it skipped"
    )
    checked.expect(
        alike(search(checked, one, QUERIES, 100), before) and alike(search(checked, other, QUERIES, 100), before),
        "an image that was removed is found, or has left something behind; build what is searched from the catalog",
    )


# ---------------------------------------------------------------------------------------------------------- learning
def learner(
    checked: Checked, retriever: type[Retriever], options: dict[str, Any], shelf: Shelf
) -> Callable[[], CatalogRetriever]:
    """A function that makes the retriever, loaded with the state of one fit, if it learns."""
    if not retriever.learns:
        return lambda: made(retriever, options)
    _check_unfitted(checked, made(retriever, options), shelf)
    saved = _fit(checked, made(retriever, options), shelf, 1)

    def make() -> CatalogRetriever:
        one: CatalogRetriever = made(retriever, options)
        with checked.doing("load() was called in a new object"):
            one.load(saved)
        return one

    return make


def _check_unfitted(checked: Checked, one: CatalogRetriever, shelf: Shelf) -> None:
    try:
        shelf.connected(one, shelf.catalog()).index(pictures(SOME))
        one.search(QUERIES[:1], 3)
    except GenretError:
        return
    except Exception as error:
        checked.fail(
            f"search() before fit() or load() raises {type(error).__name__}: {error}; "
            'raise genret.GenretError("... is not fitted yet; train a run, or load one")'
        )
    checked.fail("search() answers before fit() or load(), though learns is True; raise genret.GenretError")


def _fit(checked: Checked, one: CatalogRetriever, shelf: Shelf, attempt: int) -> Path:
    train, folder = make_world().train, shelf.folder / f"learnt-{attempt}"
    untouched = train.features.clone()
    seeded(1000 + attempt)
    with checked.doing("fit() was called"):
        one.fit(train, context(shelf.folder / f"fit-{attempt}", seed=7))
    checked.expect(same(train.features, untouched), "fit() changes train.features in place; work on a copy")
    folder.mkdir()
    with checked.doing("save() was called"):
        one.save(folder)
    checked.plain_files(folder)
    return folder


def check_learning(
    checked: Checked,
    retriever: type[Retriever],
    options: dict[str, Any],
    shelf: Shelf,
    loaded: CatalogRetriever,
    found: list[list[Hit]],
) -> None:
    """A loaded retriever gives the same results as the fitted one, and as another fit with the same seed."""
    if not retriever.learns:
        return
    again: CatalogRetriever = made(retriever, options)
    _fit(checked, again, shelf, 2)
    answers = search(checked, shelf.connected(again, loaded.catalog), QUERIES, 10)
    if alike(answers, found):
        return
    saved = made(retriever, options)
    saved.load(shelf.folder / "learnt-2")
    checked.expect(
        alike(search(checked, shelf.connected(saved, loaded.catalog), QUERIES, 10), answers),
        "after save() and load() searches are answered otherwise; save all that fit() learns",
    )
    checked.fail(
        "two fits with one seed give different answers; draw random numbers from a generator seeded by context.seed"
    )
