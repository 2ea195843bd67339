"""`check_identifier`: complete, reproducible and learnable identifiers, for new images and after loading, too.

N images   R identifiers   M levels   D width
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genret.api import Corpus, Identifier, Identifiers, Loss, TokenizerBatch
from genret.catalog.codec import pack_codes, unpack
from genret.components.losses.tokenizer import CommitLoss, ReconLoss
from genret.errors import GenretError
from genret.search.image_trie import index_trie
from genret.testing.capabilities import check_capabilities
from genret.testing.config import check_config, made
from genret.testing.world.corpus import World, context, make_world, rows_of
from genret.testing.world.expect import Checked, devices, same
from genret.testing.world.miniature import expect_better_than_chance, seeded, small_t5, train_and_search
from genret.testing.world.shapes import check_shapes, names


def check_identifier(scheme: type[Identifier], /, **options: Any) -> None:
    """Checks an identifier scheme with these options against its contract; `ContractError` says what to change.

    Besides shapes: the same seed gives the same identifiers; a loaded scheme gives the same identifiers as the saved
    one; `new_images`, `uses_tokenizer_losses`, `has_teacher` and `has_code_vectors` are true to behaviour; every image
    is found through backbone tokens and the trie; a miniature training beats chance.
    """
    check_config(scheme, **options)
    checked, world = Checked(scheme), make_world()
    check_unfitted(checked, made(scheme, options), world.train)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        identifier, named = check_fit(checked, scheme, options, world, folder)
        check_images(checked, identifier, named, world.train)
        check_capabilities(checked, identifier, world)
        check_saved(checked, identifier, made(scheme, options), world, folder)
    check_round_trip(checked, identifier, named, world.train)
    with checked.doing("a small T5 was trained on its identifiers"):
        recall = train_and_search(world.train, identifier)
    advice = "Give different images different identifiers: sequences that many images share cannot tell them apart"
    expect_better_than_chance(checked, len(world.train.features), recall, advice)


def check_unfitted(checked: Checked, identifier: Identifier, train: Corpus) -> None:
    """A scheme that has to be fitted raises a clear error before the fit."""
    try:
        identifier.identify(train)
    except GenretError:
        return
    except Exception as error:
        checked.fail(
            f"identify() before fit() or load() raises {type(error).__name__}: {error}; "
            'raise genret.GenretError("... is not fitted yet; train a run, or load one")'
        )


# ------------------------------------------------------------------------------------------------ fitting
class _Spy(Loss):
    """Checks the batches that a scheme gives to its tokenizer losses."""

    stage = "tokenizer"
    needs_text = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: TokenizerBatch | None = None

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        self.seen = batch
        return 0.0 * batch.reconstruction.sum()


def check_fit(
    checked: Checked, scheme: type[Identifier], options: dict[str, Any], world: World, folder: Path
) -> tuple[Identifier, Identifiers]:
    """The same seed gives the same identifiers, independent of global random state, on every device."""
    first, named = None, None
    untouched = world.train.features.clone()
    for attempt, device in enumerate([torch.device("cpu"), *devices()]):
        identifier, spy = made(scheme, options), _Spy()
        losses: Mapping[str, Loss] = {"recon": ReconLoss(), "commit": CommitLoss(), "spy": spy}
        seeded(1000 + attempt)
        with checked.doing(f"fit() was called on {device}"):
            identifier.fit(world.train, losses, context(folder / f"fit-{attempt}", seed=7, device=device))
        checked.expect(same(world.train.features, untouched), "fit() changes corpus.features in place; work on a copy")
        seeded(2000 + attempt)
        with checked.doing("identify() was called with the images of the fit"):
            found = identifier.identify(world.train)
        checked.expect(
            same(world.train.features, untouched), "identify() changes corpus.features in place; work on a copy"
        )
        check_shapes(checked, identifier, found, len(world.train.features))
        if named is None or first is None:
            first, named = identifier, found
            _check_losses(checked, identifier, spy)
        elif device.type == "cpu":
            checked.expect(
                names(found) == names(named),
                "two fits with one seed give different identifiers; draw random numbers from a "
                "torch.Generator().manual_seed(context.seed), or call torch.manual_seed(context.seed) first",
            )
    assert first is not None and named is not None
    return first, named


def _check_losses(checked: Checked, identifier: Identifier, spy: _Spy) -> None:
    if not identifier.uses_tokenizer_losses:
        checked.expect(
            spy.seen is None,
            "fit() calls the tokenizer losses, but uses_tokenizer_losses is False, so recipes would note them as "
            "without effect; set it to True",
        )
        return
    checked.expect(
        spy.seen is not None,
        "uses_tokenizer_losses is True, but fit() computed none of its losses; descend them, or set the flag to False",
    )
    assert spy.seen is not None
    batch, width = spy.seen, "D_code"
    image = checked.tensor(batch.image, "TokenizerBatch.image", ("B", "D"))
    rows = len(image)
    checked.tensor(batch.reconstruction, "TokenizerBatch.reconstruction", image.shape)
    checked.tensor(batch.text, "TokenizerBatch.text (a loss needs it)", image.shape)
    checked.tensor(batch.latent, "TokenizerBatch.latent", (rows, width))
    checked.tensor(batch.partial, "TokenizerBatch.partial", (rows, "M", batch.latent.shape[1]))
    checked.expect(
        batch.reconstruction.requires_grad,
        "TokenizerBatch.reconstruction has no gradient; do not detach what is learnt",
    )


# ------------------------------------------------------------------------------------------------ using
def check_images(checked: Checked, identifier: Identifier, named: Identifiers, train: Corpus) -> None:
    """Identifiers depend on the image only, not on the call or on other images in the batch."""
    with checked.doing("identify() was called again"):
        again = identifier.identify(train)
    checked.expect(
        names(again) == names(named), "identify() gives other identifiers when it is called again; draw nothing in it"
    )
    rows = torch.arange(5, 17)
    with checked.doing("identify() was called with some images of the fit"):
        some = identifier.identify(rows_of(train, rows))
    checked.expect(
        names(some) == [names(named)[row] for row in rows.tolist()],
        "images of the fit get other identifiers when some of them are identified alone; an image keeps its identifier",
    )


def check_saved(checked: Checked, identifier: Identifier, other: Identifier, world: World, folder: Path) -> None:
    """A loaded scheme gives the same identifiers as the saved one, even after the folder is deleted."""
    with checked.doing("save() was called"):
        identifier.save(folder / "saved")
    checked.plain_files(folder / "saved")
    moved = folder / "moved"
    if (folder / "saved").is_dir():
        (folder / "saved").rename(moved)  # a run may be copied to another place
    moved.mkdir(exist_ok=True)
    with checked.doing("load() was called in a new object"):
        other.load(moved)
    moved.rename(folder / "gone")
    checked.expect(
        other.vokens == identifier.vokens,
        f"after load(), vokens is {other.vokens}, but it was {identifier.vokens} after fit(); set it in load(), too",
    )
    corpora = [world.train] + ([world.new] if identifier.new_images != "unsupported" else [])
    for corpus in corpora:
        with checked.doing("identify() was called after load()"):
            again = other.identify(corpus)
        checked.expect(
            names(again) == names(identifier.identify(corpus)),
            "after save() and load() the same images get other identifiers; save all that identify() depends on",
        )
    checked.expect(
        same(other.code_vectors(), identifier.code_vectors()),
        "after save() and load() code_vectors() differ; save all that they depend on",
    )


def check_round_trip(checked: Checked, identifier: Identifier, named: Identifiers, train: Corpus) -> None:
    """Image → identifier → catalog's bytes, tokens, trie → image, for every image."""
    if named.codes is not None:
        unpacked = torch.from_numpy(unpack(pack_codes(named.codes)).codes)
        kept = torch.full_like(named.codes, -1)
        kept[:, : unpacked.shape[1]] = unpacked
        checked.expect(same(kept, named.codes), "its codes do not survive the catalog; keep them below 2**32")
    backbone = small_t5()
    with checked.doing("a small T5 was built for its symbols"):
        backbone.build(identifier.vokens, identifier.code_vectors(), train.captions, 0)
        index = index_trie(backbone, named, np.arange(len(train.features)), False)
    starts, images = index.leaf_images
    for row, (leaf, owner) in enumerate(zip(index.trie.leaf_of_row.tolist(), named.owners.tolist(), strict=True)):
        found = images[starts[leaf] : starts[leaf + 1]].tolist()
        checked.expect(owner in found, f"identifier {row} leads through the trie to images {found}, not to {owner}")
