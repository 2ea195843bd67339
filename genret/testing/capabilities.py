"""Checks the declared capabilities of an identifier scheme against its behaviour."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genret.api import Corpus, Identifier, Identifiers
from genret.errors import GenretError
from genret.testing.world.corpus import World, rows_of
from genret.testing.world.expect import Checked, same
from genret.testing.world.shapes import check_shapes, names


def check_capabilities(checked: Checked, identifier: Identifier, world: World) -> None:
    """`identifier` is fitted on the training images of `world`."""
    check_code_vectors(checked, identifier)
    check_additive(checked, identifier, world.train)
    fitted = identifier.identify(world.train)
    codes, known = fitted.codes, names(fitted)
    if codes is not None:
        check_reconstruction(checked, identifier, codes, world.train)
    check_teacher(checked, identifier, codes, world.train)
    flag = identifier.new_images
    checked.expect(
        flag in ("content_based", "assigned", "unsupported"),
        f"new_images is {flag!r}; say described, numbered or refused",
    )
    try:
        with checked.doing("identify() was called with new images"):
            found = identifier.identify(world.new)
    except GenretError as error:
        checked.expect(
            flag == "unsupported",
            f"new_images is '{flag}', but identify() refuses new images ({error}); set new_images = \"refused\"",
        )
        return
    checked.expect(
        flag != "unsupported",
        "new_images is 'refused', but identify() names new images; set it to \"described\" if the identifier follows "
        'from the picture, to "assigned" if it says nothing of it',
    )
    check_shapes(checked, identifier, found, len(world.new.features))
    checked.expect(
        names(identifier.identify(world.train)) == known,
        "naming new images changes the identifiers of known ones; identify() must leave what was fitted as it is",
    )
    if flag == "content_based":
        check_described(checked, identifier, found, world.new)
    else:
        check_numbered(checked, identifier, found, world.new)
    if identifier.avoids_collisions and codes is not None:
        check_collisions(checked, identifier, world.new, codes)


def check_described(checked: Checked, identifier: Identifier, found: Identifiers, new: Corpus) -> None:
    """The identifier of a new image depends on its vector only."""
    renamed = identifier.identify(new._replace(image_ids=[f"other-{row}" for row in range(len(new.features))]))
    checked.expect(
        names(renamed) == names(found),
        "new_images is 'content-based', but the identifiers of new images change with their ids; compute them from "
        'corpus.features, or set new_images = "assigned"',
    )
    turned = identifier.identify(new._replace(features=new.features.flip(0)))
    checked.expect(
        names(turned) != names(found),
        "new_images is 'content-based', but other pictures get the same identifiers; compute them from "
        'corpus.features, or set new_images = "assigned"',
    )
    if not identifier.avoids_collisions:
        _check_portions(
            checked,
            identifier,
            found,
            new,
            "a new image's identifier depends on the images that come with it; name "
            "each by itself, or say so by avoids_collisions",
        )


def check_numbered(checked: Checked, identifier: Identifier, found: Identifiers, new: Corpus) -> None:
    """The identifier of a new image does not depend on content, and numbering continues."""
    turned = identifier.identify(new._replace(features=new.features.flip(0)))
    checked.expect(
        names(turned) == names(found),
        "new_images is 'numbered', but the identifiers of new images follow from their vectors; set "
        'new_images = "content_based", so that evaluation counts them in full',
    )
    if not identifier.avoids_collisions:
        _check_portions(
            checked,
            identifier,
            found,
            new,
            "new images that come in two portions are named otherwise than at once; "
            "number them from corpus.named_before on",
        )


def _check_portions(checked: Checked, identifier: Identifier, found: Identifiers, new: Corpus, message: str) -> None:
    """`genret index` adds images in several batches."""
    rows = torch.arange(len(new.features))
    first, rest = rows_of(new, rows[:5]), rows_of(new, rows[5:])
    parts = [identifier.identify(first), identifier.identify(rest._replace(named_before=new.named_before + 5))]
    checked.expect([row for part in parts for row in names(part)] == names(found), message)


def check_collisions(checked: Checked, identifier: Identifier, new: Corpus, taken: Tensor) -> None:
    """A scheme that avoids collisions gives new images unused codes."""
    found = identifier.identify(new._replace(taken=taken)).codes
    assert found is not None
    free = {tuple(row) for row in found.tolist()}
    checked.expect(
        len(free) == len(found) and not free & {tuple(row) for row in taken.tolist()},
        "avoids_collisions is True, but new images get codes that are taken (corpus.taken) or twice the same; choose "
        "free ones, or set it to False",
    )


# ------------------------------------------------------------------------------------------------ codes
def check_code_vectors(checked: Checked, identifier: Identifier) -> None:
    vectors = identifier.code_vectors()
    if not identifier.has_code_vectors:
        checked.expect(vectors is None, "code_vectors() answers, but has_code_vectors is False; set it to True")
        return
    checked.expect(vectors is not None, "has_code_vectors is True, but code_vectors() is None; set it to False")
    found = checked.tensor(vectors, "code_vectors()", (identifier.vokens.num_symbols, "D_code"))
    checked.on_cpu(found, "code_vectors()")
    checked.expect(not found.requires_grad, "code_vectors() carries gradients; return .detach()")


def check_additive(checked: Checked, identifier: Identifier, train: Corpus) -> None:
    with checked.doing("additive() was called"):
        sums: Any = identifier.additive(train.features)
    if not identifier.is_additive:
        checked.expect(sums is None, "additive() answers, but is_additive is False; set it to True")
        return
    checked.expect(sums is not None, "is_additive is True, but additive() is None; set it to False")
    target = checked.tensor(sums.target, "additive().target", (len(train.features), "D_code"))
    sizes = identifier.vokens.sizes
    checked.expect(
        0 < len(sums.books) <= len(sizes), f"additive().books has {len(sums.books)} levels of the scheme's {len(sizes)}"
    )
    left = target
    for level, (book, size) in enumerate(zip(sums.books, sizes, strict=False)):
        checked.tensor(book, f"additive().books[{level}]", (size, target.shape[1]))
        left = left - book[torch.cdist(left, book).argmin(1)]
    checked.expect(
        float(left.square().mean()) < float(target.square().mean()),
        "the nearest vectors of additive().books do not come nearer to additive().target; they should add up to it",
    )


def check_reconstruction(checked: Checked, identifier: Identifier, codes: Tensor, train: Corpus) -> None:
    with checked.doing("reconstruct() was called"):
        rebuilt = identifier.reconstruct(codes)
    if rebuilt is None or len(codes) != len(train.features):
        return
    checked.tensor(rebuilt, "reconstruct()", train.features.shape)
    checked.unit_rows(rebuilt, "reconstruct()")
    own = float((rebuilt.cpu() * train.features).sum(1).mean())
    others = float((rebuilt.cpu() @ train.features.T).mean())
    checked.expect(
        own > others,
        f"reconstruct() is no nearer to the image's own vector (similarity {own:.2f}) than to the others' "
        f"({others:.2f}); return None if codes say nothing of the vector",
    )


def check_teacher(checked: Checked, identifier: Identifier, codes: Tensor | None, train: Corpus) -> None:
    blank = torch.zeros(len(train.features), max(1, len(identifier.vokens.sizes)), dtype=torch.int64)
    given = codes if codes is not None and len(codes) == len(train.features) else blank
    with checked.doing("code_probabilities() was called"):
        warm = identifier.code_probabilities(train.features, given, 1.0)
    if not identifier.has_teacher:
        checked.expect(warm is None, "code_probabilities() answers, but has_teacher is False; set it to True")
        return
    checked.expect(warm is not None, "has_teacher is True, but code_probabilities() is None; set it to False")
    cold: Any = identifier.code_probabilities(train.features, given, 0.05)
    sizes = identifier.vokens.sizes
    checked.expect(
        warm is not None and len(warm) == len(sizes),
        f"code_probabilities() gives {len(warm or ())} levels; give one table for each of the {len(sizes)}",
    )
    for level, (table, surer, size) in enumerate(zip(warm or (), cold, sizes, strict=True)):
        what = f"code_probabilities()[{level}]"
        checked.tensor(table, what, (len(train.features), size))
        sums = table.sum(-1)
        checked.expect(
            bool((table >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()),
            f"{what} has rows that sum to {float(sums.min()):.3g} .. {float(sums.max()):.3g}; end with softmax(-1)",
        )
        checked.expect(
            float(surer.max(-1).values.mean()) >= float(table.max(-1).values.mean()) - 1e-6,
            f"{what} hesitates more at temperature 0.05 than at 1; divide by the temperature",
        )
    other: Any = identifier.code_probabilities(train.features, (given + 1) % torch.tensor(sizes), 1.0)
    checked.expect(
        same(other[0], (warm or [])[0], 1e-6),
        "code_probabilities()[0] changes with the codes; level m may look at the first m - 1 columns alone",
    )
