"""Checks and compares `Identifiers`."""

from __future__ import annotations

from typing import Any

import torch

from genret.api import Identifier, Identifiers
from genret.testing.world.expect import Checked, same


def check_shapes(checked: Checked, identifier: Identifier, found: Identifiers, num_images: int) -> None:
    """Checks: codes in range, padded at the end; every image at least once and in order."""
    checked.expect(isinstance(found, Identifiers), f"identify() returns {type(found).__name__}; return Identifiers")
    owners = checked.tensor(found.owners, "identify().owners", ("R",), torch.int64)
    checked.on_cpu(owners, "identify().owners")
    checked.expect(
        bool((owners[1:] >= owners[:-1]).all()), "identify().owners goes up and down; order identifiers by image"
    )
    there = torch.unique(owners)
    checked.expect(
        same(there, torch.arange(num_images)),
        f"identify() names {len(there)} of {num_images} images; give each at least one identifier, and count owners "
        f"from 0 to {num_images - 1}",
    )
    checked.expect(
        (found.codes is None) != (found.texts is None),
        "identify() sets both or neither of codes and texts; set exactly one",
    )
    if found.texts is not None:
        texts = list(found.texts)
        checked.expect(
            len(texts) == len(owners) and all(isinstance(text, str) and text.strip() for text in texts),
            f"identify().texts has {len(texts)} entries for {len(owners)} owners, or empty ones; "
            "give each identifier one string with something in it",
        )
        checked.expect(
            not identifier.vokens.sizes, "identify() returns texts, but vokens adds symbols; leave vokens empty"
        )
        return
    vokens = identifier.vokens
    checked.expect(
        vokens.sizes and all(size >= 1 for size in vokens.sizes),
        "identify() returns codes, but vokens names no symbols; set self.vokens = Vokens((K,) * M) at the latest in "
        "fit() and load()",
    )
    codes = checked.tensor(found.codes, "identify().codes", (len(owners), len(vokens.sizes)), torch.int64)
    checked.on_cpu(codes, "identify().codes")
    sizes = torch.tensor(vokens.sizes)
    low, high = int((codes - sizes).max()), int(codes.min())
    checked.expect(
        low < 0 and high >= -1, "identify().codes has codes outside 0 .. K - 1 of their level (vokens.sizes); -1 pads"
    )
    present = codes >= 0
    checked.expect(
        bool(present[:, 0].all()) and bool((present[:, 1:] <= present[:, :-1]).all()),
        "identify().codes has -1 before the end of an identifier; -1 may only stand after its last code",
    )
    checked.expect(
        vokens.variable or bool(present.all()),
        "identify().codes ends some identifiers early, but vokens.variable is False; set it to True",
    )


def names(found: Identifiers) -> list[list[Any]]:
    """The identifiers of each image."""
    what = found.codes.tolist() if found.codes is not None else list(found.texts or ())
    of_image: list[list[Any]] = [[] for _ in range(int(found.owners.max()) + 1)]
    for owner, name in zip(found.owners.tolist(), what, strict=True):
        of_image[owner].append(name)
    return of_image
